//! Opening a data directory: lock, manifest, checkpoint, journal, in this order. Nothing is decided here; the journal
//! holds outcomes, and replay takes them in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use ferrymq_model::{CatalogEntry, QueueId, QueueState};
use hashbrown::{HashMap, HashSet};
use parking_lot::{Condvar, Mutex};

use crate::checkpoint::{Checkpoint, Meta};
use crate::disk::{Disk, DiskLock};
use crate::error::OpenError;
use crate::journal::{self, JournalFiles, OpenGroup, Shared};
use crate::manifest::Manifest;
use crate::merge::Merging;
use crate::notify::Notify;
use crate::options::Options;
use crate::own_file::OwnFiles;
use crate::read_ahead::{self, Folders, ReadQueue};
use crate::replay::Replay;
use crate::run::{self, RunId};
use crate::spill::{self, Spill, SpillSignal};
use crate::store::{Parts, Store};

/// What a data directory held.
#[derive(Debug)]
pub struct Recovered {
    /// The catalog's entries that are there.
    pub entries: Vec<CatalogEntry>,
    /// The durable queues.
    pub queues: Vec<RecoveredQueue>,
    /// What was cut off the journal's end, for the log: bytes that the last server did not finish writing.
    pub torn: Option<String>,
}

/// A queue as it was found.
#[derive(Debug)]
pub struct RecoveredQueue {
    /// Its id.
    pub id: QueueId,
    /// What the broker goes on with.
    pub state: QueueState,
    /// How many messages are in it, delivered or not.
    pub messages: u64,
    /// How many bytes their bodies have; reckoned, where some of a run's messages are settled.
    pub bytes: u64,
}

/// The least that a journal file can have, so that the longest record fits one.
const FILE_BYTES_MIN: u32 = 256 << 10;
/// One to write, two resident, one to go on with, one kept back.
const FILES_MIN: u32 = 5;

/// Where everything is in a data directory.
struct Layout {
    directory: PathBuf,
    manifest: PathBuf,
    checkpoint: PathBuf,
    journal: PathBuf,
    bodies: PathBuf,
    runs: Folders,
}

impl Layout {
    fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            manifest: directory.join("manifest"),
            checkpoint: directory.join("checkpoint.redb"),
            journal: directory.join("journal"),
            bodies: directory.join("bodies"),
            runs: Folders { runs: directory.join("runs"), transient: directory.join("transient") },
        }
    }
}

/// Opens a data directory; makes one where there is none.
pub fn open(
    disk: Arc<dyn Disk>,
    directory: &Path,
    mut options: Options,
    notify: Arc<dyn Notify>,
) -> Result<(Store, Recovered), OpenError> {
    if options.file_bytes < FILE_BYTES_MIN || options.files < FILES_MIN {
        let what = format!("the journal needs at least {FILES_MIN} files of {FILE_BYTES_MIN} bytes");
        return Err(OpenError::Options(what));
    }
    let layout = Layout::of(directory);
    disk.create_folder(directory).map_err(OpenError::io("create", directory))?;
    let lock = lock(&*disk, directory)?;
    let manifest = read_or_make(&disk, &layout, &options)?;
    (options.file_bytes, options.files) = (manifest.file_bytes, manifest.files);

    let (mut checkpoint, loaded) = Checkpoint::open(Arc::clone(&disk), &layout.checkpoint)?;
    let mut meta = loaded.meta;
    let files = JournalFiles::open(&*disk, &layout.journal, manifest.files, manifest.file_bytes)?;
    let mut replay = Replay::new(loaded);
    let replayed = journal::replay(&files, meta.first_generation, meta.synced, &mut replay)?;
    files.sync()?;
    replay.finish();
    meta.next_run = clean_up(&*disk, &layout, &replay)?.max(meta.next_run);
    meta.starts += 1;
    meta.synced = replayed.end;
    checkpoint.commit(&meta, []).map_err(|error| OpenError::checkpoint(&layout.checkpoint, error))?;

    let recovered = replay.recovered(replayed.torn.clone());
    let start = Start { disk, layout, options, notify, lock, meta, checkpoint };
    Ok((start.assemble(replay, replayed, files)?, recovered))
}

/// What the parts of a running store are made from.
struct Start {
    disk: Arc<dyn Disk>,
    layout: Layout,
    options: Options,
    notify: Arc<dyn Notify>,
    lock: Box<dyn DiskLock>,
    meta: Meta,
    checkpoint: Checkpoint,
}

