use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::*;
use crate::config::{self, KeyModels};
use crate::openai::RateLimit;

const MINUTE: Duration = Duration::from_secs(60);

/// Its secret is its name with `sk-` before it.
fn key(name: &str) -> config::Key {
    config::Key {
        name: Arc::from(name),
        hash: Sha256::digest(format!("sk-{name}")).into(),
        models: KeyModels::All,
        requests_per_minute: None,
        tokens_per_minute: None,
        max_in_flight: None,
        admin: false,
    }
}

fn keyring(key: config::Key, now: Instant) -> Keyring {
    Keyring::build(&[key], None, now)
}

fn tenant(key: config::Key, now: Instant) -> Arc<Tenant> {
    Arc::clone(keyring(key, now).tenants().next().unwrap())
}

fn tokens_left(tenant: &Tenant, now: Instant) -> u64 {
    tenant.rate(now).tokens.unwrap().remaining
}

fn requests_left(tenant: &Tenant, now: Instant) -> u64 {
    tenant.rate(now).requests.unwrap().remaining
}

#[test]
fn a_secret_is_its_owners_to_the_byte() {
    let keys: Vec<_> = (0..10_000).map(|n| key(&format!("team-{n}"))).collect();
    let keyring = Keyring::build(&keys, None, Instant::now());
    for n in [0, 1, 4999, 9999] {
        let found = keyring.authenticate(format!("sk-team-{n}").as_bytes());
        assert_eq!(&*found.unwrap().name, format!("team-{n}"));
    }
    let long = [b'a'; LONGEST_SECRET + 1];
    for stranger in [
        &b""[..],
        b"sk-team-10000",
        b"sk-team-1 ",
        b" sk-team-1",
        b"SK-team-1",
        b"sk-team-1\0",
        b"\xff\xfe\x00",
        b"Bearer sk-team-1",
        &keys[0].hash,
        &long,
    ] {
        assert!(keyring.authenticate(stranger).is_none(), "{stranger:?}");
    }
    assert_eq!(keyring.tenants().len(), 10_000);
    assert_eq!(&*keyring.tenants().nth(17).unwrap().name, "team-17");
}

#[test]
fn the_longest_secret_is_taken_and_nothing_beyond() {
    for (length, is_taken) in [(LONGEST_SECRET, true), (LONGEST_SECRET + 1, false)] {
        let secret = vec![b'k'; length];
        let mut key = key("a");
        key.hash = Sha256::digest(&secret).into();
        let keyring = keyring(key, Instant::now());
        assert_eq!(keyring.authenticate(&secret).is_some(), is_taken);
    }
    // Whatever the configuration says, nobody comes in with nothing.
    let mut open = key("a");
    open.hash = Sha256::digest(b"").into();
    let keyring = keyring(open, Instant::now());
    assert!(keyring.authenticate(b"").is_none());
}

#[test]
fn no_hash_is_shown() {
    let key = key("team-a");
    let hash = format!("{:?}", key.hash);
    let keyring = keyring(key, Instant::now());
    let shown = format!("{keyring:?}");
    assert!(
        shown.contains("team-a") && !shown.contains(&hash),
        "{shown}"
    );
}

#[test]
fn a_key_is_for_the_models_it_lists() {
    let now = Instant::now();
    let all = tenant(key("a"), now);
    assert!(all.may_use("anything") && all.may_use("*") && !all.is_admin());
    let mut key = key("b");
    key.models = KeyModels::Some(vec!["r1".to_owned(), "llama-*".to_owned()]);
    key.admin = true;
    let some = tenant(key, now);
    assert!(some.may_use("r1") && some.is_admin());
    for other in ["*", "R1", "r1 ", "r", "llama-3", ""] {
        assert!(!some.may_use(other), "{other}");
    }
}

#[test]
fn without_limits_everything_is_taken() {
    let now = Instant::now();
    let tenant = tenant(key("a"), now);
    let mut permits: Vec<_> = (0..1000)
        .map(|_| tenant.admit(u64::MAX, now).unwrap())
        .collect();
    assert_eq!(tenant.in_flight(), 1000);
    permits[0].note(u64::MAX, now);
    permits[0].settle(u64::MAX, now);
    assert_eq!(permits[0].rate(now), RateLimits::default());
    drop(permits);
    assert_eq!(tenant.in_flight(), 0);
}

