use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::balance::RequestFacts;
use sluicegate::config::{self, Keepalive, PolicyName, Timeouts, UpstreamTls};
use sluicegate::pool::{
    Endpoint, EndpointState, Fault, Lease, Outcome, Pool, ProbeFailure, Settings, State, Tried,
    Unavailable,
};
use sluicegate::upstream::{Address, Target};
use tokio::time::Instant;

const MILLI: Duration = Duration::from_millis(1);
/// Engines fail at random for this long, and are well from then on.
const TROUBLE: Duration = Duration::from_secs(240);
/// Longer than the longest ejection with its jitter, a few probes and the ramp.
const CALM: Duration = Duration::from_secs(420);
/// No request arrives any more; those in flight end.
const DRAIN: Duration = Duration::from_secs(30);

/// What an engine does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Its process is gone.
    Refusing,
    /// Its host is gone.
    Unreachable,
    /// Its health is fine, its answers are not.
    Failing,
    /// Too busy for probes, yet its answers flow.
    Busy,
    /// Alive, and says that it is not well.
    Sick,
}

const MOODS: [Mood; 6] = [
    Mood::Well,
    Mood::Refusing,
    Mood::Unreachable,
    Mood::Failing,
    Mood::Busy,
    Mood::Sick,
];

struct Engine {
    state: Arc<EndpointState>,
    mood: Mood,
    weight: u32,
    cap: Option<u32>,
    backup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    End(usize),
    Progress(usize),
    Mood(usize),
    Reload,
}

/// A request in flight.
struct Flight {
    lease: Lease,
    engine: usize,
    tried: Tried,
    ends: Instant,
}

/// What happened at all, over a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    ejections: u64,
    outages: u64,
    panics: u64,
    at_cap: u64,
    all_down: u64,
    retries: u64,
    backups: u64,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        self.ejections += other.ejections;
        self.outages += other.outages;
        self.panics += other.panics;
        self.at_cap += other.at_cap;
        self.all_down += other.all_down;
        self.retries += other.retries;
        self.backups += other.backups;
    }

    pub fn counts(&self) -> [(&'static str, u64); 7] {
        [
            ("ejections", self.ejections),
            ("outages", self.outages),
            ("panics", self.panics),
            ("at_cap", self.at_cap),
            ("all_down", self.all_down),
            ("retries", self.retries),
            ("backups", self.backups),
        ]
    }
}

pub struct Run {
    pub leases: u64,
    /// Every pick: when, and which engine.
    pub trace: Vec<(u128, usize)>,
    pub seen: Seen,
}

pub struct World {
    seed: u64,
    policy: PolicyName,
    rng: fastrand::Rng,
    began: Instant,
    now: Instant,
    engines: Vec<Engine>,
    /// The current epoch's pool, and which engine each of its endpoints is.
    pool: Arc<Pool>,
    order: Vec<usize>,
    flights: BTreeMap<usize, Flight>,
    agenda: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    planned: u64,
    run: Run,
}

impl World {
    pub fn new(seed: u64, policy: PolicyName) -> Self {
        // The endpoints' own dice are drawn from the thread's.
        fastrand::seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let count = rng.usize(2..7);
        let engines: Vec<Engine> = (0..count)
            .map(|index| Engine {
                state: Arc::new(EndpointState::new(target(index), settings(index), now)),
                mood: Mood::Well,
                weight: rng.u32(1..4),
                cap: rng.bool().then(|| rng.u32(2..12)),
                backup: index > 0 && rng.u32(..5) == 0,
            })
            .collect();
        let order: Vec<usize> = (0..count).collect();
        let pool = Arc::new(pool(policy, &engines, &order, None, now));
        let mut world = Self {
            seed,
            policy,
            rng,
            began: now,
            now,
            engines,
            pool,
            order,
            flights: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            planned: 0,
            run: Run {
                leases: 0,
                trace: Vec::new(),
                seen: Seen::default(),
            },
        };
        world.plan(MILLI, Event::Arrival);
        world.plan(MILLI * 20_000, Event::Reload);
        for index in 0..count {
            let first = world.rng.u32(..30_000);
            world.plan(MILLI * first, Event::Mood(index));
        }
        world
    }

