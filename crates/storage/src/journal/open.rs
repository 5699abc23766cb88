//! The open group and the groups that wait to be written: all that the shard and the flush thread share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferrymq_model::{MessageKey, Position, QueueId, Sequence, Settled};
use parking_lot::{Condvar, Mutex};

use super::closed::{Closed, Settlement, Unit};
use super::files::JournalFiles;
use super::gate::Gate;
use super::group::{HEADER_BYTES, align};
use super::record::{DELIVERED_BYTES, SETTLE_BYTES, write_delivered};
use super::watch::DiskWatch;
use super::{FIRST_GROUP, position};
use crate::driver::Driver;
use crate::error::FatalError;
use crate::fields::FieldWriter;
use crate::image::Image;
use crate::notify::{Backpressure, Stall};
use crate::sabotage::{self, Sabotage};

/// What the shard and the flush thread share. The lock is held for one record at a time, and never while somebody
/// waits for the disk. It is taken after the shard's lock, never before.
#[derive(Debug)]
pub(crate) struct Shared {
    pub open: Mutex<OpenGroup>,
    /// For the flush thread.
    pub changed: Condvar,
    /// For those who wait until something is durable.
    pub synced: Condvar,
    pub durable: AtomicU64,
    pub stalled: Arc<AtomicBool>,
    /// Whether everybody must wait, also those who publish nothing.
    pub overfull: Arc<AtomicBool>,
    /// What the flush thread's calls of the disk are counted with.
    pub watch: DiskWatch,
    pub files: JournalFiles,
    /// The scheduler, if storage has no threads of its own.
    pub driver: Option<Arc<dyn Driver>>,
}

impl Shared {
    pub fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    /// Whether publishers may continue.
    pub fn backpressure(&self) -> Backpressure {
        if self.stalled.load(Ordering::Acquire) {
            self.open.lock().gate.backpressure().clone()
        } else {
            Backpressure::Open
        }
    }

    /// How many files are missing before the journal can be durable up to here, even if all free files are used.
    pub fn files_missing(&self, position: Position) -> u64 {
        let open = self.open.lock();
        let wanted = position.0.div_ceil(u64::from(open.file_bytes));
        let last = open.taken.back().map_or(wanted, |(last, _)| *last);
        wanted.saturating_sub(last).saturating_sub(open.free.len() as u64)
    }

    /// A file was added.
    pub fn added(&self, file: usize) {
        self.open.lock().free.push_back(file);
        self.changed.notify_all();
    }

    /// Gives up the last file, if it was added and nobody needs it now.
    pub fn give_up_file(&self) -> Option<usize> {
        let mut open = self.open.lock();
        let last = self.files.count() - 1;
        let place = open.free.iter().position(|file| *file == last)?;
        if last < open.files || open.is_in_last_file() {
            return None;
        }
        open.free.remove(place)
    }

    /// Waits until the journal is durable up to here; false if it failed, or is to end first.
    pub fn wait_durable(&self, position: Position) -> bool {
        let mut open = self.open.lock();
        while self.durable() < position {
            if open.stop || open.failed.is_some() {
                return false;
            }
            open.requested = true;
            open.awaited = position;
            if open.asleep >= Asleep::UntilRequested {
                self.changed.notify_all();
            }
            let Some(driver) = &self.driver else {
                self.synced.wait(&mut open);
                continue;
            };
            drop(open);
            if !driver.turn() {
                return false;
            }
            open = self.open.lock();
        }
        true
    }

    /// The journal is durable up to here.
    pub fn set_durable(&self, position: Position) {
        let _open = self.open.lock();
        self.durable.store(position.0, Ordering::Release);
        self.synced.notify_all();
    }

    /// The journal failed, for good.
    pub fn fail(&self, error: &FatalError) {
        self.open.lock().failed = Some(error.clone());
        self.synced.notify_all();
    }

    /// Why the journal failed, if it did.
    pub fn failure(&self) -> Option<FatalError> {
        self.open.lock().failed.clone()
    }

