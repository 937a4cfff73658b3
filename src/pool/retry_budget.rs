use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config;

/// How many retries a pool may make, so that retries cannot multiply an outage: a share `ratio` of
/// the requests of the last ten seconds, and `min_per_second` on top for quiet times (the budget of
/// finagle, linkerd and tower). Shared by all epochs of a pool.
#[derive(Debug)]
pub struct RetryBudget {
    inner: Mutex<Inner>,
}

/// The window is that many slots of one second.
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_secs(1);
/// Amounts are in thousandths of a retry.
const RETRY: i64 = 1000;

#[derive(Debug)]
struct Inner {
    /// What a request deposits.
    deposit: i64,
    /// What is there without any request, over the whole window.
    reserve: i64,
    /// Deposits less withdrawals, the newest at `newest`.
    slots: [i64; SLOTS],
    newest: usize,
    /// When the newest slot began.
    began: Instant,
}

impl RetryBudget {
    pub fn new(settings: &config::RetryBudget, now: Instant) -> Self {
        let mut inner = Inner {
            deposit: 0,
            reserve: 0,
            slots: [0; SLOTS],
            newest: 0,
            began: now,
        };
        inner.configure(settings);
        Self {
            inner: Mutex::new(inner),
        }
    }

    /// Other settings for the same pool. What was deposited and withdrawn stays.
    pub fn configure(&self, settings: &config::RetryBudget) {
        self.inner.lock().configure(settings);
    }

    /// Once per request, not per try.
    pub fn deposit(&self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.turn(now);
        let (newest, deposit) = (inner.newest, inner.deposit);
        inner.slots[newest] = inner.slots[newest].saturating_add(deposit);
    }

    /// Once per retry: whether it may be made.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock();
        inner.turn(now);
        let granted = inner.balance() >= RETRY;
        if granted {
            let newest = inner.newest;
            inner.slots[newest] -= RETRY;
        }
        granted
    }

    /// Whole retries left.
    pub fn left(&self, now: Instant) -> u64 {
        let mut inner = self.inner.lock();
        inner.turn(now);
        u64::try_from(inner.balance() / RETRY).unwrap_or(0)
    }
}

impl Inner {
    fn configure(&mut self, settings: &config::RetryBudget) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a saturating cast is what is meant"
        )]
        let deposit = (settings.ratio * RETRY as f64).round() as i64;
        self.deposit = deposit.max(0);
        self.reserve = i64::from(settings.min_per_second) * SLOTS as i64 * RETRY;
    }

    fn balance(&self) -> i64 {
        self.slots
            .iter()
            .fold(self.reserve, |sum, slot| sum.saturating_add(*slot))
    }

    /// Begins as many slots as seconds have passed; what was in them is forgotten.
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_secs();
        if passed == 0 {
            return;
        }
        for _ in 0..passed.min(SLOTS as u64) {
            self.newest = (self.newest + 1) % SLOTS;
            self.slots[self.newest] = 0;
        }
        self.began += SLOT * u32::try_from(passed).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(ratio: f64, min_per_second: u32, now: Instant) -> RetryBudget {
        RetryBudget::new(
            &config::RetryBudget {
                ratio,
                min_per_second,
            },
            now,
        )
    }

    fn granted(budget: &RetryBudget, asked: u32, now: Instant) -> u32 {
        (0..asked).map(|_| u32::from(budget.withdraw(now))).sum()
    }

    #[test]
    fn one_in_five_requests_may_be_retried() {
        let now = Instant::now();
        let budget = budget(0.2, 0, now);
        assert!(!budget.withdraw(now));
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert_eq!(budget.left(now), 20);
        assert_eq!(granted(&budget, 50, now), 20);
    }

    #[test]
    fn a_quiet_pool_has_its_reserve_and_gets_it_back() {
        let start = Instant::now();
        let budget = budget(0.2, 10, start);
        assert_eq!(granted(&budget, 200, start), 100);
        let nine = start + Duration::from_millis(9_999);
        assert_eq!(granted(&budget, 200, nine), 0);
        let ten = start + Duration::from_secs(10);
        assert_eq!(granted(&budget, 200, ten), 100);
    }

    #[test]
    fn old_requests_pay_for_nothing() {
        let start = Instant::now();
        let budget = budget(1.0, 0, start);
        for _ in 0..50 {
            budget.deposit(start);
        }
        assert_eq!(budget.left(start + Duration::from_secs(9)), 50);
        assert_eq!(budget.left(start + Duration::from_secs(10)), 0);
        assert_eq!(budget.left(start + Duration::from_secs(3600)), 0);
    }

    #[test]
    fn an_earlier_now_is_no_harm() {
        let start = Instant::now() + Duration::from_secs(60);
        let budget = budget(1.0, 0, start);
        budget.deposit(start - Duration::from_secs(30));
        assert_eq!(granted(&budget, 2, start - Duration::from_secs(1)), 1);
    }

    #[test]
    fn other_settings_take_effect_at_once() {
        let now = Instant::now();
        let budget = budget(0.0, 0, now);
        assert_eq!(granted(&budget, 1, now), 0);
        budget.configure(&config::RetryBudget {
            ratio: 0.5,
            min_per_second: 1,
        });
        budget.deposit(now);
        budget.deposit(now);
        assert_eq!(granted(&budget, 100, now), 11);
    }
}