    pub fn run(mut self) -> Run {
        while let Some((at, what)) = self.next() {
            self.now = at;
            match what {
                Some(Event::Arrival) => self.arrive(),
                Some(Event::End(flight)) => self.end(flight),
                Some(Event::Progress(flight)) => self.progress(flight),
                Some(Event::Mood(index)) => self.change_mood(index),
                Some(Event::Reload) => self.reload(),
                None => self.probe_due(),
            }
            self.check();
        }
        self.check_recovered();
        self.run
    }

    fn elapsed(&self) -> Duration {
        self.now - self.began
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.planned += 1;
        self.agenda
            .push(Reverse((self.now + after, self.planned, event)));
    }

    /// The next event, or `None` in its place for a probe that is due no later.
    fn next(&mut self) -> Option<(Instant, Option<Event>)> {
        let end = self.began + TROUBLE + CALM + DRAIN;
        let probe = self
            .engines
            .iter()
            .filter_map(|engine| engine.state.next_probe())
            .min()
            .map(|at| at.max(self.now))
            .filter(|at| *at < end);
        let event = self.agenda.peek().map(|Reverse((at, ..))| *at);
        match (probe, event) {
            (Some(probe), Some(event)) if probe <= event => Some((probe, None)),
            (Some(probe), None) => Some((probe, None)),
            (_, Some(_)) => {
                let Reverse((at, _, event)) = self.agenda.pop()?;
                Some((at, Some(event)))
            }
            (None, None) => None,
        }
    }

    fn arrive(&mut self) {
        if self.elapsed() < TROUBLE + CALM {
            // Bursts in trouble, a trickle in the calm.
            let gap = if self.elapsed() < TROUBLE { 120 } else { 1_000 };
            let gap = self.rng.u32(1..gap);
            self.plan(MILLI * gap, Event::Arrival);
        }
        self.try_once(Tried::new());
    }

    /// Takes a lease and plans how it ends.
    fn try_once(&mut self, tried: Tried) {
        let before: Vec<u32> = self.in_flight();
        let picked = self
            .pool
            .lease(&RequestFacts::default(), &tried, self.now, &mut self.rng);
        let lease = match picked {
            Ok(lease) => lease,
            Err(why) => return self.check_refusal(why, &tried),
        };
        self.check_pick(&lease, &tried, &before);
        let engine = self.order[lease.index()];
        self.run.leases += 1;
        self.run.trace.push((self.elapsed().as_millis(), engine));
        let lasts = MILLI * self.rng.u32(1..4_000);
        let id = self.run.trace.len();
        let flight = Flight {
            lease,
            engine,
            tried,
            ends: self.now + lasts,
        };
        self.flights.insert(id, flight);
        let answers = matches!(
            self.engines[engine].mood,
            Mood::Well | Mood::Busy | Mood::Sick
        );
        if answers {
            self.plan(MILLI, Event::Progress(id));
        }
        self.plan(if answers { lasts } else { MILLI * 5 }, Event::End(id));
    }

    fn progress(&mut self, id: usize) {
        let Some(flight) = self.flights.get(&id) else {
            return;
        };
        if matches!(self.engines[flight.engine].mood, Mood::Well | Mood::Busy) {
            flight.lease.state.progressed(self.now);
        }
        if self.now + MILLI * 500 < flight.ends {
            self.plan(MILLI * 500, Event::Progress(id));
        }
    }

