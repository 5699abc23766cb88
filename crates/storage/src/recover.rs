//! Opening a data directory: lock, manifest, checkpoint, journal, in this order. Nothing is decided here; the
//! journal contains outcomes, and replay applies them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ferrymq_model::{CatalogEntry, QueueId, QueueState};
use parking_lot::{Condvar, Mutex};

use crate::blob::BlobFiles;
use crate::checkpoint::{Checkpoint, Meta};
use crate::disk::{Disk, DiskLock};
use crate::driver::{Driver, Worker};
use crate::error::OpenError;
use crate::filing::{self, BodyFiles, Filer};
use crate::journal::{self, Begin, Chain, DiskWatch, Flusher, Gate, JournalFiles, OpenGroup, Replayed, Shared};
use crate::manifest::Manifest;
use crate::merge::Merging;
use crate::notify::Notify;
use crate::options::Options;
use crate::read_ahead::{self, Folders, ReadQueue, Reader};
use crate::replay::Replay;
use crate::run;
use crate::sabotage::{self, Sabotage};
use crate::spill::{self, IdleWatch, Spill, SpillSignal};
use crate::store::{Parts, Store};

/// What a data directory contained.
#[derive(Debug)]
pub struct Recovered {
    /// The catalog's entries.
    pub entries: Vec<CatalogEntry>,
    /// The durable queues.
    pub queues: Vec<RecoveredQueue>,
    /// What is missing or was set aside, in sentences for the log.
    pub missing: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// The length of a journal file of this directory, in bytes.
    pub file_bytes: u32,
    /// The number of journal files of this directory.
    pub files: u32,
}

/// A recovered queue.
#[derive(Debug)]
pub struct RecoveredQueue {
    /// Its id.
    pub id: QueueId,
    /// The state with which the broker continues.
    pub state: QueueState,
    /// How many messages it has, delivered or not.
    pub messages: u64,
    /// The bytes of their bodies; an estimate, if some of a run's messages are settled.
    pub bytes: u64,
}

/// The minimum length of a journal file, so that the longest record fits.
const FILE_BYTES_MIN: u32 = 256 << 10;
/// One to write, two resident, one to continue with, one reserved.
const FILES_MIN: u32 = 5;

/// The paths in a data directory.
pub(crate) struct Layout {
    directory: PathBuf,
    manifest: PathBuf,
    checkpoint: PathBuf,
    journal: PathBuf,
    pub bodies: PathBuf,
    pub runs: Folders,
}

impl Layout {
    /// Creates the folders for files.
    fn make_folders(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        for folder in [&self.runs.runs, &self.runs.transient, &self.bodies] {
            disk.create_folder(folder).map_err(OpenError::io("create", folder))?;
        }
        disk.sync_folder(&self.directory).map_err(OpenError::io("sync", &self.directory))
    }

