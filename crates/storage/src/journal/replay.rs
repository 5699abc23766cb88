//! Reads the journal back: every complete group in order, from the first generation that the checkpoint needs.
//!
//! Each group names the one before it, so they form a chain. Where the chain is broken, groups are missing:
//! * At its end that is where the last server stopped writing.
//! * In the middle it is a *gap*: a power loss lost a group that was not synced and kept a later one, or synced
//!   data is damaged. A later group, or the checkpoint, may say that the lost group was synced. Then confirmed data
//!   is damaged, and the start stops, unless it is a repair. Otherwise nothing in the gap was confirmed; the groups
//!   after it are used, and the gap is filled with a void group, so that it never counts as damage later.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use ferrymq_model::{Position, Time};

use super::files::{FIRST_GROUP, JournalFiles};
use super::group::{GROUP_BYTES, GroupHeader, HEADER_BYTES, NoGroup, SectionHeader, VERSION, align, chain};
use super::open::Tail;
use super::position;
use super::record::Record;
use super::survey::{Seen, SeenFile, survey};
use crate::error::OpenError;
use crate::image::{Image, ImageWriter};
use crate::sabotage::{self, Sabotage};

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Receives what is replayed.
pub(crate) trait Visitor {
    /// A generation begins, with this section; its records refer to this image.
    fn generation(&mut self, generation: u64, first_section: u64, image: Arc<Image>);

    /// A record of it, at `at`.
    fn record(&mut self, generation: u64, at: u32, record: Record<'_>) -> Result<(), String>;
}

/// What is known when a replay begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// The directory's stamp.
    pub stamp: u64,
    /// The first generation that is needed.
    pub first: u64,
    /// Everything up to here is known to have been synced.
    pub synced: Position,
    /// Whether gaps in what was synced are accepted.
    pub repair: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub tail: Tail,
    /// The image of the last generation, with which the journal continues.
    pub writer: ImageWriter,
    /// The chain of the last group, and the CRC of the last section.
    pub chain: (u32, u32),
    /// When the last section was closed.
    pub time: Time,
    /// Where the journal ends.
    pub end: Position,
    /// What is missing, in sentences for the log.
    pub missing: Vec<String>,
}

/// Replays the journal, and writes again what is not known to be synced: what a killed server, or one whose disk
/// failed, left in the page cache reads like what is on disk. When this returns, all of it is synced.
pub(crate) fn replay(files: &JournalFiles, begin: Begin, visitor: &mut dyn Visitor) -> Result<Replayed, OpenError> {
    let seen = survey(files, begin.stamp)?;
    let order: Vec<usize> = seen.iter().map(|seen| seen.file).collect();
    let mut walk = Walk {
        files,
        begin,
        visitor,
        last: None,
        time: Time(0),
        // What began before the first generation is in the checkpoint.
        unit: Unit::Held(Vec::new()),
        gaps: Vec::new(),
        proof: begin.synced,
    };
    let mut read: Vec<Generation> = Vec::new();
    let mut seen = seen.into_iter().skip_while(|seen| seen.generation < begin.first).peekable();
    while let Some(next) = seen.next_if(|next| next.generation == begin.first + read.len() as u64) {
        let generation = Generation::load(files, &next)?;
        read.push(walk.visit(generation, &next, read.last())?);
    }
    // A file is synced before the next one is begun, so a missing one between two others was not lost in a power
    // loss.
    if let Some(next) = seen.next() {
        let what = format!(
            "journal generation {} is missing, and {} is there",
            begin.first + read.len() as u64,
            next.generation
        );
        return Err(OpenError::damaged(&files.path(next.file), FIRST_GROUP.into(), what));
    }
    let torn = read.last().is_some_and(|last| last.torn);
    let current = read.last().map_or((begin.first, FIRST_GROUP), |last| (last.number, last.end));
    let end = position(files.file_bytes, current.0, current.1);
    walk.judge(&read, end)?;
    let missing = walk.explain(&read, torn, end);
    walk.write_again(&read)?;
    if !sabotage::is(Sabotage::NoSyncInRecovery) {
        files.sync()?;
    }
    Ok(walk.replayed(read, end, missing, &order))
}

/// A group that was accepted.
#[derive(Clone, Copy, Debug)]
struct Found {
    at: u32,
    header: GroupHeader,
    /// `None` for a void group.
    section: Option<(SectionHeader, u32)>,
}

impl Found {
    fn end(&self) -> u32 {
        self.at + GROUP_BYTES as u32 + self.header.bytes
    }
}

