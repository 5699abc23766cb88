//! The flush thread: writes closed groups, syncs them, and reports how far the journal is durable.
//!
//! ```text
//!            somebody waits, or much is open          written
//!   asleep ───────────────────────────────▶ write ─────────────▶ sync ──▶ durable, confirms
//!     ▲  ╲_ nobody waits: after 10 ms ______▲  │ nobody waits      ▲        │ nothing more comes for a second
//!     ├────────────────────────────────────────┴─ within a second ─┘        ▼
//!     └───────────────────────────────────────────────────────────────── seal
//! ```
//! A seal is a group without records that says how much was synced before it, so that damage in what was written
//! last can be distinguished from a torn end. A failed sync is never tried again: what the kernel kept of it is
//! unknown.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ferrymq_model::{Position, Time};
use parking_lot::MutexGuard;

use super::blocks::Blocks;
use super::closed::Closed;

use super::group::{self, GROUP_BYTES, GroupHeader, HEADER_BYTES, SectionHeader};
use super::open::{Asleep, OpenGroup, Shared};
use super::position;
use crate::blob::BlobFiles;
use crate::disk::Disk;
use crate::driver::Turn;
use crate::error::{FatalError, Kind, kind_of};
use crate::notify::{Backpressure, Notify};
use crate::options::Options;
use crate::sabotage::{self, Sabotage};

/// A flush that nobody asked for starts when a group has this much.
const UNASKED_BYTES: u32 = 1 << 20;

/// How often a write is tried again for which there was no space or another resource was missing.
const RETRY: Duration = Duration::from_secs(1);

/// The state with which the journal continues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The directory's stamp.
    pub stamp: u64,
    /// The chain of the last group.
    pub group: u32,
    /// The CRC of the last section.
    pub section: u32,
    /// Counts the starts of the server.
    pub term: u64,
    /// When the last section was closed.
    pub time: Time,
}

/// Starts the thread.
pub(crate) fn spawn(mut flusher: Flusher) -> io::Result<JoinHandle<()>> {
    let run = move || while flusher.turn(true) != Turn::Over {};
    thread::Builder::new().name("journal".to_owned()).spawn(run)
}

/// The thread's state.
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    notify: Arc<dyn Notify>,
    disk: Arc<dyn Disk>,
    blob_files: BlobFiles,
    group_bytes: u32,
    group_messages: u32,
    group_wait: Duration,
    write_wait: Duration,
    sync_wait: Duration,
    chain: Chain,
    blocks: Blocks,
    /// The last group that was synced.
    synced_number: u64,
    /// Whether the last written group says that all other groups were synced.
    sealed: bool,
    /// Since when somebody has been waiting for the open group.
    fills_since: Option<Duration>,
    /// Since when something is in the open group.
    open_since: Option<Duration>,
    /// Since when there is nothing left to write or sync.
    idle_since: Option<Duration>,
    unsynced: Option<Unsynced>,
}

/// What was written and not synced.
#[derive(Clone, Debug)]
struct Unsynced {
    since: Duration,
    /// The file that was written last; earlier ones are synced before it is begun.
    file: usize,
    up_to: u64,
    number: u64,
}

/// What is to be done without the lock.
#[derive(Default)]
struct Work {
    groups: Vec<(usize, Closed)>,
    sync: bool,
    backpressure: Option<Backpressure>,
    stop: bool,
}

/// What the state of the open group requires.
enum Next {
    Write { sync: bool },
    Seal,
    Sleep(Asleep, Option<Duration>),
}

/// Nothing is to be done until then.
struct Nothing(Option<Duration>);

impl Flusher {
    pub fn new(
        shared: Arc<Shared>,
        notify: Arc<dyn Notify>,
        disk: Arc<dyn Disk>,
        blob_files: BlobFiles,
        options: &Options,
        chain: Chain,
    ) -> Self {
        Self {
            shared,
            notify,
            disk,
            blob_files,
            group_bytes: options.group_bytes,
            group_messages: options.group_messages,
            group_wait: Duration::from_micros(options.group_wait_us),
            write_wait: Duration::from_millis(options.write_wait_ms),
            sync_wait: Duration::from_millis(options.sync_wait_ms),
            chain,
            blocks: Blocks::new(),
            synced_number: 0,
            sealed: false,
            fills_since: None,
            open_since: None,
            idle_since: None,
            unsynced: None,
        }
    }

