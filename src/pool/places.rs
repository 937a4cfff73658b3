use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::queue::Queue;

/// The places on one engine: how many are taken, and which queues wait for one.
#[derive(Default)]
pub(super) struct Places {
    taken: AtomicU32,
    /// Those of them whose request has not been answered at all.
    unanswered: AtomicU32,
    /// How many `watchers` there are.
    watched: AtomicUsize,
    /// A queue stands here while somebody waits in it, once for each endpoint of its pool that this is.
    watchers: Mutex<Vec<Arc<Queue>>>,
}

impl Places {
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }

    /// Takes one more and says how many were taken before; `None`: there are `cap` already.
    pub fn take(&self, cap: Option<u32>) -> Option<u32> {
        let cap = cap.unwrap_or(u32::MAX);
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < cap).then(|| count + 1)
            })
            .ok();
        if taken.is_some() {
            self.unanswered.fetch_add(1, Ordering::AcqRel);
        }
        taken
    }

    pub fn unanswered(&self) -> u32 {
        self.unanswered.load(Ordering::Acquire)
    }

    /// One of them is answered, or given back without that.
    pub fn answered(&self) {
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn give_back(&self) {
        // In one order with `watch`: either the queue sees the place, or we see the queue.
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.changed();
    }

    /// What can be had here may be different. Costs a load where nobody waits.
    pub fn changed(&self) {
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut watchers = self.watchers.lock();
        if watchers.is_empty() {
            return;
        }
        // Pools that share an engine come first in turn.
        watchers.rotate_left(1);
        let queues = watchers.clone();
        drop(watchers);
        let now = Instant::now();
        for queue in queues {
            queue.offer(now);
        }
    }

    /// From now on `queue` is offered what changes. What was there before is for the caller to look at.
    pub fn watch(&self, queue: &Arc<Queue>) {
        self.watchers.lock().push(Arc::clone(queue));
        self.watched.fetch_add(1, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    pub fn unwatch(&self, queue: &Arc<Queue>) {
        let mut watchers = self.watchers.lock();
        if let Some(at) = watchers.iter().position(|one| Arc::ptr_eq(one, queue)) {
            watchers.swap_remove(at);
            self.watched.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[cfg(test)]
    pub fn watchers(&self) -> usize {
        self.watchers.lock().len()
    }
}
