//! Holds an answer against the one that its request has, event by event.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::ask::Expected;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The right answer, whole.
    Whole,
    /// No connection.
    Refused(String),
    /// Nothing of an answer: another status than 200, a broken connection, silence.
    Lost(String),
    /// The answer broke off after it had begun.
    Cut(String),
    /// Not the text that this prompt has.
    Wrong(String),
    /// The right text, but not one answer: ids, roles, usage, finish or `[DONE]` are not as they must be.
    Malformed(String),
}

/// As far as a client looks.
#[derive(Debug, Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    completion_tokens: u64,
}

impl Choice<'_> {
    fn text(&self) -> &str {
        let message = self.delta.as_ref().or(self.message.as_ref());
        let content = message.and_then(|message| message.content.as_deref());
        content.or(self.text.as_deref()).unwrap_or_default()
    }
}

/// An answer so far.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    expected: &'a Expected,
    /// Bytes of the text that have come.
    seen: usize,
    id: Option<String>,
    has_role: bool,
    finish: Option<String>,
    usage: Option<u64>,
    done: bool,
    failed: Option<End>,
    /// When the last piece of content came, or the request was sent.
    pub last: Instant,
    /// Between two pieces of content, the first one's wait included.
    pub longest_silence: Duration,
}

impl<'a> Answer<'a> {
    pub(super) fn new(expected: &'a Expected, now: Instant) -> Self {
        Self {
            expected,
            seen: 0,
            id: None,
            has_role: false,
            finish: None,
            usage: None,
            done: false,
            failed: None,
            last: now,
            longest_silence: Duration::ZERO,
        }
    }

