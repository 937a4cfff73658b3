//! The pool, its policies and its health on a virtual clock, against engines that fail at random.
//!
//! One seed is one run: the same arrivals, faults, probes and reloads, and so the same picks. Each
//! step checks what must hold at any time; the end of a run, when all engines are well again, checks
//! that the pool has recovered. `SIM_SEED=n` runs one seed, `SIM_SEEDS=n` as many from 0 on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

mod world;

use sluicegate::config::PolicyName;
use world::World;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(20),
    }
}

#[test]
fn every_run_keeps_the_promises_and_recovers() {
    for seed in seeds() {
        for policy in [PolicyName::LeastInflight, PolicyName::RoundRobin] {
            let run = World::new(seed, policy).run();
            assert!(run.leases > 1_000, "seed {seed}: {} leases", run.leases);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..4 {
        let one = World::new(seed, PolicyName::LeastInflight).run();
        let two = World::new(seed, PolicyName::LeastInflight).run();
        assert_eq!(one.trace, two.trace, "seed {seed}");
        let other = World::new(seed + 100, PolicyName::LeastInflight).run();
        assert_ne!(one.trace, other.trace);
    }
}

#[test]
fn the_runs_see_everything_there_is_to_see() {
    // A simulation that never ejects, panics or fills up proves nothing.
    let mut seen = world::Seen::default();
    for seed in 0..10 {
        seen.add(World::new(seed, PolicyName::LeastInflight).run().seen);
    }
    for (what, count) in seen.counts() {
        assert!(count >= 10, "{what}: {count}");
    }
}
