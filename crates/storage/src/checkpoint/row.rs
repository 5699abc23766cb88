//! A queue's row in the checkpoint.
//!
//! ```text
//! u8 version | next, head, low, journal position
//! u32 settled intervals: first, last   | u32 attempts: sequence, u32 attempts, when due
//! u32 extents: u32 run, u32 live, first, last, body bytes | u32 bodies with own files: sequence, number
//! ```
//! All numbers but those marked are u64. Extents of transient messages do not survive and are left out.

use std::collections::BTreeMap;

use ferrymq_model::{Intervals, Position, QueueId, Sequence, Time};

use crate::extent::Extent;
use crate::fields::Fields;
use crate::queue::{Attempts, Queue};
use crate::run::RunId;

const VERSION: u8 = 2;

/// A decoded row.
#[derive(Debug)]
pub(crate) struct KeptQueue {
    pub queue: Queue,
    /// The next message's sequence when the row was written.
    pub next: Sequence,
}

/// Writes a row with the state of the journal up to `position`.
pub(crate) fn encode(queue: &Queue, position: Position) -> Vec<u8> {
    let row = queue.to_row();
    let mut bytes = vec![VERSION];
    let number = |bytes: &mut Vec<u8>, number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    let count = |bytes: &mut Vec<u8>, count: usize| bytes.extend_from_slice(&(count as u32).to_le_bytes());
    for field in [row.next, row.head, row.low, position.0] {
        number(&mut bytes, field);
    }
    count(&mut bytes, row.done.iter().count());
    for (first, last) in row.done.iter() {
        number(&mut bytes, first);
        number(&mut bytes, last);
    }
    count(&mut bytes, row.attempts.len());
    for (sequence, attempts) in row.attempts {
        number(&mut bytes, *sequence);
        bytes.extend_from_slice(&attempts.count.to_le_bytes());
        number(&mut bytes, attempts.due.0);
    }
    let extents = || row.extents.iter().filter(|extent| !extent.run.is_transient());
    count(&mut bytes, extents().count());
    for extent in extents() {
        bytes.extend_from_slice(&extent.run.0.to_le_bytes());
        bytes.extend_from_slice(&extent.live.to_le_bytes());
        for field in [extent.first, extent.last, extent.bytes] {
            number(&mut bytes, field);
        }
    }
    count(&mut bytes, row.blob_files.len());
    for (sequence, file) in row.blob_files {
        number(&mut bytes, *sequence);
        number(&mut bytes, *file);
    }
    bytes
}

/// Reads a row; `None` if it is invalid.
pub(crate) fn decode(id: QueueId, bytes: &[u8]) -> Option<KeptQueue> {
    let mut fields = Fields(bytes);
    if fields.u8()? != VERSION {
        return None;
    }
    let (next, head, low, _position) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let mut done = Intervals::new();
    for _ in 0..fields.u32()? {
        let (first, last) = (fields.u64()?, fields.u64()?);
        if first > last || first <= low || last == u64::MAX {
            return None;
        }
        done.insert(first, last);
    }
    let mut attempts = BTreeMap::new();
    for _ in 0..fields.u32()? {
        let sequence = fields.u64()?;
        attempts.insert(sequence, Attempts { count: fields.u32()?, due: Time(fields.u64()?) });
    }
    let mut extents: Vec<Extent> = Vec::new();
    for _ in 0..fields.u32()? {
        let extent = Extent {
            run: RunId(fields.u32()?),
            live: fields.u32()?,
            first: fields.u64()?,
            last: fields.u64()?,
            bytes: fields.u64()?,
        };
        let behind = extents.last().is_none_or(|before| before.last < extent.first);
        if !behind || extent.first > extent.last || extent.last == u64::MAX {
            return None;
        }
        extents.push(extent);
    }
    let mut blob_files = BTreeMap::new();
    for _ in 0..fields.u32()? {
        blob_files.insert(fields.u64()?, fields.u64()?);
    }
    let queue = Queue::from_row(id, (head, low), done, attempts, blob_files, extents);
    Some(KeptQueue { queue, next })
}
