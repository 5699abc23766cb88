//! Reads a run: its index when it is opened, then a block or a body at a time.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferrymq_model::{QueueId, Sequence};

use super::block::{Block, BlockEntry};
use super::{END_MAGIC, HEADER_BYTES, MAGIC, RunContent, RunId, TRAILER_BYTES, VERSION};
use crate::disk::{Disk, DiskFile, Open};
use crate::fields::Fields;
use crate::stored::BodyPlace;

/// The file of a run in its folder.
pub(crate) fn path_of(folder: &Path, run: RunId) -> PathBuf {
    folder.join(format!("{:08x}.run", run.0))
}

/// An open run.
#[derive(Debug)]
pub(crate) struct RunReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    index: Vec<BlockEntry>,
}

impl RunReader {
    /// Opens a run and reads its index. The error is a sentence for the log.
    pub fn open(disk: &dyn Disk, path: &Path, run: RunId) -> Result<Self, String> {
        let said = |what: &str| format!("{}: {what}", path.display());
        let failed = |error: io::Error| said(&error.to_string());
        let file = disk.open(path, Open::Existing).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let Some(trailer_at) = length.checked_sub(TRAILER_BYTES as u64) else { return Err(said("the run is cut off")) };
        let (mut header, mut trailer) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
        file.read_at(0, &mut header).map_err(failed)?;
        file.read_at(trailer_at, &mut trailer).map_err(failed)?;
        check_header(&header, run).map_err(|what| said(&what))?;
        let (index_at, entries, crc) =
            read_trailer(&trailer).ok_or_else(|| said(&format!("the trailer at {trailer_at} does not check")))?;
        let bytes = entries as u64 * BlockEntry::BYTES as u64;
        if index_at.checked_add(bytes) != Some(trailer_at) {
            return Err(said("the index does not end where the trailer begins"));
        }
        let mut index = vec![0; bytes as usize];
        file.read_at(index_at, &mut index).map_err(failed)?;
        if crc32c::crc32c(&index) != crc {
            return Err(said(&format!("the index at {index_at} does not check")));
        }
        let mut fields = Fields(&index);
        let index = std::iter::from_fn(|| BlockEntry::read(&mut fields)).collect();
        Ok(Self { path: path.to_owned(), file, index })
    }

    /// The block that a message is in, by number.
    pub fn block_of(&self, queue: QueueId, sequence: Sequence) -> Option<usize> {
        let number = self.index.partition_point(|entry| entry.last < (queue, sequence));
        self.index.get(number).filter(|entry| entry.first <= (queue, sequence)).map(|_| number)
    }

    /// The queue that a block ends with.
    pub fn last_queue(&self, block: usize) -> Option<QueueId> {
        self.index.get(block).map(|entry| entry.last.0)
    }

    /// The queue that a block begins with.
    pub fn first_queue(&self, block: usize) -> Option<QueueId> {
        self.index.get(block).map(|entry| entry.first.0)
    }

    /// Memory that its index takes.
    pub fn index_bytes(&self) -> u64 {
        (self.index.capacity() * size_of::<BlockEntry>()) as u64
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// What the run was written with.
    pub fn content(&self) -> Result<RunContent, String> {
        let bytes = self.file.len().map_err(|error| format!("{}: {error}", self.path.display()))?;
        Ok(RunContent { messages: self.index.iter().map(|entry| u64::from(entry.messages)).sum(), bytes })
    }

    pub fn read_block(&self, block: usize) -> Result<Block, String> {
        let entry = &self.index[block];
        let bytes = self.read(entry.position, entry.bytes)?;
        Block::read(bytes).map_err(|what| format!("{} at {}: {what}", self.path.display(), entry.position))
    }

    pub fn read_body(&self, place: BodyPlace, bytes: u32) -> Result<Bytes, String> {
        let body = self.read(place.at, bytes)?;
        if crc32c::crc32c(&body) == place.crc {
            Ok(body)
        } else {
            Err(format!("{} at {}: the body does not check", self.path.display(), place.at))
        }
    }

    fn read(&self, position: u64, bytes: u32) -> Result<Bytes, String> {
        // The length comes from a checked index or block, and must still lie within the file.
        let failed = |error: io::Error| format!("{} at {position}: {error}", self.path.display());
        let length = self.file.len().map_err(failed)?;
        if position.checked_add(bytes.into()).is_none_or(|end| end > length) {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut read = vec![0; bytes as usize];
        self.file.read_at(position, &mut read).map_err(failed)?;
        Ok(read.into())
    }
}

fn check_header(header: &[u8; HEADER_BYTES], run: RunId) -> Result<(), String> {
    let mut fields = Fields(header);
    if fields.bytes(MAGIC.len()) != Some(MAGIC) {
        return Err("it is not a run".to_owned());
    }
    let version = fields.u32().unwrap_or(0);
    if version > VERSION {
        return Err(format!("it has format version {version}, and this version of FerryMQ reads up to {VERSION}"));
    }
    let number = fields.u32();
    let crc = Fields(&header[HEADER_BYTES - 4..]).u32();
    if crc != Some(crc32c::crc32c(&header[..HEADER_BYTES - 4])) || number != Some(run.0) {
        return Err("its header does not check".to_owned());
    }
    Ok(())
}

fn read_trailer(trailer: &[u8; TRAILER_BYTES]) -> Option<(u64, u32, u32)> {
    let mut fields = Fields(trailer);
    let (position, entries, crc) = (fields.u64()?, fields.u32()?, fields.u32()?);
    fields.u32()?;
    let own = fields.u32()?;
    (own == crc32c::crc32c(&trailer[..20]) && fields.0 == END_MAGIC).then_some((position, entries, crc))
}
