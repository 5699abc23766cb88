//! The operating system's files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrymq_model::Time;
use rustix::fs::OFlags;

use super::{BLOCK_BYTES, Disk, DiskFile, DiskLock, Open};

/// The maximum number of parts in one system call (Linux' IOV_MAX).
const PARTS_MAX: usize = 1024;

/// The file mode: only the server may read messages.
const FILE_MODE: u32 = 0o600;
/// The mode of folders.
const FOLDER_MODE: u32 = 0o700;

/// The machine's monotonic clock, since its first call. From the standard library: valgrind does not support
/// rustix's call.
pub(super) fn elapsed() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// The machine's time of day.
pub(super) fn time() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(now.as_millis() as u64)
}

/// The machine's random numbers.
pub(super) fn random(into: &mut [u8]) -> io::Result<()> {
    getrandom::fill(into).map_err(io::Error::other)
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let empty = how == Open::Empty;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(empty).truncate(empty).create_new(how == Open::New).mode(FILE_MODE);
        let file = options.open(path)?;
        let direct = (how == Open::Blocks).then(|| Direct::open(path)).flatten();
        Ok(Box::new(RealFile {
            file,
            direct,
            #[cfg(debug_assertions)]
            path: path.to_owned(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealLock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl DiskLock for RealLock {}

#[derive(Debug)]
struct RealFile {
    file: File,
    direct: Option<Direct>,
    #[cfg(debug_assertions)]
    path: std::path::PathBuf,
}

/// A file whose writes go past the page cache.
#[derive(Debug)]
struct Direct {
    file: File,
    /// Whether the file system has refused such a write.
    refused: AtomicBool,
}

impl Direct {
    /// `None` if the file system does not support it.
    fn open(path: &Path) -> Option<Self> {
        let file = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok()?;
        Some(Self { file, refused: AtomicBool::new(false) })
    }

    /// Writes as many bytes as it can. `None` if these bytes must go through the page cache.
    fn write(&self, position: u64, parts: &[IoSlice<'_>]) -> Option<rustix::io::Result<usize>> {
        let whole =
            |part: &IoSlice<'_>| part.len().is_multiple_of(BLOCK_BYTES) && part.as_ptr().align_offset(BLOCK_BYTES) == 0;
        if !position.is_multiple_of(BLOCK_BYTES as u64)
            || !parts.iter().all(whole)
            || self.refused.load(Ordering::Relaxed)
        {
            return None;
        }
        let written = rustix::io::pwritev(&self.file, parts, position);
        if matches!(written, Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP)) {
            self.refused.store(true, Ordering::Relaxed);
            return None;
        }
        Some(written)
    }
}

impl RealFile {
    fn write(&self, position: u64, parts: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        let written = self.direct.as_ref().and_then(|direct| direct.write(position, parts));
        written.unwrap_or_else(|| rustix::io::pwritev(&self.file, parts, position))
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn write_at(&self, mut position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if let Some(half) = super::kill::half_of_the_last(&self.path, parts) {
            self.file.write_all_at(&half, position)?;
            std::process::abort();
        }
        let mut parts: Vec<IoSlice<'_>> = parts.iter().filter(|part| !part.is_empty()).copied().collect();
        let mut parts = parts.as_mut_slice();
        while !parts.is_empty() {
            let some = &parts[..parts.len().min(PARTS_MAX)];
            match self.write(position, some) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, position)
    }

    /// Syncs all bytes that were written to the file, in both ways.
    fn sync_data(&self) -> io::Result<()> {
        let direct = self.direct.as_ref().filter(|direct| !direct.refused.load(Ordering::Relaxed));
        direct.map_or(&self.file, |direct| &direct.file).sync_data()
    }
}
