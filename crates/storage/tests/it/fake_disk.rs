//! A disk that fails as disks do: it stops at any write or sync, loses what was not synced, tears what was being
//! written, writes in another order than it was told, runs full, and can be made to lie.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrymq_storage::{Disk, DiskFile, DiskLock, Open};
use parking_lot::Mutex;

/// Writes tear at multiples of this.
const SECTOR: usize = 512;

/// A small generator of chance, so that a seed reproduces.
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
    /// Names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// Names as they are after a power loss.
    synced_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that were not synced, in order.
    changes: Vec<Change>,
    locked: bool,
    faults: Faults,
    operations: u64,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The operation at which power fails; it and all later ones fail.
    pub stop_at: Option<u64>,
    /// Syncs say that they were done, and do nothing.
    pub lie: bool,
    /// How many bytes may be added in folders of this name, before there is no space.
    pub space_left: Option<u64>,
    /// Syncs of files whose path has this in it fail.
    pub fail_sync_of: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Write>,
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

#[derive(Clone, Debug)]
enum Change {
    Add(PathBuf, usize),
    Remove(PathBuf),
}

impl FakeDisk {
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// How many operations there were so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// What a power loss leaves, whatever it is that chance leaves of unsynced writes. The old disk is dead.
    pub fn after_power_loss(&self, chance: &mut Chance) -> Self {
        let mut old = self.0.lock();
        old.faults.stop_at = Some(0);
        let mut world = World { synced_names: old.synced_names.clone(), ..World::default() };
        let kept = chance.below(old.changes.len() as u64 + 1) as usize;
        for change in &old.changes[..kept] {
            apply(change, &mut world.synced_names);
        }
        world.names = world.synced_names.clone();
        for inode in &old.inodes {
            let mut bytes = inode.synced.clone();
            for write in torn(&inode.unsynced, chance) {
                write.apply(&mut bytes);
            }
            world.inodes.push(Inode { synced: bytes.clone(), now: bytes, unsynced: Vec::new() });
        }
        Self(Arc::new(Mutex::new(world)))
    }

    /// What a killed process leaves: everything it wrote. The old disk is dead.
    pub fn after_kill(&self) -> Self {
        let mut old = self.0.lock();
        old.faults.stop_at = Some(0);
        let world = World {
            inodes: old.inodes.clone(),
            names: old.names.clone(),
            synced_names: old.synced_names.clone(),
            changes: old.changes.clone(),
            ..World::default()
        };
        Self(Arc::new(Mutex::new(world)))
    }

    /// Another disk with the same files.
    pub fn copy(&self) -> Self {
        let world = self.0.lock();
        let (inodes, names) = (world.inodes.clone(), world.names.clone());
        Self(Arc::new(Mutex::new(World { inodes, synced_names: names.clone(), names, ..World::default() })))
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.0.lock();
        world.inodes[world.names[path]].now.clone()
    }

    /// The files there are.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// Changes a file behind everyone's back.
    pub fn meddle(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.0.lock();
        let inode = world.names[path];
        let inode = &mut world.inodes[inode];
        change(&mut inode.now);
        inode.synced = inode.now.clone();
    }

    /// Takes a file away behind everyone's back.
    pub fn lose(&self, path: &Path) {
        let mut world = self.0.lock();
        world.names.remove(path);
        world.synced_names.remove(path);
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

fn apply(change: &Change, names: &mut BTreeMap<PathBuf, usize>) {
    match change {
        Change::Add(path, inode) => drop(names.insert(path.clone(), *inode)),
        Change::Remove(path) => drop(names.remove(path)),
    }
}

impl World {
    /// Counts an operation that changes something.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.faults.stop_at.is_some_and(|stop| self.operations > stop) {
            return Err(io::Error::other("power is gone"));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&change, &mut self.names);
        self.changes.push(change);
    }
}

impl Disk for FakeDisk {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let world = self.0.lock();
        let inside = world.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.0.lock();
        let inode = match (how, world.names.get(path)) {
            (Open::Existing, None) => return Err(io::ErrorKind::NotFound.into()),
            (Open::Existing, Some(inode)) => *inode,
            (Open::Empty, _) => {
                world.operate()?;
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                world.change(Change::Add(path.to_owned(), inode));
                inode
            }
        };
        Ok(Box::new(FakeFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.operate()?;
        let inode = *world.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        world.change(Change::Remove(from.to_owned()));
        world.change(Change::Add(to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.operate()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(Change::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        world.operate()?;
        if !world.faults.lie {
            world.synced_names = world.names.clone();
            world.changes.clear();
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
        let mut world = self.disk.0.lock();
        let going = world.operate();
        if let Some(left) = &mut world.faults.space_left {
            *left = left.checked_sub(grows_by).ok_or(io::ErrorKind::StorageFull)?;
        }
        let inode = &mut world.inodes[self.inode];
        // The write that is under way when power fails may be on disk in part.
        if going.is_ok() {
            write.apply(&mut inode.now);
        }
        inode.unsynced.push(write);
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
        let from = position as usize;
        let bytes = world.inodes[self.inode].now.get(from..from + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        world.operate()?;
        if world.faults.fail_sync_of.is_some_and(|part| self.path.to_string_lossy().contains(part)) {
            return Err(io::Error::other("the disk has failed"));
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
