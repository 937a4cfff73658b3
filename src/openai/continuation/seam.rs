//! Where an answer by token ids may be cut and gone on with.
//!
//! Ids run ahead of the text: inside a character, and by as many characters as a stop string may have. And a prompt
//! of ids that ends inside a character makes vLLM repeat the whole prompt (issue 48853). So a seam lies behind a
//! token whose text the client has wholly seen; the text that the client has behind it will come once more.

use std::collections::VecDeque;

/// Which field a text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Part {
    #[default]
    Content,
    Reasoning,
}

/// The last good seam, and what the client has seen behind it.
#[derive(Debug, Default, Clone)]
pub(super) struct Seam {
    /// Characters that the engine holds back, because they may begin a stop string.
    hold: usize,
    /// Ids before the seam.
    ids: usize,
    /// Characters before the seam. Only counted where some are held back.
    at: usize,
    /// The same for seams that are further than the client has seen.
    later: VecDeque<(usize, usize)>,
    /// What the client has seen behind the seam.
    tail: VecDeque<(Part, String)>,
    /// Characters that the client has seen.
    shown: usize,
    /// Characters that this engine has sent, and those before its first.
    sent: usize,
    /// Several ids came with one text: whether they end with a character only the next text tells.
    doubtful: Option<usize>,
}

impl Seam {
    /// `hold`: characters that the engine holds back. The first seam lies behind the prompt.
    pub fn new(hold: usize) -> Self {
        Self {
            hold,
            ..Self::default()
        }
    }

    /// Ids before the seam.
    pub fn ids(&self) -> usize {
        self.ids
    }

    /// Nothing that the client has seen lies behind the seam.
    pub fn is_tight(&self) -> bool {
        self.tail.is_empty() && self.hold == 0 && self.doubtful.is_none()
    }

    /// The prompt has so many ids.
    pub fn begin(&mut self, prompt: usize) {
        self.ids = prompt;
    }

    /// A token came with text of its own, all that it has: the short way of [`Self::take`] where the seam was
    /// tight.
    pub fn advance(&mut self, ids: usize) {
        self.ids = ids;
    }

    /// An event came: its texts, of which the client is shown what is in `new` too, and `count` ids, `ids` with
    /// those before them. `holds`: a text is held back here.
    pub fn take(
        &mut self,
        sent: &[(Part, String)],
        new: &[(Part, String)],
        count: usize,
        ids: usize,
        holds: bool,
    ) {
        let first = sent.iter().find_map(|(_, text)| text.chars().next());
        let characters = |texts: &[(Part, String)]| -> usize {
            texts.iter().map(|(_, text)| text.chars().count()).sum()
        };
        if let (Some(first), Some(doubtful)) = (first, self.doubtful) {
            self.doubtful = None;
            if first.is_ascii() {
                self.ids = doubtful;
                self.tail.clear();
            }
        }
        for (part, text) in new.iter().filter(|(_, text)| !text.is_empty()) {
            match self.tail.back_mut() {
                Some((last, so_far)) if last == part => so_far.push_str(text),
                _ => self.tail.push_back((*part, text.clone())),
            }
        }
        self.shown += characters(new);
        self.sent += characters(sent);
        if first.is_none() || count == 0 || holds {
            return;
        }
        if self.hold > 0 {
            if count == 1 {
                self.later.push_back((ids, self.sent + self.hold));
            }
            self.catch_up();
        } else if self.sent < self.shown {
            // The client has seen this before, and more: what is behind it is still to come again.
            if count == 1 {
                self.drop_tail(self.tail_length() - (self.shown - self.sent));
                self.ids = ids;
            }
        } else if count == 1 {
            self.ids = ids;
            self.tail.clear();
        } else {
            self.doubtful = Some(ids);
        }
    }

    /// Moves to the last seam that the client has seen.
    fn catch_up(&mut self) {
        while let Some(&(ids, at)) = self.later.front() {
            if at > self.shown {
                return;
            }
            self.later.pop_front();
            self.drop_tail(at - self.at);
            (self.ids, self.at) = (ids, at);
        }
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        self.later.capacity() * size_of::<(usize, usize)>() + memory(&self.tail)
    }

    fn tail_length(&self) -> usize {
        self.tail.iter().map(|(_, text)| text.chars().count()).sum()
    }

    fn drop_tail(&mut self, mut count: usize) {
        while let Some((_, text)) = self.tail.front_mut() {
            match text.char_indices().nth(count) {
                Some((at, _)) => {
                    text.drain(..at);
                    return;
                }
                None => {
                    count -= text.chars().count();
                    self.tail.pop_front();
                }
            }
        }
    }

    /// The text that the client has seen behind the seam; `None` where there is none, or not of one part.
    pub fn text_behind(&self) -> Option<&str> {
        match self.tail.len() {
            1 => self.tail.front().map(|(_, text)| text.as_str()),
            _ => None,
        }
    }

    /// Moves to behind all that the client has seen, of which the ids are known now.
    pub fn close_up(&mut self, ids: usize) {
        self.ids = ids;
        self.at = self.shown;
        self.tail.clear();
        self.later.clear();
        self.doubtful = None;
    }

