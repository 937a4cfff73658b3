use proptest::prelude::*;

use super::*;
use crate::pool::testing;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A health with its clock, its settings and its dice.
struct Patient {
    health: Health,
    config: config::Health,
    rng: fastrand::Rng,
    now: Instant,
}

impl Patient {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            health: Health::new(now),
            config: testing::health(),
            rng: fastrand::Rng::with_seed(3),
            now,
        }
    }

    /// One that a probe has found well.
    fn proven() -> Self {
        let mut patient = Self::new();
        assert_eq!(patient.probe(Ok(())), None);
        patient
    }

    fn fault(&mut self, fault: Fault) -> Option<Change> {
        self.health
            .fault(fault, self.now, &self.config, &mut self.rng)
    }

    fn probe(&mut self, result: Result<(), ProbeFailure>) -> Option<Change> {
        self.probe_with_bytes(result, false)
    }

    fn probe_with_bytes(
        &mut self,
        result: Result<(), ProbeFailure>,
        flowing: bool,
    ) -> Option<Change> {
        self.health.probe_started(self.now);
        self.health
            .probed(result, flowing, self.now, &self.config, &mut self.rng)
    }

    fn pass(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn eject(&mut self) -> Duration {
        for _ in 1..self.config.eject_after {
            assert_eq!(self.fault(Fault::ConnectionLost), None);
        }
        let change = self.fault(Fault::ReadTimedOut).unwrap();
        let Phase::Ejected { until } = change.phase else {
            panic!("{change:?}");
        };
        assert_eq!(change.reason, Some(Reason::Fault(Fault::ReadTimedOut)));
        until - self.now
    }

    fn until_probe(&self) -> Duration {
        self.health
            .next_probe()
            .unwrap()
            .saturating_duration_since(self.now)
    }
}

fn within(duration: Duration, of: Duration, by: f64) -> bool {
    duration >= of.mul_f64(1.0 - by) && duration <= of.mul_f64(1.0 + by)
}

#[test]
fn a_new_endpoint_is_up_and_due_for_a_probe() {
    let patient = Patient::new();
    assert_eq!(patient.health.phase(), Phase::Up);
    assert_eq!(patient.health.ramp_from(), None);
    assert_eq!(patient.until_probe(), Duration::ZERO);
}

#[test]
fn the_first_probe_of_a_new_endpoint_decides() {
    let mut patient = Patient::new();
    let change = patient.probe(Err(ProbeFailure::Status(503))).unwrap();
    assert_eq!(change.phase, Phase::Down);
    assert!(!patient.health.unreachable());
}

#[test]
fn a_proven_endpoint_has_fall_chances() {
    let mut patient = Patient::proven();
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    assert_eq!(patient.probe(Ok(())), None);
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    let change = patient.probe(Err(ProbeFailure::TimedOut)).unwrap();
    assert_eq!(change.phase, Phase::Down);
    assert_eq!(change.reason, Some(Reason::Probe(ProbeFailure::TimedOut)));
}

#[test]
fn a_probe_that_could_not_be_sent_from_here_says_nothing() {
    for mut patient in [Patient::new(), Patient::proven()] {
        for _ in 0..10 {
            assert_eq!(patient.probe(Err(ProbeFailure::Busy)), None);
        }
        assert_eq!(patient.health.phase(), Phase::Up);
        assert!(!patient.health.unreachable());
        assert!(patient.until_probe() > Duration::ZERO);
    }
}

#[test]
fn an_ejected_one_whose_probe_could_not_be_sent_is_probed_a_moment_later() {
    let mut patient = Patient::proven();
    let time = patient.eject();
    patient.pass(time);
    for _ in 0..3 {
        assert_eq!(patient.probe(Err(ProbeFailure::Busy)), None);
        assert!(patient.until_probe() > FAST_PROBE / 2);
    }
    assert_eq!(patient.probe(Ok(())).unwrap().phase, Phase::Up);
}

#[test]
fn a_hung_one_is_ejected_at_once() {
    let mut patient = Patient::proven();
    assert!(!patient.health.would_let_in(patient.now, &patient.config));
    let change = patient.fault(Fault::Hung).unwrap();
    assert!(matches!(change.phase, Phase::Ejected { .. }));
    assert_eq!(change.reason, Some(Reason::Fault(Fault::Hung)));
    assert_eq!(patient.fault(Fault::Hung), None);
    assert!(!patient.health.would_let_in(patient.now, &patient.config));
    patient.pass(patient.until_probe());
    assert!(patient.health.would_let_in(patient.now, &patient.config));
}

