//! Who has the turns where storage runs without threads of its own: a test that wants to repeat a run.

use std::fmt;
use std::time::Duration;

use crate::filing::Filer;
use crate::journal::Flusher;
use crate::read_ahead::Reader;
use crate::spill::Spill;

/// Gives turns. Where storage would wait for another of its threads, it calls the driver until what it waits for has come.
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// Somebody else has a turn; false where nobody will have one any more.
    fn turn(&self) -> bool;
}

/// What a turn of one of storage's threads came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was done.
    Worked,
    /// There is nothing to do, until somebody calls or this moment of [`Disk::elapsed`](crate::Disk::elapsed) has come.
    Idle(Option<Duration>),
    /// The thread is over.
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

    /// What it does, for a trace.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            Work::Flush(_) => "flush",
            Work::File(_) => "file",
            Work::Read(_) => "read",
            Work::Spill(_) => "spill",
        }
    }

    /// Does what there is to do now, and does not sleep.
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
