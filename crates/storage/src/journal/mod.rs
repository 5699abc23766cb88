//! The journal: one for all queues of a data directory, in a few files that are overwritten in turn.
//!
//! Each use of a file is a *generation*. The [`Appender`] belongs to the shard: it writes records into the image of
//! the current generation and never waits. The flush thread closes the open group, writes it, syncs it and reports
//! how far the journal is durable. They share [`Shared`], whose lock is held for one record at a time.

mod append;
mod blocks;
mod closed;
mod files;
mod flush;
mod gate;
mod group;
mod open;
mod record;
mod replay;
mod survey;
mod unit_settled;
mod watch;

pub(crate) use append::{Appender, BlobFile};
pub(crate) use files::{FIRST_GROUP, JournalFiles};
pub(crate) use flush::{Chain, Flusher, spawn};
pub(crate) use gate::Gate;
pub(crate) use open::{Mark, OpenGroup, Shared};
pub(crate) use record::{Record, TARGET_BYTES};
pub(crate) use replay::{Begin, Replayed, Visitor, replay};
pub use watch::DiskWatch;

use ferrymq_model::Position;

/// Where an offset of a generation's file is in the journal as a whole.
pub(crate) fn position(file_bytes: u32, generation: u64, offset: u32) -> Position {
    Position((generation - 1) * u64::from(file_bytes) + u64::from(offset))
}
