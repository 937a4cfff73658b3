//! A waker that remembers that it was called.
//!
//! A task that waits for several things is woken for one of them, and a `select!` then asks them all. For a
//! task that is woken for every token of a stream that is most of its work. Things that hardly ever happen
//! are given a bell in place of the task's waker, and are asked only once it has rung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use parking_lot::Mutex;

/// Wakes its task, and says to it which of its wakers did.
#[derive(Debug)]
pub struct Bell {
    rung: Arc<Rung>,
    /// `rung`, as those who are waited for see it.
    waker: Waker,
    /// What `rung.task` is, to be compared without its lock.
    task: Waker,
}

#[derive(Debug)]
struct Rung {
    has: AtomicBool,
    task: Mutex<Waker>,
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    /// It has rung, so that what it is for is asked a first time.
    pub fn new() -> Self {
        let rung = Arc::new(Rung {
            has: AtomicBool::new(true),
            task: Mutex::new(Waker::noop().clone()),
        });
        Self {
            waker: Waker::from(Arc::clone(&rung)),
            rung,
            task: Waker::noop().clone(),
        }
    }

    /// If the bell has rung since this was last called: the context with which everything it is for has to
    /// be polled now. To be called in every poll of the task, `task` being the poll's own context.
    ///
    /// Nothing is missed. The bell rings before it wakes the task, and a poll of the task that follows a
    /// wake-up sees what was written before it. A task that has a new waker (it was moved into another one)
    /// is told everything anew, because a ring between may have woken the old one.
    pub fn has_rung(&mut self, task: &Context<'_>) -> Option<Context<'_>> {
        if !self.task.will_wake(task.waker()) {
            self.task.clone_from(task.waker());
            self.rung.task.lock().clone_from(task.waker());
            self.ring();
        }
        // Nearly always false, and a plain load is all it costs then.
        let has_rung =
            self.rung.has.load(Ordering::Acquire) && self.rung.has.swap(false, Ordering::AcqRel);
        has_rung.then(|| Context::from_waker(&self.waker))
    }

    /// What it is for has been polled with another waker, which has taken the bell's place: it is asked anew
    /// in the next poll. Wakes nobody.
    pub fn ring(&self) {
        self.rung.has.store(true, Ordering::Release);
    }
}

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has.store(true, Ordering::Release);
        // Woken without the lock: a waker is foreign code.
        let task = self.task.lock().clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Counted>, Waker) {
        let counted = Arc::new(Counted::default());
        (Arc::clone(&counted), Waker::from(counted))
    }

    #[test]
    fn it_has_rung_once_for_each_time_it_was_woken() {
        let (woken, waker) = task();
        let cx = Context::from_waker(&waker);
        let mut bell = Bell::new();
        let inner = bell.has_rung(&cx).unwrap().waker().clone();
        assert!(bell.has_rung(&cx).is_none());
        inner.wake_by_ref();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(bell.has_rung(&cx).is_some());
        assert!(bell.has_rung(&cx).is_none());
    }

    #[test]
    fn rung_by_the_task_itself_it_wakes_nobody() {
        let (woken, waker) = task();
        let cx = Context::from_waker(&waker);
        let mut bell = Bell::new();
        bell.has_rung(&cx).unwrap();
        bell.ring();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        assert!(bell.has_rung(&cx).is_some());
    }

    #[test]
    fn a_task_with_another_waker_is_told_and_woken_from_then_on() {
        let (before, first) = task();
        let (after, second) = task();
        let mut bell = Bell::new();
        let inner = bell
            .has_rung(&Context::from_waker(&first))
            .unwrap()
            .waker()
            .clone();
        let cx = Context::from_waker(&second);
        assert!(bell.has_rung(&cx).is_some());
        inner.wake();
        assert_eq!(before.0.load(Ordering::Relaxed), 0);
        assert_eq!(after.0.load(Ordering::Relaxed), 1);
        assert!(bell.has_rung(&cx).is_some());
    }

    #[test]
    fn a_ring_from_another_thread_is_never_missed() {
        let (woken, waker) = task();
        let cx = Context::from_waker(&waker);
        let mut bell = Bell::new();
        let inner = bell.has_rung(&cx).unwrap().waker().clone();
        for round in 1..=1000 {
            let ringing = inner.clone();
            let thread = std::thread::spawn(move || ringing.wake());
            while woken.0.load(Ordering::Relaxed) < round {
                std::thread::yield_now();
            }
            assert!(bell.has_rung(&cx).is_some(), "round {round}");
            thread.join().unwrap();
        }
    }
}
