use std::time::Duration;

use tokio::time::Instant;

use super::Limit;

/// Parts of one request or token. There are as many as a minute has nanoseconds, so that a limit of N a minute
/// refills exactly N parts each nanosecond: nothing is ever rounded, and nothing drifts.
const PARTS: i128 = 60_000_000_000;
/// What may be owed, in minutes of refill. It keeps a nonsensical count from shutting a key for days.
const MOST_OWED: i128 = 10;

/// A token bucket: holds as much as may be used in a minute, and refills evenly.
///
/// The largest amounts, `u64::MAX` times a few minutes' parts, are below 2^104: no sum or product here overflows.
#[derive(Debug)]
pub(super) struct Bucket {
    /// A minute; at least 1.
    limit: u64,
    /// In parts; negative where more was used than there was.
    level: i128,
    /// What `level` holds is of then. Never goes back.
    refilled: Instant,
}

impl Bucket {
    /// A full one. A limit of 0 would never refill and is taken for 1; the configuration has none.
    pub fn new(limit: u64, now: Instant) -> Self {
        let limit = limit.max(1);
        Self {
            limit,
            level: parts(limit),
            refilled: now,
        }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How long after `now` there will be `amount`, to the nanosecond; zero = it is there. `amount` is at most the
    /// limit: there is never more.
    pub fn wait(&mut self, amount: u64, now: Instant) -> Duration {
        self.refill(now);
        let missing = parts(amount) - self.level;
        if missing <= 0 {
            return Duration::ZERO;
        }
        let limit = i128::from(self.limit);
        let nanoseconds = u64::try_from((missing + limit - 1) / limit).unwrap_or(u64::MAX);
        // Two threads may come with their times in the wrong order.
        let ahead = self.refilled.saturating_duration_since(now);
        ahead.saturating_add(Duration::from_nanos(nanoseconds))
    }

    /// Takes what [`wait`](Self::wait) found to be there.
    pub fn take(&mut self, amount: u64) {
        self.level = (self.level - parts(amount)).max(self.floor());
    }

    /// Takes `amount` whether it is there or not, and returns how much of it could be taken: not more than may be
    /// owed.
    pub fn charge(&mut self, amount: u64, now: Instant) -> u64 {
        self.refill(now);
        let room = (self.level - self.floor()).max(0) / PARTS;
        let taken = u64::try_from(room).map_or(amount, |room| room.min(amount));
        self.level -= parts(taken);
        taken
    }

    /// Returns what was taken and not used. It needs no time: refilling and returning both add, up to the same brim,
    /// and so come to the same in either order.
    pub fn give_back(&mut self, amount: u64) {
        self.level = (self.level + parts(amount)).min(parts(self.limit));
    }

    /// Another limit. What was used of the earlier one counts as used of this one; a lower one empties the bucket at
    /// most and adds nothing to what is owed.
    pub fn set_limit(&mut self, limit: u64, now: Instant) {
        let limit = limit.max(1);
        if limit == self.limit {
            return;
        }
        self.refill(now);
        let used = parts(self.limit) - self.level;
        self.limit = limit;
        self.level = (parts(limit) - used)
            .max(self.level.min(0))
            .max(self.floor());
    }

    /// What the bucket holds.
    pub fn state(&mut self, now: Instant) -> Limit {
        let reset = self.wait(self.limit, now);
        Limit {
            limit: self.limit,
            remaining: u64::try_from(self.level.max(0) / PARTS).unwrap_or(u64::MAX),
            reset,
        }
    }

    fn floor(&self) -> i128 {
        -parts(self.limit) * MOST_OWED
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_nanos();
        // After so long it is full, however much was owed.
        let longest = (MOST_OWED + 1) * PARTS;
        let passed = i128::try_from(passed).map_or(longest, |passed| passed.min(longest));
        self.level = (self.level + passed * i128::from(self.limit)).min(parts(self.limit));
        self.refilled = self.refilled.max(now);
    }
}

fn parts(amount: u64) -> i128 {
    i128::from(amount) * PARTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_minute_may_be_used_at_once_and_comes_back_evenly() {
        let start = Instant::now();
        let mut bucket = Bucket::new(600, start);
        for _ in 0..600 {
            assert_eq!(bucket.wait(1, start), Duration::ZERO);
            bucket.take(1);
        }
        assert_eq!(bucket.wait(1, start), Duration::from_millis(100));
        assert_eq!(bucket.wait(10, start), Duration::from_secs(1));
        let state = bucket.state(start + Duration::from_millis(250));
        assert_eq!((state.limit, state.remaining), (600, 2));
        assert_eq!(state.reset, Duration::from_millis(59_750));
        let state = bucket.state(start + MINUTE * 1000);
        assert_eq!((state.remaining, state.reset), (600, Duration::ZERO));
    }

    #[test]
    fn nothing_drifts_where_a_minute_cannot_be_divided() {
        let start = Instant::now();
        let mut bucket = Bucket::new(7, start);
        bucket.take(7);
        let mut now = start;
        for nth in 1..=70_000_u64 {
            now += bucket.wait(1, now);
            bucket.take(1);
            // To the nanosecond, after 10 000 minutes too.
            let due = Duration::from_nanos((nth * 60_000_000_000).div_ceil(7));
            assert_eq!(now - start, due);
        }
    }

    #[test]
    fn the_largest_numbers_overflow_nothing() {
        let start = Instant::now();
        let mut bucket = Bucket::new(u64::MAX, start);
        bucket.take(u64::MAX);
        for _ in 0..12 {
            bucket.charge(u64::MAX, start);
        }
        assert_eq!(bucket.state(start).reset, MINUTE * 11);
        bucket.give_back(u64::MAX);
        bucket.set_limit(1, start);
        assert_eq!(bucket.state(start).reset, MINUTE * 11);
        bucket.set_limit(u64::MAX, start);
        let much_later = start + Duration::from_secs(100 * 365 * 86_400);
        assert_eq!(bucket.state(much_later).remaining, u64::MAX);
        assert_eq!(Bucket::new(0, start).limit(), 1);
    }

    #[test]
    fn at_most_ten_minutes_are_owed_and_only_what_was_taken_comes_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        let taken = bucket.charge(u64::MAX, start);
        assert_eq!(taken, 1100);
        assert_eq!(bucket.wait(0, start), MINUTE * 10);
        assert_eq!(bucket.wait(100, start), MINUTE * 11);
        assert_eq!(bucket.charge(5, start), 0);
        bucket.give_back(taken);
        assert_eq!(bucket.state(start).remaining, 100);
        bucket.give_back(taken);
        assert_eq!(bucket.state(start).remaining, 100);
    }

