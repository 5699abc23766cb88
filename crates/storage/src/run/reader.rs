//! Reads a run: its index when it is opened, then a block or a body at a time.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferrymq_model::{BodyBuffer, QueueId, Sequence};

use super::block::{Block, BlockEntry};
use super::{END_MAGIC, HEADER_BYTES, MAGIC, RunContent, RunId, SHARD, Sections, TRAILER_BYTES, VERSION};
use crate::disk::{Disk, DiskFile, Open};
use crate::error::Unreadable;
use crate::fields::Fields;
use crate::stored::BodyPlace;

/// The file of a run in its folder.
pub(crate) fn path_of(folder: &Path, run: RunId) -> PathBuf {
    folder.join(format!("{:08x}.run", run.0))
}

/// The run in a file of this name.
pub(crate) fn number_of(name: &str) -> Option<RunId> {
    u32::from_str_radix(name.strip_suffix(".run")?, 16).ok().map(RunId)
}

/// An open run.
#[derive(Debug)]
pub(crate) struct RunReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    index: Vec<BlockEntry>,
    content: RunContent,
}

impl RunReader {
    /// Opens a run and reads its index.
    pub fn open(disk: &dyn Disk, path: &Path, run: RunId) -> Result<Self, Unreadable> {
        let failed = |error: io::Error| Unreadable::io(path, &error);
        let rot = |position: u64, what: &str| Unreadable::rot(path, position, what);
        let file = disk.open(path, Open::Existing).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let Some(trailer_at) = length.checked_sub(TRAILER_BYTES as u64) else {
            return Err(rot(length, "the run is cut off"));
        };
        let (mut header, mut trailer) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
        file.read_at(0, &mut header).map_err(failed)?;
        file.read_at(trailer_at, &mut trailer).map_err(failed)?;
        let sections = check_header(&header, run).map_err(|what| rot(0, &what))?;
        let (index_at, entries, crc) =
            read_trailer(&trailer).ok_or_else(|| rot(trailer_at, "the trailer has a wrong checksum"))?;
        let bytes = u64::from(entries) * BlockEntry::BYTES as u64;
        if index_at.checked_add(bytes) != Some(trailer_at) {
            return Err(rot(trailer_at, "the index does not end where the trailer begins"));
        }
        let mut index = vec![0; bytes as usize];
        file.read_at(index_at, &mut index).map_err(failed)?;
        if crc32c::crc32c(&index) != crc {
            return Err(rot(index_at, "the index has a wrong checksum"));
        }
        let mut fields = Fields(&index);
        let index: Vec<BlockEntry> = std::iter::from_fn(|| BlockEntry::read(&mut fields)).collect();
        let messages = index.iter().map(|entry| u64::from(entry.messages)).sum();
        let content = RunContent { messages, bytes: length, sections };
        Ok(Self { path: path.to_owned(), file, index, content })
    }

    /// The block that a message is in, by number.
    pub fn block_of(&self, queue: QueueId, sequence: Sequence) -> Option<usize> {
        let number = self.index.partition_point(|entry| entry.last < (queue, sequence));
        self.index.get(number).filter(|entry| entry.first <= (queue, sequence)).map(|_| number)
    }

    /// The queue at the end of a block.
    pub fn last_queue(&self, block: usize) -> Option<QueueId> {
        self.index.get(block).map(|entry| entry.last.0)
    }

    /// The queue at the beginning of a block.
    pub fn first_queue(&self, block: usize) -> Option<QueueId> {
        self.index.get(block).map(|entry| entry.first.0)
    }

    /// The memory of its index.
    pub fn index_bytes(&self) -> u64 {
        (self.index.capacity() * size_of::<BlockEntry>()) as u64
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// The properties of the run.
    pub fn content(&self) -> RunContent {
        self.content
    }

    /// The first and the last message of a block, by the index.
    pub fn keys(&self, block: usize) -> ((QueueId, Sequence), (QueueId, Sequence)) {
        let entry = &self.index[block];
        (entry.first, entry.last)
    }

    /// Reads a block, and checks that it is the one in the index.
    pub fn read_block(&self, block: usize) -> Result<Block, Unreadable> {
        let entry = &self.index[block];
        let rot = |what: &str| Unreadable::rot(&self.path, entry.position, what);
        let read = Block::read(self.read(entry.position, entry.bytes)?).map_err(rot)?;
        let messages = read.messages();
        let is_named = messages == entry.messages as usize
            && messages > 0
            && read.key(0) == entry.first
            && read.key(messages - 1) == entry.last;
        if is_named { Ok(read) } else { Err(rot("it is not the block that the index names")) }
    }

    /// Reads a body between the blocks.
    pub fn read_body(&self, place: BodyPlace, bytes: u32) -> Result<Bytes, Unreadable> {
        let body = self.read(place.at, bytes)?;
        if crc32c::crc32c(&body) == place.crc {
            Ok(body)
        } else {
            Err(Unreadable::rot(&self.path, place.at, "the body has a wrong checksum"))
        }
    }

    fn read(&self, position: u64, bytes: u32) -> Result<Bytes, Unreadable> {
        // The length comes from a checked index or block, and must still be within the file.
        if position.checked_add(bytes.into()).is_none_or(|end| end > self.content.bytes) {
            return Err(Unreadable::rot(&self.path, position, "it reaches beyond the end of the file"));
        }
        let read = BodyBuffer::filled(bytes as usize, |into| self.file.read_at(position, into));
        read.map_err(|error| Unreadable::io(&self.path, &error).at(position))
    }
}

fn check_header(header: &[u8; HEADER_BYTES], run: RunId) -> Result<Sections, String> {
    let mut fields = Fields(header);
    if fields.bytes(MAGIC.len()) != Some(MAGIC) {
        return Err("it is not a run".to_owned());
    }
    let crc = Fields(&header[HEADER_BYTES - 4..]).u32();
    if crc != Some(crc32c::crc32c(&header[..HEADER_BYTES - 4])) {
        return Err("its header has a wrong checksum".to_owned());
    }
    let (version, number, shard) = (fields.u32().unwrap_or(0), fields.u32(), fields.u8());
    if (version, shard) != (VERSION, Some(SHARD)) {
        return Err(format!("it has format version {version}, and this version of FerryMQ reads {VERSION}"));
    }
    let _spare = fields.bytes(3);
    match (fields.u64(), fields.u64()) {
        (Some(first), Some(last)) if number == Some(run.0) => Ok(Sections { first, last }),
        _ => Err("it is another run than its name says".to_owned()),
    }
}

fn read_trailer(trailer: &[u8; TRAILER_BYTES]) -> Option<(u64, u32, u32)> {
    let mut fields = Fields(trailer);
    let (position, entries, crc) = (fields.u64()?, fields.u32()?, fields.u32()?);
    fields.u32()?;
    let own = fields.u32()?;
    (own == crc32c::crc32c(&trailer[..20]) && fields.0 == END_MAGIC).then_some((position, entries, crc))
}
