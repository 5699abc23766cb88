//! A disk that fails as disks do: it stops at any write or sync, loses what was not synced, tears writes, reorders
//! them, is full, fails to sync and loses what it should have written, refuses to open or to read, and can lie. It
//! can have its own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferrymq_model::Time;
use ferrymq_storage::{Disk, DiskFile, DiskLock, Open, RealDisk};
use parking_lot::Mutex;

/// Writes tear at multiples of this.
const SECTOR: usize = 512;
/// "Too many open files".
const EMFILE: i32 = 24;
/// "Input/output error".
const EIO: i32 = 5;

/// A small random number generator, so that a seed reproduces a run.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    folders: Names<()>,
    files: Names<usize>,
    locked: bool,
    faults: Faults,
    operations: u64,
    /// The elapsed time, if the disk has its own clock.
    clock: Option<Duration>,
    /// What [`Disk::random`] returns, if the disk has its own clock.
    chance: u64,
    /// Called before each operation, when others may have a turn.
    before: Option<Hook>,
    /// How often something was not opened.
    refused: u64,
}

/// What is called before an operation.
#[derive(Clone)]
struct Hook(Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// Names in folders: as programs see them, and as they are after a power loss.
#[derive(Clone, Debug)]
struct Names<T> {
    now: BTreeMap<PathBuf, T>,
    synced: BTreeMap<PathBuf, T>,
    /// Changes that were not synced, in order.
    changes: Vec<Change<T>>,
}

/// One change of a folder, which a power loss leaves whole or not at all.
#[derive(Clone, Debug)]
struct Change<T> {
    path: PathBuf,
    to: Option<T>,
    /// The name that was given up for this one.
    from: Option<PathBuf>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), synced: BTreeMap::new(), changes: Vec::new() }
    }
}

impl<T: Clone> Names<T> {
    fn change(&mut self, path: &Path, to: Option<T>) {
        self.make(Change { path: path.to_owned(), to, from: None });
    }

    fn rename(&mut self, from: &Path, path: &Path, to: T) {
        self.make(Change { path: path.to_owned(), to: Some(to), from: Some(from.to_owned()) });
    }

    fn make(&mut self, change: Change<T>) {
        change.apply(&mut self.now);
        self.changes.push(change);
    }

    /// The names in one folder survive a power loss from here on.
    fn sync(&mut self, folder: &Path) {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changes).into_iter().partition(|change| change.path.parent() == Some(folder));
        self.changes = elsewhere;
        here.iter().for_each(|change| change.apply(&mut self.synced));
    }

    /// What a power loss leaves: of each folder's changes the first few, or some of them. No name has a later
    /// change without its earlier ones.
    fn after_power_loss(&self, chance: &mut Chance) -> Self {
        let folders: BTreeSet<_> = self.changes.iter().map(|change| change.path.parent()).collect();
        let mut now = self.synced.clone();
        for folder in folders {
            let here: Vec<_> = self.changes.iter().filter(|change| change.path.parent() == folder).collect();
            if chance.one_in(2) {
                let kept = chance.below(here.len() as u64 + 1) as usize;
                here[..kept].iter().for_each(|change| change.apply(&mut now));
                continue;
            }
            let mut lost = BTreeSet::new();
            for change in here {
                let names = [Some(&change.path), change.from.as_ref()];
                if names.iter().flatten().any(|name| lost.contains(*name)) || chance.one_in(2) {
                    lost.extend(names.into_iter().flatten());
                } else {
                    change.apply(&mut now);
                }
            }
        }
        Self { synced: now.clone(), now, changes: Vec::new() }
    }
}

impl<T: Clone> Change<T> {
    fn apply(&self, names: &mut BTreeMap<PathBuf, T>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        match &self.to {
            Some(to) => drop(names.insert(self.path.clone(), to.clone())),
            None => drop(names.remove(&self.path)),
        }
    }
}

/// The faults.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The operation at which power fails; it and all later ones fail.
    pub stop_at: Option<u64>,
    /// Syncs report success, and do nothing.
    pub lie: bool,
    /// How many bytes may be added in folders of this name, before the disk is full.
    pub space_left: Option<u64>,
    /// Syncs of files with this in their path fail, and what they should have written counts as written from then
    /// on.
    pub fail_sync_of: Option<&'static str>,
    /// Nothing with this in its path is created, opened or renamed: there are no descriptors.
    pub refuse_open_of: Option<&'static str>,
    /// Files with this in their path cannot be read.
    pub fail_read_of: Option<&'static str>,
    /// The next write to a file with this in its path is lost: it reports success, and the old bytes stay.
    pub lose_write_to: Option<&'static str>,
}

impl Faults {
    fn concern(part: Option<&'static str>, path: &Path) -> bool {
        part.is_some_and(|part| path.to_string_lossy().contains(part))
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
    /// Writes that power failed in: they may be on disk in part, and no program ever read them.
    cut_off: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Bytes(at, written) => {
                let end = at + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(written);
            }
        }
    }
}