impl Start {
    fn assemble(self, replay: Replay, replayed: journal::Replayed, files: JournalFiles) -> Result<Store, OpenError> {
        let chain = (replayed.previous_crc, u32::try_from(self.meta.starts).unwrap_or(u32::MAX));
        let mut segments = replay.segments;
        if u64::from(segments.next_number()) <= replayed.tail.generation {
            segments.push(Arc::clone(&replayed.tail.image));
        }
        let mut open = OpenGroup::new(replayed.tail, self.options.file_bytes, self.options.files);
        let _ = open.file_of(open.generation);
        let shared = Arc::new(Shared {
            open: Mutex::new(open),
            changed: Condvar::new(),
            synced: Condvar::new(),
            durable: AtomicU64::new(replayed.end.0),
            stalled: AtomicBool::new(false),
            files,
        });
        let (reads, signal) = (Arc::<ReadQueue>::default(), Arc::<SpillSignal>::default());
        let parts = Parts {
            shared: Arc::clone(&shared),
            writer: replayed.writer,
            queues: replay.queues.into_values().collect(),
            journal: segments,
            touched: replay.touched,
            runs: replay.runs,
            own_files: replay.own_files,
            // Numbers of this start's own: none was ever given to a file before.
            next_own_file: self.meta.starts << 32,
            changed_entries: replay.changed_entries,
            deleted: replay.deleted,
            reads: Arc::clone(&reads),
            spill: Arc::clone(&signal),
            lock: self.lock,
        };
        let mut store = Store::new(parts, &self.options);
        let own_files = OwnFiles::new(Arc::clone(&self.disk), self.layout.bodies);
        let failed = || OpenError::io("start a thread for", &self.layout.directory);
        let flush =
            journal::spawn(Arc::clone(&shared), Arc::clone(&self.notify), own_files.clone(), &self.options, chain);
        store.own_thread(flush.map_err(failed())?);
        let (disk, folders) = (Arc::clone(&self.disk), self.layout.runs.clone());
        let reader = read_ahead::spawn(Arc::clone(&reads), disk, folders, own_files.clone(), Arc::clone(&self.notify));
        store.own_thread(reader.map_err(failed())?);
        let spill = Spill {
            signal,
            shared,
            notify: self.notify,
            disk: self.disk,
            folders: self.layout.runs,
            own_files,
            reads,
            checkpoint: self.checkpoint,
            meta: self.meta,
            next_transient_run: 0,
            merging: Merging::new(self.options.merge_bytes),
            copy_bytes_max: self.options.copy_bytes_max,
        };
        store.own_thread(spill::spawn(spill).map_err(failed())?);
        Ok(store)
    }
}

fn lock(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn DiskLock>, OpenError> {
    let path = directory.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::InUse(directory.to_owned()),
        _ => OpenError::io("lock", &path)(error),
    })
}

fn read_or_make(disk: &Arc<dyn Disk>, layout: &Layout, options: &Options) -> Result<Manifest, OpenError> {
    if let Some(manifest) = Manifest::read(&**disk, &layout.manifest)? {
        return Ok(manifest);
    }
    // The manifest is written last. A directory without one was never finished, unless its journal says otherwise.
    if let Some(used) = JournalFiles::find_used(&**disk, &layout.journal)? {
        let what = format!("{} holds messages; restore the manifest, or move the whole directory away", used.display());
        return Err(OpenError::Missing { file: layout.manifest.clone(), what });
    }
    for folder in [&layout.runs.runs, &layout.runs.transient, &layout.bodies] {
        disk.create_folder(folder).map_err(OpenError::io("create", folder))?;
    }
    JournalFiles::create(&**disk, &layout.journal, options.files, options.file_bytes)?;
    Checkpoint::create(disk, &layout.checkpoint)?;
    let manifest = Manifest { file_bytes: options.file_bytes, files: options.files };
    manifest.write(&**disk, &layout.manifest)?;
    Ok(manifest)
}

/// Removes the files that nothing refers to; gives a number that no run has.
fn clean_up(disk: &dyn Disk, layout: &Layout, replay: &Replay) -> Result<u32, OpenError> {
    let mut next_run = 1;
    let runs: HashMap<PathBuf, RunId> =
        replay.runs.keys().map(|run| (run::path_of(&layout.runs.runs, *run), *run)).collect();
    let bodies: HashSet<PathBuf> =
        replay.own_files.keys().map(|number| layout.bodies.join(OwnFiles::name_of(*number))).collect();
    for folder in [&layout.runs.runs, &layout.runs.transient, &layout.bodies] {
        for name in disk.list(folder).map_err(OpenError::io("list", folder))? {
            let path = folder.join(name);
            if let Some(run) = runs.get(&path) {
                next_run = next_run.max(run.0 + 1);
            } else if !bodies.contains(&path) {
                disk.remove(&path).map_err(OpenError::io("remove", &path))?;
            }
        }
    }
    Ok(next_run)
}
