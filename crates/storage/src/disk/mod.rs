//! The one door to the machine: files, clocks and chance. Everything storage reads or writes goes through [`Disk`], so that
//! tests can put a disk under the engine that stops, tears, loses what was not synced, runs full or lies.

#[cfg(debug_assertions)]
mod kill;
mod real;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::Duration;

use ferrymq_model::Time;

pub use real::RealDisk;

/// A place for files. Implementations say what happened and never retry.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a folder and those above it; fine if it is there.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// The names of the files in a folder, in no particular order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same folder; whatever had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file away.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder survive a power loss.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Takes the lock on a file for as long as the answer lives; [`io::ErrorKind::WouldBlock`] if someone has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;

    /// Time that has passed since a moment of its own, by a clock that never jumps.
    fn elapsed(&self) -> Duration {
        real::elapsed()
    }

    /// The time of day, which may jump.
    fn time(&self) -> Time {
        real::time()
    }

    /// Fills `into` with bytes that nobody can guess.
    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        real::random(into)
    }
}

/// A lock that [`Disk::lock`] took; it is given back when this is dropped.
pub trait DiskLock: Debug + Send + Sync {}

/// Which file an [`Disk::open`] wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// One that is there.
    Existing,
    /// An empty one; what was there is gone.
    Empty,
    /// One that was not there; [`io::ErrorKind::AlreadyExists`] if it was.
    New,
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file's length is in bytes, and nobody asks whether it is zero")]
pub trait DiskFile: Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Cuts it, or lengthens it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Writes all of `parts`, one behind the other, from `position`.
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Fills `into` from `position`; [`io::ErrorKind::UnexpectedEof`] if the file is too short.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()>;

    /// Makes its bytes and its length survive a power loss.
    fn sync_data(&self) -> io::Result<()>;
}

/// How much is written again at a time.
const AGAIN_BYTES: u64 = 1 << 20;

/// Reads a whole file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Existing)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Writes a file's bytes once more over themselves, and syncs them: those that a failed sync left in the page cache alone
/// are on the disk then.
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

/// Puts a file in place so that after a crash there is either all of it or what was there before.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let file = disk.open(&draft, Open::Empty)?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync_data()?;
    disk.rename(&draft, path)?;
    disk.sync_folder(path.parent().unwrap_or(Path::new(".")))
}