    fn end(&mut self, id: usize) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        let Flight {
            lease,
            engine,
            mut tried,
            ..
        } = flight;
        let outcome = match self.engines[engine].mood {
            Mood::Well | Mood::Busy | Mood::Sick => match self.rng.u32(..10) {
                0 => Outcome::Abandoned,
                1 => Outcome::Neutral,
                _ => Outcome::Completed,
            },
            Mood::Refusing => Outcome::Failed(Fault::ConnectRefused),
            Mood::Unreachable => Outcome::Failed(Fault::ConnectTimedOut),
            Mood::Failing => Outcome::Failed(Fault::ConnectionLost),
        };
        let index = lease.index();
        let same_pool = Arc::ptr_eq(lease.pool(), &self.pool);
        lease.settle(outcome, self.now);
        if matches!(outcome, Outcome::Failed(_)) && same_pool && tried.len() < 3 {
            tried.insert(index);
            self.run.seen.retries += 1;
            self.try_once(tried);
        }
    }

    fn change_mood(&mut self, index: usize) {
        if self.elapsed() >= TROUBLE {
            self.engines[index].mood = Mood::Well;
            return;
        }
        self.engines[index].mood = MOODS[self.rng.usize(..MOODS.len())];
        let lasts = self.rng.u32(100..40_000);
        self.plan(MILLI * lasts, Event::Mood(index));
    }

    /// Another epoch: other weights, another order, the same engines.
    fn reload(&mut self) {
        for engine in &mut self.engines {
            engine.weight = self.rng.u32(1..4);
        }
        self.rng.shuffle(&mut self.order);
        let next = pool(
            self.policy,
            &self.engines,
            &self.order,
            Some(&self.pool),
            self.now,
        );
        self.pool = Arc::new(next);
        if self.elapsed() < TROUBLE {
            self.plan(MILLI * 20_000, Event::Reload);
        }
    }

    fn probe_due(&mut self) {
        for engine in &self.engines {
            if engine.state.next_probe().is_none_or(|at| at > self.now) {
                continue;
            }
            let was_up = engine.state.is_up();
            engine.state.probe_started(self.now);
            let verdict = match engine.mood {
                Mood::Well | Mood::Failing => Ok(()),
                Mood::Refusing => Err(ProbeFailure::Refused),
                Mood::Unreachable => Err(ProbeFailure::ConnectTimedOut),
                Mood::Busy => Err(ProbeFailure::TimedOut),
                Mood::Sick => Err(ProbeFailure::Status(503)),
            };
            engine.state.probed(verdict, self.now);
            self.run.seen.outages += u64::from(was_up && !engine.state.is_up());
        }
    }

    fn in_flight(&self) -> Vec<u32> {
        let engines = self.engines.iter();
        engines.map(|engine| engine.state.in_flight()).collect()
    }

    fn check(&self) {
        let mut held = vec![0; self.engines.len()];
        for flight in self.flights.values() {
            held[flight.engine] += 1;
        }
        assert_eq!(self.in_flight(), held, "seed {}", self.seed);
        for (engine, held) in self.engines.iter().zip(held) {
            assert!(engine.cap.is_none_or(|cap| held <= cap), "{}", self.seed);
            let status = engine.state.status(self.now);
            assert_eq!(status.state.is_up(), engine.state.is_up());
            assert_eq!(status.reason.is_none(), status.state.is_up());
        }
    }

    /// `before`: the engines' loads before the pick.
    fn check_pick(&mut self, lease: &Lease, tried: &Tried, before: &[u32]) {
        let seed = self.seed;
        assert!(!tried.contains(lease.index()), "seed {seed}");
        let chosen = &self.engines[self.order[lease.index()]];
        let any_up = self.engines.iter().any(|engine| engine.state.is_up());
        assert!(chosen.state.is_up() || !any_up, "seed {seed}: {lease:?}");
        self.run.seen.panics += u64::from(!any_up);
        self.run.seen.backups += u64::from(chosen.backup && any_up);
        if !any_up {
            return;
        }
        for (place, &index) in self.order.iter().enumerate() {
            let other = &self.engines[index];
            let full = other.cap.is_some_and(|cap| before[index] >= cap);
            if !other.state.is_up() || full || tried.contains(place) {
                continue;
            }
            assert!(!chosen.backup || other.backup, "seed {seed}");
            if self.policy == PolicyName::LeastInflight && chosen.backup == other.backup {
                let share = |engine: &Engine| {
                    let share = engine.state.status(self.now).share;
                    u64::from(engine.weight) * u64::from(share)
                };
                let mine = u64::from(before[self.order[lease.index()]]) * share(other);
                let theirs = u64::from(before[index]) * share(chosen);
                assert!(mine <= theirs, "seed {seed}: {mine} > {theirs}");
            }
        }
    }

    fn check_refusal(&mut self, why: Unavailable, tried: &Tried) {
        let up = |place: &usize| self.engines[self.order[*place]].state.is_up();
        let free = (0..self.order.len())
            .filter(up)
            .filter(|place| !tried.contains(*place))
            .filter(|place| {
                let engine = &self.engines[self.order[*place]];
                engine.cap.is_none_or(|cap| engine.state.in_flight() < cap)
            });
        assert_eq!(free.count(), 0, "seed {}: {why:?}", self.seed);
        let any_up = self.engines.iter().any(|engine| engine.state.is_up());
        match why {
            Unavailable::AllDown => {
                assert!(!any_up, "seed {}", self.seed);
                self.run.seen.all_down += 1;
            }
            Unavailable::AllAtCap => self.run.seen.at_cap += 1,
            Unavailable::AllTried => assert!(!tried.is_empty(), "seed {}", self.seed),
        }
    }

    fn check_recovered(&mut self) {
        for engine in &self.engines {
            let status = engine.state.status(self.now);
            assert_eq!(status.state, State::Up, "seed {}: {status:?}", self.seed);
            assert_eq!(status.in_flight, 0, "seed {}", self.seed);
            // Only a request that succeeds ends a row of faults, and a backup may get none in the
            // calm; it still has less than a row.
            let faults_left = if engine.backup { 2 } else { 0 };
            assert!(
                status.consecutive_faults <= faults_left,
                "seed {}: {status:?}",
                self.seed
            );
            let ejections = status.ejections.iter().map(|(_, count)| count);
            self.run.seen.ejections += ejections.sum::<u64>();
        }
        let requests: u64 = self.engines.iter().map(|e| e.state.requests()).sum();
        assert_eq!(requests, self.run.leases);
    }
}