#[test]
fn one_that_does_not_prove_itself_is_asked_for_the_proof_by_every_good_probe_from_then_on() {
    let mut patient = Patient::proven();
    patient.fault(Fault::ConnectRefused).unwrap();
    let lets_in = |patient: &Patient| patient.health.would_let_in(patient.now, &patient.config);
    assert!(!lets_in(&patient), "the first of two");
    assert_eq!(patient.probe(Ok(())), None);
    for _ in 0..3 {
        assert!(lets_in(&patient));
        assert_eq!(patient.probe(Err(ProbeFailure::NoCanary)), None);
        let reason = patient.health.reason();
        assert_eq!(reason, Some(Reason::Probe(ProbeFailure::NoCanary)));
    }
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    assert!(!lets_in(&patient), "it is not even well");
    assert_eq!(patient.probe(Ok(())), None);
    assert_eq!(patient.probe(Ok(())).unwrap().phase, Phase::Up);
}

#[test]
fn a_request_that_succeeds_proves_an_endpoint_too() {
    let mut patient = Patient::new();
    assert!(patient.health.would_note_success());
    patient.health.success();
    assert!(!patient.health.would_note_success());
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
}

#[test]
fn a_refused_connect_takes_it_out_at_once() {
    let mut patient = Patient::proven();
    let change = patient.fault(Fault::ConnectRefused).unwrap();
    assert_eq!(change.phase, Phase::Down);
    assert!(patient.health.unreachable());

    let mut patient = Patient::proven();
    let change = patient
        .probe_with_bytes(Err(ProbeFailure::Refused), true)
        .unwrap();
    assert_eq!(change.phase, Phase::Down);
    assert!(patient.health.unreachable());
}

#[test]
fn a_connect_that_times_out_is_one_fault() {
    let mut patient = Patient::proven();
    assert_eq!(patient.fault(Fault::ConnectTimedOut), None);
    assert_eq!(patient.health.phase(), Phase::Up);
    assert!(patient.health.unreachable());
    patient.health.success();
    assert!(!patient.health.unreachable());
}

#[test]
fn one_that_is_out_of_reach_is_probed_and_no_time_kept_out() {
    for fault in [Fault::ConnectTimedOut, Fault::Unreachable] {
        let mut patient = Patient::proven();
        patient.fault(Fault::ConnectionLost);
        patient.fault(fault);
        let change = patient.fault(Fault::ConnectFailed).unwrap();
        assert_eq!(change.phase, Phase::Down, "{fault:?}");
        assert!(patient.health.unreachable());
        assert!(within(patient.until_probe(), FAST_PROBE, 0.1));
        patient.pass(patient.until_probe());
        assert_eq!(patient.probe(Ok(())), None);
        assert!(!patient.health.unreachable(), "of use in panic");
        patient.pass(patient.until_probe());
        assert_eq!(patient.probe(Ok(())).unwrap().phase, Phase::Up);
    }
}

#[test]
fn one_that_was_out_of_reach_and_fails_requests_is_ejected() {
    let mut patient = Patient::proven();
    patient.fault(Fault::Unreachable);
    patient.fault(Fault::ConnectTimedOut);
    let change = patient.fault(Fault::ConnectionLost).unwrap();
    assert!(matches!(change.phase, Phase::Ejected { .. }));
    assert!(!patient.health.unreachable());
}

#[test]
fn a_probe_that_finds_no_way_tells_that_it_is_out_of_reach() {
    let mut patient = Patient::proven();
    for failure in [ProbeFailure::TimedOut, ProbeFailure::Unreachable] {
        assert_eq!(patient.probe(Err(failure)), None);
    }
    assert!(patient.health.unreachable());
    let change = patient.probe(Err(ProbeFailure::Unreachable)).unwrap();
    assert_eq!(change.phase, Phase::Down);
    assert!(patient.health.unreachable());
}

