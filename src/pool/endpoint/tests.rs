use super::*;
use crate::pool::Reason;
use crate::pool::testing;

const SECOND: Duration = Duration::from_secs(1);

fn eject(state: &EndpointState, now: Instant) {
    for _ in 0..3 {
        state.fault(Fault::ErrorEvent, now);
    }
}

#[test]
fn success_takes_no_lock_when_nothing_was_wrong() {
    let now = Instant::now();
    let state = testing::state(now);
    state.success(now);
    // The lock is not re-entrant: with it held, a success that wanted it would hang.
    let _held = state.inner.lock();
    state.success(now);
    state.progressed(now);
    assert!(state.is_up());
    assert_eq!(state.share(now), FULL);
}

#[test]
fn a_success_forgets_the_faults_before_it() {
    let now = Instant::now();
    let state = testing::state(now);
    state.success(now);
    state.fault(Fault::ErrorEvent, now);
    state.fault(Fault::ErrorEvent, now);
    assert_eq!(state.status(now).consecutive_faults, 2);
    state.success(now);
    assert_eq!(state.status(now).consecutive_faults, 0);
}

#[test]
fn the_status_tells_the_story() {
    let now = Instant::now();
    let state = testing::state(now);
    state.success(now);
    let later = now + SECOND * 30;
    eject(&state, later);
    let status = state.status(later + SECOND * 2);
    assert_eq!(status.state, State::Ejected);
    assert_eq!(status.reason, Some(Reason::Fault(Fault::ErrorEvent)));
    assert_eq!(status.ejections, [("error_event", 1)]);
    let ago = SystemTime::now().duration_since(status.since).unwrap();
    assert!(ago >= SECOND * 2 && ago < SECOND * 3, "{ago:?}");
    let ahead = status.next_probe.unwrap().duration_since(SystemTime::now());
    assert!(ahead.unwrap() > SECOND * 5);

    let until = state.next_probe().unwrap();
    state.probed(Ok(()), until);
    assert_eq!(state.status(until).state, State::Ramping);
    assert_eq!(state.status(until).share, 100);
    let full = until + SECOND * 10;
    assert_eq!(state.status(full).state, State::Up);
    assert_eq!(state.share(full), FULL);
}

#[test]
fn recent_bytes_keep_a_busy_endpoint_in() {
    let now = Instant::now();
    let state = testing::state(now);
    state.success(now);
    let mut at = now;
    for _ in 0..5 {
        state.progressed(at);
        at += SECOND * 5;
        state.probed(Err(ProbeFailure::TimedOut), at);
        assert!(state.is_up());
    }
    // None for longer than an interval: now they count.
    for _ in 0..3 {
        at += SECOND * 6;
        state.probed(Err(ProbeFailure::TimedOut), at);
    }
    assert!(!state.is_up());
    assert_eq!(state.gate(), Gate::FailsProbes);
}

#[test]
fn the_gate_says_who_accepts_connections() {
    let now = Instant::now();
    let state = testing::state(now);
    state.success(now);
    eject(&state, now);
    assert_eq!(state.gate(), Gate::FailsRequests);
    state.fault(Fault::ConnectTimedOut, now);
    assert_eq!(state.gate(), Gate::Unreachable);
    state.fault(Fault::ConnectFailed, now);
    assert_eq!(state.gate(), Gate::Unreachable);
    state.fault(Fault::FirstByteTimedOut, now);
    assert_eq!(state.gate(), Gate::FailsRequests);
}

#[test]
fn other_settings_take_effect() {
    let now = Instant::now();
    let state = testing::state(now);
    state.success(now);
    let mut settings = (*state.settings()).clone();
    settings.health.fall = 1;
    settings.health.interval = SECOND;
    state.configure(&Arc::new(settings), now);
    assert!(state.next_probe().unwrap() <= now + SECOND);
    state.probed(Err(ProbeFailure::TimedOut), now);
    assert!(!state.is_up());
}

#[test]
fn the_same_engine_under_other_tls_settings_has_one_count() {
    let now = Instant::now();
    let one = testing::state(now);
    let other = EndpointState::new(testing::target(8000), testing::settings("x"), now);
    let other = other.counting_with(&one);
    assert!(one.take(Some(2), now));
    assert!(other.take(Some(2), now));
    assert!(!one.take(Some(2), now));
    assert_eq!((one.in_flight(), other.in_flight()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fault_wakes_the_prober() {
    let now = Instant::now();
    let state = testing::state(now);
    state.fault(Fault::ConnectionLost, now);
    // Returns only because of the permit that the fault left.
    state.rescheduled.notified().await;
    assert_eq!(state.next_probe(), Some(now));
}