    /// Waits a while, for space on the disk or another resource; false if it is time to end.
    pub fn pause(&self, at_most: Duration) -> bool {
        let mut open = self.open.lock();
        if open.stop {
            return false;
        }
        match &self.driver {
            Some(driver) => {
                drop(open);
                driver.turn()
            }
            None => {
                let _ = self.changed.wait_for(&mut open, at_most);
                !open.stop
            }
        }
    }

    /// Transient messages exceed their limit, or no longer do.
    pub fn set_memory_full(&self, full: bool) {
        let mut open = self.open.lock();
        open.memory_full = full;
        let backpressure = if open.must_wait() { open.stall() } else { Backpressure::Open };
        open.gate.set(backpressure);
        self.changed.notify_all();
    }

    /// Asks the flush thread to write and sync everything and to end.
    pub fn stop(&self) {
        self.open.lock().stop = true;
        self.changed.notify_all();
        self.synced.notify_all();
    }

    /// A file may be overwritten: nothing in it is needed.
    pub fn release(&self, generation: u64) {
        let mut open = self.open.lock();
        while open.taken.front().is_some_and(|(taken, _)| *taken <= generation) {
            let (_, file) = open.taken.pop_front().expect("looked at it");
            open.free.push_back(file);
        }
        // What could not be moved a moment ago may be possible now.
        open.no_space = None;
        let backpressure = if open.must_wait() { open.stall() } else { Backpressure::Open };
        open.gate.set(backpressure);
        let overfull = open.is_overfull();
        open.gate.set_overfull(overfull);
        self.changed.notify_all();
    }

    /// A long body cannot be written for now: publishers wait until it is.
    pub fn body_failed(&self, reason: &str) {
        let mut open = self.open.lock();
        open.body_error = Some(reason.into());
        let backpressure = open.stall();
        open.gate.set(backpressure);
    }

    /// This many bytes of long bodies are in their files.
    pub fn bodies_written(&self, bytes: u64) {
        let mut open = self.open.lock();
        let blocked = open.bodies_over_limit() || open.body_error.is_some();
        open.bodies_waiting -= bytes;
        open.body_error = None;
        if blocked && !open.bodies_over_limit() {
            let backpressure = if open.must_wait() { open.stall() } else { Backpressure::Open };
            open.gate.set(backpressure);
        }
    }

    /// What could not be written was written, or is not needed any more.
    pub fn space_again(&self) {
        let mut open = self.open.lock();
        if open.no_space.take().is_some() {
            let backpressure = if open.must_wait() { open.stall() } else { Backpressure::Open };
            open.gate.set(backpressure);
            self.changed.notify_all();
        }
    }

    /// Why nothing can be moved out of the journal, if that is so.
    pub fn no_space_reason(&self) -> Option<String> {
        self.open.lock().no_space.as_deref().map(str::to_owned)
    }

    /// The index of the last complete section.
    pub fn last_section(&self) -> u64 {
        self.open.lock().number - 1
    }

    /// Runs or checkpoints cannot be written: publishers wait from now on, and the reserved file may be used.
    pub fn no_space(&self, reason: &str) {
        let mut open = self.open.lock();
        open.no_space = Some(reason.into());
        let backpressure = open.stall();
        open.gate.set(backpressure);
        self.changed.notify_all();
    }
}

/// What the flush thread is waiting for, so that it is not woken for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asleep {
    /// It is working and checks again before it sleeps.
    No,
    /// Until the group is full, or its time is over.
    UntilFull,
    /// Until somebody waits, or its time is over.
    UntilRequested,
    /// For anything at all.
    UntilAnything,
}

/// Adjacent settlements of one queue are one record in each group. A queue keeps such a mark to find its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    /// The group, or with the highest bit set the unit.
    group: u64,
    index: u32,
}

/// How much of long bodies may wait in memory for their own files before publishers wait.
const BODIES_WAITING_MAX: u64 = 16 << 20;

