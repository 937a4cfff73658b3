//! What an endpoint last said of its own load.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::engine::Load;

/// An endpoint's last report. It stays while the endpoint gives none.
#[derive(Debug, Default)]
pub struct LastReport(ArcSwapOption<Report>);

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    pub load: Load,
    /// When it came.
    pub at: Instant,
    /// The last report that showed that the engine had worked since the one before, or else the first.
    pub moved: Instant,
}

impl LastReport {
    /// `None` = there was none yet.
    pub fn get(&self) -> Option<Arc<Report>> {
        self.0.load_full()
    }

    /// Takes the next report.
    pub fn set(&self, load: Load, now: Instant) {
        let moved = match &*self.0.load() {
            Some(before) if !load.has_gone_on(&before.load) => before.moved,
            _ => now,
        };
        let report = Report {
            load,
            at: now,
            moved,
        };
        self.0.store(Some(Arc::new(report)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_knows_since_when_an_engine_stands_still() {
        let counted = |tokens| Load {
            generation_tokens: Some(tokens),
            ..Load::default()
        };
        let last = LastReport::default();
        assert_eq!(last.get(), None);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        last.set(counted(5), start);
        last.set(counted(6), after(3));
        last.set(counted(6), after(6));
        let expected = Report {
            load: counted(6),
            at: after(6),
            moved: after(3),
        };
        assert_eq!(last.get().as_deref(), Some(&expected));
        // It was started anew.
        last.set(counted(0), after(9));
        assert_eq!(last.get().unwrap().moved, after(9));
    }
}
