//! Writes a run, from front to back.

use std::io::{self, IoSlice};
use std::path::Path;

use ferrymq_model::{QueueId, Sequence, Time};
use hashbrown::HashMap;

use super::block::{self, BlockEntry, KEY_BYTES};
use super::{END_MAGIC, HEADER_BYTES, MAGIC, RunContent, RunId, SHARD, Sections, TRAILER_BYTES, VERSION};
use crate::disk::{Disk, DiskFile, Open};
use crate::fields::FieldWriter;
use crate::stored::{self, BodyPlace};

/// The length of a full block: small enough that a thousand queues can be read side by side with a small cache.
const BLOCK_BYTES: usize = 8 << 10;
/// A queue begins a new block if the block has this much, so that reading the queue reads little of others.
const BLOCK_BYTES_MIN: usize = 4 << 10;
/// How much is collected for one write.
const WRITE_BYTES: usize = 256 << 10;
/// After this much is written, it is pushed to the disk, away from the flush thread.
const PUSH_BYTES: u64 = 1 << 20;

/// The origin of a body: a number of its segment or run, and its position there. Equal origins are one body.
pub(crate) type BodySource = (u32, u64);

/// A message on its way into a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunMessage<'a> {
    pub queue: QueueId,
    pub sequence: Sequence,
    /// The stored message, from its beginning on.
    pub stored: &'a [u8],
    /// Its body, if it is not stored behind it or must not be in the run, and its origin.
    pub body: Option<(&'a [u8], BodySource)>,
}

/// A run that is being written.
#[derive(Debug)]
pub(crate) struct RunWriter {
    file: Box<dyn DiskFile>,
    sections: Sections,
    /// The position of `gathered` in the file.
    position: u64,
    gathered: Vec<u8>,
    pushed: u64,
    /// Whether it must survive a power loss.
    durable: bool,
    /// Where the block that is being filled begins in `gathered`.
    block: usize,
    table: Vec<u32>,
    first: (QueueId, Sequence),
    last: (QueueId, Sequence),
    expires: Time,
    index: Vec<BlockEntry>,
    bodies: HashMap<BodySource, BodyPlace, foldhash::fast::FixedState>,
}

impl RunWriter {
    pub fn create(disk: &dyn Disk, path: &Path, run: RunId, sections: Sections) -> io::Result<Self> {
        let file = disk.open(path, Open::Empty)?;
        let mut header = [0; HEADER_BYTES];
        let mut out = FieldWriter::new(&mut header);
        out.put(MAGIC);
        out.u32(VERSION);
        out.u32(run.0);
        out.put(&[SHARD, 0, 0, 0]);
        out.u64(sections.first);
        out.u64(sections.last);
        let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let none = (QueueId(0), 0);
        Ok(Self {
            file,
            position: 0,
            sections,
            gathered: header.to_vec(),
            pushed: 0,
            durable: !run.is_transient(),
            block: HEADER_BYTES,
            table: Vec::new(),
            first: none,
            last: none,
            expires: Time(u64::MAX),
            index: Vec::new(),
            bodies: HashMap::default(),
        })
    }

    /// Adds a message. They must be sorted by queue and sequence.
    pub fn push(&mut self, message: &RunMessage<'_>) -> io::Result<()> {
        let filled = self.gathered.len() - self.block;
        let next_queue = message.queue != self.last.0;
        if !self.table.is_empty() && (filled >= BLOCK_BYTES || next_queue && filled >= BLOCK_BYTES_MIN) {
            self.end_block()?;
        }
        let place = match message.body {
            Some((body, key)) => Some(self.body(body, key)?),
            None => None,
        };
        let key = (message.queue, message.sequence);
        if self.table.is_empty() {
            self.block = self.gathered.len();
            self.gathered.extend_from_slice(&[0; block::HEADER_BYTES]);
            self.first = key;
            self.expires = Time(u64::MAX);
        }
        self.last = key;
        self.table.push((self.gathered.len() - self.block) as u32);
        let mut bytes = [0; KEY_BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        out.u64(message.queue.0);
        out.u64(message.sequence);
        self.gathered.extend_from_slice(&bytes);
        let facts = stored::copy_to_run(message.stored, place, &mut self.gathered);
        self.expires = self.expires.min(facts.expires.unwrap_or(Time(u64::MAX)));
        Ok(())
    }

    /// Puts a body before the block that refers to it, unless it is there already.
    fn body(&mut self, body: &[u8], key: BodySource) -> io::Result<BodyPlace> {
        if let Some(place) = self.bodies.get(&key) {
            return Ok(*place);
        }
        if !self.table.is_empty() {
            self.end_block()?;
        }
        self.write_gathered(&[body])?;
        let place = BodyPlace { at: self.position - body.len() as u64, crc: crc32c::crc32c(body) };
        self.bodies.insert(key, place);
        Ok(place)
    }

    fn end_block(&mut self) -> io::Result<()> {
        for at in &self.table {
            self.gathered.extend_from_slice(&at.to_le_bytes());
        }
        let bytes = &mut self.gathered[self.block..];
        let entry = BlockEntry {
            first: self.first,
            last: self.last,
            expires: self.expires,
            position: self.position + self.block as u64,
            bytes: bytes.len() as u32,
            messages: self.table.len() as u32,
        };
        bytes[4..8].copy_from_slice(&entry.bytes.to_le_bytes());
        bytes[8..12].copy_from_slice(&entry.messages.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.index.push(entry);
        self.table.clear();
        if self.gathered.len() >= WRITE_BYTES { self.write_gathered(&[]) } else { Ok(()) }
    }

    fn write_gathered(&mut self, more: &[&[u8]]) -> io::Result<()> {
        let mut parts = vec![IoSlice::new(&self.gathered)];
        parts.extend(more.iter().map(|part| IoSlice::new(part)));
        self.file.write_at(self.position, &parts)?;
        self.position += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.gathered.clear();
        self.block = 0;
        if self.durable && self.position - self.pushed >= PUSH_BYTES {
            self.file.sync_data()?;
            self.pushed = self.position;
        }
        Ok(())
    }

    /// Writes the index and makes the run durable, if required; returns its properties.
    pub fn finish(mut self) -> io::Result<RunContent> {
        if !self.table.is_empty() {
            self.end_block()?;
        }
        let position = self.position + self.gathered.len() as u64;
        let mut index = vec![0; self.index.len() * BlockEntry::BYTES];
        let mut out = FieldWriter::new(&mut index);
        self.index.iter().for_each(|entry| entry.write(&mut out));
        let mut trailer = [0; TRAILER_BYTES];
        let mut out = FieldWriter::new(&mut trailer);
        out.u64(position);
        out.u32(self.index.len() as u32);
        out.u32(crc32c::crc32c(&index));
        out.u32(0);
        let (checked, rest) = trailer.split_at_mut(TRAILER_BYTES - END_MAGIC.len() - size_of::<u32>());
        let mut out = FieldWriter::new(rest);
        out.u32(crc32c::crc32c(checked));
        out.put(END_MAGIC);
        self.write_gathered(&[&index, &trailer])?;
        if self.durable {
            self.file.sync_data()?;
        }
        let messages = self.index.iter().map(|entry| u64::from(entry.messages)).sum();
        Ok(RunContent { messages, bytes: self.position, sections: self.sections })
    }
}