/// The last group that was accepted, as the next one sees it.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    term: u64,
    chain: u32,
    section: u32,
}

/// A place where groups are missing.
#[derive(Debug)]
struct Gap {
    file: usize,
    from: Position,
    at: u32,
    /// The void group that is written there.
    void: GroupHeader,
}

/// A unit that spans several groups.
enum Unit {
    /// There is none, or its beginning is missing.
    None,
    /// Its records so far; they count when its end is found.
    Held(Vec<Held>),
}

struct Held {
    generation: u64,
    image: Arc<Image>,
    from: u32,
    to: u32,
}

/// What was read of a generation.
struct Generation {
    number: u64,
    file: usize,
    writer: ImageWriter,
    groups: Vec<Found>,
    end: u32,
    /// Whether there is something after the end that is not a complete group.
    torn: bool,
}

impl Generation {
    /// Reads everything that may belong to a generation.
    fn load(files: &JournalFiles, seen: &SeenFile) -> Result<Self, OpenError> {
        let mut writer = ImageWriter::new(files.file_bytes as usize);
        let end = seen.groups.iter().map(|seen| seen.at + GROUP_BYTES as u32 + seen.header.bytes.min(files.file_bytes));
        let end = end.max().unwrap_or(0).min(files.file_bytes) as usize;
        let (path, file) = (files.path(seen.file), files.file(seen.file));
        for from in (0..end).step_by(READ_BYTES) {
            let some = from..(from + READ_BYTES).min(end);
            file.read_at(some.start as u64, writer.reserve(some)).map_err(OpenError::io("read", &path))?;
        }
        let (number, file) = (seen.generation, seen.file);
        Ok(Self { number, file, writer, groups: Vec::new(), end: FIRST_GROUP, torn: false })
    }

    /// Whether a group is complete: its section has the right checksum.
    fn check(&mut self, seen: &Seen, capacity: u32) -> Result<Option<Found>, NoGroup> {
        let found = Found { at: seen.at, header: seen.header, section: None };
        if seen.header.void {
            return Ok(Some(found));
        }
        if seen.at.checked_add(GROUP_BYTES as u32 + seen.header.bytes).is_none_or(|end| end > capacity) {
            return Ok(None);
        }
        let bytes = self.writer.reserve(seen.at as usize + GROUP_BYTES..found.end() as usize);
        match SectionHeader::read(bytes) {
            Ok((section, crc)) if chain(&[crc]) == seen.header.chain || sabotage::is(Sabotage::IgnoreCrc) => {
                Ok(Some(Found { section: Some((section, crc)), ..found }))
            }
            Ok(_) | Err(NoGroup::Absent | NoGroup::Torn) => Ok(None),
            Err(newer) => Err(newer),
        }
    }
}

struct Walk<'a> {
    files: &'a JournalFiles,
    begin: Begin,
    visitor: &'a mut dyn Visitor,
    last: Option<Last>,
    time: Time,
    unit: Unit,
    gaps: Vec<Gap>,
    /// The journal was synced at least up to here.
    proof: Position,
}