#[test]
fn a_refused_endpoint_is_probed_soon_and_then_less_often() {
    let mut patient = Patient::proven();
    patient.fault(Fault::ConnectRefused);
    for millis in [200, 400, 800, 1600, 3200, 5000, 5000] {
        let pause = patient.until_probe();
        assert!(within(pause, MILLI * millis, 0.1), "{pause:?} {millis}");
        patient.pass(pause);
        assert_eq!(patient.probe(Err(ProbeFailure::Refused)), None);
    }
    patient.pass(patient.until_probe());
    assert_eq!(patient.probe(Ok(())), None);
    // Between the first good probe and the last one needed, quickly again.
    assert!(within(patient.until_probe(), MILLI * 200, 0.1));
    patient.pass(patient.until_probe());
    let change = patient.probe(Ok(())).unwrap();
    assert_eq!(change.phase, Phase::Up);
    assert_eq!(change.reason, Some(Reason::Probe(ProbeFailure::Refused)));
    assert!(within(patient.until_probe(), SECOND * 5, 0.1));
    assert_eq!(patient.health.ramp_from(), Some(patient.now));
}

#[test]
fn bytes_outrank_a_failed_probe() {
    let mut patient = Patient::proven();
    for _ in 0..10 {
        assert_eq!(
            patient.probe_with_bytes(Err(ProbeFailure::TimedOut), true),
            None
        );
    }
    // Those did not count: there are still `fall` to go.
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    assert_eq!(patient.probe(Err(ProbeFailure::TimedOut)), None);
    assert!(patient.probe(Err(ProbeFailure::TimedOut)).is_some());
}

#[test]
fn faults_in_a_row_eject() {
    let mut patient = Patient::proven();
    patient.fault(Fault::ConnectionLost);
    patient.fault(Fault::Status(500));
    patient.health.success();
    let length = patient.eject();
    assert!(within(length, SECOND * 10, 0.2), "{length:?}");
    assert!(!patient.health.unreachable());
    // What was under way still fails, and changes nothing.
    let until = patient.health.next_probe();
    for _ in 0..10 {
        assert_eq!(patient.fault(Fault::ConnectionLost), None);
    }
    assert_eq!(patient.health.next_probe(), until);
}

#[test]
fn only_a_probe_after_the_time_lets_an_ejected_one_in() {
    let mut patient = Patient::proven();
    let length = patient.eject();
    patient.pass(length - MILLI);
    assert_eq!(patient.probe(Ok(())), None);
    patient.health.success();
    assert!(matches!(patient.health.phase(), Phase::Ejected { .. }));
    assert_eq!(patient.until_probe(), MILLI);
    patient.pass(MILLI);
    let change = patient.probe(Ok(())).unwrap();
    assert_eq!(change.phase, Phase::Up);
    assert_eq!(change.after, length);
    assert_eq!(patient.health.ramp_from(), Some(patient.now));
}

#[test]
fn a_failed_probe_after_the_time_takes_it_down() {
    let mut patient = Patient::proven();
    let length = patient.eject();
    patient.pass(length);
    let change = patient.probe(Err(ProbeFailure::Status(500))).unwrap();
    assert_eq!(change.phase, Phase::Down);
    assert_eq!(patient.probe(Ok(())), None);
    assert_eq!(patient.probe(Ok(())).unwrap().phase, Phase::Up);
}

#[test]
fn ejections_double_to_five_minutes_and_are_forgiven() {
    let mut patient = Patient::proven();
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        let length = patient.eject();
        assert!(
            within(length, SECOND * seconds, 0.2),
            "{length:?} {seconds}"
        );
        patient.pass(length);
        assert_eq!(patient.probe(Ok(())).unwrap().phase, Phase::Up);
        patient.pass(SECOND);
    }
    // As long in as it was out at most: 360 s.
    patient.pass(SECOND * 360);
    let length = patient.eject();
    assert!(within(length, SECOND * 10, 0.2), "{length:?}");
}

#[test]
fn jitter_spreads_ejections_evenly_over_its_range() {
    let mut rng = fastrand::Rng::with_seed(5);
    let lengths: Vec<_> = (0..1000)
        .map(|_| jitter(SECOND * 10, 0.2, &mut rng))
        .collect();
    assert!(
        lengths
            .iter()
            .all(|length| within(*length, SECOND * 10, 0.2))
    );
    assert!(lengths.iter().any(|length| *length < MILLI * 8_100));
    assert!(lengths.iter().any(|length| *length > MILLI * 11_900));
}