fn target(index: usize) -> Target {
    let port = 8000 + u16::try_from(index).expect("few engines");
    Target {
        address: Address::Tcp((Ipv4Addr::LOCALHOST, port).into()),
        authority: format!("node{index}:8000"),
        tls: None,
    }
}

fn settings(index: usize) -> Arc<Settings> {
    Arc::new(Settings {
        name: Arc::from(format!("node{index}:8000")),
        health: health(),
        engine: None,
        api_key: None,
        drain: false,
        drain_timeout: None,
    })
}

fn health() -> config::Health {
    config::Health {
        path: "/health".to_owned(),
        interval: MILLI * 5_000,
        timeout: MILLI * 2_000,
        fall: 3,
        rise: 2,
        eject_after: 3,
        eject_for: MILLI * 10_000,
        stall: MILLI * 30_000,
    }
}

fn pool(
    policy: PolicyName,
    engines: &[Engine],
    order: &[usize],
    previous: Option<&Pool>,
    now: Instant,
) -> Pool {
    let config = config::Pool {
        engine: None,
        name: Arc::from("default"),
        endpoints: Vec::new(),
        policy,
        max_in_flight: None,
        queue: None,
        retries: 3,
        retry_budget: config::RetryBudget {
            ratio: 0.2,
            min_per_second: 10,
        },
        drain_timeout: None,
        heartbeat: None,
        continue_streams: config::ContinueStreams::ByIds,
        tls: UpstreamTls {
            ca: None,
            verify: true,
            server_name: None,
        },
        health: health(),
        timeouts: Timeouts {
            connect: MILLI * 5_000,
            first_byte: MILLI * 300_000,
            read: MILLI * 300_000,
            send: MILLI * 60_000,
        },
    };
    let keepalive = Keepalive {
        idle: MILLI * 4_000,
        connections: 256,
    };
    let endpoints = order.iter().map(|&index| Endpoint {
        model: None,
        state: Arc::clone(&engines[index].state),
        name: Arc::from(format!("node{index}:8000")),
        weight: engines[index].weight,
        max_in_flight: engines[index].cap,
        backup: engines[index].backup,
        drain: false,
        api_key: None,
        metrics: Arc::default(),
    });
    Pool::new(&config, &keepalive, endpoints.collect(), previous, now)
}