    /// Does what there is to do; sleeps first until there is something, if it may.
    pub fn turn(&mut self, may_sleep: bool) -> Turn {
        let work = match self.wait(may_sleep) {
            Ok(work) => work,
            Err(Nothing(until)) => return Turn::Idle(until),
        };
        if let Some(backpressure) = &work.backpressure {
            self.notify.backpressure(backpressure);
        }
        if let Err(error) = self.carry_out(&work) {
            self.shared.fail(&error);
            self.notify.fatal(&error);
            return Turn::Over;
        }
        if work.stop { Turn::Over } else { Turn::Worked }
    }

    /// Sleeps until there is something to do, and takes it.
    fn wait(&mut self, may_sleep: bool) -> Result<Work, Nothing> {
        let shared = Arc::clone(&self.shared);
        let mut open = shared.open.lock();
        loop {
            if let Some(backpressure) = open.gate.news() {
                return Ok(Work { backpressure: Some(backpressure), ..Work::default() });
            }
            let (asleep, until) = match self.next(&open) {
                Next::Write { sync } if !open.in_unit() => match self.take(&mut open, sync) {
                    Some(work) => return Ok(work),
                    None => (Asleep::UntilAnything, None),
                },
                // A unit is short; its end wakes this thread.
                Next::Write { .. } => (Asleep::UntilFull, None),
                Next::Seal => match self.take_seal(&mut open) {
                    Some(work) => return Ok(work),
                    None => (Asleep::UntilAnything, None),
                },
                Next::Sleep(asleep, until) => (asleep, until),
            };
            if !may_sleep {
                return Err(Nothing(until));
            }
            self.sleep(&mut open, asleep, until);
        }
    }

    fn sleep(&self, open: &mut MutexGuard<'_, OpenGroup>, asleep: Asleep, until: Option<Duration>) {
        open.asleep = asleep;
        match until.map(|until| until.saturating_sub(self.disk.elapsed())) {
            Some(left) => drop(self.shared.changed.wait_for(open, left)),
            None => self.shared.changed.wait(open),
        }
        open.asleep = Asleep::No;
    }

    fn next(&mut self, open: &OpenGroup) -> Next {
        let pending = !open.is_empty() || !open.closed.is_empty();
        if open.stop {
            return Next::Write { sync: true };
        }
        if !pending && self.unsynced.is_none() {
            return self.next_when_idle();
        }
        self.idle_since = None;
        let now = self.disk.elapsed();
        if open.must_last() {
            // The reserved file must last: one group a second, whoever waits.
            let until = *self.open_since.get_or_insert(now) + self.sync_wait;
            return if now >= until { Next::Write { sync: true } } else { Next::Sleep(Asleep::UntilFull, Some(until)) };
        }
        if open.requested {
            let small = open.messages < self.group_messages;
            if small || open.bytes() >= self.group_bytes || !open.closed.is_empty() {
                return Next::Write { sync: true };
            }
            let until = *self.fills_since.get_or_insert(now) + self.group_wait;
            return if now >= until { Next::Write { sync: true } } else { Next::Sleep(Asleep::UntilFull, Some(until)) };
        }
        let sync_at = self.unsynced.as_ref().map(|unsynced| unsynced.since + self.sync_wait);
        let overdue = sync_at.is_some_and(|at| now >= at);
        if !pending {
            return if overdue { Next::Write { sync: true } } else { Next::Sleep(Asleep::UntilAnything, sync_at) };
        }
        let until = *self.open_since.get_or_insert(now) + self.write_wait;
        if now >= until || open.bytes() >= UNASKED_BYTES || !open.closed.is_empty() {
            return Next::Write { sync: overdue };
        }
        Next::Sleep(Asleep::UntilRequested, Some(until))
    }

