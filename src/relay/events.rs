//! A stream of events on its way to the client: shown by whole events, up to the first that says the rest
//! will not come.

use bytes::{Bytes, BytesMut};

use crate::openai::Dialect;
use crate::openai::sse::{Ending, Seen, SseScanner};

/// How an engine says in a stream that the rest will not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// By an error event, which the client is shown and which is the last it is shown.
    Error {
        /// It speaks of the request or of a full queue, not of the engine.
        by_client: bool,
    },
    /// By a `finish_reason` of "abort", which SDKs take for an end like any other: it is kept from the
    /// client, who is told of an error in its place.
    Abort,
}

/// Watches the stream, and keeps the beginning of an event until its end has come: if the engine dies in
/// between, the client must not be left with half an event in front of the one that tells it so.
#[derive(Debug)]
pub struct Events {
    scanner: SseScanner,
    /// The bytes of the event that is not complete; nearly always none.
    tail: BytesMut,
}

/// What one piece of the stream came to.
pub struct Passed {
    pub seen: Seen,
    /// To be shown; may be empty.
    pub shown: Bytes,
    pub failed: Option<Failed>,
}

impl Events {
    /// `limit`: longest event in bytes; a longer one, and what follows it, is shown as it comes.
    pub fn new(dialect: Dialect, limit: usize) -> Self {
        Self {
            scanner: SseScanner::new(dialect, limit),
            tail: BytesMut::new(),
        }
    }

    /// Takes the next piece.
    pub fn take(&mut self, piece: Bytes) -> Passed {
        let seen = self.read(&piece);
        self.pass(seen, piece)
    }

    /// Reads the next piece, which then is either shown as it is, where [`Self::is_plain`], or given to
    /// [`Self::pass`].
    pub fn read(&mut self, piece: &[u8]) -> Seen {
        self.scanner.feed(piece)
    }

    /// The piece that was read last is to be shown as it is: whole events, none of them a failure.
    pub fn is_plain(&self, seen: &Seen) -> bool {
        self.tail.is_empty() && seen.incomplete == 0 && !seen.aborted && seen.error.is_none()
    }

    /// What the piece that was read last comes to.
    pub fn pass(&mut self, seen: Seen, piece: Bytes) -> Passed {
        let failed = failed(&seen);
        if self.is_plain(&seen) {
            return Passed {
                seen,
                shown: piece,
                failed,
            };
        }
        if failed.is_none() && seen.incomplete == self.tail.len() + piece.len() {
            // Nothing but more of one event: it is not copied anew for every piece.
            self.tail.extend_from_slice(&piece);
            return Passed {
                seen,
                shown: Bytes::new(),
                failed,
            };
        }
        let mut all = if self.tail.is_empty() {
            piece
        } else {
            self.tail.extend_from_slice(&piece);
            std::mem::take(&mut self.tail).freeze()
        };
        let good = all.len().saturating_sub(match failed {
            Some(_) => seen.faulty,
            None => seen.incomplete,
        });
        let shown = match failed {
            // Engines go on to `[DONE]` as if nothing had happened.
            Some(Failed::Error { .. }) => good + event_length(&all[good..]),
            _ => good,
        };
        let rest = all.split_off(shown);
        if failed.is_none() {
            self.tail.extend_from_slice(&rest);
        }
        Passed {
            seen,
            shown: all,
            failed,
        }
    }

    /// The body has ended. With it what was kept, if that is to be shown: an end that is whole, or of which
    /// nobody can tell, may lack its last blank line.
    pub fn finish(&mut self) -> (Ending, Bytes) {
        let ending = self.scanner.finish();
        let tail = std::mem::take(&mut self.tail).freeze();
        match ending {
            Ending::Cut => (ending, Bytes::new()),
            Ending::Whole | Ending::Unknown => (ending, tail),
        }
    }
}

fn failed(seen: &Seen) -> Option<Failed> {
    if seen.aborted {
        return Some(Failed::Abort);
    }
    seen.error.as_ref().map(|error| Failed::Error {
        by_client: error.overloaded || error.status.is_some_and(|s| (400..500).contains(&s)),
    })
}

/// The length of the event that `bytes` begin with.
fn event_length(bytes: &[u8]) -> usize {
    let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
    let found = ends
        .iter()
        .filter_map(|end| Some(memchr::memmem::find(bytes, end)? + end.len()));
    found.min().unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    const STOP: &str =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    const ABORT: &str =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n";
    const ERROR: &str = "data: {\"error\":{\"message\":\"core died\",\"code\":500}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    /// What is shown of `stream` when it comes cut at `cuts`, and how it failed or ended.
    fn shown(stream: &str, cuts: &[usize]) -> (String, Option<Failed>, Option<Ending>) {
        let mut events = Events::new(Dialect::Chat, 4096);
        let mut shown = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let passed = events.take(Bytes::copy_from_slice(&stream.as_bytes()[from..to]));
            shown.extend_from_slice(&passed.shown);
            if passed.failed.is_some() {
                return (String::from_utf8(shown).unwrap(), passed.failed, None);
            }
            from = to;
        }
        let (ending, rest) = events.finish();
        shown.extend_from_slice(&rest);
        (String::from_utf8(shown).unwrap(), None, Some(ending))
    }

    fn cut_anywhere(stream: String) -> impl Strategy<Value = (String, Vec<usize>)> {
        let cuts = prop::collection::btree_set(0..=stream.len(), 0..6);
        cuts.prop_map(move |cuts| (stream.clone(), cuts.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_whole_stream_is_shown_whole_however_it_is_cut(
            (stream, cuts) in cut_anywhere([ONE, ": keep-alive\n\n", ONE, STOP, DONE].concat()),
        ) {
            prop_assert_eq!(shown(&stream, &cuts), (stream, None, Some(Ending::Whole)));
        }

        #[test]
        fn an_error_event_is_the_last_that_is_shown(
            (stream, cuts) in cut_anywhere([ONE, ERROR, DONE].concat()),
        ) {
            let failed = Failed::Error { by_client: false };
            prop_assert_eq!(shown(&stream, &cuts), ([ONE, ERROR].concat(), Some(failed), None));
        }

        #[test]
        fn an_abort_is_not_shown(
            (stream, cuts) in cut_anywhere([ONE, ABORT, DONE].concat()),
        ) {
            prop_assert_eq!(shown(&stream, &cuts), (ONE.to_owned(), Some(Failed::Abort), None));
        }

        #[test]
        fn of_a_stream_that_breaks_off_whole_events_are_shown(
            (stream, cuts) in cut_anywhere([ONE, ONE].concat()),
            broken in 1..STOP.len(),
        ) {
            let broken = [&stream, &STOP[..broken]].concat();
            // One LF short of its end it may still be a line that goes on.
            let expected = (stream, None, Some(Ending::Cut));
            prop_assert_eq!(shown(&broken, &cuts), expected);
        }
    }

    #[test]
    fn an_end_without_its_blank_line_is_shown() {
        let stream = [ONE, STOP, "data: [DONE]"].concat();
        assert_eq!(
            shown(&stream, &[]),
            (stream.clone(), None, Some(Ending::Whole))
        );
    }

    #[test]
    fn what_is_too_long_to_be_read_is_shown_as_it_comes() {
        let mut events = Events::new(Dialect::Chat, 16);
        assert_eq!(events.take("data: 123".into()).shown, "");
        assert_eq!(
            events.take("4567890123".into()).shown,
            "data: 1234567890123"
        );
        assert_eq!(events.take("45".into()).shown, "45");
    }
}