#[test]
fn a_lost_connection_asks_for_a_probe_at_once() {
    let mut patient = Patient::proven();
    patient.pass(SECOND);
    patient.fault(Fault::ConnectionLost);
    assert_eq!(patient.until_probe(), Duration::ZERO);
    // Others that break while it is under way may be news to it; they are one more probe, not many.
    patient.health.probe_started(patient.now);
    patient.pass(MILLI * 10);
    patient.fault(Fault::ConnectionLost);
    patient.health.probed(
        Ok(()),
        false,
        patient.now,
        &patient.config,
        &mut patient.rng,
    );
    assert_eq!(patient.until_probe(), MILLI * 190);
    patient.pass(MILLI * 190);
    patient.probe(Ok(()));
    assert!(patient.until_probe() > SECOND * 4);
}

#[test]
fn an_unresolved_endpoint_stays_down_and_is_never_probed() {
    let mut patient = Patient::new();
    patient.health = Health::unresolved(patient.now);
    assert!(patient.health.unreachable());
    assert_eq!(patient.health.next_probe(), None);
    assert_eq!(patient.fault(Fault::ConnectionLost), None);
    assert_eq!(patient.health.next_probe(), None);
    assert_eq!(patient.health.reason(), Some(Reason::Unresolved));
}

#[test]
fn a_shorter_interval_draws_the_next_probe_near() {
    let mut patient = Patient::proven();
    patient.config.interval = SECOND;
    patient.health.reconfigured(patient.now, &patient.config);
    assert_eq!(patient.until_probe(), SECOND);
}

#[test]
fn the_ramp_is_linear_from_a_tenth() {
    for (millis, share) in [
        (0, 100),
        (1, 100),
        (5_000, 550),
        (9_999, 999),
        (10_000, 1000),
    ] {
        assert_eq!(Health::ramp(MILLI * millis), share, "{millis} ms");
    }
    assert_eq!(Health::ramp(Duration::MAX), 1000);
}

#[derive(Debug, Clone)]
enum Event {
    Fault(Fault),
    Success,
    Probe(Result<(), ProbeFailure>, bool),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        prop::sample::select(vec![
            Fault::ConnectRefused,
            Fault::ConnectTimedOut,
            Fault::Unreachable,
            Fault::ConnectFailed,
            Fault::ConnectionLost,
            Fault::Status(500),
        ])
        .prop_map(Event::Fault),
        Just(Event::Success),
        (
            prop::sample::select(vec![
                Ok(()),
                Err(ProbeFailure::Refused),
                Err(ProbeFailure::TimedOut),
                Err(ProbeFailure::Status(503)),
            ]),
            any::<bool>()
        )
            .prop_map(|(result, flowing)| Event::Probe(result, flowing)),
        (0u64..400_000).prop_map(Event::Pass),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_state_is_consistent(
        events in prop::collection::vec(event(), 0..200),
        extreme: bool,
    ) {
        let mut patient = Patient::new();
        if extreme {
            patient.config.interval = Duration::MAX;
            patient.config.eject_for = Duration::MAX;
            patient.config.fall = 0;
            patient.config.rise = 0;
            patient.config.eject_after = 0;
        }
        for event in events {
            match event {
                Event::Fault(fault) => {
                    let was_up = patient.health.phase() == Phase::Up;
                    patient.fault(fault);
                    prop_assert!(was_up || patient.health.phase() != Phase::Up);
                    prop_assert!(fault != Fault::ConnectRefused || patient.health.phase() != Phase::Up);
                }
                Event::Success => {
                    let phase = patient.health.phase();
                    patient.health.success();
                    prop_assert_eq!(phase, patient.health.phase());
                    prop_assert!(!patient.health.would_note_success());
                }
                Event::Probe(result, flowing) => {
                    let before = patient.health.phase();
                    patient.probe_with_bytes(result, flowing);
                    if let Phase::Ejected { until } = before && patient.now < until {
                        prop_assert_eq!(before, patient.health.phase());
                    }
                }
                Event::Pass(millis) => patient.pass(MILLI * u32::try_from(millis).unwrap()),
            }
            prop_assert_eq!(
                patient.health.reason().is_none(),
                patient.health.phase() == Phase::Up
            );
            if let Phase::Ejected { until } = patient.health.phase() {
                prop_assert_eq!(patient.health.next_probe(), Some(until));
            }
            prop_assert!(patient.health.next_probe().is_some());
        }
    }
}