impl FakeDisk {
    /// A disk with its own clock, which advances when told to, and with a seed for its random choices.
    pub fn with_clock(seed: u64) -> Self {
        let disk = Self::default();
        {
            let mut world = disk.0.lock();
            (world.clock, world.chance) = (Some(Duration::from_secs(1)), seed);
        }
        disk
    }

    /// Calls this before each operation.
    pub fn call_before(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.0.lock().before = Some(Hook(Arc::new(hook)));
    }

    /// An operation is about to happen.
    fn before(&self) {
        let hook = self.0.lock().before.clone();
        if let Some(Hook(hook)) = hook {
            hook();
        }
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        let mut world = self.0.lock();
        world.clock = world.clock.map(|clock| clock + time);
    }

    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// How often something was not opened, because there were no descriptors.
    pub fn refused(&self) -> u64 {
        self.0.lock().refused
    }

    /// There are descriptors again.
    pub fn stop_refusing(&self) {
        let mut world = self.0.lock();
        (world.faults.refuse_open_of, world.refused) = (None, 0);
    }

    /// How many operations there were so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// What a power loss leaves; random choices decide about unsynced writes. The old disk fails from then on.
    pub fn after_power_loss(&self, chance: &mut Chance) -> Self {
        let mut old = self.0.lock();
        old.faults.stop_at = Some(0);
        let folders = old.folders.after_power_loss(chance);
        let mut files = old.files.after_power_loss(chance);
        // A lost folder loses everything in it.
        let is_there = |path: &Path| path.parent().is_none_or(|parent| folders.now.contains_key(parent));
        files.now.retain(|path, _| is_there(path));
        files.synced.retain(|path, _| is_there(path));
        let mut world = World { folders, files, clock: old.clock, chance: old.chance, ..World::default() };
        for inode in &old.inodes {
            let mut bytes = inode.synced.clone();
            for write in torn(&[&inode.unsynced[..], &inode.cut_off].concat(), chance) {
                write.apply(&mut bytes);
            }
            world.inodes.push(Inode { synced: bytes.clone(), now: bytes, ..Inode::default() });
        }
        Self(Arc::new(Mutex::new(world)))
    }

    /// What a killed process leaves: everything it wrote. The old disk fails from then on.
    pub fn after_kill(&self) -> Self {
        let mut old = self.0.lock();
        old.faults.stop_at = Some(0);
        Self(Arc::new(Mutex::new(old.of_same_files())))
    }

    /// Another disk with the same files, all synced.
    pub fn copy(&self) -> Self {
        let mut world = self.0.lock().of_same_files();
        (world.files.synced, world.files.changes) = (world.files.now.clone(), Vec::new());
        (world.folders.synced, world.folders.changes) = (world.folders.now.clone(), Vec::new());
        for inode in &mut world.inodes {
            (inode.synced, inode.unsynced) = (inode.now.clone(), Vec::new());
        }
        Self(Arc::new(Mutex::new(world)))
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.0.lock();
        world.inodes[world.files.now[path]].now.clone()
    }

    /// The files there are.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.lock().files.now.keys().cloned().collect()
    }

    /// Changes a file behind the store's back.
    pub fn meddle(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.0.lock();
        let inode = world.files.now[path];
        let inode = &mut world.inodes[inode];
        change(&mut inode.now);
        inode.synced = inode.now.clone();
    }

    /// Deletes a file behind the store's back.
    pub fn lose(&self, path: &Path) {
        let mut world = self.0.lock();
        world.files.now.remove(path);
        world.files.synced.remove(path);
    }

    /// Deletes an empty folder.
    pub fn lose_folder(&self, path: &Path) {
        let mut world = self.0.lock();
        world.folders.now.remove(path);
        world.folders.synced.remove(path);
    }
}

/// Some of the writes, in some order, some of them in part.
fn torn(writes: &[Write], chance: &mut Chance) -> Vec<Write> {
    let mut left: Vec<Write> = Vec::new();
    for write in writes {
        match write {
            // Lengths change with the file system's own journal: in order.
            Write::Length(_) => left.push(write.clone()),
            Write::Bytes(at, bytes) => match chance.below(3) {
                0 => {}
                1 => left.push(write.clone()),
                _ => {
                    let sectors = bytes.chunks(SECTOR).enumerate().filter(|_| chance.one_in(2));
                    left.extend(sectors.map(|(number, some)| Write::Bytes(at + number * SECTOR, some.to_vec())));
                }
            },
        }
    }
    left
}

impl World {
    /// The same files, without faults.
    fn of_same_files(&self) -> Self {
        let inodes = self.inodes.iter().map(|inode| Inode { cut_off: Vec::new(), ..inode.clone() });
        Self {
            inodes: inodes.collect(),
            folders: self.folders.clone(),
            files: self.files.clone(),
            clock: self.clock,
            chance: self.chance,
            ..Self::default()
        }
    }

