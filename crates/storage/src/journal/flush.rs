//! The flush thread: writes closed groups, syncs them, and says how far the journal is durable.
//!
//! ```text
//!            somebody waits, or much is open          written
//!   asleep ───────────────────────────────▶ write ─────────────▶ sync ──▶ durable, confirms
//!     ▲  ╲_ nobody waits: after 10 ms ______▲  │ nobody waits      ▲
//!     └────────────────────────────────────────┴─ within a second ─┘
//! ```
//! A write or sync that failed is never tried again: what the kernel kept of it is unknown.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ferrymq_model::Position;
use parking_lot::MutexGuard;

use super::group::{self, ALIGN, GroupHeader, HEADER_BYTES};
use super::open::{Asleep, Closed, OpenGroup, Shared};
use crate::error::FatalError;
use crate::notify::{Notify, Room};
use crate::options::Options;
use crate::own_file::OwnFiles;
use crate::sabotage::{self, Sabotage};

const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
/// A flush that nobody asked for starts when a group has this much.
const UNASKED_BYTES: u32 = 1 << 20;

/// When a write for which there was no room is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the thread. `previous_crc` is the CRC of the last group on disk, `start` counts the server's starts.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    notify: Arc<dyn Notify>,
    own_files: OwnFiles,
    options: &Options,
    (previous_crc, start): (u32, u32),
) -> io::Result<JoinHandle<()>> {
    let flusher = Flusher {
        shared,
        notify,
        own_files,
        group_bytes: options.group_bytes,
        group_messages: options.group_messages,
        group_wait: Duration::from_micros(options.group_wait_us),
        write_wait: Duration::from_millis(options.write_wait_ms),
        sync_wait: Duration::from_millis(options.sync_wait_ms),
        previous_crc,
        start,
        fills_since: None,
        open_since: None,
        unsynced: None,
    };
    thread::Builder::new().name("journal".to_owned()).spawn(move || flusher.run())
}

struct Flusher {
    shared: Arc<Shared>,
    notify: Arc<dyn Notify>,
    own_files: OwnFiles,
    group_bytes: u32,
    group_messages: u32,
    group_wait: Duration,
    write_wait: Duration,
    sync_wait: Duration,
    previous_crc: u32,
    start: u32,
    /// Since when somebody has been waiting for the open group.
    fills_since: Option<Instant>,
    /// Since when something is in the open group.
    open_since: Option<Instant>,
    unsynced: Option<Unsynced>,
}

/// What was written and not synced.
#[derive(Clone, Debug)]
struct Unsynced {
    since: Instant,
    /// The file that was written last; those before it are synced when it is begun.
    file: usize,
    up_to: u64,
}

/// What is to be done without the lock.
#[derive(Default)]
struct Work {
    groups: Vec<(usize, Closed)>,
    sync: bool,
    room: Option<Room>,
    stop: bool,
}

/// What the state of the open group asks for.
enum Next {
    Write { sync: bool },
    Sleep(Asleep, Option<Instant>),
}

impl Flusher {
    fn run(mut self) {
        loop {
            let work = self.wait();
            if let Some(room) = &work.room {
                self.notify.room(room);
            }
            if let Err(error) = self.carry_out(&work) {
                self.shared.fail();
                return self.notify.fatal(&error);
            }
            if work.stop {
                return;
            }
        }
    }

    /// Sleeps until there is something to do, and takes it.
    fn wait(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut open = shared.open.lock();
        loop {
            if open.room_told != open.room || (open.was_short && open.room == Room::Open) {
                open.was_short = open.room != Room::Open;
                open.room_told = open.room.clone();
                return Work { room: Some(open.room.clone()), ..Work::default() };
            }
            match self.next(&open) {
                Next::Write { sync } if !open.in_unit() => {
                    if let Some(work) = self.take(&mut open, sync) {
                        return work;
                    }
                    self.sleep(&mut open, Asleep::UntilAnything, None);
                }
                // The unit is short; its end wakes us.
                Next::Write { .. } => self.sleep(&mut open, Asleep::UntilFull, None),
                Next::Sleep(asleep, until) => self.sleep(&mut open, asleep, until),
            }
        }
    }

