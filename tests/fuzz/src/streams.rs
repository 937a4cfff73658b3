//! What holds for every stream, whatever its bytes: it shows the same for every cutting, has as many events as
//! HTML §9.2.6 reads in it, and what is pointed at begins where an event does.

use super::{Dialect, Ending, ErrorEvent, SseScanner, Usage};

/// Of one event, in bytes.
pub const LIMIT: usize = 1 << 20;

/// Everything a stream showed, over all its pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Whole {
    pub content: u32,
    pub data: u32,
    pub error: Option<ErrorEvent>,
    pub started: bool,
    pub ended: bool,
    pub done: bool,
    pub aborted: bool,
    pub overflow: bool,
    pub usage: Option<Usage>,
}

pub fn watch<'a>(
    mut scanner: SseScanner,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Whole, Ending) {
    let mut whole = Whole::default();
    for piece in pieces {
        let seen = scanner.feed(piece);
        whole.content += seen.content_events;
        whole.data += seen.data_events;
        whole.error = whole.error.or(seen.error);
        (whole.started, whole.ended, whole.done) = (seen.started, seen.ended, seen.done);
        (whole.aborted, whole.overflow) = (seen.aborted, seen.overflow);
    }
    whole.usage = scanner.usage();
    (whole, scanner.finish())
}

/// What does not hold, if anything. `reads_each`: every event is parsed for its count of tokens.
pub fn broken(dialect: Dialect, reads_each: bool, stream: &[u8]) -> Option<String> {
    let scanner = || {
        let mut scanner = SseScanner::new(dialect, LIMIT);
        if reads_each {
            scanner.read_each();
        }
        scanner
    };
    let whole = watch(scanner(), [stream]);
    for length in [1, 2, 7, 61] {
        let cut = watch(scanner(), stream.chunks(length));
        if cut != whole {
            return Some(format!("whole: {whole:?}; in pieces of {length}: {cut:?}"));
        }
    }
    let events = by_the_book(stream).len();
    if usize::try_from(whole.0.data) != Ok(events) && !whole.0.overflow {
        return Some(format!("{} events are {events}", whole.0.data));
    }
    [3, 17]
        .into_iter()
        .find_map(|length| points_elsewhere(scanner(), stream, length))
}

fn points_elsewhere(mut scanner: SseScanner, stream: &[u8], length: usize) -> Option<String> {
    let mut fed = 0;
    for piece in stream.chunks(length) {
        fed += piece.len();
        let seen = scanner.feed(piece);
        let extra = seen.extra.map_or(0, |span| span.back);
        for back in [seen.incomplete, seen.faulty, extra] {
            let Some(before) = fed.checked_sub(back).map(|at| &stream[..at]) else {
                return Some(format!("{back} back of {fed}"));
            };
            if back > 0 && !before.is_empty() && !ends_blank(before) {
                return Some(format!("{back} back of {fed} no event begins"));
            }
        }
        if let Some(span) = seen.extra
            && (span.length > span.back || !ends_blank(&stream[..fed - span.back + span.length]))
        {
            return Some(format!("{span:?} of {fed} is not one event"));
        }
        if seen.error.is_some() && seen.faulty == 0 {
            return Some(format!("an error is nowhere: {seen:?}"));
        }
    }
    None
}

/// The last line is blank.
pub fn ends_blank(stream: &[u8]) -> bool {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let line = ["\r\n", "\n", "\r"]
        .iter()
        .find_map(|end| stream.strip_suffix(end.as_bytes()));
    line.is_some_and(|line| matches!(line.last(), None | Some(b'\n' | b'\r')))
}

/// HTML §9.2.6, read off the page with the whole stream in hand: data of every event.
pub fn by_the_book(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut lines, mut line, mut at) = (Vec::new(), Vec::new(), 0);
    while at < stream.len() {
        match stream[at] {
            b'\r' | b'\n' => {
                if stream[at] == b'\r' && stream.get(at + 1) == Some(&b'\n') {
                    at += 1;
                }
                lines.push(std::mem::take(&mut line));
            }
            byte => line.push(byte),
        }
        at += 1;
    }
    let (mut events, mut data) = (Vec::new(), None::<Vec<u8>>);
    for line in lines {
        if line.is_empty() {
            events.extend(data.take());
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut data {
                Some(data) => data.extend([b"\n", value].concat()),
                None => data = Some(value.to_vec()),
            }
        } else if line == b"data" {
            match &mut data {
                Some(data) => data.push(b'\n'),
                None => data = Some(Vec::new()),
            }
        }
    }
    events
}
