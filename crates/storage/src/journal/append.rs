//! The shard's side of the journal: writes records into the current generation's image, and never waits for the
//! disk.

use std::sync::Arc;

use bytes::Bytes;
use ferrymq_model::{CatalogEntry, Facts, MessageKey, MessageRef, Position, QueueId, Sequence, Settled, Time};
use parking_lot::MutexGuard;

use super::closed::Settlement;
use super::open::{Asleep, Mark, OpenGroup, Shared};
use super::record::{
    ATTEMPTS_BYTES, DELIVERED_BYTES, ENQUEUE_BYTES, ENTRY_BYTES, Kind, QUEUE_BYTES, SETTLE_BYTES, TARGET_BYTES,
    write_delivered, write_head,
};
use super::unit_settled::UnitSettled;
use super::{FIRST_GROUP, group::HEADER_BYTES};
use crate::fields::FieldWriter;
use crate::image::{Image, ImageWriter};
use crate::stored::{self, BodyPlace};

/// A flush that nobody asked for starts when a group has this much.
const UNASKED_BYTES: u32 = 1 << 20;
/// How many images are kept for the next generations.
const SPARE_IMAGES: usize = 1;

/// The place of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    /// The generation.
    pub generation: u64,
    /// Where the stored message begins in its image.
    pub message: u32,
}

/// The file of a body that is not in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobFile {
    pub number: u64,
    /// The body's CRC, if the file is complete already; otherwise it must be written before the group.
    pub written: Option<u32>,
}

/// The only writer of the journal.
#[derive(Debug)]
pub(crate) struct Appender {
    shared: Arc<Shared>,
    pen: Pen,
    copy_bytes_max: usize,
    unit_settled: UnitSettled,
}

/// What the appender changes while it holds the lock of the shared part.
#[derive(Debug)]
struct Pen {
    writer: ImageWriter,
    generation: u64,
    first_section: u64,
    spare: Vec<Arc<Image>>,
    decided: Position,
    group_bytes: u32,
    file_bytes: u32,
}

impl Appender {
    /// Continues after what was replayed. `writer` is the image of the shared open group.
    pub fn new(shared: Arc<Shared>, writer: ImageWriter, options: &crate::Options) -> Self {
        let (generation, decided, first_section) = {
            let open = shared.open.lock();
            (open.generation, open.position(), open.number())
        };
        let pen = Pen {
            writer,
            generation,
            first_section,
            spare: Vec::new(),
            decided,
            group_bytes: options.group_bytes,
            file_bytes: options.file_bytes,
        };
        Self { shared, pen, copy_bytes_max: options.copy_bytes_max as usize, unit_settled: UnitSettled::default() }
    }

    /// When this position is durable, everything decided so far is durable.
    pub fn position(&self) -> Position {
        self.pen.decided
    }

    /// The generation of the last record.
    pub fn generation(&self) -> u64 {
        self.pen.generation
    }

    /// The first section of the current generation.
    pub fn first_section(&self) -> u64 {
        self.pen.first_section
    }

    /// The image of the current generation.
    pub fn image(&self) -> &Arc<Image> {
        self.pen.writer.image()
    }

    /// The memory of images that are kept for the next generations.
    pub fn spare_bytes(&self) -> u64 {
        self.pen.spare.iter().map(|image| image.filled() as u64).sum()
    }

    /// Frees the images that are kept for the next generations.
    pub fn drop_spares(&mut self) {
        self.pen.spare.clear();
    }

    /// Continues in the next generation; not within a unit, and not if the journal is short of files.
    pub fn next_generation(&mut self) -> bool {
        let mut open = self.shared.open.lock();
        if open.in_unit() || !open.gate.is_open() || !open.has_free_file() {
            return false;
        }
        // Nothing was decided since, so the durable position does not change.
        self.pen.next_generation(&self.shared, &mut open, 0);
        true
    }

    /// Takes back the image of a finished generation.
    pub fn recycle(&mut self, image: Arc<Image>) {
        if self.pen.spare.len() < SPARE_IMAGES {
            self.pen.spare.push(image);
        }
    }

    /// Begins a unit, unless one is being written.
    pub fn begin_unit(&mut self) -> bool {
        let mut open = self.shared.open.lock();
        let begins = !open.in_unit();
        if begins {
            open.begin_unit();
        }
        begins
    }

