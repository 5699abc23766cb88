//! Scheduling of storage's workers without threads: for a test that repeats a run.

use std::fmt;
use std::time::Duration;

use crate::filing::Filer;
use crate::journal::Flusher;
use crate::read_ahead::Reader;
use crate::spill::Spill;

/// Gives turns. When storage would wait for another of its threads, it calls the driver until the wait is over.
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// Another worker has a turn; false if no worker can do anything any more.
    fn turn(&self) -> bool;
}

/// The result of a turn of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was done.
    Worked,
    /// There is nothing to do until somebody calls, or until this time of [`Disk::elapsed`](crate::Disk::elapsed).
    Idle(Option<Duration>),
    /// The worker has ended.
    Over,
}

/// One of storage's threads, as turns.
pub struct Worker(Work);

enum Work {
    Flush(Box<Flusher>),
    File(Box<Filer>),
    Read(Box<Reader>),
    Spill(Box<Spill>),
}

impl Worker {
    pub(crate) fn flush(flusher: Flusher) -> Self {
        Self(Work::Flush(Box::new(flusher)))
    }

    pub(crate) fn file(filer: Filer) -> Self {
        Self(Work::File(Box::new(filer)))
    }

    pub(crate) fn read(reader: Reader) -> Self {
        Self(Work::Read(Box::new(reader)))
    }

    pub(crate) fn spill(spill: Spill) -> Self {
        Self(Work::Spill(Box::new(spill)))
    }

    /// Its name, for a trace.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            Work::Flush(_) => "flush",
            Work::File(_) => "file",
            Work::Read(_) => "read",
            Work::Spill(_) => "spill",
        }
    }

    /// Does what can be done now, without sleeping.
    pub fn turn(&mut self) -> Turn {
        match &mut self.0 {
            Work::Flush(flusher) => flusher.turn(false),
            Work::File(filer) => filer.turn(false),
            Work::Read(reader) => reader.turn(false),
            Work::Spill(spill) => spill.turn(),
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Worker").field(&self.name()).finish()
    }
}
