//! A block: some 8 KiB of messages, checked as a whole.
//!
//! ```text
//! u32 CRC-32C of the rest | u32 bytes, all included | u32 messages | u32 spare
//! messages: u64 queue, u64 sequence, stored message
//! u32 for each message: where it begins in the block
//! ```

use bytes::Bytes;
use ferrymq_model::{QueueId, Sequence, Time};

use crate::fields::{FieldWriter, Fields};
use crate::sabotage::{self, Sabotage};
use crate::stored::Stored;

/// The length of a block's header.
pub(crate) const HEADER_BYTES: usize = 16;
/// The length of a message's header in a block.
pub(crate) const KEY_BYTES: usize = 16;

/// Where a block is and what is in it; an entry of a run's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub first: (QueueId, Sequence),
    pub last: (QueueId, Sequence),
    /// When the first of its messages expires; `u64::MAX` if none does.
    pub expires: Time,
    pub position: u64,
    pub bytes: u32,
    pub messages: u32,
}

impl BlockEntry {
    pub const BYTES: usize = 56;

    pub fn write(&self, out: &mut FieldWriter<'_>) {
        for number in [self.first.0.0, self.first.1, self.last.0.0, self.last.1, self.expires.0, self.position] {
            out.u64(number);
        }
        out.u32(self.bytes);
        out.u32(self.messages);
    }

    pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            first: (QueueId(fields.u64()?), fields.u64()?),
            last: (QueueId(fields.u64()?), fields.u64()?),
            expires: Time(fields.u64()?),
            position: fields.u64()?,
            bytes: fields.u32()?,
            messages: fields.u32()?,
        })
    }
}

/// A block that was read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    messages: usize,
}

impl Block {
    /// Checks the bytes of a block.
    pub fn read(bytes: Bytes) -> Result<Self, &'static str> {
        let mut fields = Fields(&bytes);
        let (Some(crc), Some(length), Some(messages)) = (fields.u32(), fields.u32(), fields.u32()) else {
            return Err("the block is cut off");
        };
        let checks = crc32c::crc32c(&bytes[4..]) == crc || sabotage::is(Sabotage::IgnoreCrc);
        if length as usize != bytes.len() || !checks {
            return Err("the block has a wrong checksum");
        }
        let block = Self { messages: messages as usize, bytes };
        let table = block.messages.checked_mul(4).and_then(|table| block.bytes.len().checked_sub(table));
        if table.is_none_or(|table| table < HEADER_BYTES) {
            return Err("the block's table does not fit");
        }
        // Checked once, so that finding a message in it needs no check.
        let whole = (0..block.messages).all(|index| block.checked(index).is_some());
        if whole { Ok(block) } else { Err("a message in the block cannot be read") }
    }

    fn checked(&self, index: usize) -> Option<()> {
        let at = self.at(index);
        let message = self.bytes.get(at..)?.get(KEY_BYTES..)?;
        Stored::read(message).map(|_| ())
    }

    fn at(&self, index: usize) -> usize {
        let table = self.bytes.len() - self.messages * 4;
        Fields(&self.bytes[table + index * 4..]).u32().map_or(usize::MAX, |at| at as usize)
    }

    pub fn key(&self, index: usize) -> (QueueId, Sequence) {
        let mut fields = Fields(&self.bytes[self.at(index)..]);
        let mut number = || fields.u64().expect("checked when the block was read");
        (QueueId(number()), number())
    }

    /// How many messages are in it.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Its length in memory.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The stored message at `index`, and what is behind it.
    pub fn stored(&self, index: usize) -> &[u8] {
        &self.bytes[self.at(index) + KEY_BYTES..]
    }

    /// Where a message is in the block.
    pub fn find(&self, queue: QueueId, sequence: Sequence) -> Option<usize> {
        let (mut low, mut high) = (0, self.messages);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(&(queue, sequence)) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// For each queue in it, its first and last sequence.
    pub fn queues(&self) -> Vec<(QueueId, Sequence, Sequence)> {
        let mut queues: Vec<(QueueId, Sequence, Sequence)> = Vec::new();
        for (queue, sequence) in (0..self.messages).map(|index| self.key(index)) {
            match queues.last_mut() {
                Some((last, _, end)) if *last == queue => *end = sequence,
                _ => queues.push((queue, sequence, sequence)),
            }
        }
        queues
    }
}