    /// Ends the unit. Its marks of delivery are its last records: without the unit they would name messages that do
    /// not exist.
    pub fn end_unit(&mut self) {
        let marks = self.shared.open.lock().take_unit_marks();
        for mark in marks {
            self.append(DELIVERED_BYTES, |out| write_delivered(out, mark));
        }
        let mut open = self.shared.open.lock();
        open.end_unit();
        self.unit_settled.end_unit(open.position());
        if open.asleep != Asleep::No {
            self.shared.changed.notify_all();
        }
    }

    /// Writes a message and its targets.
    #[inline]
    pub fn enqueue(
        &mut self,
        message: &MessageRef<'_>,
        facts: &Facts,
        targets: &[MessageKey],
        blob_file: Option<BlobFile>,
    ) -> Appended {
        let head = ENQUEUE_BYTES + targets.len() * TARGET_BYTES;
        let body = head + stored::head_bytes(message, facts);
        let total = body + stored::tail_bytes(facts, blob_file.is_some());
        let mut open = self.pen.open_with_room(&self.shared, total);
        let at = open.end as usize;
        let copied = match (message.body.shared(), blob_file) {
            (Some(bytes), None) if bytes.len() > self.copy_bytes_max => {
                open.share_body((at + body) as u32, bytes.clone());
                body
            }
            _ => total,
        };
        let to_write = blob_file.filter(|file| file.written.is_none());
        if let Some(file) = to_write {
            let body = message.body.shared().cloned();
            open.write_blob_file(file.number, body.unwrap_or_else(|| Bytes::copy_from_slice(message.body.bytes())));
        }
        let mut out = FieldWriter::new(self.pen.writer.reserve(at..at + copied));
        write_head(&mut out, Kind::Enqueue, total, 0);
        out.u32(targets.len() as u32);
        for target in targets {
            let mut bytes = [0; TARGET_BYTES];
            bytes[..8].copy_from_slice(&target.queue.0.to_le_bytes());
            bytes[8..].copy_from_slice(&target.sequence.to_le_bytes());
            out.array(bytes);
        }
        stored::write_head(&mut out, message, facts, blob_file.is_some());
        match blob_file {
            Some(BlobFile { number, written }) => {
                let crc = written.unwrap_or_else(|| crc32c::crc32c(message.body.bytes()));
                stored::write_place(&mut out, BodyPlace { at: number, crc });
            }
            None if copied == total => out.put(message.body.bytes()),
            None => {}
        }
        open.messages += 1;
        if to_write.is_some() && open.bodies_over_limit() && open.gate.is_open() {
            Pen::stall(&self.shared, &mut open);
        }
        self.pen.finish(&self.shared, open, total);
        Appended { generation: self.pen.generation, message: (at + head) as u32 }
    }