    /// Counts an operation that changes something.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.faults.stop_at.is_some_and(|stop| self.operations > stop) {
            return Err(io::Error::other("power is gone"));
        }
        Ok(())
    }

    fn may_open(&mut self, path: &Path) -> io::Result<()> {
        if Faults::concern(self.faults.refuse_open_of, path) {
            self.refused += 1;
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.folders.now.contains_key(path) || path.parent().is_none()
    }
}

impl Disk for FakeDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        let missing: Vec<_> = folder.ancestors().filter(|folder| !world.is_folder(folder)).collect();
        for folder in missing.into_iter().rev() {
            world.operate()?;
            world.folders.change(folder, Some(()));
            if folder.parent().is_some_and(|parent| parent.parent().is_none()) {
                // The path of the data directory does not matter to it.
                world.folders.sync(Path::new("/"));
            }
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut world = self.0.lock();
        world.may_open(folder)?;
        if !world.is_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = world.files.now.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        self.before();
        let mut world = self.0.lock();
        world.may_open(path)?;
        if !path.parent().is_some_and(|folder| world.is_folder(folder)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let found = world.files.now.get(path).copied();
        let inode = match (how, found) {
            (Open::Existing | Open::Blocks, None) => return Err(io::ErrorKind::NotFound.into()),
            (Open::New, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Existing | Open::Blocks, Some(inode)) => inode,
            (Open::Empty, Some(inode)) => {
                world.operate()?;
                let emptied = &mut world.inodes[inode];
                emptied.now.clear();
                emptied.unsynced.push(Write::Length(0));
                inode
            }
            (Open::Empty | Open::New, None) => {
                world.operate()?;
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                world.files.change(path, Some(inode));
                inode
            }
        };
        drop(world);
        Ok(Box::new(FakeFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.may_open(to)?;
        world.operate()?;
        let inode = *world.files.now.get(from).ok_or(io::ErrorKind::NotFound)?;
        world.files.rename(from, to, inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.before();
        let mut world = self.0.lock();
        world.operate()?;
        if !world.files.now.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.files.change(path, None);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.before();
        let mut world = self.0.lock();
        world.may_open(folder)?;
        world.operate()?;
        if !world.is_folder(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !world.faults.lie {
            world.files.sync(folder);
            world.folders.sync(folder);
        }
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut world = self.0.lock();
        if std::mem::replace(&mut world.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(FakeLock(self.clone())))
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().clock.unwrap_or_else(|| RealDisk.elapsed())
    }

    fn time(&self) -> Time {
        let clock = self.0.lock().clock;
        clock.map_or_else(|| RealDisk.time(), |clock| Time(1_700_000_000_000 + clock.as_millis() as u64))
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.0.lock();
        if world.clock.is_none() {
            return RealDisk.random(into);
        }
        world.chance += 1;
        let mut chance = Chance::new(world.chance);
        into.iter_mut().for_each(|byte| *byte = chance.below(256) as u8);
        Ok(())
    }
}

#[derive(Debug)]
struct FakeLock(FakeDisk);

impl DiskLock for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        self.0.0.lock().locked = false;
    }
}

#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    inode: usize,
    path: PathBuf,
}

impl FakeFile {
    fn write(&self, write: Write, grows_by: u64) -> io::Result<()> {
        self.disk.before();
        let mut world = self.disk.0.lock();
        let going = world.operate();
        if let Some(left) = &mut world.faults.space_left {
            *left = left.checked_sub(grows_by).ok_or(io::ErrorKind::StorageFull)?;
        }
        if grows_by == 0 && Faults::concern(world.faults.lose_write_to, &self.path) {
            world.faults.lose_write_to = None;
            return going;
        }
        let inode = &mut world.inodes[self.inode];
        if going.is_ok() {
            write.apply(&mut inode.now);
            inode.unsynced.push(write);
        } else {
            inode.cut_off.push(write);
        }
        going
    }
}

impl DiskFile for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].now.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.write(Write::Length(bytes as usize), bytes.saturating_sub(self.len()?))
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let grows_by = (position + bytes.len() as u64).saturating_sub(self.len()?);
        self.write(Write::Bytes(position as usize, bytes), grows_by)
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        let world = self.disk.0.lock();
        if Faults::concern(world.faults.fail_read_of, &self.path) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let from = position as usize;
        let bytes = world.inodes[self.inode].now.get(from..from + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.before();
        let mut world = self.disk.0.lock();
        world.operate()?;
        if Faults::concern(world.faults.fail_sync_of, &self.path) {
            // The kernel discards what it could not write: its pages can be read, and are never written.
            world.inodes[self.inode].unsynced.clear();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if !world.faults.lie {
            let inode = &mut world.inodes[self.inode];
            for write in std::mem::take(&mut inode.unsynced) {
                write.apply(&mut inode.synced);
            }
        }
        Ok(())
    }
}