/// At this many times its files the journal accepts nothing more.
const OVERFULL: usize = 2;

/// Distinguishes marks of units from those of groups.
const UNIT: u64 = 1 << 63;

/// Where a replayed journal ends, and where it continues.
#[derive(Debug)]
pub(crate) struct Tail {
    pub generation: u64,
    pub start: u32,
    pub number: u64,
    pub image: Arc<Image>,
    pub free: VecDeque<usize>,
    pub taken: VecDeque<(u64, usize)>,
}

/// The open group.
#[derive(Debug)]
pub(crate) struct OpenGroup {
    pub generation: u64,
    pub image: Arc<Image>,
    number: u64,
    start: u32,
    /// Where the next record goes.
    pub end: u32,
    pub messages: u32,
    settlements: Vec<Settlement>,
    delivered: Vec<MessageKey>,
    bodies: Vec<(u32, Bytes)>,
    blob_files: Vec<(u64, Bytes)>,
    /// Bytes of bodies that need their own files and have none yet, in this group and in closed ones.
    bodies_waiting: u64,
    /// The unit that is being written.
    unit: Option<Unit>,
    /// Counts units.
    units: u64,
    /// How far queues were delivered in the unit.
    unit_delivered: Vec<MessageKey>,
    /// Where a unit ended that began in an earlier group; 0 if there was none.
    finished_to: u32,
    pub closed: VecDeque<Closed>,
    /// Somebody waits for what is open or closed.
    pub requested: bool,
    pub asleep: Asleep,
    pub stop: bool,
    file_bytes: u32,
    /// How many files the journal has, without added ones.
    files: usize,
    /// Used in turn.
    free: VecDeque<usize>,
    /// The file of each generation, ascending.
    taken: VecDeque<(u64, usize)>,
    /// Why runs or checkpoints cannot be written.
    no_space: Option<Arc<str>>,
    /// Why a long body cannot be written.
    body_error: Option<Arc<str>>,
    pub gate: Gate,
    failed: Option<FatalError>,
    /// The spill thread waits for the journal up to here. If the file for that were never used, none would become
    /// free.
    awaited: Position,
    memory_full: bool,
}

impl OpenGroup {
    /// How many files are reserved for settlements while the disk is full.
    pub const KEPT_BACK: usize = 1;

    pub fn new(tail: Tail, file_bytes: u32, files: u32, gate: Gate) -> Self {
        Self {
            generation: tail.generation,
            image: tail.image,
            number: tail.number,
            start: tail.start,
            end: tail.start + HEADER_BYTES as u32,
            messages: 0,
            settlements: Vec::new(),
            delivered: Vec::new(),
            bodies: Vec::new(),
            blob_files: Vec::new(),
            bodies_waiting: 0,
            unit: None,
            units: 0,
            unit_delivered: Vec::new(),
            finished_to: 0,
            closed: VecDeque::new(),
            requested: false,
            asleep: Asleep::No,
            stop: false,
            file_bytes,
            files: files as usize,
            free: tail.free,
            taken: tail.taken,
            no_space: None,
            body_error: None,
            gate,
            failed: None,
            awaited: Position(0),
            memory_full: false,
        }
    }

    /// The position at which everything so far is durable.
    #[inline]
    pub fn position(&self) -> Position {
        let end = if self.is_empty() { self.start } else { self.end + self.merged_bytes() };
        position(self.file_bytes, self.generation, end)
    }

    #[inline]
    fn merged_bytes(&self) -> u32 {
        (self.settlements.len() * SETTLE_BYTES + self.delivered.len() * DELIVERED_BYTES) as u32
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.end == self.start + HEADER_BYTES as u32 && self.settlements.is_empty() && self.delivered.is_empty()
    }

    /// The length of the group so far.
    pub fn bytes(&self) -> u32 {
        self.end - self.start + self.merged_bytes()
    }