#[test]
fn the_unused_part_is_returned_and_the_overdraft_is_charged() {
    let now = Instant::now();
    let mut key = key("a");
    key.tokens_per_minute = Some(10_000);
    let tenant = tenant(key, now);
    let mut permit = tenant.admit(3000, now).unwrap();
    assert_eq!(tokens_left(&tenant, now), 7000);
    permit.settle(1000, now);
    assert_eq!(tokens_left(&tenant, now), 9000);
    drop(permit);
    assert_eq!(tokens_left(&tenant, now), 9000);
    let mut permit = tenant.admit(1000, now).unwrap();
    permit.settle(4000, now);
    drop(permit);
    assert_eq!(tokens_left(&tenant, now), 5000);
    // Far beyond: ten minutes' worth are owed, and no more.
    let mut permit = tenant.admit(5000, now).unwrap();
    permit.settle(u64::MAX, now);
    drop(permit);
    let limited = tenant.admit(0, now).unwrap_err();
    assert_eq!(limited.retry_after, Some(MINUTE * 10));
    assert_eq!(limited.rate.tokens.unwrap().remaining, 0);
}

#[test]
fn who_leaves_pays_for_what_was_used() {
    let now = Instant::now();
    let mut key = key("a");
    key.tokens_per_minute = Some(10_000);
    let tenant = tenant(key, now);
    drop(tenant.admit(4000, now).unwrap());
    assert_eq!(tokens_left(&tenant, now), 10_000);
    let mut permit = tenant.admit(4000, now).unwrap();
    permit.note(700, now);
    permit.note(300, now);
    drop(permit);
    assert_eq!(tokens_left(&tenant, now), 9300);
    // More than was charged is charged as it is used.
    let mut permit = tenant.admit(100, now).unwrap();
    permit.note(400, now);
    assert_eq!(tokens_left(&tenant, now), 8900);
    permit.settle(250, now);
    permit.settle(300, now);
    drop(permit);
    assert_eq!(tokens_left(&tenant, now), 9000);
}

#[test]
fn a_stream_that_owes_as_much_as_can_be_owed_gets_nothing_back() {
    let now = Instant::now();
    let mut key = key("a");
    key.tokens_per_minute = Some(10);
    let tenant = tenant(key, now);
    let mut permit = tenant.admit(10, now).unwrap();
    permit.note(1_000_000, now);
    drop(permit);
    assert_eq!(
        tenant.admit(0, now).unwrap_err().retry_after,
        Some(MINUTE * 10)
    );
}

