//! The callbacks of storage to the owner of the shard.

use std::fmt;
use std::sync::Arc;

use ferrymq_model::{Position, QueueId};

use crate::Store;
use crate::error::FatalError;

/// Calls from storage's own threads. None of storage's locks is held during one.
pub trait Notify: Send + Sync + 'static {
    /// Everything up to here survives a power loss: its confirms may be sent.
    fn durable(&self, position: Position);

    /// Messages of these queues were read from disk: lock the shard, call [`Store::install_loaded`], dispatch.
    fn loaded(&self, queues: &[QueueId]);

    /// Publishers must wait, or may continue.
    fn backpressure(&self, backpressure: &Backpressure);

    /// Long bodies cannot be written, and why; or all waiting ones could be written. Only their publishers wait.
    fn long_bodies_wait(&self, reason: Option<&str>);

    /// A queue's data on disk cannot be read; the queue can neither accept nor deliver messages any more.
    fn queue_failed(&self, queue: QueueId, reason: &str);

    /// This many runs became one.
    fn merged(&self, runs: usize);

    /// The journal failed. No confirm will ever be sent again; the process must end with exit code 1.
    fn fatal(&self, error: &FatalError);

    /// Runs `visit` with the store, under the shard's lock. Does nothing if the shard has no store (it is not
    /// installed yet, or closed already). Visits are short: a few hundred queues at most.
    fn with_store(&self, visit: &mut dyn FnMut(&mut Store));
}

/// Whether publishers may continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backpressure {
    /// They may.
    Open,
    /// They must wait.
    Stalled(Stall),
}

/// Why publishers must wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stall {
    /// The last journal file is nearly full and waiting messages are still being moved out of the oldest.
    JournalFull,
    /// Messages in memory are being moved to disk, which is too slow.
    MemoryFull,
    /// Long bodies are being written to their own files, which is too slow.
    BodiesWaiting,
    /// The disk accepts nothing of what must be moved out of the journal.
    NoSpace(Arc<str>),
}

impl fmt::Display for Stall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalFull => out.write_str("the journal is full and is being moved to disk"),
            Self::MemoryFull => out.write_str("transient messages in memory are at their limit"),
            Self::BodiesWaiting => out.write_str("long message bodies in memory wait to be written to disk"),
            Self::NoSpace(error) => write!(out, "the disk accepts no more: {error}"),
        }
    }
}
