//! Reads the journal back: every whole group in order, from the first generation that the checkpoint needs.
//!
//! The journal ends at the first group that is not whole or does not follow. That is where the last server stopped
//! writing, unless a whole group further on says that the journal was synced beyond it: then bytes that were promised to
//! somebody are damaged, and nothing may go on as if they had never been.

use std::collections::VecDeque;
use std::sync::Arc;

use ferrymq_model::Position;

use super::files::{FIRST_GROUP, JournalFiles};
use super::group::{ALIGN, GROUP_MAGIC, GroupHeader, HEADER_BYTES, LENGTH_AT, NoGroup, VERSION, align};
use super::open::Tail;
use super::position;
use super::record::Record;
use crate::error::OpenError;
use crate::fields::Fields;
use crate::image::{Image, ImageWriter};
use crate::sabotage::{self, Sabotage};

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Takes in what was replayed.
pub(crate) trait Visitor {
    /// A generation begins; its records refer to this image.
    fn generation(&mut self, generation: u64, image: Arc<Image>);

    /// A record of it, standing at `at`.
    fn record(&mut self, generation: u64, at: u32, record: Record<'_>) -> Result<(), String>;
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub tail: Tail,
    /// The image of the last generation, to go on with.
    pub writer: ImageWriter,
    /// CRC of the last group.
    pub previous_crc: u32,
    /// Where the journal ends.
    pub end: Position,
    /// Why it ends there, if something stands behind it that is no whole group.
    pub torn: Option<String>,
}

/// Replays from `first` on. Everything up to `synced` is known to have been synced.
pub(crate) fn replay(
    files: &JournalFiles,
    first: u64,
    synced: Position,
    visitor: &mut dyn Visitor,
) -> Result<Replayed, OpenError> {
    let mut reader = Reader { files, visitor, generations: generations(files)?, last: None, held: Vec::new() };
    let mut taken = VecDeque::new();
    let mut current = Generation::fresh(files, first);
    for generation in first.. {
        let Some((file, read)) = reader.find(generation)? else { break };
        taken.push_back((generation, file));
        current = read;
        reader.visit(file, &mut current)?;
    }
    let last = reader.last;
    let end = position(files.file_bytes, current.number, current.end);
    let torn = check_end(files, &current, end, synced)?;
    let free = (0..files.count()).filter(|file| taken.iter().all(|(_, taken)| taken != file)).collect::<VecDeque<_>>();
    let tail = Tail {
        generation: current.number,
        start: current.end,
        number: last.map_or(1, |last| last.header.number + 1),
        image: Arc::clone(current.writer.image()),
        free,
        taken,
    };
    let previous_crc = last.map_or(0, |last| last.crc);
    Ok(Replayed { tail, writer: current.writer, previous_crc, end, torn })
}

/// A group that was found whole.
#[derive(Clone, Copy, Debug)]
struct Found {
    at: u32,
    header: GroupHeader,
    crc: u32,
}

impl Found {
    fn end(&self) -> u32 {
        self.at + HEADER_BYTES as u32 + self.header.bytes
    }

    fn is_followed_by(&self, next: &GroupHeader) -> bool {
        next.number == self.header.number + 1
            && next.previous_crc == self.crc
            && next.start >= self.header.start
            && next.generation >= self.header.generation
    }
}

/// A generation as far as it was read.
struct Generation {
    number: u64,
    writer: ImageWriter,
    groups: Vec<Found>,
    end: u32,
    torn: Option<NoGroup>,
}

impl Generation {
    fn fresh(files: &JournalFiles, number: u64) -> Self {
        let writer = ImageWriter::new(files.file_bytes as usize);
        Self { number, writer, groups: Vec::new(), end: FIRST_GROUP, torn: None }
    }
}

/// The generation that each file claims to hold, unchecked.
fn generations(files: &JournalFiles) -> Result<Vec<Option<u64>>, OpenError> {
    let claim = |number| {
        let mut header = [0; HEADER_BYTES];
        let read = files.file(number).read_at(FIRST_GROUP.into(), &mut header);
        read.map_err(OpenError::io("read", &files.path(number)))?;
        let claimed = Fields(&header[8..]).u64().filter(|generation| *generation > 0);
        Ok(claimed.filter(|_| header.starts_with(GROUP_MAGIC)))
    };
    (0..files.count()).map(claim).collect()
}

struct Reader<'a> {
    files: &'a JournalFiles,
    visitor: &'a mut dyn Visitor,
    generations: Vec<Option<u64>>,
    last: Option<Found>,
    /// Records of a unit that no group has finished yet.
    held: Vec<Held>,
}

struct Held {
    generation: u64,
    image: Arc<Image>,
    from: u32,
    to: u32,
}

