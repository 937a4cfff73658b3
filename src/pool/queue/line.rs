use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use tokio::time::Instant;

/// A line of those who wait, each with a ticket: who came first is first. It knows how fast it moves.
#[derive(Debug)]
pub struct Line<T> {
    waiting: BTreeMap<Ticket, T>,
    /// Tickets ever given.
    given: u64,
    pace: Pace,
}

/// A place in the line; the smaller is nearer to its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl<T> Line<T> {
    pub fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            given: 0,
            pace: Pace::new(now),
        }
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Goes to the end of the line; `None` if `size` are waiting.
    pub fn enter(&mut self, who: T, size: usize, now: Instant) -> Option<Ticket> {
        if self.len() >= size {
            return None;
        }
        if self.is_empty() {
            self.pace.begin(now);
        }
        let ticket = Ticket(self.given);
        self.given += 1;
        self.waiting.insert(ticket, who);
        Some(ticket)
    }

    /// The one behind `ticket`, or the first.
    pub fn behind(&self, ticket: Option<Ticket>) -> Option<(Ticket, &T)> {
        let from = ticket.map_or(Unbounded, Excluded);
        let (ticket, who) = self.waiting.range((from, Unbounded)).next()?;
        Some((*ticket, who))
    }

    /// Goes because it is its turn, or of its own accord: the line has moved. `None` if it has gone before.
    pub fn leave(&mut self, ticket: Ticket, now: Instant) -> Option<T> {
        let who = self.waiting.remove(&ticket)?;
        self.pace.moved(now);
        Some(who)
    }

    /// Goes because waiting is of no use: that says nothing of how long others wait. `None` if it has gone before.
    pub fn give_up(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket)
    }

    /// Everybody, in order.
    pub fn each(&mut self) -> impl Iterator<Item = &mut T> {
        self.waiting.values_mut()
    }

    /// How long it takes until all who wait now have left: by the pace at which the last ones did, and
    /// at most `timeout`, after which none of them waits any more.
    pub fn clears_in(&self, now: Instant, timeout: Duration) -> Duration {
        let length = u32::try_from(self.len()).unwrap_or(u32::MAX);
        match self.pace.of_one(now) {
            Some(one) => one.saturating_mul(length).min(timeout),
            None => timeout,
        }
    }
}

/// How often one leaves, over the last few. Time in which nobody waited does not count.
#[derive(Debug)]
struct Pace {
    /// Between one leaving and the next.
    gaps: VecDeque<Duration>,
    /// When the last one left, or the line began.
    since: Instant,
}