    pub fn of(directory: &Path) -> Self {
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

/// Opens a data directory, or creates one. Starts storage's threads.
pub fn open(
    disk: Arc<dyn Disk>,
    directory: &Path,
    options: Options,
    notify: Arc<dyn Notify>,
) -> Result<(Store, Recovered), OpenError> {
    let (mut store, recovered, workers) = assemble(disk, directory, options, notify, None)?;
    let Workers { flusher, filer, reader, spill } = workers;
    let failed = || OpenError::io("start a thread for", directory);
    store.own_thread(journal::spawn(flusher).map_err(failed())?);
    store.own_thread(filing::spawn(filer).map_err(failed())?);
    store.own_thread(read_ahead::spawn(reader).map_err(failed())?);
    store.own_thread(spill::spawn(spill).map_err(failed())?);
    Ok((store, recovered))
}

/// Like [`open`], without threads: `driver` gives the workers their turns, in its own order. With a disk that has
/// its own clock, a run can be repeated.
pub fn open_driven(
    disk: Arc<dyn Disk>,
    directory: &Path,
    options: Options,
    notify: Arc<dyn Notify>,
    driver: Arc<dyn Driver>,
) -> Result<(Store, Recovered, [Worker; 4]), OpenError> {
    let (store, recovered, workers) = assemble(disk, directory, options, notify, Some(driver))?;
    let Workers { flusher, filer, reader, spill } = workers;
    let workers = [Worker::flush(flusher), Worker::file(filer), Worker::read(reader), Worker::spill(spill)];
    Ok((store, recovered, workers))
}

/// What storage's threads work with.
struct Workers {
    flusher: Flusher,
    filer: Filer,
    reader: Reader,
    spill: Spill,
}

fn assemble(
    disk: Arc<dyn Disk>,
    directory: &Path,
    mut options: Options,
    notify: Arc<dyn Notify>,
    driver: Option<Arc<dyn Driver>>,
) -> Result<(Store, Recovered, Workers), OpenError> {
    if options.file_bytes < FILE_BYTES_MIN || options.files < FILES_MIN {
        let what = format!("the journal needs at least {FILES_MIN} files of {FILE_BYTES_MIN} bytes");
        return Err(OpenError::Options(what));
    }
    let began = disk.elapsed();
    let layout = Layout::of(directory);
    disk.create_folder(directory).map_err(OpenError::io("create", directory))?;
    let lock = lock(&*disk, directory)?;
    let manifest = read_or_make(&disk, &layout, &options)?;
    (options.file_bytes, options.files) = (manifest.file_bytes, manifest.files);

    let (mut checkpoint, loaded) = Checkpoint::open(Arc::clone(&disk), &layout.checkpoint)?;
    let mut meta = loaded.meta;
    let files = JournalFiles::open(&*disk, &layout.journal, manifest.files, manifest.file_bytes)?;
    let mut replay = Replay::new(loaded);
    let begin =
        Begin { stamp: manifest.stamp, first: meta.first_generation, synced: meta.synced, repair: options.repair };
    let replayed = journal::replay(&files, begin, &mut replay)?;
    replay.finish();
    let found = Files::look(&*disk, &layout, &replay)?;
    meta.next_run = meta.next_run.max(found.next_run);
    meta.starts = (meta.starts + 1).max(found.last_body >> 32);
    if !sabotage::is(Sabotage::NoSyncedAtStart) {
        meta.synced = replayed.end;
    }
    checkpoint.commit(&mut meta, []).map_err(|error| OpenError::checkpoint(&layout.checkpoint, error))?;

    let mut missing = replayed.missing.clone();
    missing.extend(found.explain());
    let mut recovered = replay.recovered(missing);
    recovered.took = disk.elapsed().saturating_sub(began);
    (recovered.file_bytes, recovered.files) = (manifest.file_bytes, manifest.files);
    let start = Start { disk, layout, options, notify, driver, lock, meta, checkpoint, stamp: manifest.stamp };
    let (store, workers) = start.assemble(replay, replayed, files, found);
    Ok((store, recovered, workers))
}

/// The parts of a running store.
struct Start {
    disk: Arc<dyn Disk>,
    layout: Layout,
    options: Options,
    notify: Arc<dyn Notify>,
    driver: Option<Arc<dyn Driver>>,
    lock: Box<dyn DiskLock>,
    meta: Meta,
    checkpoint: Checkpoint,
    stamp: u64,
}

impl Start {
    /// Writes long bodies to files.
    fn bodies(&self, found: &Files) -> Arc<BodyFiles> {
        // No file has such a number, whatever the checkpoint contains.
        let next = (self.meta.starts << 32).max(found.last_body + 1);
        // The longest record must fit into a file with everything else that a file must contain.
        Arc::new(BodyFiles::new(next, self.options.own_file_bytes.min(self.options.file_bytes / 4)))
    }

    fn assemble(self, replay: Replay, replayed: Replayed, files: JournalFiles, found: Files) -> (Store, Workers) {
        let bodies = self.bodies(&found);
        let chain = Chain {
            stamp: self.stamp,
            group: replayed.chain.0,
            section: replayed.chain.1,
            term: self.meta.starts,
            time: replayed.time,
        };
        let mut segments = replay.segments;
        if u64::from(segments.next_number()) <= replayed.tail.generation {
            segments.push(Arc::clone(&replayed.tail.image), replayed.tail.number);
        }
        let (stalled, overfull) = (Arc::default(), Arc::default());
        let gate = Gate::new(Arc::clone(&stalled), Arc::clone(&overfull));
        let mut open = OpenGroup::new(replayed.tail, self.options.file_bytes, self.options.files, gate);
        let _ = open.file_of(open.generation);
        let shared = Arc::new(Shared {
            open: Mutex::new(open),
            changed: Condvar::new(),
            synced: Condvar::new(),
            durable: AtomicU64::new(replayed.end.0),
            stalled,
            overfull,
            watch: DiskWatch::new(Arc::clone(&self.disk)),
            files,
            driver: self.driver,
        });
        let (reads, signal) = (Arc::<ReadQueue>::default(), Arc::<SpillSignal>::default());
        let parts = Parts {
            shared: Arc::clone(&shared),
            writer: replayed.writer,
            queues: replay.queues.into_values().collect(),
            journal: segments,
            touched: replay.touched,
            runs: replay.runs,
            blob_files: replay.blob_files,
            bodies: Arc::clone(&bodies),
            changed_entries: replay.changed_entries,
            deleted: replay.deleted,
            reads: Arc::clone(&reads),
            spill: Arc::clone(&signal),
            lock: self.lock,
        };
        let store = Store::new(parts, &self.options);
        let blob_files = BlobFiles::new(Arc::clone(&self.disk), self.layout.bodies);
        let (disk, notify, folders) = (|| Arc::clone(&self.disk), || Arc::clone(&self.notify), self.layout.runs);
        let flusher = Flusher::new(Arc::clone(&shared), notify(), disk(), blob_files.clone(), &self.options, chain);
        let filer = Filer::new(bodies, blob_files.clone(), disk(), notify(), shared.watch.of_bodies());
        let reader = Reader::new(Arc::clone(&reads), disk(), folders.clone(), blob_files.clone(), notify());
        let spill = Spill {
            signal,
            shared,
            notify: notify(),
            disk: disk(),
            folders,
            blob_files,
            reads,
            checkpoint: self.checkpoint,
            meta: self.meta,
            next_transient_run: 0,
            merging: Merging::new(self.options.merge_bytes),
            copy_bytes_max: self.options.copy_bytes_max,
            rest: IdleWatch::new(self.options.rest_ms),
            strays: found.strays,
            // The first look also waits until the store is installed.
            pause: Some(spill::NO_STORE),
        };
        (store, Workers { flusher, filer, reader, spill })
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
        // A copy may have left out empty folders. If one was not empty, its files are found to be missing.
        layout.make_folders(&**disk)?;
        return Ok(manifest);
    }
    // The manifest is written last. A directory without one was never complete, unless its journal contains groups.
    if let Some(used) = JournalFiles::find_used(&**disk, &layout.journal)? {
        let what = format!("{} holds messages; restore the manifest, or move the whole directory away", used.display());
        return Err(OpenError::Missing { file: layout.manifest.clone(), what });
    }
    layout.make_folders(&**disk)?;
    JournalFiles::create(&**disk, &layout.journal, options.files, options.file_bytes)?;
    Checkpoint::create(disk, &layout.checkpoint)?;
    let manifest = Manifest::new(&**disk, options.file_bytes, options.files);
    let manifest = manifest.map_err(OpenError::io("get random bytes for", &layout.manifest))?;
    manifest.write(&**disk, &layout.manifest)?;
    Ok(manifest)
}

/// The files of runs and bodies that are there.
#[derive(Debug, Default)]
struct Files {
    /// A number that no run has.
    next_run: u32,
    /// The highest number of a body.
    last_body: u64,
    /// Those without a reference. A crash may have left them, or a damaged checkpoint may have lost the reference.
    strays: Vec<PathBuf>,
}

impl Files {
    /// Looks at all of them. Those of transient messages are deleted: nothing refers to them after a restart.
    fn look(disk: &dyn Disk, layout: &Layout, replay: &Replay) -> Result<Self, OpenError> {
        let mut found = Self { next_run: 1, ..Self::default() };
        let list = |folder: &Path| disk.list(folder).map_err(OpenError::io("list", folder));
        for name in list(&layout.runs.transient)? {
            let path = layout.runs.transient.join(name);
            disk.remove(&path).map_err(OpenError::io("remove", &path))?;
        }
        for name in list(&layout.runs.runs)? {
            let run = run::number_of(&name);
            found.next_run = found.next_run.max(run.map_or(0, |run| run.0.saturating_add(1)));
            if run.is_none_or(|run| !replay.runs.contains_key(&run)) {
                found.strays.push(layout.runs.runs.join(name));
            }
        }
        for name in list(&layout.bodies)? {
            let number = BlobFiles::number_of(&name);
            found.last_body = found.last_body.max(number.unwrap_or(0));
            if number.is_none_or(|number| !replay.blob_files.contains_key(&number)) {
                found.strays.push(layout.bodies.join(name));
            }
        }
        Ok(found)
    }

    /// What an operator should know about them.
    fn explain(&self) -> Option<String> {
        let first = self.strays.first()?.display();
        Some(format!(
            "{} files are named by nothing, {first} is one: a server that was killed leaves such. They are kept until the \
             next checkpoint and removed then",
            self.strays.len()
        ))
    }
}
