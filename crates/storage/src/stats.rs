//! Figures for operators: what is in the queues, and the memory by owner.

use ferrymq_model::QueueId;

use crate::queue::Queue;
use crate::segment::Segments;
use crate::store::Store;

/// What storage contains in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Queues, lanes counted one by one.
    pub queues: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Journal generations that are in memory.
    pub journal_files_resident: u64,
    /// Bytes of transient messages in memory.
    pub transient_bytes: u64,
    /// Runs with live messages.
    pub runs: u64,
    /// Bodies in their own files.
    pub blob_files: u64,
    /// Memory by owner.
    pub memory: Memory,
}

/// What one queue contains; a vhost's figures are the sums over its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Messages in it, delivered or not.
    pub messages: u64,
    /// How many of them are in memory.
    pub messages_resident: u64,
    /// Bytes of their bodies; an estimate, if some of those on disk are settled.
    pub body_bytes: u64,
    /// Its ranges in runs.
    pub extents: u64,
}

/// The ledger of memory, in bytes, by owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Journal files in memory, and those kept to be used again.
    pub journal: u64,
    /// Bodies besides them, which are shared with publishers or receivers.
    pub journal_bodies: u64,
    /// The index of every queue's messages.
    pub index: u64,
    /// Transient messages, and chunks kept to be used again.
    pub transient: u64,
    /// What was read back from disk.
    pub caches: u64,
    /// Indexes of the runs that read-ahead has open.
    pub read_ahead: u64,
}

impl Memory {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.journal + self.journal_bodies + self.index + self.transient + self.caches + self.read_ahead
    }
}

impl Store {
    /// Figures for operators.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queues = self.queues.iter().flatten();
        let (messages, body_bytes) =
            queues.fold((0, 0), |(messages, bytes), queue| (messages + queue.messages, bytes + queue.bytes));
        Stats {
            queues: self.keys.len() as u64,
            messages,
            body_bytes,
            journal_files_resident: self.journal.len() as u64,
            transient_bytes: self.transient.bytes(),
            runs: self.runs.len() as u64,
            blob_files: self.blob_files.len() as u64,
            memory: self.memory(),
        }
    }

    /// Figures of one queue; `None` if there is no such queue.
    #[must_use]
    pub fn queue_stats(&self, id: QueueId) -> Option<QueueStats> {
        let queue = self.queues[self.keys.get(id)? as usize].as_ref()?;
        Some(QueueStats {
            messages: queue.messages,
            messages_resident: queue.messages - queue.extents().live(),
            body_bytes: queue.bytes,
            extents: queue.extents().len() as u64,
        })
    }

    fn memory(&self) -> Memory {
        let table = self.queues.capacity() * size_of::<Option<Box<Queue>>>() + self.keys.len() * size_of::<Queue>();
        let index: u64 = self.queues.iter().flatten().map(|queue| queue.index_bytes()).sum();
        Memory {
            journal: images_bytes(&self.journal) + self.appender.spare_bytes(),
            journal_bodies: self.journal.iter().map(|segment| segment.bodies_bytes() as u64).sum(),
            index: table as u64 + index,
            transient: self.transient.held_bytes(),
            caches: self.cache.held_bytes(),
            read_ahead: self.reads.index_bytes(),
        }
    }
}

fn images_bytes(segments: &Segments) -> u64 {
    segments.iter().map(|segment| segment.image.filled() as u64).sum()
}