    /// Another engine goes on from the seam. What it says first the client has seen already.
    pub fn cross(&mut self) -> Overlap {
        self.later.clear();
        self.doubtful = None;
        if self.hold == 0 {
            // Counted from the seam on.
            self.at = 0;
            self.shown = self.tail_length();
        }
        self.sent = self.at;
        Overlap(self.tail.clone())
    }
}

fn memory(texts: &VecDeque<(Part, String)>) -> usize {
    texts.iter().map(|(_, text)| text.capacity()).sum()
}

/// What is to come a second time.
#[derive(Debug, Default)]
pub(super) struct Overlap(VecDeque<(Part, String)>);

impl Overlap {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        memory(&self.0)
    }

    /// Takes away what the client has of a text; `None` if it is another.
    pub fn skip(&mut self, part: Part, text: &str) -> Option<String> {
        let mut rest = text;
        while let Some((expected_part, expected)) = self.0.front_mut() {
            if rest.is_empty() {
                break;
            }
            if *expected_part != part {
                return None;
            }
            if let Some(behind) = rest.strip_prefix(expected.as_str()) {
                rest = behind;
                self.0.pop_front();
            } else if let Some(left) = expected.strip_prefix(rest) {
                *expected = left.to_owned();
                rest = "";
            } else {
                return None;
            }
        }
        Some(rest.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<(Part, String)> {
        match text {
            "" => Vec::new(),
            _ => vec![(Part::Content, text.to_owned())],
        }
    }

    fn tail(seam: &Seam) -> String {
        seam.tail.iter().map(|(_, text)| text.as_str()).collect()
    }

    fn seam(hold: usize, events: &[(&str, usize)]) -> Seam {
        let mut seam = Seam::new(hold);
        seam.begin(10);
        let mut ids = 10;
        for (shown, count) in events {
            ids += count;
            seam.take(&text(shown), &text(shown), *count, ids, false);
        }
        seam
    }

    #[test]
    fn ids_go_back_to_the_last_that_had_a_text() {
        let of = |events| {
            let seam = seam(0, events);
            (seam.ids(), tail(&seam))
        };
        assert_eq!(of(&[]), (10, String::new()));
        assert_eq!(of(&[("a", 1), ("b", 1)]), (12, String::new()));
        assert_eq!(of(&[("a", 1), ("", 1), ("", 1)]), (11, String::new()));
        assert_eq!(of(&[("a", 1), ("", 1), ("é", 1)]), (13, String::new()));
        // The last of several may be half a character, unless what follows is no half.
        assert_eq!(of(&[("a", 1), ("bc", 3)]), (11, "bc".to_owned()));
        assert_eq!(of(&[("a", 1), ("bc", 3), ("de", 2)]), (14, "de".to_owned()));
        assert_eq!(of(&[("a", 1), ("bc", 3), ("é", 2)]), (11, "bcé".to_owned()));
        assert_eq!(of(&[("a", 1), ("bc", 3), ("é", 1)]), (15, String::new()));
    }

    #[test]
    fn with_stop_strings_ids_run_ahead_by_what_is_held_back() {
        // Tokens ab, cd, ef, gh with three characters held back.
        let seam = seam(3, &[("", 1), ("a", 1), ("bc", 1), ("de", 1)]);
        // Seen is abcde: ab and cd wholly, e of ef.
        assert_eq!((seam.ids(), tail(&seam)), (12, "e".to_owned()));
    }

    #[test]
    fn what_comes_again_is_skipped() {
        let mut overlap = Overlap(text("one two").into());
        assert_eq!(overlap.skip(Part::Content, "one ").as_deref(), Some(""));
        assert_eq!(
            overlap.skip(Part::Content, "two three").as_deref(),
            Some(" three")
        );
        assert!(overlap.is_empty());
        assert_eq!(overlap.skip(Part::Content, "!").as_deref(), Some("!"));
        let mut overlap = Overlap(text("one").into());
        assert_eq!(overlap.skip(Part::Content, "on the"), None);
        let mut overlap = Overlap(text("one").into());
        assert_eq!(overlap.skip(Part::Reasoning, "one"), None);
    }

    #[test]
    fn a_second_seam_may_lie_in_what_comes_again() {
        for hold in [0, 3] {
            let mut seam = seam(hold, &[("", 0), ("abc", 2), ("def", 2)]);
            assert_eq!(
                (seam.ids(), tail(&seam)),
                (if hold == 0 { 12 } else { 10 }, tail(&seam))
            );
            let base = seam.ids();
            let mut overlap = seam.cross();
            let expected = tail(&seam);
            let first = expected.chars().take(1).collect::<String>();
            let new = overlap.skip(Part::Content, &first).unwrap();
            assert_eq!(new, "");
            seam.take(&text(&first), &text(&new), 1, base + 1, false);
            if hold == 0 {
                assert_eq!(
                    (seam.ids(), tail(&seam)),
                    (base + 1, expected[1..].to_owned())
                );
            } else {
                // One shown and three held back: four characters of the first token.
                assert_eq!(
                    (seam.ids(), tail(&seam)),
                    (base + 1, expected[4..].to_owned())
                );
            }
        }
    }
}