    #[test]
    fn another_limit_forgets_nothing_that_was_used() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        bucket.take(80);
        bucket.set_limit(1000, start);
        assert_eq!(bucket.state(start).remaining, 920);
        bucket.set_limit(100, start);
        assert_eq!(bucket.state(start).remaining, 20);
        // Nobody waits longer because the limit was lowered.
        bucket.set_limit(10, start);
        assert_eq!(bucket.wait(1, start), Duration::from_secs(6));
        bucket.charge(5, start);
        bucket.set_limit(5, start);
        assert_eq!(bucket.wait(0, start), MINUTE);
        bucket.set_limit(60, start);
        assert_eq!(bucket.state(start).remaining, 50);
    }

    #[test]
    fn an_earlier_now_neither_refills_nor_lies() {
        let start = Instant::now() + MINUTE;
        let mut bucket = Bucket::new(60, start);
        bucket.take(60);
        let earlier = start - Duration::from_secs(5);
        assert_eq!(bucket.wait(1, earlier), Duration::from_secs(6));
        assert_eq!(bucket.wait(1, start), Duration::from_secs(1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Ask(u64),
        Charge(u64),
        Return(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..90_000_000_000_u64).prop_map(Step::Pass),
            (0..2000_u64).prop_map(Step::Ask),
            (0..2000_u64).prop_map(Step::Charge),
            (0..2000_u64).prop_map(Step::Return),
        ]
    }

    proptest! {
        /// However it is used, what was taken and not returned is at most what it held and what came in.
        #[test]
        fn no_more_is_taken_than_there_was(limit in 1..3000_u64, steps in prop::collection::vec(step(), 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(limit, start);
            let (mut used, mut charged) = (0_i128, 0_i128);
            for step in steps {
                match step {
                    Step::Pass(nanoseconds) => now += Duration::from_nanos(nanoseconds),
                    Step::Ask(amount) if amount <= limit => {
                        let wait = bucket.wait(amount, now);
                        if wait > Duration::ZERO {
                            let before = wait - Duration::from_nanos(1);
                            prop_assert_eq!(bucket.wait(amount, now + before), Duration::from_nanos(1));
                            now += wait;
                            prop_assert_eq!(bucket.wait(amount, now), Duration::ZERO);
                        }
                        bucket.take(amount);
                        used += i128::from(amount);
                        let came_in = i128::try_from((now - start).as_nanos()).unwrap() * i128::from(limit);
                        prop_assert!((used + charged) * PARTS <= parts(limit) + came_in);
                    }
                    Step::Charge(amount) => charged += i128::from(bucket.charge(amount, now)),
                    Step::Return(amount) => {
                        let amount = amount.min(u64::try_from(charged).unwrap());
                        bucket.give_back(amount);
                        charged -= i128::from(amount);
                    }
                    Step::Ask(_) => {}
                }
                let state = bucket.state(now);
                prop_assert!(state.remaining <= limit);
                prop_assert!(state.reset <= MINUTE * 11);
            }
        }
    }
}