/// Enough to be steady, few enough to follow a change of load.
const GAPS: usize = 32;

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            gaps: VecDeque::new(),
            since: now,
        }
    }

    fn begin(&mut self, now: Instant) {
        self.since = now;
    }

    fn moved(&mut self, now: Instant) {
        if self.gaps.len() == GAPS {
            self.gaps.pop_front();
        }
        self.gaps
            .push_back(now.saturating_duration_since(self.since));
        self.since = now;
    }

    /// How long one takes; `None` = none has left yet.
    fn of_one(&self, now: Instant) -> Option<Duration> {
        let left = u32::try_from(self.gaps.len()).ok().filter(|n| *n > 0)?;
        // The one that has not left yet counts too, or a line that stands still would seem to move.
        let still = now.saturating_duration_since(self.since);
        Some((self.gaps.iter().sum::<Duration>() + still) / left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn in_order<T: Copy>(line: &Line<T>) -> Vec<T> {
        let mut found = Vec::new();
        let mut at = None;
        while let Some((ticket, who)) = line.behind(at) {
            found.push(*who);
            at = Some(ticket);
        }
        found
    }

    #[test]
    fn who_came_first_is_first_whoever_leaves() {
        let now = Instant::now();
        let mut line = Line::new(now);
        let tickets: Vec<_> = ('a'..='e')
            .map(|who| line.enter(who, 5, now).unwrap())
            .collect();
        assert_eq!(line.enter('f', 5, now), None);
        assert_eq!(in_order(&line), ['a', 'b', 'c', 'd', 'e']);
        assert_eq!(line.leave(tickets[2], now), Some('c'));
        assert_eq!(line.give_up(tickets[0]), Some('a'));
        assert_eq!(
            (line.leave(tickets[2], now), line.give_up(tickets[0])),
            (None, None)
        );
        // Who comes later stands behind, also where there is room again.
        assert!(line.enter('g', 5, now).is_some());
        assert_eq!(in_order(&line), ['b', 'd', 'e', 'g']);
        for who in line.each() {
            who.make_ascii_uppercase();
        }
        assert_eq!(in_order(&line), ['B', 'D', 'E', 'G']);
    }

    #[test]
    fn a_line_of_no_length_takes_nobody() {
        let now = Instant::now();
        assert_eq!(Line::new(now).enter('a', 0, now), None);
    }

    #[test]
    fn it_tells_how_long_it_takes_at_its_pace() {
        let start = Instant::now();
        let mut line = Line::new(start);
        let minute = 60 * SECOND;
        let tickets: Vec<_> = (0..12)
            .map(|who| line.enter(who, 99, start).unwrap())
            .collect();
        // None has left: all will have, when their time is over.
        assert_eq!(line.clears_in(start + SECOND, minute), minute);
        for (second, ticket) in (1..=4).zip(&tickets) {
            line.leave(*ticket, start + second * SECOND);
        }
        let four = start + 4 * SECOND;
        assert_eq!(line.clears_in(four, minute), 8 * SECOND);
        // Nobody has left for four seconds: one takes two, it seems.
        assert_eq!(line.clears_in(four + 4 * SECOND, minute), 16 * SECOND);
        assert_eq!(line.clears_in(four + 3600 * SECOND, minute), minute);
        // That they give up does not make it faster.
        for ticket in &tickets[4..8] {
            line.give_up(*ticket);
        }
        assert_eq!(line.clears_in(four, minute), 4 * SECOND);
    }

    #[test]
    fn time_without_a_line_does_not_count() {
        let start = Instant::now();
        let mut line = Line::new(start);
        let first = line.enter('a', 9, start).unwrap();
        line.leave(first, start + SECOND);
        let later = start + 3600 * SECOND;
        line.enter('b', 9, later);
        assert_eq!(line.clears_in(later, 60 * SECOND), SECOND);
    }

    #[test]
    fn only_the_last_leavings_count() {
        let mut now = Instant::now();
        let mut line = Line::new(now);
        line.enter(0, 9, now);
        let mut ten_leave = |count: usize, gap: Duration| {
            for _ in 0..count {
                let ticket = line.enter(1, 9, now).unwrap();
                now += gap;
                line.leave(ticket, now);
            }
            line.clears_in(now, 3600 * SECOND)
        };
        assert_eq!(ten_leave(GAPS, 64 * SECOND), 64 * SECOND);
        assert_eq!(ten_leave(GAPS / 2, SECOND), 32 * SECOND + SECOND / 2);
        assert_eq!(ten_leave(GAPS, SECOND), SECOND);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Enter,
        Leave(usize),
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Enter),
            1 => (0usize..40).prop_map(Step::Leave),
            1 => (0usize..40).prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_bounded_fifo(steps in prop::collection::vec(step(), 0..120)) {
            let now = Instant::now();
            let mut line = Line::new(now);
            let mut model: Vec<(Ticket, usize)> = Vec::new();
            for (name, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Enter => match line.enter(name, 8, now) {
                        Some(ticket) => model.push((ticket, name)),
                        None => prop_assert_eq!(model.len(), 8),
                    },
                    Step::Leave(at) | Step::GiveUp(at) if at < model.len() => {
                        let (ticket, name) = model.remove(at);
                        let left = match step {
                            Step::Leave(_) => line.leave(ticket, now),
                            _ => line.give_up(ticket),
                        };
                        prop_assert_eq!(left, Some(name));
                    }
                    Step::Leave(_) | Step::GiveUp(_) => {}
                }
                let names: Vec<_> = model.iter().map(|(_, name)| *name).collect();
                prop_assert_eq!(in_order(&line), names);
                prop_assert_eq!(line.len(), model.len());
                prop_assert_eq!(line.is_empty(), model.is_empty());
            }
        }
    }
}
