//! The store: what the shard asks of storage. Everything here works in memory; disks are for the threads behind it.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use ferrymq_model::{BodyRef, CatalogEntry, Facts, MessageRef, Place, Position, QueueId, Sequence, Settled};
use hashbrown::HashMap;

use crate::disk::DiskLock;
use crate::image::ImageWriter;
use crate::journal::{Appender, Shared};
use crate::notify::{Room, Stall};
use crate::options::Options;
use crate::queue::{Queue, QueueKey, Slot};
use crate::segment::{SegmentId, Segments};
use crate::stored::{self, Stored, StoredBody};
use crate::transient::Transient;

/// A message that [`Store::next`] found. It means something until the store is changed.
#[derive(Clone, Copy, Debug)]
pub struct Handle(Slot);

/// What a queue has next.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// The first unsettled message at or behind the sequence that was asked for.
    Message {
        /// Its sequence.
        sequence: Sequence,
        /// What [`Store::message`] wants.
        handle: Handle,
        /// What decides its fate.
        facts: Facts,
    },
    /// It is on disk and is being read; [`crate::Notify::loaded`] tells when it is there.
    Pending,
    /// There is none.
    End,
}

/// Figures for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Queues, lanes counted one by one.
    pub queues: u64,
    /// Messages in them.
    pub messages: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Journal generations that are in memory.
    pub journal_files_resident: u64,
    /// Bytes of transient messages in memory.
    pub transient_bytes: u64,
}

/// The part of storage that the shard owns.
#[derive(Debug)]
pub struct Store {
    appender: Appender,
    shared: Arc<Shared>,
    queues: Vec<Option<Queue>>,
    vacant: Vec<QueueKey>,
    keys: HashMap<QueueId, QueueKey, foldhash::fast::RandomState>,
    journal: Segments,
    transient: Transient,
    copy_bytes_max: u32,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as the directory is ours.
    _lock: Box<dyn DiskLock>,
}

impl Store {
    /// A message goes to queues. Each place's sequence is one more than the last of its queue. The durable places are
    /// written to the journal in one record, the transient ones never are.
    pub fn enqueue(&mut self, message: &MessageRef<'_>, facts: &Facts, durable: &[Place], transient: &[Place]) {
        debug_assert_eq!(message.body.bytes().len(), facts.body_bytes as usize, "facts are the message's");
        if !durable.is_empty() {
            self.enqueue_durable(message, facts, durable);
        }
        if !transient.is_empty() {
            self.enqueue_transient(message, facts, transient);
        }
    }

    #[inline]
    fn enqueue_durable(&mut self, message: &MessageRef<'_>, facts: &Facts, places: &[Place]) {
        let appended = self.appender.enqueue(message, facts, places, None);
        let segment = SegmentId::journal(appended.generation);
        self.follow_appender();
        let shared = self.shared_body(message);
        let slot = Slot { segment, at: appended.message, body_bytes: facts.body_bytes, beside: shared.is_some() };
        let current = self.journal.get_mut(segment);
        current.live += places.len() as u32;
        if let Some(body) = shared {
            current.bodies.insert(appended.message, body);
        }
        self.push_slot(slot, places);
    }

    fn enqueue_transient(&mut self, message: &MessageRef<'_>, facts: &Facts, places: &[Place]) {
        let beside = self.shared_body(message);
        let slot = self.transient.append(message, facts, beside, places.len() as u32);
        self.push_slot(slot, places);
    }

    #[inline]
    fn push_slot(&mut self, slot: Slot, places: &[Place]) {
        for place in places {
            let key = self.keys[&place.queue];
            let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
            debug_assert_eq!(queue.next, place.sequence, "sequences are dense");
            queue.push(slot);
            if !slot.segment.is_transient() {
                touch(queue, key, &mut self.journal);
            }
        }
    }