    /// Everything is written and synced. The last group cannot say so itself, so a seal says it after a while.
    fn next_when_idle(&mut self) -> Next {
        if self.sealed {
            return Next::Sleep(Asleep::UntilAnything, None);
        }
        let now = self.disk.elapsed();
        let until = *self.idle_since.get_or_insert(now) + self.sync_wait;
        if now >= until { Next::Seal } else { Next::Sleep(Asleep::UntilAnything, Some(until)) }
    }

    /// Takes every closed group that has a file; `None` if none has.
    fn take(&mut self, open: &mut OpenGroup, sync: bool) -> Option<Work> {
        open.close();
        let mut groups = Vec::with_capacity(open.closed.len());
        while let Some(closed) = open.closed.front() {
            let Some(file) = open.file_of(closed.generation) else { break };
            groups.push((file, open.closed.pop_front().expect("looked at it")));
        }
        if groups.is_empty() && self.unsynced.is_none() && !open.stop {
            return None;
        }
        (self.fills_since, self.open_since) = (None, None);
        open.requested &= !open.closed.is_empty();
        // While there is no file for the next group, there is time to sync the earlier ones.
        Some(Work { sync: sync || groups.is_empty(), groups, backpressure: None, stop: open.stop })
    }

    /// Takes a seal; `None` if there is no place for it, or if it can wait.
    fn take_seal(&mut self, open: &mut OpenGroup) -> Option<Work> {
        self.sealed = true;
        let file = open.file_of(open.generation).filter(|_| !open.must_last())?;
        Some(Work { groups: vec![(file, open.seal()?)], ..Work::default() })
    }

    fn carry_out(&mut self, work: &Work) -> Result<(), FatalError> {
        for (file, closed) in &work.groups {
            // A sync covers one file, so the one before is finished first.
            if self.unsynced.as_ref().is_some_and(|unsynced| unsynced.file != *file) {
                self.sync()?;
            }
            self.write_blob_files(closed)?;
            self.write(*file, closed)?;
            let since = self.unsynced.as_ref().map_or_else(|| self.disk.elapsed(), |unsynced| unsynced.since);
            self.unsynced = Some(Unsynced { since, file: *file, up_to: closed.up_to.0, number: closed.number });
            self.sealed = closed.is_seal();
        }
        if work.sync {
            self.sync()?;
        }
        if work.stop { self.seal_for_good() } else { Ok(()) }
    }

