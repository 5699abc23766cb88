//! Opening a data directory: lock, manifest, checkpoint, journal, in this order. Nothing is decided here; the journal
//! holds outcomes, and replay takes them in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use ferrymq_model::{CatalogEntry, EntryKind, Position, QueueId, QueueState};
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, DiskLock};
use crate::error::OpenError;
use crate::image::Image;
use crate::journal::{self, JournalFiles, OpenGroup, Record, Replayed, Shared, Visitor};
use crate::manifest::Manifest;
use crate::notify::Notify;
use crate::options::Options;
use crate::queue::{Queue, Slot};
use crate::segment::{SegmentId, Segments};
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
    /// How many bytes their bodies have.
    pub bytes: u64,
}

/// The least that a journal file can have, so that the longest record fits one.
const FILE_BYTES_MIN: u32 = 256 << 10;
/// One to write, one to be moved out, one kept back.
const FILES_MIN: u32 = 3;

/// Opens a data directory; makes one where there is none.
#[expect(clippy::needless_pass_by_value, reason = "the spill thread will keep it")]
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
    disk.create_folder(directory).map_err(OpenError::io("create", directory))?;
    let lock = lock(&*disk, directory)?;
    let manifest = read_or_make(&*disk, directory, &options)?;
    (options.file_bytes, options.files) = (manifest.file_bytes, manifest.files);
    let files = JournalFiles::open(&*disk, &journal_folder(directory), manifest.files, manifest.file_bytes)?;
    let mut replay = Replay::new(1);
    let replayed = journal::replay(&files, 1, Position::default(), &mut replay)?;
    files.sync()?;
    let start = replayed.last_start + 1;
    let recovered = replay.recovered(replayed.torn.clone());
    let (mut store, shared, previous_crc) = assemble(replay, replayed, files, lock, &options);
    let thread = journal::spawn(shared, notify, &options, previous_crc, start);
    store.own_thread(thread.map_err(OpenError::io("start the journal's thread for", directory))?);
    Ok((store, recovered))
}

fn assemble(
    replay: Replay,
    replayed: Replayed,
    files: JournalFiles,
    lock: Box<dyn DiskLock>,
    options: &Options,
) -> (Store, Arc<Shared>, u32) {
    let mut journal = replay.segments;
    if u64::from(journal.next_number()) <= replayed.tail.generation {
        journal.push(Arc::clone(&replayed.tail.image));
    }
    let mut open = OpenGroup::new(replayed.tail, options.file_bytes);
    let _ = open.file_of(open.generation);
    let shared = Arc::new(Shared {
        open: Mutex::new(open),
        changed: Condvar::new(),
        durable: AtomicU64::new(replayed.end.0),
        stalled: AtomicBool::new(false),
        files,
    });
    let queues = replay.queues.into_values().collect();
    let parts = Parts { shared: Arc::clone(&shared), writer: replayed.writer, queues, journal, lock };
    (Store::new(parts, options), shared, replayed.previous_crc)
}

fn journal_folder(directory: &Path) -> PathBuf {
    directory.join("journal")
}

fn lock(disk: &dyn Disk, directory: &Path) -> Result<Box<dyn DiskLock>, OpenError> {
    let path = directory.join("lock");
    disk.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::InUse(directory.to_owned()),
        _ => OpenError::io("lock", &path)(error),
    })
}

fn read_or_make(disk: &dyn Disk, directory: &Path, options: &Options) -> Result<Manifest, OpenError> {
    let path = directory.join("manifest");
    if let Some(manifest) = Manifest::read(disk, &path)? {
        return Ok(manifest);
    }
    JournalFiles::create(disk, &journal_folder(directory), options.files, options.file_bytes)?;
    let manifest = Manifest { file_bytes: options.file_bytes, files: options.files };
    manifest.write(disk, &path)?;
    Ok(manifest)
}

/// Takes in what the journal says.
struct Replay {
    entries: BTreeMap<(EntryKind, Vec<u8>), Vec<u8>>,
    queues: HashMap<QueueId, Queue, foldhash::fast::RandomState>,
    segments: Segments,
}

impl Replay {
    fn new(first: u32) -> Self {
        Self { entries: BTreeMap::new(), queues: HashMap::default(), segments: Segments::new(first) }
    }

    fn recovered(&self, torn: Option<String>) -> Recovered {
        let entry = |((kind, key), value): (&(EntryKind, Vec<u8>), &Vec<u8>)| CatalogEntry {
            kind: *kind,
            key: key.clone(),
            value: Some(value.clone()),
        };
        let queue = |queue: &Queue| RecoveredQueue {
            id: queue.id,
            state: queue.state(),
            messages: queue.messages,
            bytes: queue.bytes,
        };
        let mut queues: Vec<_> = self.queues.values().map(queue).collect();
        queues.sort_by_key(|queue| queue.id);
        Recovered { entries: self.entries.iter().map(entry).collect(), queues, torn }
    }
}

impl Visitor for Replay {
    fn generation(&mut self, _generation: u64, image: Arc<Image>) {
        self.segments.push(image);
    }

    fn record(&mut self, generation: u64, at: u32, record: Record<'_>) -> Result<(), String> {
        match record {
            Record::Enqueue { targets, message, stored } => {
                let segment = SegmentId::journal(generation);
                let at = at + message as u32;
                let slot = Slot { segment, at, body_bytes: stored.facts.body_bytes, beside: false };
                for place in targets.iter() {
                    let Some(queue) = self.queues.get_mut(&place.queue) else { continue };
                    if queue.restore(place.sequence, slot) {
                        self.segments.get_mut(segment).live += 1;
                    }
                }
            }
            Record::Settle { queue, first, last } => {
                let Some(queue) = self.queues.get_mut(&queue) else { return Ok(()) };
                let segments = &mut self.segments;
                queue.settle(first, last, |slot| segments.get_mut(slot.segment).live -= 1);
            }
            Record::Delivered { queue, sequence } => {
                let Some(queue) = self.queues.get_mut(&queue) else { return Ok(()) };
                queue.head = queue.head.max(sequence.saturating_add(1));
            }
            Record::Attempts { queue, sequence, attempts } => {
                let Some(queue) = self.queues.get_mut(&queue) else { return Ok(()) };
                queue.attempts.insert(sequence, attempts);
            }
            Record::Put { kind, key, value } => {
                self.entries.insert((kind, key.to_vec()), value.to_vec());
            }
            Record::Delete { kind, key } => {
                self.entries.remove(&(kind, key.to_vec()));
            }
            Record::CreateQueue { queue } => {
                self.queues.entry(queue).or_insert_with(|| Queue::new(queue, true));
            }
            Record::DeleteQueue { queue } => {
                let Some(mut queue) = self.queues.remove(&queue) else { return Ok(()) };
                let segments = &mut self.segments;
                queue.settle(0, u64::MAX, |slot| segments.get_mut(slot.segment).live -= 1);
            }
            Record::Skipped => {}
        }
        Ok(())
    }
}
