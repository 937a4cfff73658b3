//! What systemd is told (sd_notify(3)), if it is there.

use log::warn;
use sd_notify::NotifyState;

/// Ready, and what it does.
pub fn serving() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Serving still, though an upgrade was tried. The package's script reads these words.
pub fn not_upgraded(reason: &str) {
    let status = format!("serving; upgrade failed: {reason}");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// It is not ready for the next order until [`serving`] or [`not_upgraded`] is told.
pub fn reloading(status: &str) {
    let mut states = vec![NotifyState::Reloading, NotifyState::Status(status)];
    states.extend(NotifyState::monotonic_usec_now().ok());
    tell(&states);
}

pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The service is that process from now on.
pub fn main_process(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// It is alive.
pub fn watchdog() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        warn!("systemd could not be told: {e}");
    }
}
