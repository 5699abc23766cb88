//! The store's side of moving messages to disk: what the spill thread reads and changes under the shard's lock, in
//! short visits.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use ferrymq_model::{CatalogEntry, Position, QueueId, Sequence};
use hashbrown::HashMap;

use crate::cache::BodyKey;
use crate::checkpoint::Changes;
use crate::checkpoint::row;
use crate::image::Image;
use crate::queue::Slot;
use crate::read_ahead::{Want, Wanted};
use crate::run::{RunId, Sections};
use crate::segment::{SegmentId, Segments};
use crate::store::Store;

/// How many messages are collected in one visit.
const VISIT_MESSAGES: usize = 8192;
/// How many queues are looked at in one visit.
pub(crate) const VISIT_QUEUES: usize = 256;
/// How many closed journal generations may be resident.
const RESIDENT_GENERATIONS: usize = 1;
/// How much of the current generation stays in memory while there are no requests.
const IDLE_BYTES_MAX: usize = 1 << 20;
/// The minimum number of transient chunks in one run, if there are so many.
const TRANSIENT_CHUNKS: usize = 8;

/// Segments that are to be emptied.
#[derive(Debug)]
pub(crate) struct Batch {
    pub segments: RangeInclusive<SegmentId>,
    pub images: Vec<(SegmentId, Arc<Image>)>,
    /// Queues that may have something in them, by id.
    pub queues: Vec<QueueId>,
    /// Whether anything in them is live.
    pub live: bool,
    /// For a journal generation: its number, and the position at which everything in it is durable.
    pub generation: Option<(u64, Position)>,
    /// The sections of their messages.
    pub sections: Sections,
}

/// A file that is not needed after the journal is durable up to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub file: DeadFile,
    pub position: Position,
}

/// Which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadFile {
    Run(RunId),
    Body(u64),
}

/// A message that is to be moved.
#[derive(Debug)]
pub(crate) struct Collected {
    pub queue: QueueId,
    pub sequence: Sequence,
    pub slot: Slot,
    pub body: Option<Bytes>,
}

/// Where the next visit continues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    pub queue: usize,
    pub sequence: Sequence,
}

impl Store {
    /// The journal generation to retire now, if there is one.
    pub(crate) fn generation_to_retire(&mut self) -> Option<Batch> {
        let resident = if self.has_early_generation() { 0 } else { RESIDENT_GENERATIONS };
        if self.journal.len() <= resident + 1 {
            return None;
        }
        let number = self.journal.first_number();
        let id = SegmentId::journal(number.into());
        let mut batch = self.batch(id..=id);
        // Every record of the generation is decided, and so is the end of a unit that continued in the next one.
        batch.generation = Some((number.into(), self.appender.position()));
        let last = self.journal.second().map_or(0, |next| next.first_section - 1);
        batch.sections = Sections { first: self.journal.get(id).first_section, last };
        Some(batch)
    }

    /// There were no requests for a while. If nothing in the journal is live, all of it is retired, and memory that
    /// is kept for the next generations is freed, with what was read back. Returns whether there is something to
    /// retire.
    pub(crate) fn rest(&mut self) -> bool {
        self.appender.drop_spares();
        if self.journal.iter().any(|segment| segment.live > 0) {
            return false;
        }
        self.cache.clear();
        if self.appender.image().filled() > IDLE_BYTES_MAX && self.appender.next_generation() {
            self.follow_appender();
        }
        self.retire_closed();
        self.journal.len() > 1
    }

    /// The transient chunks to move now, if there are any.
    pub(crate) fn transient_to_move(&mut self) -> Option<Batch> {
        if !self.transient.is_nearly_full() {
            return None;
        }
        let segments = self.transient.segments();
        let first = segments.first_number();
        let count = TRANSIENT_CHUNKS.min(segments.len() - 1) as u32;
        if count == 0 {
            return None;
        }
        Some(self.batch(SegmentId::transient(first)..=SegmentId::transient(first + count - 1)))
    }

