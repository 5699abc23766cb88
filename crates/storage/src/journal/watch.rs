//! Measures how long the disk takes for a write or a sync for which confirms wait. A reader needs no lock that is held
//! while the disk is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::Disk;

/// Watches the flush thread.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    disk: Arc<dyn Disk>,
    /// The time at which the flush thread entered a system call: [`Disk::elapsed`] in microseconds; `NONE` if it is in
    /// none.
    since_us: Arc<AtomicU64>,
}

const NONE: u64 = u64::MAX;

impl DiskWatch {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, since_us: Arc::new(NONE.into()) }
    }

    /// How long the current write or sync has taken so far. `None` if there is none.
    #[must_use]
    pub fn unanswered_for(&self) -> Option<Duration> {
        let since_us = self.since_us.load(Ordering::Relaxed);
        (since_us != NONE).then(|| self.disk.elapsed().saturating_sub(Duration::from_micros(since_us)))
    }

    /// Runs a call that may wait for the disk.
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.since_us.store(self.disk.elapsed().as_micros() as u64, Ordering::Relaxed);
        let done = call();
        self.since_us.store(NONE, Ordering::Relaxed);
        done
    }
}
