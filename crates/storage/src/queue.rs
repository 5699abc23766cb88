//! A queue in storage: where its messages are and which of them are settled.
//!
//! Sequences count up by one, so the resident messages are a ring of small slots with the sequence as index. What
//! was moved to disk is a few extents. What is settled is a prefix plus intervals; these stay few, because what is
//! settled out of order is bounded by the unsettled deliveries.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use ferrymq_model::{Intervals, QueueId, QueueState, Sequence, Time};
use hashbrown::HashMap;

use crate::extent::{Extent, Extents, Left};
use crate::journal::Mark;
use crate::run::RunId;
use crate::sabotage::{self, Sabotage};
use crate::segment::SegmentId;

/// A queue's slot in the table of queues; used again after the queue is deleted.
pub(crate) type QueueKey = u32;

/// A table with space for more keys than this becomes smaller when most of its keys are removed.
const KEPT_KEYS: usize = 1_024;

/// An index with fewer slots may be sparse.
const SPARSE_SLOTS: usize = 1 << 16;

/// Finds queues by their ids.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    all: HashMap<QueueId, QueueKey, foldhash::fast::FixedState>,
    /// The one that was found last: operations on one queue often follow each other.
    last: Option<(QueueId, QueueKey)>,
}

impl Keys {
    /// Like [`Keys::get`], for the hot path of messages.
    #[inline]
    pub fn find(&mut self, id: QueueId) -> Option<QueueKey> {
        match self.last {
            Some((last, key)) if last == id => Some(key),
            _ => self.look_up(id),
        }
    }

    fn look_up(&mut self, id: QueueId) -> Option<QueueKey> {
        let key = self.get(id)?;
        self.last = Some((id, key));
        Some(key)
    }

    /// The key of an existing queue.
    pub fn get(&self, id: QueueId) -> Option<QueueKey> {
        self.all.get(&id).copied()
    }

    /// How many queues there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// A queue was created.
    pub fn insert(&mut self, id: QueueId, key: QueueKey) {
        self.all.insert(id, key);
    }

    /// A queue was deleted; its key may be used again.
    pub fn remove(&mut self, id: QueueId) -> Option<QueueKey> {
        self.last = None;
        let key = self.all.remove(&id);
        if self.all.capacity() > KEPT_KEYS && self.all.len() < self.all.capacity() / 8 {
            self.all.shrink_to(2 * self.all.len());
        }
        key
    }
}

/// How often a message was delivered and came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempts {
    pub count: u32,
    /// When it may be delivered again; 0 for at once.
    pub due: Time,
}

/// Where a resident message is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub segment: SegmentId,
    /// Where the stored message begins in the segment's image.
    pub at: u32,
    pub body_bytes: u32,
    /// Whether its body belongs to the segment, but is not in the image.
    pub beside: bool,
}

impl Slot {
    /// There is nothing here any more, or never was.
    const GONE: Self = Self { segment: SegmentId(0), at: 0, body_bytes: 0, beside: false };

    #[inline]
    pub fn is_gone(&self) -> bool {
        self.segment == Self::GONE.segment
    }
}

/// What leaves a queue when messages are settled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gone<'a> {
    /// A resident message.
    Slot(&'a Slot),
    /// Messages of a run.
    Moved(Left),
    /// A body in its own file.
    BlobFile(u64),
}

/// One queue.
///
/// Invariants: `low <= next`; everything below `low` is settled; `done` is above `low` and does not touch it; there
/// are slots for the sequences from `base` to `next`, and a slot is empty exactly if its message is settled or was
/// moved to a run; the first slot is not empty; every sequence below `next` is settled, in a slot or in an extent,
/// so sequences that never existed, or did not survive, count as settled.
#[derive(Debug)]
pub(crate) struct Queue {
    pub id: QueueId,
    pub durable: bool,
    /// Its data on disk could not be read.
    pub failed: bool,
    /// The sequence of the next message.
    pub next: Sequence,
    /// The first sequence that was never delivered.
    pub head: Sequence,
    /// Everything below is settled.
    low: Sequence,
    /// Settled above that.
    done: Intervals,
    /// Of messages that outlive a restart.
    pub attempts: BTreeMap<Sequence, Attempts>,
    base: Sequence,
    slots: VecDeque<Slot>,
    extents: Extents,
    /// Messages with their bodies in their own files.
    blob_files: BTreeMap<Sequence, u64>,
    /// How many messages are in it.
    pub messages: u64,
    /// The bytes of their bodies; an estimate, if some of those on disk are settled.
    pub bytes: u64,
    pub settled_in: Mark,
    pub delivered_in: Mark,
    /// The last journal generation in which this queue is listed as changed.
    pub touched_in: u32,
    /// The last transient chunk in which it is.
    pub touched_chunk: u32,
}

