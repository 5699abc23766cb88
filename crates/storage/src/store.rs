//! The store: storage's interface for the shard. Everything here works in memory; its threads use the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use bytes::Bytes;
use ferrymq_model::{
    BodyRef, CatalogEntry, EntryKind, Facts, FiledBody, MessageKey, MessageRef, Position, QueueId, Sequence, Settled,
    Time,
};
use hashbrown::{HashMap, HashSet};

use crate::cache::{BodyKey, Cache};
use crate::disk::DiskLock;
use crate::error::FatalError;
use crate::filing::BodyFiles;
use crate::image::ImageWriter;
use crate::journal::{Appender, BlobFile, DiskWatch, Shared, TARGET_BYTES};
use crate::notify::Backpressure;
use crate::options::Options;
use crate::queue::{Attempts, Keys, Queue, QueueKey, Slot};
use crate::read_ahead::ReadQueue;
use crate::run::RunId;
use crate::sabotage::{self, Sabotage};
use crate::segment::{Beside, SegmentId, Segments};
use crate::spill::SpillSignal;
use crate::spill::store_side::{Dead, DeadFile, Leaving, date_dead};
use crate::transient::Transient;

/// The part of storage that the shard owns.
#[derive(Debug)]
pub struct Store {
    pub(crate) appender: Appender,
    pub(crate) shared: Arc<Shared>,
    /// Boxed, so that the free entries of deleted queues are small.
    pub(crate) queues: Vec<Option<Box<Queue>>>,
    vacant: Vec<QueueKey>,
    pub(crate) keys: Keys,
    pub(crate) journal: Segments,
    pub(crate) transient: Transient,
    pub(crate) cache: Cache,
    /// How many live messages each run has.
    pub(crate) runs: HashMap<RunId, u64, foldhash::fast::FixedState>,
    /// A queue that is in too many of them.
    pub(crate) fragmented: Option<QueueId>,
    pub(crate) extents_max: usize,
    /// How many messages need each body in its own file.
    pub(crate) blob_files: HashMap<u64, u32, foldhash::fast::FixedState>,
    pub(crate) bodies: Arc<BodyFiles>,
    /// Files that nobody needs any more.
    pub(crate) dead: Vec<Dead>,
    /// The changes of the catalog for the next checkpoint.
    pub(crate) changed_entries: BTreeMap<(EntryKind, Vec<u8>), Option<Vec<u8>>>,
    /// Queues that were deleted since the last checkpoint.
    pub(crate) deleted: Vec<QueueId>,
    pub(crate) reads: Arc<ReadQueue>,
    /// Requests to the read-ahead thread without an answer.
    pub(crate) wanted: HashSet<(QueueId, Option<BodyKey>), foldhash::fast::FixedState>,
    spill: Arc<SpillSignal>,
    /// Journal generations up to this one are retired earlier than usual.
    pub(crate) retires_early: u64,
    /// Whether publishers were told to wait because of transient messages.
    memory_full: bool,
    /// Bodies that no message needs any more; see [`Store::take_freed`].
    freed: Vec<Bytes>,
    pub(crate) copy_bytes_max: u32,
    targets_max: usize,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as this process uses the directory.
    _lock: Box<dyn DiskLock>,
}

impl Store {
    /// Enqueues a message. Each place's sequence is one more than the last of its queue. The durable places are
    /// written to the journal in one record, the transient ones never are.
    pub fn enqueue(
        &mut self,
        message: &MessageRef<'_>,
        facts: &Facts,
        durable: &[MessageKey],
        transient: &[MessageKey],
    ) {
        debug_assert_eq!(message.body.bytes().len(), facts.body_bytes as usize, "facts are the message's");
        if !durable.is_empty() {
            self.enqueue_durable(message, facts, durable);
        }
        if !transient.is_empty() {
            self.enqueue_transient(message, facts, transient);
        }
    }

    #[inline]
    fn enqueue_durable(&mut self, message: &MessageRef<'_>, facts: &Facts, places: &[MessageKey]) {
        if places.len() > self.targets_max {
            return self.enqueue_in_portions(message, facts, places);
        }
        let blob_file = self.bodies.takes(facts.body_bytes as usize).then(|| self.blob_file(message, places));
        self.enqueue_record(message, facts, places, blob_file);
    }

