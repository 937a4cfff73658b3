//! The thread that makes things happen: faults, reloads and upgrades by their schedule, and samples in between.

use std::io::Result;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::fleet::Fleet;
use super::gateway::Trial;
use super::schedule::Planned;
use super::watch;

/// How often the gateway is asked what it thinks of an engine that has met a fault.
const LOOKS: Duration = Duration::from_millis(10);

/// One fault and what the gateway made of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FaultRecord {
    pub at_seconds: f64,
    pub fault: &'static str,
    pub engine: String,
    /// Until the gateway no longer called the engine up; `None`: never, or the gateway does not say.
    pub out_after_ms: Option<u64>,
    /// In the gateway's words.
    pub reason: Option<String>,
    /// From the engine's recovery until it was called up again.
    pub back_after_ms: Option<u64>,
}

/// What Sluicegate's process held at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HeldSample {
    pub at_seconds: f64,
    pub resident_bytes: u64,
    pub open_files: usize,
    /// Series in its metrics.
    pub series: usize,
}

/// What is to happen besides faults.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes {
    pub duration: Duration,
    pub reloads: u32,
    pub upgrades: u32,
    /// Between two samples.
    pub sample: Duration,
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Happened {
    pub faults: Vec<FaultRecord>,
    pub samples: Vec<HeldSample>,
    pub reloads: u32,
    pub upgrades: u32,
}

/// Runs the whole schedule; returns when `changes.duration` is over.
pub(super) fn run(
    fleet: &mut Fleet,
    trial: &mut Trial,
    planned: &[Planned],
    changes: Changes,
    say: &dyn Fn(&str),
) -> Result<Happened> {
    let mut driver = Driver {
        start: Instant::now(),
        addresses: fleet.addresses(),
        trial,
        changes,
        happened: Happened::default(),
        sampled: None,
        say,
    };
    for (number, fault) in planned.iter().enumerate() {
        driver.idle_until(fault.at)?;
        let next = planned.get(number + 1).map(|next| next.at);
        driver.fault(fleet, fault, next.unwrap_or(changes.duration))?;
    }
    driver.idle_until(changes.duration)?;
    Ok(driver.happened)
}

struct Driver<'a> {
    start: Instant,
    addresses: Vec<SocketAddr>,
    trial: &'a mut Trial,
    changes: Changes,
    happened: Happened,
    sampled: Option<Instant>,
    say: &'a dyn Fn(&str),
}

impl Driver<'_> {
    /// Strikes, and heals; what the gateway says of it is looked at until the `next` thing is due.
    fn fault(&mut self, fleet: &mut Fleet, planned: &Planned, next: Duration) -> Result<()> {
        let engine = self.addresses[planned.engine];
        let mut record = FaultRecord {
            at_seconds: seconds(self.start.elapsed()),
            fault: planned.fault.name(),
            engine: engine.to_string(),
            out_after_ms: None,
            reason: None,
            back_after_ms: None,
        };
        (self.say)(&format!("{} {engine}", planned.fault));
        fleet.strike(planned)?;
        let struck = Instant::now();
        if let Some((after, reason)) = self.look(engine, false, struck, planned.heals)? {
            record.out_after_ms = Some(after);
            record.reason = Some(reason);
        }
        self.idle_until(planned.heals)?;
        fleet.heal(planned)?;
        let healed = Instant::now();
        record.back_after_ms = self
            .look(engine, true, healed, next)?
            .map(|(after, _)| after);
        let (out, back) = (record.out_after_ms, record.back_after_ms);
        let told =
            |after: Option<_>| after.map_or("not seen".into(), |ms| format!("after {ms} ms"));
        (self.say)(&format!("  out {}, back {}", told(out), told(back)));
        self.happened.faults.push(record);
        Ok(())
    }

    /// Asks the gateway until it calls the engine up, or no longer up; after how many milliseconds, and why.
    fn look(
        &mut self,
        engine: SocketAddr,
        up: bool,
        since: Instant,
        end: Duration,
    ) -> Result<Option<(u64, String)>> {
        while self.trial.is_ours() && self.start.elapsed() < end {
            let text = watch::get(self.trial.admin, "/endpoints").unwrap_or_default();
            let after = since.elapsed().as_millis() as u64;
            if let Some(state) = watch::endpoint(&text, engine).filter(|state| state.is_up == up) {
                return Ok(Some((after, state.reason)));
            }
            self.other_things()?;
            std::thread::sleep(LOOKS);
        }
        Ok(None)
    }

    fn idle_until(&mut self, at: Duration) -> Result<()> {
        loop {
            self.other_things()?;
            let left = at.saturating_sub(self.start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// The reload, the upgrade and the sample that are due.
    fn other_things(&mut self) -> Result<()> {
        let Changes {
            duration,
            reloads,
            upgrades,
            sample,
        } = self.changes;
        let part = seconds(self.start.elapsed()) / seconds(duration).max(0.001);
        if self.trial.is_ours() && due(part, upgrades) > self.happened.upgrades {
            self.trial.upgrade()?;
            self.happened.upgrades += 1;
        } else if self.trial.is_ours() && due(part, reloads) > self.happened.reloads {
            self.trial.reload()?;
            self.happened.reloads += 1;
        }
        if self.sampled.is_none_or(|last| last.elapsed() >= sample) {
            self.sampled = Some(Instant::now());
            self.sample();
        }
        Ok(())
    }

    fn sample(&mut self) {
        if !self.trial.is_ours() {
            return;
        }
        let held = watch::held(self.trial.serving());
        let metrics = watch::get(self.trial.admin, "/metrics");
        // A process that is being replaced is not missed.
        let (Ok((resident_bytes, open_files)), Ok(metrics)) = (held, metrics) else {
            return;
        };
        self.happened.samples.push(HeldSample {
            at_seconds: seconds(self.start.elapsed()),
            resident_bytes,
            open_files,
            series: watch::series(&metrics),
        });
    }
}

/// How many of `count`, spread evenly over a run, are due after this part of it.
fn due(part: f64, count: u32) -> u32 {
    let number = (part * f64::from(count + 1)) as u32;
    number.min(count)
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_spread_evenly_and_none_comes_at_the_start() {
        assert_eq!(due(0.0, 3), 0);
        assert_eq!(due(0.24, 3), 0);
        assert_eq!(due(0.25, 3), 1);
        assert_eq!(due(0.75, 3), 3);
        assert_eq!(due(1.0, 3), 3);
        assert_eq!(due(1.0, 0), 0);
    }
}