    /// Messages left a queue. Merged within the group, so that not each of them takes space.
    #[inline]
    pub fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled, mark: &mut Mark) {
        let mut open = self.pen.open_with_room(&self.shared, SETTLE_BYTES);
        if !open.in_unit() {
            if self.unit_settled.is_empty() {
                open.settle(queue, first, last, why, mark);
                return self.pen.finish(&self.shared, open, 0);
            }
            drop(open);
            return self.settle_what_no_unit_has(queue, first, last, why, mark);
        }
        self.unit_settled.add(queue, first, last, self.shared.durable());
        // Merged settlements count with their group; those of a unit count with the unit, which may be longer.
        let at = open.end as usize;
        let mut out = FieldWriter::new(self.pen.writer.reserve(at..at + SETTLE_BYTES));
        Settlement { queue, first, last, why }.write(&mut out);
        self.pen.finish(&self.shared, open, SETTLE_BYTES);
    }

    #[cold]
    fn settle_what_no_unit_has(
        &mut self,
        queue: QueueId,
        first: Sequence,
        last: Sequence,
        why: Settled,
        mark: &mut Mark,
    ) {
        for (first, last) in self.unit_settled.leave_out(queue, first, last, self.shared.durable()) {
            let mut open = self.pen.open_with_room(&self.shared, SETTLE_BYTES);
            open.settle(queue, first, last, why, mark);
            self.pen.finish(&self.shared, open, 0);
        }
    }

    /// A queue was delivered up to here.
    #[inline]
    pub fn delivered(&mut self, queue: QueueId, sequence: Sequence, mark: &mut Mark) {
        let mut open = self.pen.open_with_room(&self.shared, DELIVERED_BYTES);
        open.delivered(queue, sequence, mark);
        self.pen.finish(&self.shared, open, 0);
    }

    pub fn attempts(&mut self, queue: QueueId, sequence: Sequence, attempts: u32, due: Time) {
        self.append(ATTEMPTS_BYTES, |out| {
            write_head(out, Kind::Attempts, ATTEMPTS_BYTES, 0);
            out.u64(queue.0);
            out.u64(sequence);
            out.u32(attempts);
            out.u64(due.0);
        });
    }

    pub fn put(&mut self, entry: &CatalogEntry) {
        let value = entry.value.as_deref().unwrap_or_default();
        let kind = if entry.value.is_some() { Kind::Put } else { Kind::Delete };
        let total = ENTRY_BYTES + entry.key.len() + value.len();
        self.append(total, |out| {
            write_head(out, kind, total, entry.kind as u8);
            out.u32(entry.key.len() as u32);
            out.put(&entry.key);
            out.put(value);
        });
    }

    pub fn create_queue(&mut self, queue: QueueId) {
        self.append(QUEUE_BYTES, |out| {
            write_head(out, Kind::CreateQueue, QUEUE_BYTES, 0);
            out.u64(queue.0);
        });
    }

    pub fn delete_queue(&mut self, queue: QueueId) {
        self.append(QUEUE_BYTES, |out| {
            write_head(out, Kind::DeleteQueue, QUEUE_BYTES, 0);
            out.u64(queue.0);
        });
    }

    /// Somebody waits for everything decided so far.
    pub fn request_flush(&self) {
        if self.shared.durable() >= self.pen.decided {
            return;
        }
        let mut open = self.shared.open.lock();
        open.requested = true;
        if open.asleep >= Asleep::UntilRequested {
            self.shared.changed.notify_all();
        }
    }

    fn append(&mut self, bytes: usize, write: impl FnOnce(&mut FieldWriter<'_>)) {
        let open = self.pen.open_with_room(&self.shared, bytes);
        let at = open.end as usize;
        write(&mut FieldWriter::new(self.pen.writer.reserve(at..at + bytes)));
        self.pen.finish(&self.shared, open, bytes);
    }
}

impl Pen {
    /// The open group, in a generation with space for `bytes` more.
    #[inline]
    fn open_with_room<'a>(&mut self, shared: &'a Shared, bytes: usize) -> MutexGuard<'a, OpenGroup> {
        let mut open = shared.open.lock();
        if !open.fits(bytes) {
            self.next_generation(shared, &mut open, bytes);
        }
        open
    }

    #[cold]
    fn next_generation(&mut self, shared: &Shared, open: &mut OpenGroup, bytes: usize) {
        let usable = self.file_bytes as usize - FIRST_GROUP as usize - HEADER_BYTES;
        assert!(bytes <= usable, "a record of {bytes} bytes does not fit any journal file");
        self.writer =
            self.spare.pop().and_then(ImageWriter::reuse).unwrap_or_else(|| ImageWriter::new(self.file_bytes as usize));
        open.next_generation(Arc::clone(self.writer.image()));
        self.generation = open.generation;
        self.first_section = open.number();
        if open.gate.is_open() && open.is_short() {
            Self::stall(shared, open);
        }
        if open.is_overfull() {
            open.gate.set_overfull(true);
        }
        shared.changed.notify_all();
    }

    /// Publishers must wait.
    fn stall(shared: &Shared, open: &mut OpenGroup) {
        let backpressure = open.stall();
        open.gate.set(backpressure);
        shared.changed.notify_all();
    }

    /// Publishes `bytes` new bytes to readers, and wakes the flush thread if there is a reason.
    #[inline]
    fn finish(&mut self, shared: &Shared, mut open: MutexGuard<'_, OpenGroup>, bytes: usize) {
        open.end += bytes as u32;
        self.writer.publish(open.end as usize);
        self.decided = open.position();
        if open.end > self.file_bytes / 4 * 3 && open.gate.is_open() && open.is_short() {
            Self::stall(shared, &mut open);
        }
        let due = match open.asleep {
            Asleep::No => false,
            Asleep::UntilFull => open.bytes() >= self.group_bytes,
            Asleep::UntilRequested => open.bytes() >= UNASKED_BYTES,
            Asleep::UntilAnything => true,
        };
        if due {
            open.asleep = Asleep::No;
            shared.changed.notify_all();
        }
    }
}
