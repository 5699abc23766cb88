//! A disk on which nothing changes: what is written stays in memory, and is read from there. A check opens a data
//! directory as a start does, and a start writes.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferrymq_model::Time;
use parking_lot::Mutex;

use super::{BLOCK_BYTES, Disk, DiskFile, DiskLock, Open};

/// A disk that leaves the files of another one as they are. It has their content, and in memory what was written to
/// them since: as much as differs.
#[derive(Debug)]
pub struct UnchangedDisk {
    below: Arc<dyn Disk>,
    /// The files that were opened or removed here; `None` if there is no such file any more.
    files: Mutex<BTreeMap<PathBuf, Option<Arc<Draft>>>>,
}

/// A file with what was written to it.
#[derive(Debug)]
struct Draft {
    below: Arc<dyn Disk>,
    /// Its path on the disk below, if it is there. It is opened for each read: there may be more files than a process
    /// can have open.
    path: Option<PathBuf>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    /// The length of the file.
    bytes: u64,
    /// How much of the file below shows where nothing was written; zeros follow.
    below_bytes: u64,
    /// The blocks that differ.
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
}

#[derive(Debug)]
struct DraftFile(Arc<Draft>);

/// The lock of a directory that never had one.
#[derive(Debug)]
struct NoLock;

impl DiskLock for NoLock {}

impl UnchangedDisk {
    /// A disk with the files of `below`.
    #[must_use]
    pub fn new(below: Arc<dyn Disk>) -> Self {
        Self { below, files: Mutex::default() }
    }

    /// A file as it is here.
    fn find(&self, path: &Path) -> io::Result<Arc<Draft>> {
        let mut files = self.files.lock();
        match files.get(path) {
            Some(Some(draft)) => Ok(Arc::clone(draft)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let bytes = self.below.open(path, Open::Existing)?.len()?;
                let draft = self.draft(Some(path.to_owned()), bytes);
                files.insert(path.to_owned(), Some(Arc::clone(&draft)));
                Ok(draft)
            }
        }
    }

    fn draft(&self, path: Option<PathBuf>, bytes: u64) -> Arc<Draft> {
        let written = Written { bytes, below_bytes: bytes, blocks: BTreeMap::new() };
        Arc::new(Draft { below: Arc::clone(&self.below), path, written: Mutex::new(written) })
    }
}

impl Disk for UnchangedDisk {
    /// Every folder is there; it may be empty.
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = match self.below.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        for (path, draft) in self.files.lock().iter().filter(|(path, _)| path.parent() == Some(folder)) {
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            names.retain(|other| *other != name);
            if draft.is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let found = self.find(path);
        let draft = match how {
            Open::Existing | Open::Blocks => found?,
            Open::New if found.is_ok() => return Err(io::ErrorKind::AlreadyExists.into()),
            Open::Empty if found.is_ok() => {
                let draft = found?;
                draft.written.lock().cut(0);
                draft
            }
            Open::New | Open::Empty => {
                let draft = self.draft(None, 0);
                self.files.lock().insert(path.to_owned(), Some(Arc::clone(&draft)));
                draft
            }
        };
        Ok(Box::new(DraftFile(draft)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let draft = self.find(from)?;
        let mut files = self.files.lock();
        files.insert(from.to_owned(), None);
        files.insert(to.to_owned(), Some(draft));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.find(path)?;
        self.files.lock().insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Locks the file below, so that no server uses the directory meanwhile. A file that is not there is not created.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        match self.below.open(path, Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(NoLock)),
            _ => self.below.lock(path),
        }
    }

    fn elapsed(&self) -> Duration {
        self.below.elapsed()
    }

    fn time(&self) -> Time {
        self.below.time()
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.below.random(into)
    }
}

impl Written {
    fn cut(&mut self, bytes: u64) {
        let (whole, rest) = (bytes / BLOCK, bytes % BLOCK);
        let mut gone = self.blocks.split_off(&whole);
        if let Some(mut last) = gone.remove(&whole).filter(|_| rest > 0) {
            last[rest as usize..].fill(0);
            self.blocks.insert(whole, last);
        }
        self.bytes = bytes;
        self.below_bytes = self.below_bytes.min(bytes);
    }
}

impl Draft {
    /// Fills `into` with what the file below has there, and zeros behind its end.
    fn read_below(&self, below_bytes: u64, position: u64, into: &mut [u8]) -> io::Result<()> {
        let there = below_bytes.saturating_sub(position).min(into.len() as u64) as usize;
        let (there, behind) = into.split_at_mut(there);
        behind.fill(0);
        match &self.path {
            Some(path) if !there.is_empty() => self.below.open(path, Open::Existing)?.read_at(position, there),
            _ => Ok(()),
        }
    }

    fn write_block(&self, written: &mut Written, position: u64, bytes: &[u8]) -> io::Result<()> {
        let (number, at) = (position / BLOCK, (position % BLOCK) as usize);
        let mut below = Box::new([0; BLOCK_BYTES]);
        self.read_below(written.below_bytes, number * BLOCK, &mut below[..])?;
        let mut block = written.blocks.remove(&number).unwrap_or_else(|| below.clone());
        block[at..at + bytes.len()].copy_from_slice(bytes);
        if block != below {
            written.blocks.insert(number, block);
        }
        Ok(())
    }
}

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The parts of a range that are within one block each: position and length.
fn within_blocks(position: u64, bytes: usize) -> impl Iterator<Item = (u64, usize)> {
    let end = position + bytes as u64;
    let mut at = position;
    std::iter::from_fn(move || {
        let from = at;
        at = (from / BLOCK * BLOCK + BLOCK).min(end);
        (from < end).then(|| (from, (at - from) as usize))
    })
}

impl DiskFile for DraftFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.written.lock().bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut written = self.0.written.lock();
        if bytes < written.bytes {
            written.cut(bytes);
        }
        written.bytes = bytes;
        Ok(())
    }

    fn write_at(&self, mut position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut written = self.0.written.lock();
        for part in parts {
            let mut rest: &[u8] = part;
            for (from, bytes) in within_blocks(position, part.len()) {
                let some = rest.split_off(..bytes).unwrap_or_default();
                self.0.write_block(&mut written, from, some)?;
            }
            position += part.len() as u64;
            written.bytes = written.bytes.max(position);
        }
        Ok(())
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        let written = self.0.written.lock();
        if position.checked_add(into.len() as u64).is_none_or(|end| end > written.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let last = position + into.len() as u64;
        // Mostly nothing was written there.
        if written.blocks.range(position / BLOCK..last.div_ceil(BLOCK)).next().is_none() {
            return self.0.read_below(written.below_bytes, position, into);
        }
        let mut rest = into;
        for (from, bytes) in within_blocks(position, rest.len()) {
            let some = rest.split_off_mut(..bytes).unwrap_or_default();
            match written.blocks.get(&(from / BLOCK)) {
                Some(block) => some.copy_from_slice(&block[(from % BLOCK) as usize..][..bytes]),
                None => self.0.read_below(written.below_bytes, from, some)?,
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