impl Queue {
    pub fn new(id: QueueId, durable: bool) -> Self {
        Self {
            id,
            durable,
            failed: false,
            next: 1,
            head: 1,
            low: 1,
            done: Intervals::new(),
            attempts: BTreeMap::new(),
            base: 1,
            slots: VecDeque::new(),
            extents: Extents::default(),
            blob_files: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            settled_in: Mark::default(),
            delivered_in: Mark::default(),
            touched_in: 0,
            touched_chunk: u32::MAX,
        }
    }

    /// Adds the message with sequence `next`.
    #[inline]
    pub fn push(&mut self, slot: Slot) {
        if self.slots.is_empty() {
            self.base = self.next;
        }
        self.slots.push_back(slot);
        self.next += 1;
        self.messages += 1;
        self.bytes += u64::from(slot.body_bytes);
    }

    /// Adds a message that replay found. Missing sequences belonged to messages that did not survive; one that is
    /// settled, or was added before, is not added.
    pub fn restore(&mut self, sequence: Sequence, slot: Slot) -> bool {
        if sequence < self.next || sequence == Sequence::MAX || self.is_settled(sequence) {
            return false;
        }
        self.skip_to(sequence);
        self.push(slot);
        true
    }

    /// Unknown sequences up to here belonged to messages that did not survive.
    pub fn skip_to(&mut self, sequence: Sequence) {
        if sequence <= self.next {
            return;
        }
        if !self.slots.is_empty() {
            self.slots.resize(self.slots.len() + (sequence - self.next) as usize, Slot::GONE);
        }
        let first = self.next.max(self.low);
        self.next = sequence;
        if first < sequence {
            self.settle_numbers(first, sequence - 1);
        }
    }

    /// A record names this sequence, so it was used: for an earlier message that was settled, or that did not
    /// survive. It is never used again, otherwise records about the old message would apply to the new one.
    pub fn saw(&mut self, sequence: Sequence) {
        if !sabotage::is(Sabotage::GiveNumbersAgain) {
            self.skip_to(sequence.saturating_add(1));
        }
    }

    /// A message's body is in its own file.
    pub fn add_blob_file(&mut self, sequence: Sequence, number: u64) {
        self.blob_files.insert(sequence, number);
    }