impl Reader<'_> {
    /// The file that holds a generation: its first group is whole and follows the last one.
    fn find(&self, number: u64) -> Result<Option<(usize, Generation)>, OpenError> {
        for file in (0..self.files.count()).filter(|file| self.generations[*file] == Some(number)) {
            let read = self.read(file, number)?;
            if !read.groups.is_empty() {
                return Ok(Some((file, read)));
            }
        }
        Ok(None)
    }

    /// Reads a file up to the first group that is not whole or does not follow.
    fn read(&self, file: usize, number: u64) -> Result<Generation, OpenError> {
        let mut generation = Generation::fresh(self.files, number);
        let mut loader = Loader { files: self.files, file, loaded: 0 };
        let mut last = self.last;
        loop {
            match loader.group(&mut generation.writer, generation.end)? {
                Ok((header, crc)) => {
                    let follows = last.is_none_or(|last| last.is_followed_by(&header));
                    if header.generation != number || !follows {
                        break;
                    }
                    let found = Found { at: generation.end, header, crc };
                    generation.groups.push(found);
                    generation.end = align(found.end());
                    last = Some(found);
                }
                Err(NoGroup::Newer(version)) => {
                    let file = self.files.path(file);
                    return Err(OpenError::Newer { file, found: version.into(), known: VERSION.into() });
                }
                Err(why) => {
                    generation.torn = Some(why);
                    break;
                }
            }
        }
        generation.writer.publish(generation.groups.last().map_or(0, Found::end) as usize);
        Ok(generation)
    }

    fn visit(&mut self, file: usize, generation: &mut Generation) -> Result<(), OpenError> {
        let image = Arc::clone(generation.writer.image());
        self.visitor.generation(generation.number, Arc::clone(&image));
        for group in &generation.groups {
            let header = &group.header;
            if self.last.is_some_and(|last| last.header.start != header.start) {
                // The server that began the unit died in it.
                self.held.clear();
            }
            let begin = group.at + HEADER_BYTES as u32;
            let merged = header.settlements_from.clamp(begin, group.end());
            let unfinished = match header.unfinished_from {
                0 => merged,
                from => from.clamp(begin, merged),
            };
            if !header.carried {
                for held in std::mem::take(&mut self.held) {
                    self.records(file, held.generation, &held.image, held.from, held.to)?;
                }
            }
            self.records(file, generation.number, &image, begin, unfinished)?;
            if unfinished < merged {
                let image = Arc::clone(&image);
                self.held.push(Held { generation: generation.number, image, from: unfinished, to: merged });
            }
            self.records(file, generation.number, &image, merged, group.end())?;
            self.last = Some(*group);
        }
        Ok(())
    }

    fn records(&mut self, file: usize, generation: u64, image: &Image, from: u32, to: u32) -> Result<(), OpenError> {
        let mut at = from;
        while at < to {
            let damaged = |what: String| OpenError::damaged(&self.files.path(file), at.into(), what);
            let (record, bytes) = Record::read(image.read(at as usize..to as usize))
                .ok_or_else(|| damaged("the group checks and has a record that this version cannot read".to_owned()))?;
            self.visitor.record(generation, at, record).map_err(damaged)?;
            at += bytes as u32;
        }
        Ok(())
    }
}

/// Reads a file into an image as far as it is asked for.
struct Loader<'a> {
    files: &'a JournalFiles,
    file: usize,
    loaded: usize,
}

impl Loader<'_> {
    fn group(&mut self, writer: &mut ImageWriter, at: u32) -> Result<Result<(GroupHeader, u32), NoGroup>, OpenError> {
        let (at, capacity) = (at as usize, self.files.file_bytes as usize);
        if at + HEADER_BYTES > capacity {
            return Ok(Err(NoGroup::Absent));
        }
        self.load(writer, at + HEADER_BYTES)?;
        let header = &writer.reserve(0..capacity)[at..at + HEADER_BYTES];
        let bytes = Fields(&header[LENGTH_AT..]).u32().unwrap_or(0) as usize;
        let end = (at + HEADER_BYTES).saturating_add(bytes).min(capacity);
        self.load(writer, end)?;
        Ok(GroupHeader::read(&writer.reserve(0..capacity)[at..end]))
    }

    fn load(&mut self, writer: &mut ImageWriter, to: usize) -> Result<(), OpenError> {
        while self.loaded < to {
            let some = self.loaded..(self.loaded + READ_BYTES).min(self.files.file_bytes as usize);
            let read = self.files.file(self.file).read_at(some.start as u64, writer.reserve(some.clone()));
            read.map_err(OpenError::io("read", &self.files.path(self.file)))?;
            self.loaded = some.end;
        }
        Ok(())
    }
}

/// Tells a torn tail from damage: looks for whole groups behind the end that say more was synced. Gives what was cut off,
/// for the log.
fn check_end(
    files: &JournalFiles,
    current: &Generation,
    end: Position,
    synced: Position,
) -> Result<Option<String>, OpenError> {
    let mut torn = current.torn.filter(|why| *why == NoGroup::Torn).map(|_| "a group that is not whole".to_owned());
    let mut proof = (synced > end).then(|| "the checkpoint".to_owned());
    let mut bytes = vec![0; files.file_bytes as usize];
    for file in 0..files.count() {
        files.file(file).read_at(0, &mut bytes).map_err(OpenError::io("read", &files.path(file)))?;
        for at in (FIRST_GROUP..files.file_bytes).step_by(ALIGN as usize) {
            let Ok((header, _)) = GroupHeader::read(&bytes[at as usize..]) else { continue };
            if header.generation == 0 || position(files.file_bytes, header.generation, at) < end {
                continue;
            }
            torn.get_or_insert_with(|| "groups that do not follow".to_owned());
            if header.synced > end.0 {
                proof.get_or_insert_with(|| format!("the group at {at} of {}", files.path(file).display()));
            }
        }
    }
    let file = (0..files.count()).find(|file| generations(files).is_ok_and(|all| all[*file] == Some(current.number)));
    let path = files.path(file.unwrap_or(0));
    let Some(proof) = proof.filter(|_| !sabotage::is(Sabotage::AcceptDamage)) else {
        let cut =
            |what| format!("the journal ends at byte {} of {}; behind it stands {what}", current.end, path.display());
        return Ok(
            torn.map(|what| cut(what) + ", which was cut off: no confirm for it has left, unless the disk lost it")
        );
    };
    let what = format!(
        "no whole group of journal generation {} follows here, but {proof} says that more was synced",
        current.number
    );
    Err(OpenError::damaged(&path, current.end.into(), what))
}
