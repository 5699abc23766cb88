//! The journal's files: created once, full of zeros, and overwritten from then on, because that syncs in half the
//! time of growing a file.
//!
//! There may be more of them than the manifest says: one is added when more was decided than they can hold while
//! the oldest was being emptied (settlements cannot wait, nor can publishes that had arrived already). It is
//! removed later.
//!
//! A file begins with its own block (magic, version, length, CRC); groups follow from [`FIRST_GROUP`]. The groups
//! say which generation a file contains.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::group::ALIGN;
use crate::disk::{Disk, DiskFile, Open};
use crate::error::OpenError;
use crate::fields::{FieldWriter, Fields};
use crate::sabotage::{self, Sabotage};

/// Where groups begin in a journal file.
pub(crate) const FIRST_GROUP: u32 = ALIGN;
/// The version that this code writes and reads.
const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"FERRYJNL";
const HEADER_BYTES: usize = 24;
/// How much is written at a time while a file is created.
const ZEROS_BYTES: u32 = 1 << 20;

/// The open files. The lock is held to look one up or to add one, never during disk operations.
#[derive(Debug)]
pub(crate) struct JournalFiles {
    pub file_bytes: u32,
    folder: PathBuf,
    files: RwLock<Vec<Arc<JournalFile>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl std::ops::Deref for JournalFile {
    type Target = dyn DiskFile;

    fn deref(&self) -> &Self::Target {
        &*self.file
    }
}

fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:02}.journal"))
}

impl JournalFiles {
    /// Creates all files.
    pub fn create(disk: &dyn Disk, folder: &Path, files: u32, file_bytes: u32) -> Result<(), OpenError> {
        disk.create_folder(folder).map_err(OpenError::io("create", folder))?;
        for number in 0..files {
            let path = path_of(folder, number);
            create_file(disk, &path, file_bytes).map_err(OpenError::io("create", &path))?;
        }
        if sabotage::is(Sabotage::NoSyncOfNewFolder) {
            return Ok(());
        }
        disk.sync_folder(folder).map_err(OpenError::io("sync", folder))
    }

    /// A journal file in `folder` that contains a group; `None` if all are empty, or if there is none.
    pub fn find_used(disk: &dyn Disk, folder: &Path) -> Result<Option<PathBuf>, OpenError> {
        let names = match disk.list(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            names => names.map_err(OpenError::io("list", folder))?,
        };
        for name in names {
            let path = folder.join(name);
            let file = disk.open(&path, Open::Existing).map_err(OpenError::io("open", &path))?;
            let mut first = [0; ALIGN as usize];
            let end = u64::from(FIRST_GROUP) + u64::from(ALIGN);
            if file.len().map_err(OpenError::io("read", &path))? < end {
                continue;
            }
            file.read_at(FIRST_GROUP.into(), &mut first).map_err(OpenError::io("read", &path))?;
            if first.iter().any(|byte| *byte != 0) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Opens existing files: this many, and those that were added.
    pub fn open(disk: &dyn Disk, folder: &Path, files: u32, file_bytes: u32) -> Result<Self, OpenError> {
        let mut opened = Vec::new();
        for number in 0.. {
            let path = path_of(folder, number);
            let file = match disk.open(&path, Open::Blocks) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && number >= files => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let what = format!("the journal has {files} files, and this is one of them");
                    return Err(OpenError::Missing { file: path, what });
                }
                file => file.map_err(OpenError::io("open", &path))?,
            };
            check_header(&path, &*file, file_bytes)?;
            opened.push(Arc::new(JournalFile { path, file }));
        }
        Ok(Self { file_bytes, folder: folder.to_owned(), files: opened.into() })
    }

    /// Adds a file and returns its number. It gets its name only when it is complete.
    pub fn add(&self, disk: &dyn Disk) -> io::Result<usize> {
        let number = self.count();
        let path = path_of(&self.folder, u32::try_from(number).map_err(io::Error::other)?);
        let draft = path.with_extension("draft");
        create_file(disk, &draft, self.file_bytes)?;
        disk.rename(&draft, &path)?;
        if !sabotage::is(Sabotage::NoSyncOfAddedFile) {
            disk.sync_folder(&self.folder)?;
        }
        let file = disk.open(&path, Open::Blocks)?;
        self.files.write().push(Arc::new(JournalFile { path, file }));
        Ok(number)
    }

    /// Deletes the last file, which nobody uses.
    pub fn remove_last(&self, disk: &dyn Disk) -> io::Result<()> {
        let last = self.files.write().pop().expect("it was added");
        disk.remove(&last.path)
    }

    /// Syncs every file. What a killed server left in the page cache reads like synced data, and must be as safe
    /// before anything is written behind it.
    pub fn sync(&self) -> Result<(), OpenError> {
        self.files.read().iter().try_for_each(|file| file.file.sync_data().map_err(OpenError::io("sync", &file.path)))
    }

    /// The folder they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn count(&self) -> usize {
        self.files.read().len()
    }

    pub fn file(&self, number: usize) -> Arc<JournalFile> {
        Arc::clone(&self.files.read()[number])
    }

    pub fn path(&self, number: usize) -> PathBuf {
        self.file(number).path.clone()
    }
}

fn create_file(disk: &dyn Disk, path: &Path, file_bytes: u32) -> io::Result<()> {
    let file = disk.open(path, Open::Empty)?;
    let zeros = vec![0; ZEROS_BYTES as usize];
    for at in (0..file_bytes).step_by(ZEROS_BYTES as usize) {
        let some = &zeros[..(file_bytes - at).min(ZEROS_BYTES) as usize];
        file.write_at(at.into(), &[IoSlice::new(some)])?;
    }
    let mut header = [0; HEADER_BYTES];
    let mut out = FieldWriter::new(&mut header);
    out.put(MAGIC);
    out.u32(VERSION);
    out.u32(file_bytes);
    out.u32(0);
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
    header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    file.write_at(0, &[IoSlice::new(&header)])?;
    file.sync_data()
}

fn check_header(path: &Path, file: &dyn DiskFile, file_bytes: u32) -> Result<(), OpenError> {
    let bytes = file.len().map_err(OpenError::io("read", path))?;
    if bytes != u64::from(file_bytes) {
        let what = format!("it has {bytes} bytes, and it must have {file_bytes}");
        return Err(OpenError::damaged(path, bytes, what));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_at(0, &mut header).map_err(OpenError::io("read", path))?;
    let damaged = |what| OpenError::damaged(path, 0, what);
    let mut fields = Fields(&header);
    if fields.bytes(MAGIC.len()) != Some(MAGIC) {
        return Err(damaged("it does not begin like a journal file"));
    }
    let crc = Fields(&header[HEADER_BYTES - 4..]).u32();
    if crc != Some(crc32c::crc32c(&header[..HEADER_BYTES - 4])) {
        return Err(damaged("its header has a wrong checksum"));
    }
    let version = fields.u32().unwrap_or(0);
    if version != VERSION {
        return Err(OpenError::version(path, version, VERSION));
    }
    if fields.u32() != Some(file_bytes) {
        return Err(damaged("it says that it is longer or shorter than it is"));
    }
    Ok(())
}