    /// The files that hold bodies of its messages.
    pub fn blob_files(&self) -> impl Iterator<Item = u64> + '_ {
        self.blob_files.values().copied()
    }

    pub fn extents(&self) -> &Extents {
        &self.extents
    }

    pub fn is_settled(&self, sequence: Sequence) -> bool {
        sequence < self.low || self.done.contains(sequence)
    }

    /// Whether a restart brings this message back: it is there, and not transient.
    pub fn outlives_restart(&self, sequence: Sequence) -> bool {
        let index = sequence.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.slots.get(index)).filter(|slot| !slot.is_gone()) {
            Some(slot) => self.durable && !slot.segment.is_transient(),
            None => {
                let run = self.extents.run_of(sequence).filter(|run| !run.is_transient());
                self.durable && run.is_some() && !self.is_settled(sequence)
            }
        }
    }

    /// The first resident message at or after `from`.
    #[inline]
    pub fn resident_from(&self, from: Sequence) -> Option<(Sequence, &Slot)> {
        let mut skipped = from.max(self.base) - self.base;
        if sabotage::is(Sabotage::SwapOrder) {
            skipped = skipped.max(self.slots.len().saturating_sub(1) as u64);
        }
        let slot = self.slots.get(skipped as usize)?;
        if slot.is_gone() { self.resident_behind(skipped as usize) } else { Some((self.base + skipped, slot)) }
    }

    /// The first resident message after a slot.
    fn resident_behind(&self, gone: usize) -> Option<(Sequence, &Slot)> {
        let slots = self.slots.range(gone + 1..);
        let (index, slot) = slots.enumerate().find(|(_, slot)| !slot.is_gone())?;
        Some((self.base + (gone + 1 + index) as u64, slot))
    }

    /// The first message on disk at or after `from`.
    #[inline]
    pub fn moved_from(&self, from: Sequence) -> Option<(Sequence, RunId)> {
        if self.extents.is_empty() { None } else { self.extents.first_from(from.max(self.low), &self.done) }
    }

    /// Removes the messages `first..=last`; calls `gone` for everything that leaves.
    #[inline]
    pub fn settle(&mut self, first: Sequence, last: Sequence, mut gone: impl FnMut(Gone<'_>)) {
        let (first, last) = (first.max(self.low), last.min(self.next - 1));
        if first > last {
            return;
        }
        if !self.extents.is_empty() {
            let (messages, bytes) = (&mut self.messages, &mut self.bytes);
            self.extents.settle(first, last, &self.done, |left| {
                *messages -= u64::from(left.messages);
                *bytes -= left.bytes;
                gone(Gone::Moved(left));
            });
        }
        if !self.blob_files.is_empty() {
            let numbers: Vec<Sequence> = self.blob_files.range(first..=last).map(|(sequence, _)| *sequence).collect();
            for sequence in numbers {
                gone(Gone::BlobFile(self.blob_files.remove(&sequence).expect("just seen")));
            }
        }
        self.settle_numbers(first, last);
        if last >= self.base {
            self.settle_slots(first, last, gone);
        }
        if !self.attempts.is_empty() {
            self.forget_attempts(first, last);
        }
    }

    /// Everything was restored: the state of messages that did not survive is removed. A checkpoint of an earlier
    /// version has that of transient messages.
    pub fn forget_lost(&mut self) {
        let mut attempts = std::mem::take(&mut self.attempts);
        attempts.retain(|sequence, _| *sequence < self.next && !self.is_settled(*sequence));
        self.attempts = attempts;
    }

    /// Removes the state of settled messages, without looking at the others: there may be many.
    fn forget_attempts(&mut self, first: Sequence, last: Sequence) {
        while let Some((sequence, _)) = self.attempts.range(first..=last).next() {
            let sequence = *sequence;
            self.attempts.remove(&sequence);
        }
    }

    #[inline]
    fn settle_slots(&mut self, first: Sequence, last: Sequence, mut gone: impl FnMut(Gone<'_>)) {
        let mut first = first.max(self.base);
        // Usually it is the front.
        while first == self.base
            && first <= last
            && let Some(slot) = self.slots.pop_front()
        {
            self.base += 1;
            first += 1;
            if !slot.is_gone() {
                self.messages -= 1;
                self.bytes -= u64::from(slot.body_bytes);
                gone(Gone::Slot(&slot));
            }
        }
        if first <= last {
            self.settle_behind(first, last, gone);
        }
        self.trim();
    }

    /// Settles slots after the first one.
    fn settle_behind(&mut self, first: Sequence, last: Sequence, mut gone: impl FnMut(Gone<'_>)) {
        let from = (first - self.base) as usize;
        let to = ((last - self.base + 1) as usize).min(self.slots.len());
        for slot in self.slots.range_mut(from.min(to)..to) {
            if !slot.is_gone() {
                self.messages -= 1;
                self.bytes -= u64::from(slot.body_bytes);
                gone(Gone::Slot(slot));
                *slot = Slot::GONE;
            }
        }
    }

    #[inline]
    fn settle_numbers(&mut self, first: Sequence, last: Sequence) {
        if first != self.low {
            self.done.insert(first, last);
            return;
        }
        self.low = last + 1;
        if !self.done.is_empty() {
            self.done.remove(0, last);
            let gap = self.done.gap_from(self.low);
            if gap > self.low {
                self.done.remove(self.low, gap - 1);
                self.low = gap;
            }
        }
    }

    /// Whether there are many more slots than messages, because the first message stays and later ones are removed,
    /// and it is in the journal. (A transient one keeps its chunk and all later ones in memory. They are moved when
    /// that is too much.)
    #[inline]
    pub fn is_sparse(&self) -> bool {
        self.slots.len() > SPARSE_SLOTS
            && self.messages < (self.slots.len() / 8) as u64
            && self.slots.front().is_some_and(|slot| !slot.segment.is_transient())
    }

    fn trim(&mut self) {
        while self.slots.front().is_some_and(Slot::is_gone) {
            self.slots.pop_front();
            self.base += 1;
        }
        // A queue that was long once frees its memory.
        if self.slots.capacity() > 1024 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// The resident messages of some segments, from sequence `from` on.
    pub fn in_segments(
        &self,
        segments: RangeInclusive<SegmentId>,
        from: Sequence,
    ) -> impl Iterator<Item = (Sequence, &Slot)> {
        let skipped = (from.max(self.base) - self.base).min(self.slots.len() as u64);
        let slots = (self.base + skipped..).zip(self.slots.range(skipped as usize..));
        let transient = segments.end().is_transient();
        let (end, own) = (*segments.end(), segments);
        // Sequences and segments of one kind ascend together.
        slots
            .take_while(move |(_, slot)| {
                slot.is_gone() || slot.segment.is_transient() != transient || slot.segment <= end
            })
            .filter(move |(_, slot)| !slot.is_gone() && own.contains(&slot.segment))
    }

    /// The messages of these segments are in `run` now. Calls `moved` for the segment of each.
    pub fn move_to(&mut self, run: RunId, segments: RangeInclusive<SegmentId>, mut moved: impl FnMut(SegmentId)) {
        let mut extents: Vec<Extent> = Vec::new();
        for (sequence, slot) in self.in_segments(segments.clone(), 0) {
            moved(slot.segment);
            let bytes = u64::from(slot.body_bytes);
            match extents.last_mut() {
                Some(extent) if self.done.gap_from(extent.last + 1) >= sequence => {
                    extent.last = sequence;
                    extent.live += 1;
                    extent.bytes += bytes;
                }
                _ => extents.push(Extent { run, live: 1, first: sequence, last: sequence, bytes }),
            }
        }
        for extent in extents {
            for sequence in extent.first..=extent.last {
                let slot = &mut self.slots[(sequence - self.base) as usize];
                if segments.contains(&slot.segment) {
                    *slot = Slot::GONE;
                }
            }
            self.extents.insert(extent);
        }
        self.trim();
    }

    /// Whether a message is in this run and not settled.
    pub fn lives_in(&self, run: RunId, sequence: Sequence) -> bool {
        !self.is_settled(sequence) && self.extents.run_of(sequence) == Some(run)
    }

    /// The messages of these runs are in another one now. Calls `moved` with run and messages of each extent.
    pub fn retarget(&mut self, sources: &[RunId], to: RunId, moved: impl FnMut(RunId, u32)) {
        self.extents.retarget(sources, to, &self.done, moved);
    }

    /// The memory of its index.
    pub fn index_bytes(&self) -> u64 {
        (self.slots.capacity() * size_of::<Slot>()) as u64 + self.extents.held_bytes()
    }

    /// What the broker needs to continue with this queue.
    pub fn state(&self) -> QueueState {
        let head = self.head.max(self.low);
        let mut open = Intervals::new();
        for extent in self.extents.iter() {
            let (first, last) = (extent.first.max(self.low), extent.last.min(head - 1));
            if first <= last {
                open.insert(first, last);
            }
        }
        for (first, last) in self.done.iter() {
            open.remove(first, last);
        }
        for (sequence, slot) in (self.base..head).zip(&self.slots) {
            if !slot.is_gone() {
                open.insert(sequence, sequence);
            }
        }
        // All that came back are below the head. A repair may have given up the record that says so.
        let known = || self.attempts.range(..head);
        let attempts = known().map(|(sequence, attempts)| (*sequence, attempts.count)).collect();
        let waiting = known().filter(|(_, attempts)| attempts.due != Time(0));
        let due = waiting.map(|(sequence, attempts)| (*sequence, attempts.due)).collect();
        assert!(self.low <= head && head <= self.next, "queue {}: {} <= {head} <= {}", self.id.0, self.low, self.next);
        QueueState { next: self.next, head, open, attempts, due }
    }

    /// What the checkpoint stores of it.
    pub fn to_row(&self) -> Row<'_> {
        Row {
            next: self.next,
            head: self.head,
            low: self.low,
            done: &self.done,
            attempts: &self.attempts,
            blob_files: &self.blob_files,
            extents: &self.extents,
        }
    }

    /// The queue from the checkpoint. Messages after its extents are still in the journal.
    pub fn from_row(
        id: QueueId,
        (head, low): (Sequence, Sequence),
        done: Intervals,
        attempts: BTreeMap<Sequence, Attempts>,
        blob_files: BTreeMap<Sequence, u64>,
        extents: Vec<Extent>,
    ) -> Self {
        let mut queue = Self { head, low, next: low, done, attempts, blob_files, ..Self::new(id, true) };
        for extent in extents {
            // The messages between them were transient, and are lost.
            queue.skip_to(extent.first);
            queue.next = queue.next.max(extent.last + 1);
            queue.messages += u64::from(extent.live);
            queue.bytes += extent.bytes;
            queue.extents.insert(extent);
        }
        queue.base = queue.next;
        queue
    }
}

/// A queue in the checkpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub next: Sequence,
    pub head: Sequence,
    pub low: Sequence,
    pub done: &'a Intervals,
    pub attempts: &'a BTreeMap<Sequence, Attempts>,
    pub blob_files: &'a BTreeMap<Sequence, u64>,
    pub extents: &'a Extents,
}