    /// Takes the data of one event.
    pub(super) fn take(&mut self, data: &[u8], now: Instant) {
        if self.done {
            return self.fail(End::Malformed("an event after [DONE]".to_owned()));
        }
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        let event: Event<'_> = match serde_json::from_slice(data) {
            Ok(event) => event,
            Err(error) => {
                let shown = String::from_utf8_lossy(&data[..data.len().min(80)]).into_owned();
                return self.fail(End::Malformed(format!("{error}: {shown}")));
            }
        };
        if let Some(error) = event.error {
            let message = error["message"].as_str().unwrap_or_default();
            let reason = format!("error event: {message}");
            return self.fail(self.broken(reason));
        }
        match &self.id {
            None => self.id = Some(event.id.into_owned()),
            Some(id) if *id != event.id => {
                self.fail(End::Malformed("the id changes".to_owned()));
            }
            Some(_) => {}
        }
        if let Some(usage) = event.usage {
            self.usage = Some(usage.completion_tokens);
        }
        for choice in &event.choices {
            self.choose(choice, now);
        }
    }

    fn choose(&mut self, choice: &Choice<'_>, now: Instant) {
        let role = choice
            .delta
            .as_ref()
            .and_then(|delta| delta.role.as_deref());
        if role.is_some() {
            if self.has_role {
                self.fail(End::Malformed("a second role".to_owned()));
            }
            self.has_role = true;
        }
        let text = choice.text();
        if !text.is_empty() {
            self.spoke(now);
            if !self.expected.text[self.seen..].starts_with(text) {
                let (seen, text) = (self.seen, text.chars().take(40).collect::<String>());
                self.fail(End::Wrong(format!("{text:?} at byte {seen}")));
                return;
            }
            self.seen += text.len();
        }
        match choice.finish_reason.as_deref() {
            None => {}
            Some("abort") => self.fail(self.broken("finish_reason abort".to_owned())),
            Some(_) if self.finish.is_some() => {
                self.fail(End::Malformed("a second finish_reason".to_owned()));
            }
            Some(finish) => {
                self.finish = Some(finish.to_owned());
                self.spoke(now);
            }
        }
    }

    fn spoke(&mut self, now: Instant) {
        self.longest_silence = self.longest_silence.max(now - self.last);
        self.last = now;
    }

    /// The first failure is what counts.
    fn fail(&mut self, end: End) {
        self.failed.get_or_insert(end);
    }

    /// What a break is called after what has come.
    pub(super) fn broken(&self, reason: String) -> End {
        match self.seen {
            0 => End::Lost(reason),
            _ => End::Cut(reason),
        }
    }

    /// The body has ended, with this error or as HTTP wants it.
    pub(super) fn end(&mut self, broken: Option<String>, is_stream: bool, now: Instant) -> End {
        let is_whole = self.finish.is_some() && (self.done || !is_stream);
        if !is_whole {
            self.longest_silence = self.longest_silence.max(now - self.last);
        }
        if let Some(end) = self.failed.take() {
            return end;
        }
        if let Some(reason) = broken {
            return self.broken(reason);
        }
        let expected = self.expected;
        if self.finish.is_none() {
            return self.broken("it ends without finish_reason".to_owned());
        }
        if is_stream && !self.done {
            return self.broken("it ends without [DONE]".to_owned());
        }
        if self.seen != expected.text.len() {
            let (seen, whole) = (self.seen, expected.text.len());
            return End::Wrong(format!("{seen} bytes, not {whole}"));
        }
        if self.finish.as_deref() != Some(expected.finish) {
            let (finish, right) = (self.finish.take().unwrap_or_default(), expected.finish);
            return End::Malformed(format!("finish_reason {finish}, not {right}"));
        }
        if expected.completion_tokens.is_some() && self.usage != expected.completion_tokens {
            let (usage, right) = (self.usage, expected.completion_tokens.unwrap_or_default());
            return End::Malformed(format!("completion_tokens {usage:?}, not {right}"));
        }
        End::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        Expected {
            text: "one two".to_owned(),
            finish: "length",
            completion_tokens: Some(2),
        }
    }

    fn text(id: &str, text: &str, finish: &str) -> String {
        let finish = match finish {
            "" => "null".to_owned(),
            finish => format!("{finish:?}"),
        };
        format!(
            r#"{{"id":"{id}","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{finish}}}]}}"#
        )
    }

    fn judge(events: &[&str], broken: Option<&str>) -> End {
        let (expected, now) = (expected(), Instant::now());
        let mut answer = Answer::new(&expected, now);
        for event in events {
            answer.take(event.as_bytes(), now);
        }
        answer.end(broken.map(str::to_owned), true, now)
    }

    const USAGE: &str = r#"{"id":"a","choices":[],"usage":{"completion_tokens":2}}"#;
    const ROLE: &str = r#"{"id":"a","choices":[{"delta":{"role":"assistant","content":""}}]}"#;

    #[test]
    fn one_right_stream_is_whole() {
        let (one, two) = (text("a", "one", ""), text("a", " two", "length"));
        assert_eq!(
            judge(&[ROLE, &one, &two, USAGE, "[DONE]"], None),
            End::Whole
        );
    }

    #[test]
    fn a_break_is_lost_before_the_first_text_and_cut_after_it() {
        let one = text("a", "one", "");
        let error = r#"{"error":{"message":"dead","code":500}}"#;
        let lost = |end| matches!(end, End::Lost(_));
        let cut = |end| matches!(end, End::Cut(_));
        assert!(lost(judge(&[ROLE], None)));
        assert!(lost(judge(&[ROLE, error, "[DONE]"], None)));
        assert!(cut(judge(&[ROLE, &one], Some("reset"))));
        assert!(cut(judge(&[ROLE, &one, error, "[DONE]"], None)));
        assert!(cut(judge(&[&one, &text("a", "", "abort"), "[DONE]"], None)));
        assert!(cut(judge(&[&one, "[DONE]"], None)));
        assert!(cut(judge(&[&one, &text("a", " two", "length")], None)));
    }

    #[test]
    fn a_text_that_skips_repeats_or_stops_is_wrong() {
        let wrong = |events: &[&str]| matches!(judge(events, None), End::Wrong(_));
        let (one, two) = (text("a", "one", ""), text("a", " two", "length"));
        assert!(wrong(&[&two, USAGE, "[DONE]"]));
        assert!(wrong(&[&one, &one, &two, USAGE, "[DONE]"]));
        assert!(wrong(&[&text("a", "one", "length"), USAGE, "[DONE]"]));
    }

    #[test]
    fn two_streams_sewn_together_are_malformed() {
        let malformed = |events: &[&str]| matches!(judge(events, None), End::Malformed(_));
        let (one, two) = (text("a", "one", ""), text("a", " two", "length"));
        let other = text("b", " two", "length");
        assert!(malformed(&[ROLE, &one, &other, USAGE, "[DONE]"]));
        assert!(malformed(&[ROLE, &one, ROLE, &two, USAGE, "[DONE]"]));
        assert!(malformed(&[&one, &two, "[DONE]"]));
        assert!(malformed(&[&one, &two, USAGE, "[DONE]", "[DONE]"]));
        assert!(malformed(&[
            &one,
            &text("a", " two", "stop"),
            USAGE,
            "[DONE]"
        ]));
    }

    #[test]
    fn silence_runs_from_the_request_and_from_one_text_to_the_next() {
        let (expected, start) = (expected(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut answer = Answer::new(&expected, start);
        answer.take(ROLE.as_bytes(), at(500));
        answer.take(text("a", "one", "").as_bytes(), at(700));
        answer.take(text("a", " two", "length").as_bytes(), at(900));
        assert_eq!(answer.longest_silence, Duration::from_millis(700));
    }
}