    /// One record for all these targets might not fit into a file.
    #[cold]
    fn enqueue_in_portions(&mut self, message: &MessageRef<'_>, facts: &Facts, places: &[MessageKey]) {
        let own_unit = self.appender.begin_unit();
        for portion in places.chunks(self.targets_max) {
            self.enqueue_durable(message, facts, portion);
        }
        if own_unit {
            self.appender.end_unit();
        }
    }

    /// The file with the message's body, or for it.
    #[cold]
    fn blob_file(&mut self, message: &MessageRef<'_>, places: &[MessageKey]) -> BlobFile {
        let file = match message.body {
            BodyRef::Filed(filed) if self.takes_up(filed.number) => {
                BlobFile { number: filed.number, written: Some(filed.crc) }
            }
            _ => BlobFile { number: self.bodies.next_number(), written: None },
        };
        let number = file.number;
        *self.blob_files.entry(number).or_default() += places.len() as u32;
        for place in places {
            let key = self.keys.find(place.queue).expect("a message's queues are there");
            let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
            queue.add_blob_file(place.sequence, number);
        }
        file
    }

    /// Keeps the file of a body for another publish, if it is there, whatever becomes of the message that it was read
    /// from.
    pub fn claim_body(&self, filed: &mut FiledBody) {
        let is_named = self.blob_files.contains_key(&filed.number)
            || self.dead.iter().any(|dead| dead.file == DeadFile::Body(filed.number));
        self.bodies.claim(filed, is_named);
    }

    /// Whether this file exists, and stays as long as a message refers to it.
    fn takes_up(&mut self, number: u64) -> bool {
        if self.blob_files.contains_key(&number) {
            return true;
        }
        // The last message that referred to it was settled, and the file was not deleted yet.
        let dead = self.dead.iter().position(|dead| dead.file == DeadFile::Body(number));
        dead.map(|index| self.dead.swap_remove(index)).is_some() || self.bodies.adopt(number)
    }

    #[inline]
    fn enqueue_record(
        &mut self,
        message: &MessageRef<'_>,
        facts: &Facts,
        places: &[MessageKey],
        blob_file: Option<BlobFile>,
    ) {
        let appended = self.appender.enqueue(message, facts, places, blob_file);
        if let Some(file) = blob_file {
            self.keep_body(message, file);
        }
        let segment = SegmentId::journal(appended.generation);
        self.follow_appender();
        let shared = if blob_file.is_none() { self.shared_body(message) } else { None };
        let slot = Slot { segment, at: appended.message, body_bytes: facts.body_bytes, beside: shared.is_some() };
        let current = self.journal.get_mut(segment);
        current.live += places.len() as u32;
        if let Some(body) = shared {
            current.bodies.insert(appended.message, Beside { body, slots: places.len() as u32 });
        }
        self.push_slot(slot, places);
    }

    /// A read of the message soon need not wait for its body.
    #[cold]
    fn keep_body(&mut self, message: &MessageRef<'_>, file: BlobFile) {
        let bytes = message.body.shared().cloned().unwrap_or_else(|| Bytes::copy_from_slice(message.body.bytes()));
        let crc = file.written.unwrap_or_else(|| crc32c::crc32c(&bytes));
        let filed = FiledBody { bytes, number: file.number, crc, claim: None };
        if file.written.is_some() {
            return self.cache.insert_filed(filed);
        }
        self.cache.insert_unwritten(filed, self.appender.position());
        self.cache.written(self.shared.durable());
        // Its memory is freed after it is written, even if nothing else follows.
        self.spill.go();
    }

    fn enqueue_transient(&mut self, message: &MessageRef<'_>, facts: &Facts, places: &[MessageKey]) {
        let beside = self.shared_body(message);
        let slot = self.transient.append(message, facts, beside, places.len() as u32);
        self.push_slot(slot, places);
        let ended = self.transient.end_full_chunk();
        if self.transient.is_nearly_full() && (ended || self.transient.begins_chunk(&slot)) {
            self.spill.go();
            self.watch_memory();
        }
    }

    #[inline]
    fn push_slot(&mut self, slot: Slot, places: &[MessageKey]) {
        for place in places {
            let key = self.keys.find(place.queue).expect("a message's queues are there");
            let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
            debug_assert_eq!(queue.next, place.sequence, "sequences are dense");
            queue.push(slot);
            if slot.segment.is_transient() {
                self.transient.touch(queue, key);
            } else {
                touch(queue, key, &mut self.journal);
            }
        }
    }