    fn sleep(&self, open: &mut MutexGuard<'_, OpenGroup>, asleep: Asleep, until: Option<Instant>) {
        open.asleep = asleep;
        match until {
            Some(until) => drop(self.shared.changed.wait_until(open, until)),
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
            return Next::Sleep(Asleep::UntilAnything, None);
        }
        let now = Instant::now();
        if open.is_without_space() {
            // The file that was kept back must last: one group a second, whoever waits.
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
        // Without a file for the next group there is time to sync what went before.
        Some(Work { sync: sync || groups.is_empty(), groups, room: None, stop: open.stop })
    }

    fn carry_out(&mut self, work: &Work) -> Result<(), FatalError> {
        for (file, closed) in &work.groups {
            // A sync covers one file, so the one before is finished first.
            if self.unsynced.as_ref().is_some_and(|unsynced| unsynced.file != *file) {
                self.sync()?;
            }
            self.write_own_files(closed)?;
            self.write(*file, closed).map_err(|error| self.fatal("write", *file, &error))?;
            let since = self.unsynced.as_ref().map_or_else(Instant::now, |unsynced| unsynced.since);
            self.unsynced = Some(Unsynced { since, file: *file, up_to: closed.up_to.0 });
        }
        if work.sync {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes the bodies that a group names. A file that cannot be written is begun anew when there may be room again:
    /// nothing refers to it yet.
    fn write_own_files(&self, closed: &Closed) -> Result<(), FatalError> {
        for (number, body) in &closed.own_files {
            while let Err(error) = self.own_files.write(*number, body) {
                let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                self.shared.no_space(&error.to_string());
                if !full || !self.shared.wait_for_space(RETRY) {
                    return Err(self.own_file_failed("write", *number, &error));
                }
            }
            self.own_files.sync(*number).map_err(|error| self.own_file_failed("sync", *number, &error))?;
        }
        match closed.own_files.first() {
            Some((number, _)) => {
                self.own_files.sync_names().map_err(|error| self.own_file_failed("sync the folder of", *number, &error))
            }
            None => Ok(()),
        }
    }

    fn own_file_failed(&self, what: &'static str, number: u64, error: &io::Error) -> FatalError {
        FatalError { what, file: self.own_files.path_of(number), error: error.to_string() }
    }

    fn write(&mut self, file: usize, closed: &Closed) -> io::Result<()> {
        let parts = parts(closed);
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let header = GroupHeader {
            generation: closed.generation,
            number: closed.number,
            synced: self.shared.durable().0,
            bytes: u32::try_from(bytes).expect("a group is shorter than its file"),
            previous_crc: self.previous_crc,
            start: self.start,
            unfinished_from: closed.unfinished.map_or(0, |unit| unit.from),
            carried: closed.unfinished.is_some_and(|unit| unit.carried),
            settlements_from: closed.end,
        };
        let mut header = header.encode();
        let crc = group::crc(&header, parts.iter().copied());
        group::seal(&mut header, crc);
        // Whole blocks: the kernel need not read what it is about to change.
        let padding = (HEADER_BYTES + bytes).next_multiple_of(ALIGN as usize) - (HEADER_BYTES + bytes);
        let mut slices = Vec::with_capacity(parts.len() + 2);
        slices.push(IoSlice::new(&header));
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        slices.push(IoSlice::new(&ZEROS[..padding]));
        self.shared.files.file(file).write_at(closed.start.into(), &slices)?;
        self.previous_crc = crc;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FatalError> {
        let Some(unsynced) = self.unsynced.take() else { return Ok(()) };
        if !sabotage::is(Sabotage::ConfirmBeforeSync) {
            let synced = self.shared.files.file(unsynced.file).sync_data();
            synced.map_err(|error| self.fatal("sync", unsynced.file, &error))?;
        }
        let position = Position(unsynced.up_to);
        self.shared.set_durable(position);
        self.notify.durable(position);
        Ok(())
    }

    fn fatal(&self, what: &'static str, file: usize, error: &io::Error) -> FatalError {
        FatalError { what, file: self.shared.files.path(file), error: error.to_string() }
    }
}

/// What stands behind a group's header: the image, with shared bodies where they belong, and what was merged.
fn parts(closed: &Closed) -> Vec<&[u8]> {
    let mut parts = Vec::with_capacity(2 * closed.bodies.len() + 2);
    let mut from = closed.start as usize + HEADER_BYTES;
    for (at, body) in &closed.bodies {
        parts.push(closed.image.read(from..*at as usize));
        parts.push(body);
        from = *at as usize + body.len();
    }
    parts.push(closed.image.read(from..closed.end as usize));
    parts.push(&closed.merged);
    parts
}
