//! How long the disk has been busy with what a confirm waits for. Who asks needs no lock that a slow disk holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::Disk;

/// Looks at the flush thread.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    disk: Arc<dyn Disk>,
    /// Since when the flush thread has been in a system call: [`Disk::elapsed`] in microseconds; `NONE` if it is in none.
    since_us: Arc<AtomicU64>,
}

const NONE: u64 = u64::MAX;

impl DiskWatch {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, since_us: Arc::new(NONE.into()) }
    }

    /// For how long the disk has not answered the write or sync that is under way; nothing if none is.
    #[must_use]
    pub fn unanswered_for(&self) -> Option<Duration> {
        let since_us = self.since_us.load(Ordering::Relaxed);
        (since_us != NONE).then(|| self.disk.elapsed().saturating_sub(Duration::from_micros(since_us)))
    }

    /// Runs what may take as long as the disk likes.
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.since_us.store(self.disk.elapsed().as_micros() as u64, Ordering::Relaxed);
        let done = call();
        self.since_us.store(NONE, Ordering::Relaxed);
        done
    }
}