    /// Tells publishers when transient messages exceed their limit, and when they no longer do.
    pub(crate) fn watch_memory(&mut self) {
        if self.memory_full != self.transient.is_full() {
            self.memory_full = !self.memory_full;
            self.shared.set_memory_full(self.memory_full);
        }
    }

    /// Bodies of settled messages. The caller drops them after it has released the lock, because that may give memory
    /// back to the system.
    #[inline]
    pub fn take_freed(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.freed)
    }

    fn shared_body(&self, message: &MessageRef<'_>) -> Option<Bytes> {
        message.body.shared().filter(|bytes| bytes.len() > self.copy_bytes_max as usize).cloned()
    }

    /// Messages leave a queue. Those of `first..=last` that are not in it are ignored.
    #[inline]
    pub fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled) {
        let Some(key) = self.keys.find(queue) else { return };
        let (queue, mut leaving) = self.leaving(key);
        // The record must not go beyond existing messages: it is behind all messages of its group.
        let last = last.min(queue.next - 1);
        queue.settle(first, last, |gone| leaving.take(gone));
        let (durable, emptied, sparse) = (leaving.durable, leaving.emptied, queue.is_sparse());
        if durable {
            let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
            self.appender.settle(queue.id, first, last, why, &mut queue.settled_in);
            if !sabotage::is(Sabotage::SettleWithoutTouch) {
                touch(queue, key, &mut self.journal);
            }
            self.follow_appender();
        }
        if emptied {
            self.files_died();
        }
        if self.memory_full {
            self.watch_memory();
        }
        if sparse {
            self.move_early();
        }
    }

    /// Moves all persistent messages in memory to a run, because a few of them keep a long index in memory: transient
    /// messages that are settled behind them. If that is not possible now, the next settlement tries again.
    #[cold]
    fn move_early(&mut self) {
        if !self.has_early_generation() && self.appender.next_generation() {
            self.follow_appender();
            self.retire_closed();
            self.spill.go();
        }
    }

    /// All generations but the current one are retired now, also those that would stay in memory.
    pub(crate) fn retire_closed(&mut self) {
        self.retires_early = self.appender.generation() - 1;
    }

    /// Whether the oldest generation is to be retired early.
    pub(crate) fn has_early_generation(&self) -> bool {
        u64::from(self.journal.first_number()) <= self.retires_early
    }

    /// A queue, and everything that must be updated when something leaves it.
    #[inline]
    fn leaving(&mut self, key: QueueKey) -> (&mut Queue, Leaving<'_>) {
        let leaving = Leaving {
            journal: &mut self.journal,
            transient: &mut self.transient,
            runs: &mut self.runs,
            blob_files: &mut self.blob_files,
            dead: &mut self.dead,
            freed: &mut self.freed,
            durable: false,
            emptied: false,
        };
        (self.queues[key as usize].as_mut().expect("keys are of queues"), leaving)
    }

    #[cold]
    fn files_died(&mut self) {
        date_dead(&mut self.dead, self.appender.position());
        for dead in self.dead.iter().rev().take_while(|dead| dead.position == self.appender.position()) {
            if let DeadFile::Body(number) = dead.file {
                self.cache.forget_blob_file(number);
            }
        }
        self.spill.go();
    }

    /// Everything in a queue up to `sequence` was delivered at least once.
    #[inline]
    pub fn delivered_up_to(&mut self, queue: QueueId, sequence: Sequence) {
        let Some((queue, key)) = lookup(&mut self.keys, &mut self.queues, queue) else { return };
        let sequence = sequence.min(queue.next - 1);
        if sequence < queue.head {
            return;
        }
        queue.head = sequence + 1;
        if queue.durable {
            self.appender.delivered(queue.id, sequence, &mut queue.delivered_in);
            touch(queue, key, &mut self.journal);
            self.follow_appender();
        }
    }

    /// A message was delivered and came back this often, and may be delivered again at `due`; 0 is at once. Only a
    /// restart needs this, so that of a message that does not outlive one is not stored.
    pub fn attempts(&mut self, queue: QueueId, sequence: Sequence, attempts: u32, due: Time) {
        let Some((queue, key)) = lookup(&mut self.keys, &mut self.queues, queue) else { return };
        if !queue.outlives_restart(sequence) {
            return;
        }
        queue.attempts.insert(sequence, Attempts { count: attempts, due });
        self.appender.attempts(queue.id, sequence, attempts, due);
        touch(queue, key, &mut self.journal);
        self.follow_appender();
    }

    /// An entry of the catalog changed.
    pub fn put(&mut self, entry: &CatalogEntry) {
        self.appender.put(entry);
        self.changed_entries.insert((entry.kind, entry.key.clone()), entry.value.clone());
        self.follow_appender();
    }

    /// A queue was created. Nothing is ever written about one that is not durable.
    pub fn create_queue(&mut self, id: QueueId, durable: bool) {
        if durable {
            self.appender.create_queue(id);
            self.follow_appender();
        }
        let key = self.insert(Queue::new(id, durable));
        if durable {
            touch(self.queues[key as usize].as_mut().expect("just put there"), key, &mut self.journal);
        }
    }

    pub(crate) fn insert(&mut self, queue: Queue) -> QueueKey {
        let id = queue.id;
        let key = self.vacant.pop().unwrap_or_else(|| {
            self.queues.push(None);
            QueueKey::try_from(self.queues.len() - 1).expect("fewer than four thousand million queues")
        });
        self.queues[key as usize] = Some(Box::new(queue));
        self.keys.insert(id, key);
        key
    }

    /// A queue was deleted, with everything in it.
    pub fn delete_queue(&mut self, id: QueueId) {
        let Some(key) = self.keys.remove(id) else { return };
        let (queue, mut leaving) = self.leaving(key);
        queue.settle(0, Sequence::MAX, |gone| leaving.take(gone));
        let emptied = leaving.emptied;
        let durable = queue_of(&mut self.queues, key).durable;
        self.queues[key as usize] = None;
        self.vacant.push(key);
        if durable {
            self.appender.delete_queue(id);
            self.deleted.push(id);
            self.follow_appender();
        }
        if emptied {
            self.files_died();
        }
        if self.memory_full {
            self.watch_memory();
        }
    }

    /// The outcomes up to [`Self::end_unit`] are atomic.
    pub fn begin_unit(&mut self) {
        let begun = self.appender.begin_unit();
        debug_assert!(begun, "units do not nest");
    }

    /// The unit is complete.
    pub fn end_unit(&mut self) {
        self.appender.end_unit();
    }

    /// When this position is durable, everything decided so far is durable.
    #[must_use]
    pub fn position(&self) -> Position {
        self.appender.position()
    }

    /// How far the journal is durable.
    #[must_use]
    pub fn durable_position(&self) -> Position {
        self.shared.durable()
    }

    /// Writes long bodies to files before their messages are decided. A long body that was not given to this is
    /// written by the flush thread, and the whole journal waits for that.
    #[must_use]
    pub fn bodies(&self) -> Arc<BodyFiles> {
        Arc::clone(&self.bodies)
    }

    /// Somebody waits for what was decided so far: flush soon. Anything else is written and synced a little later.
    pub fn request_flush(&self) {
        self.appender.request_flush();
    }

    /// Whether publishers may continue. If they do not wait, nothing is refused, but it stays in memory.
    #[must_use]
    pub fn backpressure(&self) -> Backpressure {
        self.shared.backpressure()
    }

    /// A flag that is set while publishers must wait, without the shard's lock. It is set at once, while a slow
    /// disk may still delay [`Notify::backpressure`](crate::Notify::backpressure).
    #[must_use]
    pub fn stalled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.stalled)
    }

    /// A flag that is set while the journal is so far behind that nobody may ask anything of it: settlements while
    /// publishers wait take space, too. [`Notify::backpressure`](crate::Notify::backpressure) is called when it is
    /// cleared.
    #[must_use]
    pub fn overfull(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.overfull)
    }

    /// Returns how long the disk has not answered the journal.
    #[must_use]
    pub fn disk_watch(&self) -> DiskWatch {
        self.shared.watch.clone()
    }

    /// Writes what there is a journal file for, syncs it, and ends storage's threads. The shard's lock must not be
    /// held: a thread may be waiting for it.
    ///
    /// # Errors
    /// If something that was decided could not be written: usually settlements, which are undone by a restart.
    pub fn close(self) -> Result<(), FatalError> {
        let (shared, decided) = (Arc::clone(&self.shared), self.position());
        drop(self);
        match shared.failure() {
            Some(error) => Err(error),
            None if shared.durable() < decided => Err(FatalError {
                what: "write the end of",
                file: shared.files.folder().to_owned(),
                error: shared.no_space_reason().unwrap_or_else(|| "there is no journal file for it".to_owned()),
            }),
            None => Ok(()),
        }
    }

    /// A new journal generation is a new segment.
    #[inline]
    pub(crate) fn follow_appender(&mut self) {
        while u64::from(self.journal.next_number()) <= self.appender.generation() {
            self.journal.push(Arc::clone(self.appender.image()), self.appender.first_section());
            self.spill.go();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.spill.stop();
        self.bodies.stop();
        self.reads.stop();
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // The last owner of the shard may be one of storage's threads that was just calling it.
            if thread.thread().id() == std::thread::current().id() {
                continue;
            }
            // A panic was logged by its thread; there is nothing to add at the end.
            let _ = thread.join();
        }
    }
}

