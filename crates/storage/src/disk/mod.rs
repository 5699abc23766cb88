//! The only access to the machine: files, clocks and random numbers. Everything that storage reads or writes goes
//! through [`Disk`]. So tests can use a disk that stops, tears writes, loses what was not synced, is full or lies.

#[cfg(debug_assertions)]
mod kill;
mod real;
mod unchanged;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::Duration;

use ferrymq_model::Time;

pub use real::RealDisk;
pub use unchanged::UnchangedDisk;

/// A place for files. Implementations report what happened and never retry.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a folder and those above it; succeeds if it exists.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// The names of the files in a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file in its folder; a file that had the new name is deleted.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder survive a power loss.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Locks a file for as long as the result lives; [`io::ErrorKind::WouldBlock`] if somebody else has locked it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Time since some fixed moment, by a clock that never jumps.
    fn elapsed(&self) -> Duration {
        real::elapsed()
    }

    /// The time of day, which may jump.
    fn time(&self) -> Time {
        real::time()
    }

    /// Fills `into` with random bytes that nobody can guess.
    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        real::random(into)
    }
}

/// A lock from [`Disk::lock`]; dropping it releases the lock.
pub trait DiskLock: Debug + Send + Sync {}

/// The length and alignment with which all file systems accept writes past the page cache.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Which file [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing one.
    Existing,
    /// An existing file. Writes of whole 4 KiB blocks from memory with this alignment go past the page cache, if the
    /// file system supports this. Such a write still needs a sync.
    Blocks,
    /// An empty one; old content is deleted.
    Empty,
    /// A new one; [`io::ErrorKind::AlreadyExists`] if it exists.
    New,
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file's length is in bytes, and nobody asks whether it is zero")]
pub trait DiskFile: Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Shortens it, or extends it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Writes all `parts`, one after the other, from `position` on.
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Fills `into` from `position` on; [`io::ErrorKind::UnexpectedEof`] if the file is too short.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()>;

    /// Makes its bytes and its length survive a power loss.
    fn sync_data(&self) -> io::Result<()>;
}

/// How much is rewritten at a time.
const AGAIN_BYTES: u64 = 1 << 20;

/// Reads a whole file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Existing)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Writes a file's bytes again in the same place, and syncs them: bytes that a failed sync left only in the page
/// cache are then on disk.
pub(crate) fn write_again(file: &dyn DiskFile) -> io::Result<()> {
    let length = file.len()?;
    let mut bytes = vec![0; length.min(AGAIN_BYTES) as usize];
    for at in (0..length).step_by(AGAIN_BYTES as usize) {
        let some = &mut bytes[..(length - at).min(AGAIN_BYTES) as usize];
        file.read_at(at, some)?;
        file.write_at(at, &[IoSlice::new(some)])?;
    }
    file.sync_data()
}

/// Puts a file in place so that after a crash there is either all of it or the old one.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let file = disk.open(&draft, Open::Empty)?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync_data()?;
    disk.rename(&draft, path)?;
    disk.sync_folder(path.parent().unwrap_or(Path::new(".")))
}
