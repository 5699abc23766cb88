//! The parts of a group besides its records: merged settlements, units that span several groups, and the complete
//! group.

use std::sync::Arc;

use bytes::Bytes;
use ferrymq_model::{Position, QueueId, Sequence, Settled};

use super::group::HEADER_BYTES;
use super::record::{Kind, SETTLE_BYTES, write_head};
use crate::fields::FieldWriter;
use crate::image::Image;

/// Messages that left a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settlement {
    pub queue: QueueId,
    pub first: Sequence,
    pub last: Sequence,
    pub why: Settled,
}

impl Settlement {
    pub fn write(&self, out: &mut FieldWriter<'_>) {
        write_head(out, Kind::Settle, SETTLE_BYTES, self.why as u8);
        out.u64(self.queue.0);
        out.u64(self.first);
        out.u64(self.last);
    }
}

/// A complete group that waits to be written.
#[derive(Debug)]
pub(crate) struct Closed {
    pub generation: u64,
    pub number: u64,
    pub start: u32,
    /// Records of the image end here.
    pub end: u32,
    /// The merged settlements and marks of delivery, which are behind the records.
    pub merged: Vec<u8>,
    /// A unit that continues in the next group.
    pub unfinished: Option<Unit>,
    /// Where a unit ended that began in an earlier group; 0 if there was none.
    pub finished_to: u32,
    pub image: Arc<Image>,
    /// Shared bodies, by their places.
    pub bodies: Vec<(u32, Bytes)>,
    /// Bodies with their own files, which must be complete first.
    pub blob_files: Vec<(u64, Bytes)>,
    /// The journal's position when this group is synced.
    pub up_to: Position,
}

impl Closed {
    /// Whether there is nothing in it.
    pub fn is_seal(&self) -> bool {
        self.end == self.start + HEADER_BYTES as u32 && self.merged.is_empty()
    }
}

/// A unit that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    /// Where it begins in this group.
    pub from: u32,
    /// Whether it began in an earlier one.
    pub carried: bool,
}