#[inline]
pub(crate) fn lookup<'a>(
    keys: &mut Keys,
    queues: &'a mut [Option<Box<Queue>>],
    id: QueueId,
) -> Option<(&'a mut Queue, QueueKey)> {
    let key = keys.find(id)?;
    Some((queue_of(queues, key), key))
}

#[inline]
fn queue_of(queues: &mut [Option<Box<Queue>>], key: QueueKey) -> &mut Queue {
    queues[key as usize].as_mut().expect("keys are of queues")
}

/// The queue changed, so the checkpoint needs it before the current generation is retired.
#[inline]
pub(crate) fn touch(queue: &mut Queue, key: QueueKey, journal: &mut Segments) {
    let current = journal.next_number() - 1;
    if queue.touched_in != current {
        queue.touched_in = current;
        journal.current().expect("there is always a current generation").touched.push(key);
    }
}

/// The parts that [`crate::open`] creates.
#[derive(Debug)]
pub(crate) struct Parts {
    pub shared: Arc<Shared>,
    pub writer: ImageWriter,
    pub queues: Vec<Queue>,
    pub journal: Segments,
    /// Queues that changed in each generation, oldest first.
    pub touched: Vec<Vec<QueueId>>,
    pub runs: HashMap<RunId, u64, foldhash::fast::FixedState>,
    pub blob_files: HashMap<u64, u32, foldhash::fast::FixedState>,
    pub bodies: Arc<BodyFiles>,
    pub changed_entries: BTreeMap<(EntryKind, Vec<u8>), Option<Vec<u8>>>,
    pub deleted: Vec<QueueId>,
    pub reads: Arc<ReadQueue>,
    pub spill: Arc<SpillSignal>,
    pub lock: Box<dyn DiskLock>,
}