    /// Whether `bytes` more fit into this generation's file.
    #[inline]
    pub fn fits(&self, bytes: usize) -> bool {
        self.end as usize + self.merged_bytes() as usize + bytes <= self.file_bytes as usize
    }

    /// The number of the open group.
    pub fn number(&self) -> u64 {
        self.number
    }

    #[inline]
    pub fn in_unit(&self) -> bool {
        self.unit.is_some()
    }

    pub fn begin_unit(&mut self) {
        debug_assert!(self.unit.is_none(), "units do not nest");
        self.unit = Some(Unit { from: self.end, carried: false });
        self.units += 1;
    }

    /// The marks of delivery of the unit, which are its last records.
    pub fn take_unit_marks(&mut self) -> Vec<MessageKey> {
        std::mem::take(&mut self.unit_delivered)
    }

    pub fn end_unit(&mut self) {
        debug_assert!(self.unit_delivered.is_empty(), "a unit's marks are written before it ends");
        debug_assert!(self.unit.is_none_or(|unit| !unit.carried || self.end > unit.from), "what goes on has records");
        if self.unit.take().is_some_and(|unit| unit.carried) {
            self.finished_to = self.end;
        }
    }

    pub fn share_body(&mut self, at: u32, body: Bytes) {
        self.bodies.push((at, body));
    }

    /// A body must be in its own file before this group is written.
    pub fn write_blob_file(&mut self, number: u64, body: Bytes) {
        self.bodies_waiting += body.len() as u64;
        self.blob_files.push((number, body));
    }

    /// Whether more bytes wait for their own files than may be in memory.
    pub fn bodies_over_limit(&self) -> bool {
        self.bodies_waiting > BODIES_WAITING_MAX
    }

    /// Whether the disk is full for what must be moved out of the journal, and no file is left but the reserved
    /// one.
    pub fn must_last(&self) -> bool {
        self.no_space.is_some() && self.is_in_last_file()
    }