    fn batch(&self, range: RangeInclusive<SegmentId>) -> Batch {
        let segments = if range.end().is_transient() { self.transient.segments() } else { &self.journal };
        let numbers = range.start().0..=range.end().0;
        let (mut images, mut queues, mut live) = (Vec::new(), Vec::new(), false);
        for id in numbers.map(SegmentId) {
            let segment = segments.get(id);
            live |= segment.live > 0;
            images.push((id, Arc::clone(&segment.image)));
            queues.extend(segment.touched.iter().filter_map(|key| self.queues[*key as usize].as_ref()).map(|q| q.id));
        }
        queues.sort_unstable();
        queues.dedup();
        Batch { segments: range, images, queues, live, generation: None, sections: Sections::default() }
    }

    /// Collects messages of a batch from `cursor` on; returns where to continue, or that this was all.
    pub(crate) fn collect(&self, batch: &Batch, cursor: Cursor, into: &mut Vec<Collected>) -> Option<Cursor> {
        let mut from = cursor.sequence;
        for index in cursor.queue..batch.queues.len() {
            if index >= cursor.queue + VISIT_QUEUES {
                return Some(Cursor { queue: index, sequence: 0 });
            }
            let Some(key) = self.keys.get(batch.queues[index]) else { continue };
            let queue = self.queues[key as usize].as_ref().expect("keys are of queues");
            for (sequence, slot) in queue.in_segments(batch.segments.clone(), from) {
                if into.len() >= VISIT_MESSAGES {
                    return Some(Cursor { queue: index, sequence });
                }
                let body = slot.beside.then(|| self.body_beside(slot).clone());
                into.push(Collected { queue: queue.id, sequence, slot: *slot, body });
            }
            from = 0;
        }
        None
    }

    /// The messages of a batch are in `run` now: from here on they are found there.
    pub(crate) fn swap(&mut self, batch: &Batch, run: RunId, cursor: usize) -> Option<usize> {
        let end = (cursor + VISIT_QUEUES).min(batch.queues.len());
        // One more than the run's live messages, until all are moved: it must not be deleted because the first
        // queues were fast.
        let mut moved = u64::from(cursor == 0);
        for id in &batch.queues[cursor..end] {
            let Some(key) = self.keys.get(*id) else { continue };
            let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
            let (journal, transient) = (&mut self.journal, &mut self.transient);
            queue.move_to(run, batch.segments.clone(), |segment| {
                moved += 1;
                if segment.is_transient() {
                    transient.moved(segment);
                } else {
                    journal.get_mut(segment).live -= 1;
                }
            });
            if queue.extents().len() > self.extents_max {
                self.fragmented = Some(*id);
            }
        }
        *self.runs.entry(run).or_default() += moved;
        if end < batch.queues.len() {
            return Some(end);
        }
        self.unpin(run);
        self.transient.drop_dead();
        self.watch_memory();
        None
    }

    /// Everything for a run is in it; it may be deleted now.
    pub(crate) fn unpin(&mut self, run: RunId) {
        let live = self.runs.get_mut(&run).expect("it was pinned");
        *live -= 1;
        if *live == 0 {
            self.runs.remove(&run);
            self.dead.push(Dead { file: DeadFile::Run(run), position: self.appender.position() });
        }
    }

    /// What the checkpoint needs of some queues from `cursor` on.
    pub(crate) fn rows(&self, queues: &[QueueId], cursor: usize, changes: &mut Changes) -> Option<usize> {
        let end = (cursor + VISIT_QUEUES).min(queues.len());
        for id in &queues[cursor..end] {
            let Some(key) = self.keys.get(*id) else { continue };
            let queue = self.queues[key as usize].as_ref().expect("keys are of queues");
            changes.queues.push((*id, row::encode(queue, self.appender.position())));
        }
        (end < queues.len()).then_some(end)
    }

    /// The catalog's changes since the last checkpoint, and the queues deleted since then.
    pub(crate) fn take_changes(&mut self) -> Changes {
        let entries = std::mem::take(&mut self.changed_entries);
        let entries = entries.into_iter().map(|((kind, key), value)| CatalogEntry { kind, key, value }).collect();
        Changes { entries, queues: Vec::new(), deleted: std::mem::take(&mut self.deleted) }
    }

    /// A checkpoint failed: its changes are for the next one, unless there are newer ones.
    pub(crate) fn give_back(&mut self, changes: &Changes) {
        for entry in &changes.entries {
            self.changed_entries.entry((entry.kind, entry.key.clone())).or_insert_with(|| entry.value.clone());
        }
        self.deleted.extend(&changes.deleted);
    }