#[test]
fn a_refused_request_costs_nothing() {
    let now = Instant::now();
    let mut key = key("a");
    key.requests_per_minute = Some(2);
    key.tokens_per_minute = Some(1000);
    key.max_in_flight = Some(1);
    let tenant = tenant(key, now);
    let left = || {
        (
            requests_left(&tenant, now),
            tokens_left(&tenant, now),
            tenant.in_flight(),
        )
    };
    let first = tenant.admit(600, now).unwrap();
    assert_eq!(left(), (1, 400, 1));
    let by_tokens = tenant.admit(1000, now).unwrap_err();
    assert_eq!(by_tokens.by, RateLimit::Tokens(1000));
    assert_eq!(by_tokens.retry_after, Some(Duration::from_secs(36)));
    // The missing token is there before the request in flight may be over.
    let busy = tenant.admit(401, now).unwrap_err();
    assert_eq!(busy.by, RateLimit::InFlight(1));
    assert_eq!(busy.retry_after, Some(Duration::from_secs(1)));
    let (limit, asked) = (1000, 1001);
    let never = tenant.admit(asked, now).unwrap_err();
    assert_eq!(never.by, RateLimit::OneRequest { limit, asked });
    assert_eq!(never.retry_after, None);
    assert_eq!(left(), (1, 400, 1));
    drop(first);
    let second = tenant.admit(1000, now).unwrap();
    let by_requests = tenant.admit(0, now).unwrap_err();
    assert_eq!(by_requests.by, RateLimit::Requests(2));
    assert_eq!(by_requests.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(by_requests.rate, second.rate(now));
    assert_eq!(left(), (0, 0, 1));
}

#[test]
fn a_wait_is_at_least_a_millisecond() {
    let now = Instant::now();
    let mut key = key("a");
    key.tokens_per_minute = Some(1_000_000_000);
    let tenant = tenant(key, now);
    tenant
        .admit(1_000_000_000, now)
        .unwrap()
        .settle(1_000_000_000, now);
    let limited = tenant.admit(1, now).unwrap_err();
    assert_eq!(limited.retry_after, Some(Duration::from_millis(1)));
    assert!(tenant.admit(1, now + Duration::from_nanos(59)).is_err());
    assert!(tenant.admit(1, now + Duration::from_nanos(60)).is_ok());
}

#[test]
fn what_a_key_has_used_outlives_a_reload() {
    let now = Instant::now();
    let mut limited = key("a");
    limited.requests_per_minute = Some(10);
    limited.tokens_per_minute = Some(1000);
    let first = Keyring::build(&[limited.clone(), key("gone")], None, now);
    let before = first.authenticate(b"sk-a").unwrap();
    let mut permit = before.admit(400, now).unwrap();
    let removed = first
        .authenticate(b"sk-gone")
        .unwrap()
        .admit(1, now)
        .unwrap();

    limited.hash = Sha256::digest("another secret").into();
    limited.requests_per_minute = None;
    limited.tokens_per_minute = Some(2000);
    limited.max_in_flight = Some(1);
    let second = Keyring::build(&[limited, key("new")], Some(&first), now);
    let after = second.authenticate(b"another secret").unwrap();
    assert!(second.authenticate(b"sk-a").is_none());
    assert!(second.authenticate(b"sk-gone").is_none());
    // A configuration that is only looked at changes nothing.
    assert_eq!(requests_left(after, now), 9);
    assert_eq!(tokens_left(before, now), 600);
    second.take_effect(now);
    assert_eq!(after.rate(now).requests, None);
    assert_eq!(tokens_left(after, now), 1600);
    assert_eq!(after.in_flight(), 1);
    assert_eq!(after.admit(1, now).unwrap_err().by, RateLimit::InFlight(1));
    // A request of the earlier one is settled where it counts now.
    permit.settle(100, now);
    drop(permit);
    assert_eq!(tokens_left(after, now), 1900);
    assert_eq!(after.in_flight(), 0);
    drop(
        second
            .authenticate(b"sk-new")
            .unwrap()
            .admit(1, now)
            .unwrap(),
    );
    drop(first);
    assert_eq!(removed.tenant().in_flight(), 1);
    drop(removed);
}

#[test]
fn a_limit_that_is_new_begins_unused() {
    let now = Instant::now();
    let first = keyring(key("a"), now);
    let mut permit = first
        .authenticate(b"sk-a")
        .unwrap()
        .admit(400, now)
        .unwrap();
    let mut limited = key("a");
    limited.tokens_per_minute = Some(1000);
    let second = Keyring::build(&[limited], Some(&first), now);
    second.take_effect(now);
    let tenant = second.authenticate(b"sk-a").unwrap();
    let other = tenant.admit(500, now).unwrap();
    // It was not charged, so that nothing is to be returned.
    permit.settle(100, now);
    drop(permit);
    assert_eq!(tokens_left(tenant, now), 500);
    drop(other);
}

#[test]
fn a_storm_leaves_nothing_behind() {
    const THREADS: u64 = 8;
    const MOST: u32 = 5;
    let start = Instant::now();
    let mut limited = key("a");
    limited.tokens_per_minute = Some(1_000_000);
    limited.max_in_flight = Some(MOST);
    let keyring = keyring(limited, start);
    let tenant = keyring.authenticate(b"sk-a").unwrap();
    let barrier = Barrier::new(usize::try_from(THREADS).unwrap());
    let used: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    let mut used = 0;
                    barrier.wait();
                    for _ in 0..5000 {
                        let Ok(mut permit) = tenant.admit(random.u64(0..50), start) else {
                            continue;
                        };
                        assert!((1..=MOST).contains(&tenant.in_flight()));
                        let tokens = random.u64(0..40);
                        match random.u8(0..4) {
                            0 => permit.settle(tokens, start),
                            1 => permit.note(tokens, start),
                            2 => {
                                permit.note(tokens + 60, start);
                                permit.settle(tokens, start);
                            }
                            _ => continue,
                        }
                        used += tokens;
                    }
                    used
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert!(used > 0);
    assert_eq!(tenant.in_flight(), 0);
    assert_eq!(1_000_000 - tokens_left(tenant, start), used);
}

proptest! {
    /// A request that is refused is taken after exactly the time it was told, and not a nanosecond before.
    #[test]
    fn retry_after_is_true(
        requests in prop::option::of(1..2000_u64),
        tokens in prop::option::of(1..500_000_u64),
        asked in prop::collection::vec((0..300_000_u64, 0..600_000_u64, 0..5_000_000_000_u64), 1..100),
    ) {
        let mut now = Instant::now();
        let mut limited = key("a");
        limited.requests_per_minute = requests;
        limited.tokens_per_minute = tokens;
        let tenant = tenant(limited, now);
        for (estimate, used, pause) in asked {
            let mut permit = match tenant.admit(estimate, now) {
                Ok(permit) => permit,
                Err(Limited { retry_after: None, by, .. }) => {
                    let limit = tokens.unwrap();
                    prop_assert_eq!(by, RateLimit::OneRequest { limit, asked: estimate });
                    prop_assert!(estimate > limit);
                    continue;
                }
                Err(Limited { retry_after: Some(wait), .. }) => {
                    if wait > Duration::from_millis(1) {
                        let before = now + wait - Duration::from_nanos(1);
                        prop_assert!(tenant.admit(estimate, before).is_err());
                    }
                    now += wait;
                    tenant.admit(estimate, now).unwrap()
                }
            };
            permit.settle(used, now);
            drop(permit);
            now += Duration::from_nanos(pause);
        }
        prop_assert_eq!(tenant.in_flight(), 0);
    }
}
