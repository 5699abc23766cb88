//! A disk whose syncs or reads wait while a test says so.

use std::{
    io::{self, IoSlice},
    path::Path,
    sync::Arc,
};

use ferrymq_storage::{Disk, DiskFile, DiskLock, Open, RealDisk};
use parking_lot::{Condvar, Mutex};

/// Blocks syncs, or reads, while it is closed for them.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    /// How many syncs wait.
    waiting: u32,
    /// Reads wait.
    holds_reads: bool,
}

impl Gate {
    /// From now on syncs wait.
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    /// Those that wait go on.
    pub fn release(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    /// Returns when a sync waits.
    pub fn wait_for_a_sync(&self) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.waiting == 0);
    }

    /// From now on reads wait.
    pub fn hold_reads(&self) {
        self.state.lock().holds_reads = true;
    }

    /// The reads that wait go on.
    pub fn release_reads(&self) {
        self.state.lock().holds_reads = false;
        self.changed.notify_all();
    }

    fn pass_read(&self) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.holds_reads);
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.held);
        state.waiting -= 1;
    }
}

/// The real disk, with the gate before every sync and every read of a file.
#[derive(Debug)]
pub struct GatedDisk(pub Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Box<dyn DiskFile>, Arc<Gate>);

impl Disk for GatedDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(RealDisk.open(path, how)?, self.0.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(position, parts)
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.1.pass_read();
        self.0.read_at(position, into)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
}