impl Store {
    pub(crate) fn new(parts: Parts, options: &Options) -> Self {
        let mut store = Self {
            appender: Appender::new(Arc::clone(&parts.shared), parts.writer, options),
            shared: parts.shared,
            queues: Vec::new(),
            vacant: Vec::new(),
            keys: Keys::default(),
            journal: parts.journal,
            transient: Transient::new(options),
            cache: Cache::new(options.read_bytes_max),
            runs: parts.runs,
            fragmented: None,
            extents_max: options.extents_max as usize,
            blob_files: parts.blob_files,
            bodies: parts.bodies,
            dead: Vec::new(),
            changed_entries: parts.changed_entries,
            deleted: parts.deleted,
            reads: parts.reads,
            wanted: HashSet::default(),
            spill: parts.spill,
            retires_early: 0,
            memory_full: false,
            freed: Vec::new(),
            copy_bytes_max: options.copy_bytes_max,
            targets_max: options.file_bytes as usize / 8 / TARGET_BYTES,
            threads: Vec::new(),
            _lock: parts.lock,
        };
        for queue in parts.queues {
            store.insert(queue);
        }
        for (index, touched) in parts.touched.into_iter().enumerate() {
            let generation = store.journal.first_number() + index as u32;
            for key in touched.iter().filter_map(|id| store.keys.get(*id)).collect::<Vec<_>>() {
                queue_of(&mut store.queues, key).touched_in = generation;
                store.journal.get_mut(SegmentId::journal(generation.into())).touched.push(key);
            }
        }
        store
    }

    /// Joins this thread when the store is dropped.
    pub(crate) fn own_thread(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }
}
