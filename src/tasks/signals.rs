//! The signals of the process, in the order in which they come.
//!
//! HUP, USR1 and USR2 would kill a process that does not handle them, so [`Signals::take`] is the first
//! act of `main`.

use std::collections::VecDeque;
use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::emulate_default_handler;
use tokio::sync::mpsc;

/// What the process was told to do, in order.
pub struct Signals {
    arriving: mpsc::UnboundedReceiver<i32>,
    /// Arrived while another was obeyed.
    waiting: VecDeque<i32>,
}

impl Signals {
    /// Takes over every signal that has a meaning here.
    pub fn take() -> io::Result<Signals> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut signals = signal_hook::iterator::Signals::new([
            SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGQUIT, SIGINT,
        ])?;
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if sender.send(signal).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Signals {
            arriving: receiver,
            waiting: VecDeque::new(),
        })
    }

    /// For a command that ends by itself: from now on each signal does what it does to a process that handles none.
    pub fn leave(&mut self) {
        let (_, nothing) = mpsc::unbounded_channel();
        let mut arriving = std::mem::replace(&mut self.arriving, nothing);
        // Without a thread they are ignored, which is no reason not to do what was asked.
        let _ = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                while let Some(signal) = arriving.blocking_recv() {
                    let _ = emulate_default_handler(signal);
                }
            });
    }

    pub(super) async fn next(&mut self) -> i32 {
        let signal = match self.waiting.pop_front() {
            Some(signal) => signal,
            None => self.arrival().await,
        };
        if signal == SIGHUP {
            // One reading of the file answers all that have come before it.
            while let Ok(more) = self.arriving.try_recv() {
                self.waiting.push_back(more);
            }
            self.waiting.retain(|waiting| *waiting != SIGHUP);
        }
        signal
    }

    pub(super) async fn arrival(&mut self) -> i32 {
        // The sender lives as long as the process; without it, stopping is all that is left.
        self.arriving.recv().await.unwrap_or(SIGINT)
    }

    /// To be obeyed later, in this order.
    pub(super) fn postpone(&mut self, signal: i32) {
        self.waiting.push_back(signal);
    }

    /// Takes `signal` out of what was postponed. Whether it was there.
    pub(super) fn revoke(&mut self, signal: i32) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != signal);
        self.waiting.len() < before
    }

    /// Resolves when an order to stop has come, which is then the next; what comes before it waits.
    pub(super) async fn ordered_to_stop(&mut self) {
        loop {
            let signal = self.arrival().await;
            if orders_stop(signal) {
                return self.waiting.push_front(signal);
            }
            self.waiting.push_back(signal);
        }
    }
}

/// Whether the signal tells the gateway to end, now or later.
pub(super) fn orders_stop(signal: i32) -> bool {
    matches!(signal, SIGTERM | SIGQUIT | SIGINT)
}