    fn shared_body(&self, message: &MessageRef<'_>) -> Option<Bytes> {
        match message.body {
            BodyRef::Shared(bytes) if bytes.len() > self.copy_bytes_max as usize => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Messages leave a queue. Those of `first..=last` that are not in it are passed over.
    #[inline]
    pub fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled) {
        let Some((queue, key)) = lookup(&self.keys, &mut self.queues, queue) else { return };
        let mut durable = false;
        let (journal, transient) = (&mut self.journal, &mut self.transient);
        queue.settle(first, last, |slot| {
            if slot.segment.is_transient() {
                transient.release(slot);
            } else {
                durable = true;
                journal.get_mut(slot.segment).live -= 1;
            }
        });
        if durable {
            self.appender.settle(queue.id, first, last, why, &mut queue.settled_in);
            touch(queue, key, journal);
            self.follow_appender();
        }
    }

    /// Everything in a queue up to `sequence` was delivered at least once.
    #[inline]
    pub fn delivered_up_to(&mut self, queue: QueueId, sequence: Sequence) {
        let Some((queue, key)) = lookup(&self.keys, &mut self.queues, queue) else { return };
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

    /// A message was delivered and came back this often.
    pub fn attempts(&mut self, queue: QueueId, sequence: Sequence, attempts: u32) {
        let Some((queue, key)) = lookup(&self.keys, &mut self.queues, queue) else { return };
        queue.attempts.insert(sequence, attempts);
        if queue.durable {
            self.appender.attempts(queue.id, sequence, attempts);
            touch(queue, key, &mut self.journal);
            self.follow_appender();
        }
    }

    /// The first message of a queue at or behind `from` that is there and not settled.
    #[inline]
    pub fn next(&mut self, queue: QueueId, from: Sequence) -> Next {
        let Some((queue, _)) = lookup(&self.keys, &mut self.queues, queue) else { return Next::End };
        let Some((sequence, slot)) = queue.resident_from(from) else { return Next::End };
        let mut slot = *slot;
        let stored = self.journal_or_transient(&slot).tail(slot.at as usize);
        let (facts, _) = stored::peek(stored).expect("what stands in memory was written whole");
        if facts.body_bytes > self.copy_bytes_max && !slot.beside {
            slot.beside = true;
            self.share_replayed_body(&slot);
        }
        Next::Message { sequence, handle: Handle(slot), facts }
    }

    /// The message that [`Self::next`] found.
    #[inline]
    #[must_use]
    pub fn message(&self, handle: Handle) -> MessageRef<'_> {
        let slot = handle.0;
        let stored = self.journal_or_transient(&slot).tail(slot.at as usize);
        let stored = Stored::read(stored).expect("what stands in memory was written whole");
        let body = match stored.body {
            StoredBody::Here(bytes) if !slot.beside => BodyRef::Inline(bytes),
            _ => BodyRef::Shared(self.body_beside(&slot)),
        };
        stored.with_body(body)
    }

    fn body_beside(&self, slot: &Slot) -> &Bytes {
        let segments = if slot.segment.is_transient() { self.transient.segments() } else { &self.journal };
        segments.get(slot.segment).bodies.get(&slot.at).expect("a body beside its message stays as long as it")
    }

    /// Replay leaves long bodies in the image. Whoever delivers one wants to share it.
    #[cold]
    fn share_replayed_body(&mut self, slot: &Slot) {
        let segment = self.journal.get_mut(slot.segment);
        let stored = Stored::read(segment.image.tail(slot.at as usize)).expect("replay read it");
        if let StoredBody::Here(body) = stored.body {
            segment.bodies.entry(slot.at).or_insert_with(|| Bytes::copy_from_slice(body));
        }
    }

    #[inline]
    fn journal_or_transient(&self, slot: &Slot) -> &crate::image::Image {
        let segments = if slot.segment.is_transient() { self.transient.segments() } else { &self.journal };
        &segments.get(slot.segment).image
    }

    /// An entry of the catalog changed.
    pub fn put(&mut self, entry: &CatalogEntry) {
        self.appender.put(entry);
        self.follow_appender();
    }

    /// A queue is there. Of one that is not durable nothing is ever written.
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
        self.queues[key as usize] = Some(queue);
        self.keys.insert(id, key);
        key
    }