impl Walk<'_> {
    /// Uses every group of a generation that follows the chain, or that comes after a gap.
    fn visit(
        &mut self,
        mut generation: Generation,
        seen: &SeenFile,
        before: Option<&Generation>,
    ) -> Result<Generation, OpenError> {
        let mut accepted = Vec::new();
        for group in &seen.groups {
            if group.at < generation.end {
                continue;
            }
            let checked =
                generation.check(group, self.files.file_bytes).map_err(|newer| self.newer(&generation, newer))?;
            let Some(found) = checked else {
                generation.torn |= self.last.is_none_or(|last| group.header.number > last.number);
                continue;
            };
            if !self.is_later(&found) {
                continue;
            }
            let broken = self.break_before(&generation, &found, before)?;
            self.accept(&found);
            generation.end = align(found.end());
            generation.torn = false;
            accepted.push((found, broken));
        }
        let filled = accepted.last().map_or(0, |(found, _)| found.end());
        generation.writer.publish(filled as usize);
        let image = Arc::clone(generation.writer.image());
        // If nothing of it is complete, the next group will be its first.
        let next = self.last.map_or(1, |last| last.number + 1);
        let first = accepted.first().map_or(next, |(found, _)| found.header.number);
        self.visitor.generation(generation.number, first, Arc::clone(&image));
        for (found, broken) in accepted {
            if broken {
                self.unit = Unit::None;
            }
            self.records_of(&generation, &image, &found)?;
            generation.groups.push(found);
        }
        Ok(generation)
    }

    fn newer(&self, generation: &Generation, newer: NoGroup) -> OpenError {
        let found = if let NoGroup::Newer(version) = newer { version.into() } else { 0 };
        OpenError::version(&self.files.path(generation.file), found, VERSION.into())
    }

    /// Whether a group was written after the last one. Remains of an earlier server were not.
    fn is_later(&self, found: &Found) -> bool {
        let Some(last) = self.last else { return true };
        let term = found.section.map_or(last.term, |(section, _)| section.term);
        found.header.number > last.number && term >= last.term
    }

    /// Whether groups are missing before this one, or their unit is void; what is missing becomes a gap.
    fn break_before(
        &mut self,
        generation: &Generation,
        found: &Found,
        before: Option<&Generation>,
    ) -> Result<bool, OpenError> {
        let last = self.last;
        let follows = last.is_none_or(|last| {
            (found.header.number == last.number + 1 || found.header.void) && found.header.previous == last.chain
        });
        if follows && found.at == generation.end {
            // The server that began the unit was killed before its end.
            let new_term = last.zip(found.section).is_some_and(|(last, (section, _))| last.term != section.term);
            return Ok(new_term || found.header.void);
        }
        let (file, number, at) = match before {
            Some(before) if found.at == FIRST_GROUP => (before.file, before.number, before.end),
            _ => (generation.file, generation.number, generation.end),
        };
        let from = position(self.files.file_bytes, number, at);
        let end = if number == generation.number { found.at } else { self.files.file_bytes };
        let Some(bytes) = end.checked_sub(at).and_then(|bytes| bytes.checked_sub(GROUP_BYTES as u32)) else {
            let what = "the group here does not follow the one before it, and there is no place between them";
            return Err(OpenError::damaged(&self.files.path(generation.file), found.at.into(), what));
        };
        let void = GroupHeader {
            void: true,
            position: from.0,
            number: found.header.number - 1,
            synced: 0,
            bytes,
            chain: found.header.previous,
            previous: last.map_or(0, |last| last.chain),
        };
        self.gaps.push(Gap { file, from, at, void });
        Ok(true)
    }

    fn accept(&mut self, found: &Found) {
        let (term, section) = match (found.section, self.last) {
            (Some((section, crc)), _) => {
                self.time = self.time.max(section.time);
                (section.term, crc)
            }
            (None, Some(last)) => (last.term, last.section),
            (None, None) => (0, 0),
        };
        self.proof = self.proof.max(Position(found.header.synced));
        self.last = Some(Last { number: found.header.number, term, chain: found.header.chain, section });
    }

    /// The records of a group, in the order in which they count.
    fn records_of(&mut self, generation: &Generation, image: &Arc<Image>, group: &Found) -> Result<(), OpenError> {
        let Some((section, _)) = group.section else { return Ok(()) };
        let base = group.at + GROUP_BYTES as u32;
        let (begin, merged) = (group.at + HEADER_BYTES as u32, base + section.merged_from);
        let finished = if section.finished_to == 0 { begin } else { base + section.finished_to };
        let unfinished = if section.unfinished_from == 0 { merged } else { base + section.unfinished_from };
        let (file, number) = (generation.file, generation.number);
        let rest = Held { generation: number, image: Arc::clone(image), from: unfinished, to: merged };
        match std::mem::replace(&mut self.unit, Unit::None) {
            Unit::Held(mut held) if section.carried => {
                held.push(rest);
                self.unit = Unit::Held(held);
            }
            Unit::Held(held) if section.finished_to > 0 => {
                for held in held {
                    self.records(file, held.generation, &held.image, held.from..held.to)?;
                }
                self.records(file, number, image, begin..finished)?;
            }
            // There is no open unit, or its beginning is missing: then nothing of it counts.
            _ => {}
        }
        if !section.carried {
            self.records(file, number, image, finished..unfinished)?;
            if section.unfinished_from > 0 {
                let held = Held { generation: number, image: Arc::clone(image), from: unfinished, to: merged };
                self.unit = Unit::Held(vec![held]);
            }
        }
        self.records(file, number, image, merged..group.end())
    }

    fn records(
        &mut self,
        file: usize,
        number: u64,
        image: &Image,
        range: std::ops::Range<u32>,
    ) -> Result<(), OpenError> {
        let mut at = range.start;
        while at < range.end {
            let damaged = |what: String| OpenError::damaged(&self.files.path(file), at.into(), what);
            let (record, bytes) = Record::read(image.read(at as usize..range.end as usize)).ok_or_else(|| {
                damaged(
                    "the group has the right checksum and a record that this version of FerryMQ cannot read".to_owned(),
                )
            })?;
            self.visitor.record(number, at, record).map_err(damaged)?;
            at += bytes as u32;
        }
        Ok(())
    }

    /// An error if something is missing that was synced.
    fn judge(&self, read: &[Generation], end: Position) -> Result<(), OpenError> {
        if self.begin.repair || sabotage::is(Sabotage::AcceptDamage) {
            return Ok(());
        }
        if let Some(gap) = self.gaps.iter().find(|gap| gap.from < self.proof) {
            let what = "no whole group of the journal is here, and a later one says that it was synced; \
                        'ferrymq repair' gives up what stood here";
            return Err(OpenError::damaged(&self.files.path(gap.file), gap.at.into(), what));
        }
        if end < self.proof {
            let (file, at) = read.last().map_or((0, FIRST_GROUP), |last| (last.file, last.end));
            let what = "the journal ends here, and more of it was synced; 'ferrymq repair' gives up what stood here";
            return Err(OpenError::damaged(&self.files.path(file), at.into(), what));
        }
        Ok(())
    }

    /// What is missing, for the log.
    fn explain(&self, read: &[Generation], torn: bool, end: Position) -> Vec<String> {
        let place = |file: usize, at: u32| format!("position {at} of {}", self.files.path(file).display());
        let mut missing: Vec<String> = Vec::new();
        for gap in &self.gaps {
            let (place, bytes) = (place(gap.file, gap.at), gap.void.bytes as usize + GROUP_BYTES);
            missing.push(if gap.from < self.proof {
                format!("{bytes} bytes of the journal at {place} were damaged and are given up: what was decided there is lost")
            } else {
                format!(
                    "{bytes} bytes of the journal at {place} are not whole and were left out: the last server had not noted \
                     yet that they were synced. If the disk has damaged them since, what was confirmed in its last second may be missing"
                )
            });
        }
        if let Some(last) = read.last().filter(|_| end < self.proof) {
            missing.push(format!(
                "the journal ends at {}, and more of it was synced: that is given up",
                place(last.file, last.end)
            ));
        } else if let Some(last) = read.last().filter(|_| torn) {
            missing.push(format!(
                "the journal ends at {}; what stands behind it is not whole and was cut off: the last server had not \
                 finished writing it. If the disk has damaged it since, what was confirmed in its last second may be missing",
                place(last.file, last.end)
            ));
        }
        missing
    }

    /// Rewrites what is not known to be on disk, and writes void groups into gaps.
    fn write_again(&self, read: &[Generation]) -> Result<(), OpenError> {
        let write = |file: usize, at: u32, bytes: &[u8]| {
            let written = self.files.file(file).write_at(at.into(), &[IoSlice::new(bytes)]);
            written.map_err(OpenError::io("write", &self.files.path(file)))
        };
        for generation in read {
            for found in &generation.groups {
                let at = position(self.files.file_bytes, generation.number, found.at);
                if at < self.proof || sabotage::is(Sabotage::TrustTheCache) {
                    continue;
                }
                let bytes = match found.section {
                    Some(_) => generation.writer.image().read(found.at as usize..found.end() as usize),
                    None => &found.header.encode(self.begin.stamp)[..],
                };
                write(generation.file, found.at, bytes)?;
            }
        }
        self.gaps.iter().try_for_each(|gap| write(gap.file, gap.at, &gap.void.encode(self.begin.stamp)))
    }

    /// The state with which the journal continues. Free files are used in the order in which they were written,
    /// empty ones first.
    fn replayed(self, mut read: Vec<Generation>, end: Position, missing: Vec<String>, order: &[usize]) -> Replayed {
        let taken: VecDeque<_> = read.iter().map(|generation| (generation.number, generation.file)).collect();
        let fresh = (0..self.files.count()).filter(|file| !order.contains(file));
        let free = fresh.chain(order.iter().copied());
        let free = free.filter(|file| taken.iter().all(|(_, taken)| taken != file)).collect();
        let (generation, start, writer) = match read.pop() {
            Some(last) => (last.number, last.end, last.writer),
            None => (self.begin.first, FIRST_GROUP, ImageWriter::new(self.files.file_bytes as usize)),
        };
        let tail = Tail {
            generation,
            start,
            number: self.last.map_or(1, |last| last.number + 1),
            image: Arc::clone(writer.image()),
            free,
            taken,
        };
        let chain = self.last.map_or((0, 0), |last| (last.chain, last.section));
        Replayed { tail, writer, chain, time: self.time, end, missing }
    }
}