    /// The oldest journal generation is in runs and checkpoint.
    pub(crate) fn retire_oldest(&mut self) {
        if let Some(segment) = self.journal.pop() {
            debug_assert_eq!(segment.live, 0, "what lives was moved");
            self.appender.recycle(segment.image);
        }
    }

    /// Takes the files that may be deleted now.
    pub(crate) fn take_dead(&mut self) -> Vec<Dead> {
        let durable = self.shared.durable();
        self.cache.written(durable);
        let may_go = |dead: &Dead| match dead.file {
            DeadFile::Run(run) if run.is_transient() => true,
            _ => dead.position <= durable,
        };
        let (mut gone, kept): (Vec<_>, _) = self.dead.drain(..).partition(may_go);
        self.dead = kept;
        gone.retain(|dead| !matches!(dead.file, DeadFile::Body(number) if self.bodies.let_go(number)));
        gone
    }

    /// Whether there is something to check again: long bodies that are being written, files that wait for the
    /// journal to be durable before they can be deleted, and runs of which enough may be settled by then to merge
    /// them.
    pub(crate) fn has_files(&self) -> bool {
        !self.dead.is_empty() || !self.runs.is_empty() || self.cache.has_unwritten()
    }

    /// A queue's message cannot be read from its place; false if nobody needs it from there any more.
    pub(crate) fn fail_queue(&mut self, want: &Want) -> bool {
        let Some(key) = self.keys.get(want.queue) else { return false };
        let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
        let run = match want.what {
            Wanted::Block(run) | Wanted::Body(BodyKey::InRun(run, _), ..) => Some(run),
            Wanted::Body(BodyKey::BlobFile(_), ..) => None,
        };
        let is_elsewhere = run.is_some() && queue.extents().run_of(want.sequence) != run;
        if queue.is_settled(want.sequence) || is_elsewhere || queue.failed {
            return false;
        }
        queue.failed = true;
        true
    }
}

/// Accounts for what leaves a queue.
pub(crate) struct Leaving<'a> {
    pub journal: &'a mut Segments,
    pub transient: &'a mut crate::transient::Transient,
    pub runs: &'a mut HashMap<RunId, u64, foldhash::fast::FixedState>,
    pub blob_files: &'a mut HashMap<u64, u32, foldhash::fast::FixedState>,
    pub dead: &'a mut Vec<Dead>,
    pub freed: &'a mut Vec<Bytes>,
    /// Whether anything durable left.
    pub durable: bool,
    pub emptied: bool,
}

impl Leaving<'_> {
    #[inline]
    pub fn take(&mut self, gone: crate::queue::Gone<'_>) {
        use crate::queue::Gone;
        match gone {
            Gone::Slot(slot) if slot.segment.is_transient() => self.transient.release(slot),
            Gone::Slot(slot) => {
                self.durable = true;
                let segment = self.journal.get_mut(slot.segment);
                segment.live -= 1;
                if slot.beside {
                    self.freed.extend(segment.release_body(slot.at));
                }
            }
            Gone::Moved(left) => {
                self.durable |= !left.run.is_transient();
                let live = self.runs.get_mut(&left.run).expect("an extent's run is known");
                *live -= u64::from(left.messages);
                if *live == 0 {
                    self.runs.remove(&left.run);
                    self.add_dead_file(DeadFile::Run(left.run));
                }
            }
            Gone::BlobFile(number) => {
                let live = self.blob_files.get_mut(&number).expect("a body's file is known");
                *live -= 1;
                if *live == 0 {
                    self.blob_files.remove(&number);
                    self.add_dead_file(DeadFile::Body(number));
                }
            }
        }
    }

    /// The position is filled in when the settlement has one.
    fn add_dead_file(&mut self, file: DeadFile) {
        self.emptied = true;
        self.dead.push(Dead { file, position: Position(u64::MAX) });
    }
}

/// Files that are not needed since a moment ago wait until what was decided then is durable.
pub(crate) fn date_dead(dead: &mut [Dead], position: Position) {
    for dead in dead.iter_mut().rev().take_while(|dead| dead.position == Position(u64::MAX)) {
        dead.position = position;
    }
}