    /// Adds a settlement to this group, or extends the queue's last one in it.
    #[inline]
    pub fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled, mark: &mut Mark) {
        if mark.group == self.number {
            let settlement = &mut self.settlements[mark.index as usize];
            if settlement.last + 1 == first && settlement.why == why {
                settlement.last = last;
                return;
            }
        }
        *mark = Mark { group: self.number, index: self.settlements.len() as u32 };
        self.settlements.push(Settlement { queue, first, last, why });
    }

    /// Records how far a queue was delivered; only the last mark of each group or unit is written.
    #[inline]
    pub fn delivered(&mut self, queue: QueueId, sequence: Sequence, mark: &mut Mark) {
        let (group, marks) = match self.unit {
            None => (self.number, &mut self.delivered),
            Some(_) => (self.units | UNIT, &mut self.unit_delivered),
        };
        if mark.group == group {
            marks[mark.index as usize].sequence = sequence;
        } else {
            *mark = Mark { group, index: marks.len() as u32 };
            marks.push(MessageKey { queue, sequence });
        }
    }

    /// Completes the open group, unless it is empty, and begins the next one behind it. An unfinished unit
    /// continues there.
    pub fn close(&mut self) {
        if !self.is_empty() {
            let closed = self.complete();
            self.closed.push_back(closed);
        }
    }

    /// A group without records, in place of the open one; `None` if that has records, or if it does not fit.
    pub fn seal(&mut self) -> Option<Closed> {
        (self.is_empty() && self.unit.is_none() && self.end <= self.file_bytes).then(|| self.complete())
    }

    fn complete(&mut self) -> Closed {
        let merged = self.encode_merged();
        let start = align(self.end + merged.len() as u32);
        let closed = Closed {
            generation: self.generation,
            number: self.number,
            start: self.start,
            end: self.end,
            merged,
            unfinished: self.unit,
            finished_to: std::mem::take(&mut self.finished_to),
            image: Arc::clone(&self.image),
            bodies: std::mem::take(&mut self.bodies),
            blob_files: std::mem::take(&mut self.blob_files),
            up_to: position(self.file_bytes, self.generation, start),
        };
        self.delivered.clear();
        self.settlements.clear();
        self.begin(start);
        closed
    }

    fn begin(&mut self, start: u32) {
        self.number += 1;
        self.start = start;
        self.end = start + HEADER_BYTES as u32;
        self.messages = 0;
        self.unit = self.unit.map(|_| Unit { from: self.end, carried: true });
    }

    fn encode_merged(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.settlements.len() * SETTLE_BYTES + self.delivered.len() * DELIVERED_BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        for settlement in &self.settlements {
            if sabotage::is(Sabotage::ForgetSettlement) {
                // Written as an empty group.
                Settlement { queue: QueueId(0), ..*settlement }.write(&mut out);
            } else {
                settlement.write(&mut out);
            }
        }
        for place in &self.delivered {
            write_delivered(&mut out, *place);
        }
        bytes
    }

    /// Continues in the next generation. It has an image at once, and a file as soon as one is free.
    pub fn next_generation(&mut self, image: Arc<Image>) {
        self.close();
        self.generation += 1;
        self.image = image;
        (self.start, self.end) = (FIRST_GROUP, FIRST_GROUP + HEADER_BYTES as u32);
        self.unit = self.unit.map(|unit| Unit { from: self.end, carried: unit.carried });
        let _ = self.file_of(self.generation);
    }

    /// The file of a generation; takes a free one if it has none yet and is the next one.
    pub fn file_of(&mut self, generation: u64) -> Option<usize> {
        if let Some((_, file)) = self.taken.iter().find(|(taken, _)| *taken == generation) {
            return Some(*file);
        }
        let in_turn = self.taken.back().is_none_or(|(last, _)| last + 1 == generation);
        // At the end of the server everything is written; the next start makes space again.
        let awaited = position(self.file_bytes, generation, 0) < self.awaited;
        let kept_back = if self.no_space.is_some() || self.stop || awaited { 0 } else { Self::KEPT_BACK };
        if !in_turn || self.free.len() <= kept_back {
            return None;
        }
        let file = self.free.pop_front().expect("more than none");
        self.taken.push_back((generation, file));
        Some(file)
    }

    /// Whether the journal is about to run out of files: the last is three quarters full, or there is none. Added
    /// files do not count, otherwise there would be more of them each time.
    pub fn is_short(&self) -> bool {
        let has_file = self.taken.back().is_some_and(|(last, _)| *last >= self.generation);
        let nearly_full = self.end > self.file_bytes / 4 * 3;
        !has_file || self.taken.len() > self.files || (nearly_full && self.is_in_last_file())
    }

    /// Whether the journal has so many files too many that it accepts nothing more: acknowledgements continue while
    /// publishers wait, and each takes space.
    pub fn is_overfull(&self) -> bool {
        let first = self.taken.front().map_or(self.generation, |(first, _)| *first);
        self.generation - first > (OVERFULL * self.files) as u64
    }

    /// Whether another generation would have a file, with others left.
    pub fn has_free_file(&self) -> bool {
        self.free.len() > Self::KEPT_BACK + 1
    }

    /// Whether no file is left but the reserved one.
    fn is_in_last_file(&self) -> bool {
        self.taken.len() + Self::KEPT_BACK >= self.files
    }

    /// Whether there is a reason for publishers to wait.
    fn must_wait(&self) -> bool {
        let fails = self.no_space.is_some() || self.body_error.is_some();
        fails || self.memory_full || self.bodies_over_limit() || self.is_short()
    }

    pub fn stall(&self) -> Backpressure {
        Backpressure::Stalled(match self.no_space.as_ref().or(self.body_error.as_ref()) {
            Some(reason) => Stall::NoSpace(Arc::clone(reason)),
            None if self.memory_full => Stall::MemoryFull,
            None if self.bodies_over_limit() => Stall::BodiesWaiting,
            None => Stall::JournalFull,
        })
    }
}
