//! Measures how long the disk takes for a write or a sync for which confirms wait. A reader needs no lock that is held
//! while the disk is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::Disk;

/// Looks at the threads that confirms wait for: the one that flushes the journal, and the one that writes long bodies.
#[derive(Clone, Debug)]
pub struct DiskWatch {
    disk: Arc<dyn Disk>,
    /// Since when each of them has been in a system call: [`Disk::elapsed`] in microseconds; `NONE` if it is in none.
    since_us: Arc<[AtomicU64; 2]>,
    /// The thread that has this.
    own: usize,
}

const NONE: u64 = u64::MAX;

impl DiskWatch {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, since_us: Arc::new([NONE.into(), NONE.into()]), own: 0 }
    }

    /// How long the current write or sync has taken so far. `None` if there is none.
    #[must_use]
    pub fn unanswered_for(&self) -> Option<Duration> {
        let since_us = self.since_us.iter().map(|since_us| since_us.load(Ordering::Relaxed)).min().unwrap_or(NONE);
        (since_us != NONE).then(|| self.disk.elapsed().saturating_sub(Duration::from_micros(since_us)))
    }

    /// For the thread that writes long bodies.
    pub(crate) fn of_bodies(&self) -> Self {
        Self { own: 1, ..self.clone() }
    }

    /// Runs a call that may wait for the disk.
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.since_us[self.own].store(self.disk.elapsed().as_micros() as u64, Ordering::Relaxed);
        let done = call();
        self.since_us[self.own].store(NONE, Ordering::Relaxed);
        done
    }
}