    /// The server ends: damage in the last group must not be taken for a torn end.
    fn seal_for_good(&mut self) -> Result<(), FatalError> {
        if self.sealed {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let seal = {
            let mut open = shared.open.lock();
            if open.closed.is_empty() && open.is_empty() { self.take_seal(&mut open) } else { None }
        };
        match seal {
            Some(work) => self.carry_out(&Work { sync: true, ..work }),
            None => Ok(()),
        }
    }

    /// Writes the bodies that a group refers to. A file that cannot be written is begun again when there may be
    /// space: nothing refers to it yet.
    fn write_blob_files(&self, closed: &Closed) -> Result<(), FatalError> {
        for (number, body) in &closed.blob_files {
            while let Err(error) = self.shared.watch.during(|| self.blob_files.write(*number, body)) {
                let passes = matches!(kind_of(&error), Kind::Full | Kind::Passing);
                self.shared.body_failed(&error.to_string());
                if !passes || !self.shared.pause(RETRY) {
                    return Err(self.blob_file_failed("write", *number, &error));
                }
            }
        }
        let Some((number, _)) = closed.blob_files.first() else { return Ok(()) };
        let synced = self.shared.watch.during(|| self.blob_files.sync_names());
        synced.map_err(|error| self.blob_file_failed("sync the folder of", *number, &error))?;
        self.shared.bodies_written(closed.blob_files.iter().map(|(_, body)| body.len() as u64).sum());
        Ok(())
    }

    fn blob_file_failed(&self, what: &'static str, number: u64, error: &io::Error) -> FatalError {
        FatalError { what, file: self.blob_files.path_of(number), error: error.to_string() }
    }

    fn write(&mut self, file: usize, closed: &Closed) -> Result<(), FatalError> {
        let parts = parts(closed);
        let bytes = HEADER_BYTES - GROUP_BYTES + parts.iter().map(|part| part.len()).sum::<usize>();
        let (header, chain) =
            self.headers(closed, u32::try_from(bytes).expect("a group is shorter than its file"), &parts);
        let mut all = Vec::with_capacity(parts.len() + 1);
        all.push(&header[..]);
        all.extend(&parts);
        let written = self.shared.files.file(file);
        while let Err(error) = self.shared.watch.during(|| self.blocks.write(&**written, closed.start.into(), &all)) {
            // Nothing was synced, so the same bytes may be written again.
            if kind_of(&error) != Kind::Passing || !self.shared.pause(RETRY) {
                return Err(self.fatal("write", file, &error));
            }
        }
        self.chain = chain;
        Ok(())
    }

    /// Both headers of a group, and the state with which the next one continues.
    fn headers(&self, closed: &Closed, bytes: u32, parts: &[&[u8]]) -> ([u8; HEADER_BYTES], Chain) {
        // Places in a section are relative to its own header.
        let begin = closed.start + GROUP_BYTES as u32;
        let place = |at: u32| at.saturating_sub(begin);
        let time = self.chain.time.max(self.disk.time());
        let section = SectionHeader {
            carried: closed.unfinished.is_some_and(|unit| unit.carried),
            term: self.chain.term,
            index: closed.number,
            time,
            synced_index: self.synced_number,
            bytes,
            unfinished_from: closed.unfinished.map_or(0, |unit| place(unit.from)),
            merged_from: place(closed.end),
            finished_to: place(closed.finished_to),
            previous: self.chain.section,
        };
        let (section, crc) = section.encode(parts.iter().copied());
        let chain = group::chain(&[crc]);
        let group = GroupHeader {
            void: false,
            position: position(self.shared.files.file_bytes, closed.generation, closed.start).0,
            number: closed.number,
            synced: if sabotage::is(Sabotage::NoSyncedInGroups) { 0 } else { self.shared.durable().0 },
            bytes,
            chain,
            previous: self.chain.group,
        };
        let mut header = [0; HEADER_BYTES];
        header[..GROUP_BYTES].copy_from_slice(&group.encode(self.chain.stamp));
        header[GROUP_BYTES..].copy_from_slice(&section);
        (header, Chain { group: chain, section: crc, time, ..self.chain })
    }

    fn sync(&mut self) -> Result<(), FatalError> {
        let Some(unsynced) = self.unsynced.take() else { return Ok(()) };
        if !sabotage::is(Sabotage::ConfirmBeforeSync) {
            let synced = self.shared.watch.during(|| self.shared.files.file(unsynced.file).sync_data());
            synced.map_err(|error| self.fatal("sync", unsynced.file, &error))?;
        }
        self.synced_number = unsynced.number;
        let position = Position(unsynced.up_to);
        self.shared.set_durable(position);
        self.notify.durable(position);
        Ok(())
    }

    fn fatal(&self, what: &'static str, file: usize, error: &io::Error) -> FatalError {
        FatalError { what, file: self.shared.files.path(file), error: error.to_string() }
    }
}

/// What is behind a group's header: the image, with shared bodies in their places, and the merged records.
fn parts(closed: &Closed) -> Vec<&[u8]> {
    let mut parts = Vec::with_capacity(2 * closed.bodies.len() + 2);
    let mut from = closed.start as usize + HEADER_BYTES;
    for (at, body) in &closed.bodies {
        parts.push(closed.image.read(from..*at as usize));
        parts.push(body);
        from = *at as usize + body.len();
    }
    // There may be no records before the merged ones, and none in a seal; then nothing of the group was published.
    if from < closed.end as usize {
        parts.push(closed.image.read(from..closed.end as usize));
    }
    parts.push(&closed.merged);
    parts
}