    /// A queue is gone, with everything in it.
    pub fn delete_queue(&mut self, id: QueueId) {
        let Some(key) = self.keys.remove(&id) else { return };
        let mut queue = self.queues[key as usize].take().expect("keys are of queues");
        self.vacant.push(key);
        let (journal, transient) = (&mut self.journal, &mut self.transient);
        queue.settle(0, Sequence::MAX, |slot| {
            if slot.segment.is_transient() {
                transient.release(slot);
            } else {
                journal.get_mut(slot.segment).live -= 1;
            }
        });
        if queue.durable {
            self.appender.delete_queue(id);
            self.follow_appender();
        }
    }

    /// The outcomes up to [`Self::end_unit`] hold together or not at all.
    pub fn begin_unit(&mut self) {
        self.appender.begin_unit();
    }

    /// The unit is complete.
    pub fn end_unit(&mut self) {
        self.appender.end_unit();
    }

    /// Everything decided so far is durable when this position is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.appender.position()
    }

    /// How far the journal is durable.
    #[must_use]
    pub fn durable_position(&self) -> Position {
        self.shared.durable()
    }

    /// Somebody waits for what was decided so far: flush soon. What nobody waits for is written and synced a little later.
    pub fn request_flush(&self) {
        self.appender.request_flush();
    }

    /// Whether publishers may go on. Nothing is refused while they may not, but it is held in memory.
    #[must_use]
    pub fn room(&self) -> Room {
        if self.transient.is_full() { Room::Stalled(Stall::MemoryFull) } else { self.shared.room() }
    }

    /// Takes in what was read from disk; gives the queues that have something new.
    pub fn install_loaded(&mut self) -> Vec<QueueId> {
        Vec::new()
    }

    /// Figures for operators.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let queues = self.queues.iter().flatten();
        let (messages, body_bytes) =
            queues.fold((0, 0), |(messages, bytes), queue| (messages + queue.messages, bytes + queue.bytes));
        Stats {
            queues: self.keys.len() as u64,
            messages,
            body_bytes,
            journal_files_resident: self.journal.len() as u64,
            transient_bytes: self.transient.bytes(),
        }
    }

    /// Writes and syncs everything, and ends storage's threads.
    pub fn close(self) {
        drop(self);
    }

    /// A new journal generation is a new segment.
    #[inline]
    fn follow_appender(&mut self) {
        while u64::from(self.journal.next_number()) <= self.appender.generation() {
            self.journal.push(Arc::clone(self.appender.image()));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // The last one to let go of the shard may be a thread of ours that was just telling it something.
            if thread.thread().id() == std::thread::current().id() {
                continue;
            }
            // A thread that panicked has said so; there is nothing to add while we are going away.
            let _ = thread.join();
        }
    }
}

#[inline]
fn lookup<'a>(
    keys: &HashMap<QueueId, QueueKey, foldhash::fast::RandomState>,
    queues: &'a mut [Option<Queue>],
    id: QueueId,
) -> Option<(&'a mut Queue, QueueKey)> {
    let key = *keys.get(&id)?;
    Some((queues[key as usize].as_mut().expect("keys are of queues"), key))
}

/// The queue changed, so the checkpoint must hear of it before the current generation goes.
#[inline]
fn touch(queue: &mut Queue, key: QueueKey, journal: &mut Segments) {
    let current = journal.next_number() - 1;
    if queue.touched_in != current {
        queue.touched_in = current;
        journal.current().expect("there is always a current generation").touched.push(key);
    }
}

/// What [`crate::open`] puts together.
pub(crate) struct Parts {
    pub shared: Arc<Shared>,
    pub writer: ImageWriter,
    pub queues: Vec<Queue>,
    pub journal: Segments,
    pub lock: Box<dyn DiskLock>,
}

impl Store {
    pub(crate) fn new(parts: Parts, options: &Options) -> Self {
        let mut store = Self {
            appender: Appender::new(Arc::clone(&parts.shared), parts.writer, options),
            shared: parts.shared,
            queues: Vec::new(),
            vacant: Vec::new(),
            keys: HashMap::default(),
            journal: parts.journal,
            transient: Transient::new(options),
            copy_bytes_max: options.copy_bytes_max,
            threads: Vec::new(),
            _lock: parts.lock,
        };
        for queue in parts.queues {
            store.insert(queue);
        }
        store
    }

    /// Joins this thread when the store goes.
    pub(crate) fn own_thread(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }
}
