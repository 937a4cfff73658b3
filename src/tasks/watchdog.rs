//! systemd's watchdog (`WatchdogSec=`): a process that does not show itself for so long is killed and started anew.

use std::time::{Duration, Instant};

use log::error;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::listener::Beats;

use super::systemd;

/// The workers show themselves twice a second; a shorter silence says nothing.
const SHORTEST: Duration = Duration::from_secs(1);

/// Shows systemd that the process is alive, if it wants to know, until the handle is aborted.
pub fn start(beats: Beats) -> Option<JoinHandle<()>> {
    let period = sd_notify::watchdog_enabled()?;
    Some(tokio::spawn(run(period, beats, systemd::watchdog)))
}

/// Calls `show` four times in each `period` while every worker runs. That this task itself does shows that the
/// runtime of the background tasks runs.
async fn run(period: Duration, beats: Beats, show: impl Fn()) {
    let silence = (period / 2).max(SHORTEST);
    let mut ticks = tokio::time::interval((period / 4).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_silent = false;
    loop {
        ticks.tick().await;
        let silent = beats
            .most_silent(Instant::now())
            .filter(|(_, silent)| *silent >= silence);
        match silent {
            None => show(),
            Some((worker, silent)) if !was_silent => error!(
                "worker {worker} has not run for {} s; systemd's watchdog is told nothing until it does",
                silent.as_secs()
            ),
            Some(_) => {}
        }
        was_silent = silent.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// How often it shows itself in eight seconds with a period of four, by workers that were silent so long before.
    async fn shown(silent: Duration) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        // std's clock, which the beats go by, stands nearly still meanwhile.
        let begun = Instant::now().checked_sub(silent).unwrap();
        let show = move || {
            counting.fetch_add(1, Relaxed);
        };
        let watchdog = tokio::spawn(run(Duration::from_secs(4), Beats::new(2, begun), show));
        tokio::time::sleep(Duration::from_millis(7_900)).await;
        watchdog.abort();
        count.load(Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn it_shows_itself_while_every_worker_runs() {
        assert_eq!(shown(Duration::ZERO).await, 8);
        assert_eq!(shown(Duration::from_secs(2)).await, 0);
    }
}
