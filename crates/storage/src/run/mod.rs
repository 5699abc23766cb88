//! Runs: sorted files of waiting messages of many queues.
//!
//! ```text
//! header | block or shared body ... | index | trailer
//! ```
//! A run is written once, from front to back, by [`RunWriter`], and never changed. Its messages are sorted by queue
//! and sequence and are in [blocks](block); bodies longer than the copy threshold are between the blocks, once for
//! all queues in which they wait. [`RunReader`] reads the index first, then one block or body at a time.

mod block;
mod reader;
mod writer;

pub(crate) use block::Block;
pub(crate) use reader::{RunReader, number_of, path_of};
pub(crate) use writer::{BodySource, RunMessage, RunWriter};

/// Number of a run. Those with the highest bit set are for transient messages and do not survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId(pub u32);

impl RunId {
    const TRANSIENT: u32 = 1 << 31;

    pub fn transient(number: u32) -> Self {
        Self(number | Self::TRANSIENT)
    }

    pub fn is_transient(self) -> bool {
        self.0 & Self::TRANSIENT != 0
    }
}

/// The properties of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunContent {
    /// Messages, each counted in every queue that contains it.
    pub messages: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The sections of its messages.
    pub sections: Sections,
}

/// The first and the last index of some sections of the shard; both 0 for messages without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    pub first: u64,
    pub last: u64,
}

impl Sections {
    /// These and the others, and everything between.
    pub fn and(self, other: Self) -> Self {
        if self == Self::default() {
            return other;
        }
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// The version that this code writes and reads.
const VERSION: u32 = 2;
/// The shard of the messages in a node's runs.
const SHARD: u8 = 1;
const MAGIC: &[u8; 8] = b"FERRYRUN";
const END_MAGIC: &[u8; 8] = b"FERRYEND";
/// Magic, version (u32), run (u32), shard (u8 and three spare), first and last index of its sections (u64 each), spare,
/// CRC.
const HEADER_BYTES: usize = 64;
/// Position of the index (u64), entries, CRC of the index, CRC of the trailer, magic.
const TRAILER_BYTES: usize = 32;
