//! The journal's records: one outcome each.
//!
//! ```text
//! 0 u32 record bytes, these included    5 u8 flags (1: a reader that does not know the kind may skip it)
//! 4 u8  kind                            6 u8 shard: 0 catalog, 1 queues    7 u8 why, or the entry's kind
//! ```
//! | kind | behind that |
//! |---|---|
//! | enqueue | u32 targets, queue and sequence (u64 each) of every target, the stored message |
//! | settle | queue, first, last |
//! | delivered up to | queue, sequence |
//! | attempts | queue, sequence, u32 attempts, u64 when it may be delivered again, or 0 |
//! | put, delete | u32 key bytes, key, value |
//! | create queue, delete queue | queue |

use ferrymq_model::{EntryKind, MessageKey, QueueId, Sequence, Time};

use crate::fields::{FieldWriter, Fields};
use crate::stored::Stored;

/// Length of what every record begins with.
pub(crate) const HEAD_BYTES: usize = 8;
/// Length of an enqueue in front of its targets.
pub(crate) const ENQUEUE_BYTES: usize = HEAD_BYTES + 4;
/// Length of one target.
pub(crate) const TARGET_BYTES: usize = 16;
/// Length of a settlement.
pub(crate) const SETTLE_BYTES: usize = HEAD_BYTES + 24;
/// Length of a delivered-up-to.
pub(crate) const DELIVERED_BYTES: usize = HEAD_BYTES + 16;
/// Length of an attempts record.
pub(crate) const ATTEMPTS_BYTES: usize = HEAD_BYTES + 28;
/// Length of a queue's creation or deletion.
pub(crate) const QUEUE_BYTES: usize = HEAD_BYTES + 8;
/// Length of an entry in front of its key.
pub(crate) const ENTRY_BYTES: usize = HEAD_BYTES + 4;

const MAY_SKIP: u8 = 1;
/// The shard byte of the catalog's records.
const CATALOG: u8 = 0;
/// The shard byte of the queues' records.
const QUEUES: u8 = 1;

/// The kind of a record. The number is stored: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Enqueue = 1,
    Settle = 2,
    Delivered = 3,
    Attempts = 4,
    Put = 5,
    Delete = 6,
    CreateQueue = 7,
    DeleteQueue = 8,
}

/// Writes what every record begins with.
#[inline]
pub(crate) fn write_head(out: &mut FieldWriter<'_>, kind: Kind, record_bytes: usize, extra: u8) {
    let [a, b, c, d] = u32::try_from(record_bytes).expect("a record is shorter than a journal file").to_le_bytes();
    // Marks of delivery and attempts only say how often a message was delivered: an old reader can ignore them.
    let flags = if matches!(kind, Kind::Delivered | Kind::Attempts) { MAY_SKIP } else { 0 };
    let shard = if matches!(kind, Kind::Put | Kind::Delete) { CATALOG } else { QUEUES };
    out.array([a, b, c, d, kind as u8, flags, shard, extra]);
}

/// Writes how far a queue was delivered.
pub(crate) fn write_delivered(out: &mut FieldWriter<'_>, place: MessageKey) {
    write_head(out, Kind::Delivered, DELIVERED_BYTES, 0);
    out.u64(place.queue.0);
    out.u64(place.sequence);
}

/// A record, as replay reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Record<'a> {
    /// A message was enqueued; it is at `message` in the bytes that were read.
    Enqueue { targets: Targets<'a>, message: usize, stored: Stored<'a> },
    /// Messages left a queue.
    Settle { queue: QueueId, first: Sequence, last: Sequence },
    /// Everything up to here was delivered once.
    Delivered { queue: QueueId, sequence: Sequence },
    /// How often a message was delivered and came back, and when it may be delivered again.
    Attempts { queue: QueueId, sequence: Sequence, attempts: u32, due: Time },
    /// An entry of the catalog has this value now.
    Put { kind: EntryKind, key: &'a [u8], value: &'a [u8] },
    /// An entry of the catalog was deleted.
    Delete { kind: EntryKind, key: &'a [u8] },
    /// A durable queue exists.
    CreateQueue { queue: QueueId },
    /// A durable queue was deleted, with everything in it.
    DeleteQueue { queue: QueueId },
    /// A newer kind that may be ignored.
    Skipped,
}

/// The queues of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a>(&'a [u8]);

impl Targets<'_> {
    pub fn iter(&self) -> impl Iterator<Item = MessageKey> + '_ {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        self.0.chunks_exact(TARGET_BYTES).map(move |target| {
            let (queue, sequence) = target.split_at(8);
            MessageKey { queue: QueueId(number(queue)), sequence: number(sequence) }
        })
    }
}

impl<'a> Record<'a> {
    /// Reads the record at the front of `bytes` and returns its length; `None` if its kind is unknown.
    pub fn read(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let total = Fields(bytes).u32()? as usize;
        let record = bytes.get(..total)?;
        let mut fields = Fields(record.get(4..)?);
        let (kind, flags, shard, extra) = (fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?);
        let own = if matches!(kind, 5 | 6) { CATALOG } else { QUEUES };
        if shard != own && flags & MAY_SKIP == 0 {
            return None;
        }
        let parsed = match kind {
            1 => Self::read_enqueue(record, fields)?,
            2 => Self::Settle { queue: QueueId(fields.u64()?), first: fields.u64()?, last: fields.u64()? },
            3 => Self::Delivered { queue: QueueId(fields.u64()?), sequence: fields.u64()? },
            4 => {
                let (queue, sequence) = (QueueId(fields.u64()?), fields.u64()?);
                Self::Attempts { queue, sequence, attempts: fields.u32()?, due: Time(fields.u64()?) }
            }
            5 => {
                let key_bytes = fields.u32()? as usize;
                let key = fields.bytes(key_bytes)?;
                Self::Put { kind: EntryKind::from_number(extra)?, key, value: fields.0 }
            }
            6 => {
                let key_bytes = fields.u32()? as usize;
                Self::Delete { kind: EntryKind::from_number(extra)?, key: fields.bytes(key_bytes)? }
            }
            7 => Self::CreateQueue { queue: QueueId(fields.u64()?) },
            8 => Self::DeleteQueue { queue: QueueId(fields.u64()?) },
            _ if flags & MAY_SKIP != 0 => Self::Skipped,
            _ => return None,
        };
        if let Self::Settle { first, last, .. } = parsed
            && (first == 0 || first > last)
        {
            return None;
        }
        Some((parsed, total))
    }

    fn read_enqueue(record: &'a [u8], mut fields: Fields<'a>) -> Option<Self> {
        let targets = (fields.u32()? as usize).checked_mul(TARGET_BYTES)?;
        let targets = Targets(fields.bytes(targets)?);
        let message = record.len() - fields.0.len();
        Some(Self::Enqueue { targets, message, stored: Stored::read(fields.0)? })
    }
}
