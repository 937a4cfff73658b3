//! A stream of events on its way to the client: shown by whole events, up to the first that says the rest
//! will not come.

mod continuable;

use bytes::{Bytes, BytesMut};

use crate::openai::continuation::Alike;
use crate::openai::sse::{Ending, Seen, Span, SseScanner};
use crate::openai::{Dialect, Rename, Usage};

pub use continuable::Continuable;

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
    /// The event that only counts tokens was the gateway's wish, and is kept from the client.
    hides_usage: bool,
    /// Gives the model the name that the client used.
    rename: Option<Rename>,
    /// Content events so far.
    content: u64,
    /// What is needed to go on with the stream elsewhere, where that is possible.
    kept: Option<Box<Continuable>>,
    /// The engine's own last word is kept from the client for as long as another may go on.
    holds_last_word: bool,
    last_word: Bytes,
}

/// Whose wish a stream's count of tokens is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum UsageAsked {
    /// The client's, or nobody's: what comes is passed.
    #[default]
    AsItComes,
    /// The client's, in every event.
    InEveryEvent,
    /// The gateway's: the event that brings it is not the client's.
    ByGateway,
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
    pub fn new(dialect: Dialect, limit: usize, asked: UsageAsked, rename: Option<Rename>) -> Self {
        let mut scanner = SseScanner::new(dialect, limit);
        if asked == UsageAsked::InEveryEvent {
            scanner.read_each();
        }
        Self {
            scanner,
            tail: BytesMut::new(),
            hides_usage: asked == UsageAsked::ByGateway,
            rename,
            content: 0,
            kept: None,
            holds_last_word: false,
            last_word: Bytes::new(),
        }
    }

    /// So many choices are asked for.
    pub fn expect(&mut self, choices: u64) {
        self.scanner.expect(choices);
    }

    /// An error of the engine's own is not shown at once: see [`Self::take_last_word`].
    pub fn hold_last_word(&mut self) {
        self.holds_last_word = true;
    }

    /// The error that was held, now that nobody goes on; from now on they are shown.
    pub fn take_last_word(&mut self) -> Bytes {
        self.holds_last_word = false;
        std::mem::take(&mut self.last_word)
    }

    /// From now on what is shown is kept as well, so that another engine can go on.
    pub fn keep(&mut self, kept: Box<Continuable>) {
        self.kept = Some(kept);
    }

    /// The events of another engine, `next`, go on where these have ended.
    pub fn go_on(&mut self, mut next: Events) -> Events {
        next.kept = self.kept.take();
        next.rename = self.rename.take();
        next.content += self.content;
        if let Some(kept) = &mut next.kept {
            kept.kept.cross();
        }
        next
    }

    /// What is known of the stream, where it may be gone on with elsewhere.
    pub fn continuable(&mut self) -> Option<&mut Continuable> {
        self.kept.as_deref_mut()
    }

    /// Another engine may go on with the stream as it stands.
    pub fn can_go_on(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.kept.can_go_on())
    }

    /// The engine that went on said something else than the client has seen.
    pub fn has_diverged(&self) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|kept| kept.kept.has_diverged())
    }

    /// Whole events that were read, as the client is shown them.
    pub fn dress(&mut self, events: Bytes) -> Bytes {
        let Some(kept) = self.kept.as_deref_mut() else {
            return events;
        };
        let shown = kept.kept.take(&events);
        kept.settle();
        shown
    }

    /// The same, with the name of the model that the client knows.
    pub fn dress_renamed(&mut self, events: Bytes) -> Bytes {
        let shown = self.dress(events);
        self.renamed(shown)
    }

    /// Takes a piece that is whole events, all like one before them; `out` gets them as the client is shown them.
    /// Where it says no, nothing was taken.
    pub fn take_alike(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Alike {
        let Some(kept) = self.kept.as_deref_mut() else {
            return Alike::No;
        };
        if !self.tail.is_empty() || self.rename.is_some() || !self.scanner.is_between_content() {
            return Alike::No;
        }
        let alike = kept.kept.take_alike(piece, out);
        if let Alike::AsTheyAre(shown) | Alike::Rewritten(shown) = alike {
            self.content += u64::from(shown);
            kept.settle();
        }
        alike
    }

    /// The engine's own count of tokens so far.
    pub fn usage(&self) -> Option<Usage> {
        self.scanner.usage()
    }

    /// The count of a stream that others went on with, else the engine's own, else that of the ids that came.
    pub fn counted(&self) -> Option<Usage> {
        let kept = self.kept.as_deref().map(|kept| &kept.kept);
        match kept {
            Some(kept) if kept.has_crossed() => Some(kept.usage()),
            Some(kept) if kept.is_by_ids() => self.usage().or_else(|| Some(kept.usage())),
            _ => self.usage(),
        }
    }

    /// Content events so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// How many tokens there are at least, where nobody has counted them: each content event has one or more.
    pub fn at_least(&self) -> u64 {
        let kept = self.kept.as_ref().map(|kept| kept.kept.at_least());
        self.content.max(kept.unwrap_or(0))
    }

    /// An event was too long to be read, and what followed it was not.
    pub fn is_unread(&self) -> bool {
        self.scanner.is_blind()
    }

    /// Takes the next piece.
    pub fn take(&mut self, piece: Bytes) -> Passed {
        let seen = self.read(&piece);
        self.pass(seen, piece)
    }

    /// Reads the next piece, which then is either shown as it is, where [`Self::is_plain`], or given to
    /// [`Self::pass`].
    pub fn read(&mut self, piece: &[u8]) -> Seen {
        let seen = self.scanner.feed(piece);
        self.content += u64::from(seen.content_events);
        seen
    }

    /// The piece that was read last is to be shown as it is: whole events, none of them a failure, and none
    /// that the client is to see otherwise.
    pub fn is_plain(&self, seen: &Seen) -> bool {
        self.tail.is_empty()
            && seen.incomplete == 0
            && !seen.aborted
            && seen.error.is_none()
            && self.hidden(seen).is_none()
            && self.rename.is_none()
            && self.kept.is_none()
    }

    fn hidden(&self, seen: &Seen) -> Option<Span> {
        seen.extra.filter(|_| self.hides_usage)
    }

    /// What the piece that was read last comes to.
    pub fn pass(&mut self, seen: Seen, piece: Bytes) -> Passed {
        let mut passed = self.put_together(seen, piece);
        if passed.seen.overflow
            && let Some(kept) = &mut self.kept
        {
            kept.kept.give_up();
        } else if !passed.shown.is_empty() {
            passed.shown = self.dress(passed.shown);
        }
        passed.shown = self.renamed(passed.shown);
        passed
    }

    /// With the name of the model that the client knows.
    pub fn renamed(&self, shown: Bytes) -> Bytes {
        match &self.rename {
            Some(rename) => rename.apply(&shown),
            None => shown,
        }
    }

    fn put_together(&mut self, seen: Seen, piece: Bytes) -> Passed {
        let failed = failed(&seen);
        let hidden = self.hidden(&seen);
        if self.tail.is_empty() && seen.incomplete == 0 && failed.is_none() && hidden.is_none() {
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
        let whole = all.len();
        let good = whole.saturating_sub(match failed {
            Some(_) => seen.faulty,
            None => seen.incomplete,
        });
        let shown = match failed {
            // Engines go on to `[DONE]` as if nothing had happened.
            Some(Failed::Error { by_client: false }) if self.holds_last_word => good,
            Some(Failed::Error { .. }) => good + event_length(&all[good..]),
            _ => good,
        };
        let rest = all.split_off(shown);
        if failed.is_none() {
            self.tail.extend_from_slice(&rest);
        } else if matches!(failed, Some(Failed::Error { .. })) && shown == good {
            self.last_word = rest.slice(..event_length(&rest));
        }
        if let Some(span) = hidden {
            all = without(&all, whole, span);
        }
        Passed {
            seen,
            shown: all,
            failed,
        }
    }

    /// If nothing more comes, it ends short of its end.
    pub fn is_cut(&self) -> bool {
        self.scanner.ending() == Ending::Cut
    }

    /// The body has ended. With it what was kept, if that is to be shown ([`Self::dress_renamed`]): an end that is
    /// whole, or of which nobody can tell, may lack its last blank line.
    pub fn finish(&mut self) -> (Ending, Bytes) {
        let ending = self.scanner.finish();
        let tail = std::mem::take(&mut self.tail).freeze();
        match ending {
            Ending::Cut => (ending, Bytes::new()),
            Ending::Whole | Ending::Unknown => (ending, tail),
        }
    }
}

/// What is left of `shown`, the beginning of `whole` bytes, without the event at `span`.
fn without(shown: &Bytes, whole: usize, span: Span) -> Bytes {
    let start = whole.saturating_sub(span.back).min(shown.len());
    let end = (start + span.length).min(shown.len());
    if end == shown.len() {
        return shown.slice(..start);
    }
    let mut kept = BytesMut::with_capacity(shown.len() - (end - start));
    kept.extend_from_slice(&shown[..start]);
    kept.extend_from_slice(&shown[end..]);
    kept.freeze()
}

fn failed(seen: &Seen) -> Option<Failed> {
    if seen.aborted {
        return Some(Failed::Abort);
    }
    seen.error.as_ref().map(|error| Failed::Error {
        by_client: error.status.is_some_and(|s| (400..500).contains(&s)),
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
mod tests;
