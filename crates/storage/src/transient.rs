//! Memory for transient messages: chunks that are filled one after the other and freed as a whole.

use std::sync::Arc;

use bytes::Bytes;
use ferrymq_model::{Facts, MessageRef};

use crate::fields::FieldWriter;
use crate::image::{Image, ImageWriter};
use crate::options::Options;
use crate::queue::{Queue, QueueKey, Slot};
use crate::segment::{Beside, SegmentId, Segments};
use crate::stored;

/// Length of a chunk, unless a message is longer.
const CHUNK_BYTES: usize = 1 << 20;
/// How many chunks are kept to be written over.
const SPARE_CHUNKS: usize = 4;

/// Transient messages in memory.
#[derive(Debug)]
pub(crate) struct Transient {
    writer: ImageWriter,
    segments: Segments,
    spare: Vec<Arc<Image>>,
    /// Bodies besides the current chunk. Only finished chunks can be moved to disk, and heads alone fill one
    /// slowly.
    beside_bytes: usize,
    /// Memory in chunks and in bodies besides them.
    bytes: u64,
    bytes_max: u64,
}

impl Transient {
    pub fn new(options: &Options) -> Self {
        let writer = ImageWriter::new(CHUNK_BYTES);
        let mut segments = Segments::new(0);
        segments.push(Arc::clone(writer.image()), 0);
        Self { writer, segments, spare: Vec::new(), beside_bytes: 0, bytes: 0, bytes_max: options.transient_bytes_max }
    }

    pub fn segments(&self) -> &Segments {
        &self.segments
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Total memory, with the chunks that are kept to be used again.
    pub fn held_bytes(&self) -> u64 {
        self.bytes + self.spare.iter().map(|image| image.filled() as u64).sum::<u64>()
    }

    /// Whether publishers must wait until some of it has been moved to disk or consumed.
    pub fn is_full(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Whether it is time to move the oldest chunks to disk.
    pub fn is_nearly_full(&self) -> bool {
        self.bytes > self.bytes_max / 4 * 3
    }

    /// Whether this message is the first of its chunk: the moment for checks that are not needed for each message.
    pub fn begins_chunk(&self, slot: &Slot) -> bool {
        slot.at == 0
    }

    /// A queue has messages in the chunk that is being filled.
    #[inline]
    pub fn touch(&mut self, queue: &mut Queue, key: QueueKey) {
        let number = self.segments.next_number() - 1;
        if queue.touched_chunk != number {
            queue.touched_chunk = number;
            self.segments.current().expect("there is always a current chunk").touched.push(key);
        }
    }

    /// A message of this chunk is in a run now.
    pub fn moved(&mut self, segment: SegmentId) {
        self.segments.get_mut(segment).live -= 1;
    }

    /// Stores a message for `places` queues.
    pub fn append(&mut self, message: &MessageRef<'_>, facts: &Facts, beside: Option<Bytes>, places: u32) -> Slot {
        let head = stored::head_bytes(message, facts);
        let bytes = if beside.is_some() { head } else { head + facts.body_bytes as usize };
        if self.writer.filled() + bytes > self.writer.image().capacity() {
            self.next_chunk(bytes);
        }
        let at = self.writer.filled();
        let mut out = FieldWriter::new(self.writer.reserve(at..at + bytes));
        stored::write_head(&mut out, message, facts, false);
        if beside.is_none() {
            out.put(message.body.bytes());
        }
        self.writer.publish(at + bytes);
        let segment = SegmentId::transient(self.segments.next_number() - 1);
        let current = self.segments.get_mut(segment);
        current.live += places;
        let slot = Slot { segment, at: at as u32, body_bytes: facts.body_bytes, beside: beside.is_some() };
        self.bytes += bytes as u64;
        if let Some(body) = beside {
            self.bytes += body.len() as u64;
            self.beside_bytes += body.len();
            current.bodies.insert(slot.at, Beside { body, slots: 0 });
        }
        slot
    }

    /// Ends the current chunk if it is full, and returns whether it was. Only a chunk that has ended can be moved or
    /// freed, and publishers may have to wait for that.
    #[inline]
    pub fn end_full_chunk(&mut self) -> bool {
        let is_full = self.writer.filled() + self.beside_bytes >= CHUNK_BYTES;
        if is_full {
            self.next_chunk(0);
        }
        is_full
    }

    /// Records that a queue has released a message.
    #[inline]
    pub fn release(&mut self, slot: &Slot) {
        let segment = self.segments.get_mut(slot.segment);
        segment.live -= 1;
        if segment.live == 0 {
            self.drop_dead();
        }
    }

    #[cold]
    fn next_chunk(&mut self, bytes: usize) {
        self.drop_dead();
        self.beside_bytes = 0;
        let spare = if bytes <= CHUNK_BYTES { self.spare.pop() } else { None };
        self.writer = spare.and_then(ImageWriter::reuse).unwrap_or_else(|| ImageWriter::new(CHUNK_BYTES.max(bytes)));
        self.segments.push(Arc::clone(self.writer.image()), 0);
    }

    /// Frees the oldest chunks as long as nothing in them is live; the current one stays.
    pub fn drop_dead(&mut self) {
        while self.segments.len() > 1 && self.segments.oldest().is_some_and(|oldest| oldest.live == 0) {
            let Some(chunk) = self.segments.pop() else { return };
            self.bytes -= (chunk.image.filled() + chunk.bodies_bytes()) as u64;
            if chunk.image.capacity() == CHUNK_BYTES && self.spare.len() < SPARE_CHUNKS {
                self.spare.push(chunk.image);
            }
        }
    }
}
