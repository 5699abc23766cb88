//! The checkpoint: the state from those parts of the journal that were overwritten. A small database (redb)
//! contains catalog entries by kind and key, and each queue's state and extents. It changes incrementally, before a
//! journal file is overwritten: first the run is synced, then the checkpoint is committed, then the file is free.

pub(crate) mod row;

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrymq_model::{CatalogEntry, EntryKind, Position, QueueId};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::disk::{self, Disk, DiskFile, Open};
use crate::error::OpenError;
use crate::mark::Mark;
use crate::sabotage::{self, Sabotage};

use row::KeptQueue;

/// The version that this code writes and reads.
const VERSION: u64 = 2;
const CACHE_BYTES: usize = 1 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, (u8, &[u8]), &[u8]> = TableDefinition::new("entries");
/// By shard and queue.
const QUEUES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("queues");
/// By shard: the last section that the rows contain, as its term and index.
const APPLIED: TableDefinition<'_, u8, (u64, u64)> = TableDefinition::new("applied");
/// The shard of a node's queues.
const SHARD: u8 = 1;

/// What a checkpoint says about the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Replay begins with this generation.
    pub first_generation: u64,
    /// The journal was synced at least up to here.
    pub synced: Position,
    /// Counts the starts of the server.
    pub starts: u64,
    /// Number of the next run.
    pub next_run: u32,
    /// The last section that the rows contain completely.
    pub applied: u64,
    /// Counts commits. [`Mark`] has the number of the last commit that was relied upon.
    pub commit: u64,
}

/// Everything in a checkpoint.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub meta: Meta,
    pub entries: Vec<CatalogEntry>,
    pub queues: Vec<KeptQueue>,
}

/// The database. After a failure it is opened again, because its memory may differ from the disk.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    database: Option<Database>,
    mark: Mark,
    /// The last commit that was tried: no number is used twice.
    tried: u64,
}

/// What is to change.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub entries: Vec<CatalogEntry>,
    /// The rows of changed queues.
    pub queues: Vec<(QueueId, Vec<u8>)>,
    pub deleted: Vec<QueueId>,
}

impl Checkpoint {
    /// Creates an empty one.
    pub fn create(disk: &Arc<dyn Disk>, path: &Path) -> Result<(), OpenError> {
        disk.open(path, Open::Empty).map_err(OpenError::io("create", path))?;
        let mark = Mark::create(disk, path)?;
        let mut checkpoint = Self { disk: Arc::clone(disk), path: path.to_owned(), database: None, mark, tried: 0 };
        let mut meta =
            Meta { first_generation: 1, synced: Position::default(), starts: 0, next_run: 1, applied: 0, commit: 0 };
        checkpoint.commit(&mut meta, []).map_err(|error| OpenError::checkpoint(path, error))?;
        if sabotage::is(Sabotage::NoSyncOfCheckpointName) {
            return Ok(());
        }
        disk.sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(OpenError::io("sync", path))
    }

    /// Opens an existing one, and reads all of it.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, Loaded), OpenError> {
        match disk.open(path, Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = "it says what is in the runs and where the journal begins".to_owned();
                return Err(OpenError::Missing { file: path.to_owned(), what });
            }
            file => {
                // After a failed sync, the page cache may differ from the disk.
                let file = file.map_err(OpenError::io("open", path))?;
                disk::write_again(&*file).map_err(OpenError::io("write", path))?;
            }
        }
        let mark = Mark::open(&disk, path)?;
        let checkpoint = Self { disk, path: path.to_owned(), database: None, mark, tried: 0 };
        // redb panics on some kinds of damage; here that is damage like any other.
        let read = panic::catch_unwind(AssertUnwindSafe(|| checkpoint.read(path)));
        read.unwrap_or_else(|_| Err(OpenError::damaged(path, 0, "the database cannot read it")))
    }

    fn read(mut self, path: &Path) -> Result<(Self, Loaded), OpenError> {
        let version = self.version().map_err(|error| OpenError::checkpoint(path, error))?;
        if version != VERSION {
            return Err(OpenError::version(path, u32::try_from(version).unwrap_or(u32::MAX), VERSION as u32));
        }
        let loaded = self.load().map_err(|error| OpenError::checkpoint(path, error))?;
        let loaded = loaded.ok_or_else(|| OpenError::damaged(path, 0, "an entry of the checkpoint cannot be read"))?;
        if loaded.meta.commit < self.mark.number && !sabotage::is(Sabotage::AcceptRollback) {
            let (found, expected) = (loaded.meta.commit, self.mark.number);
            let what =
                format!("the checkpoint is the one of commit {found}, and commit {expected} was made and relied upon");
            return Err(OpenError::damaged(path, 0, what));
        }
        Ok((self, loaded))
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            let file = self.disk.open(&self.path, Open::Existing)?;
            let backend = Backend { file };
            // Without this check a damaged page would be trusted; the file is small enough to read all of it.
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            self.database = Some(builder.create_with_backend(backend)?);
        }
        Ok(self.database.as_ref().expect("just opened"))
    }

    fn version(&mut self) -> Result<u64, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        Ok(transaction.open_table(META)?.get("version")?.map_or(0, |version| version.value()))
    }

    /// `None` if something in it is invalid.
    fn load(&mut self) -> Result<Option<Loaded>, redb::Error> {
        let transaction = self.database()?.begin_read()?;
        let meta = transaction.open_table(META)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|number| number.value()));
        let (Some(first_generation), Some(synced), Some(starts), Some(next_run), Some(commit)) =
            (number("first_generation")?, number("synced")?, number("starts")?, number("next_run")?, number("commit")?)
        else {
            return Ok(None);
        };
        let Ok(next_run) = u32::try_from(next_run) else { return Ok(None) };
        let applied = transaction.open_table(APPLIED)?.get(SHARD)?.map_or(0, |applied| applied.value().1);
        let meta = Meta { first_generation, synced: Position(synced), starts, next_run, applied, commit };
        let (mut entries, mut queues) = (Vec::new(), Vec::new());
        for entry in transaction.open_table(ENTRIES)?.iter()? {
            let (key, value) = entry?;
            let (kind, key) = key.value();
            let Some(kind) = EntryKind::from_number(kind) else { return Ok(None) };
            entries.push(CatalogEntry { kind, key: key.to_vec(), value: Some(value.value().to_vec()) });
        }
        for queue in transaction.open_table(QUEUES)?.iter()? {
            let (id, state) = queue?;
            let (shard, id) = id.value();
            let Some(queue) = row::decode(QueueId(id), state.value()).filter(|_| shard == SHARD) else {
                return Ok(None);
            };
            queues.push(queue);
        }
        Ok(Some(Loaded { meta, entries, queues }))
    }

    /// Applies changes, all or none, and then notes in the mark that they were applied: only after that may
    /// anything rely on them. Counts the commit in `meta`.
    pub fn commit<'a>(
        &mut self,
        meta: &mut Meta,
        changes: impl IntoIterator<Item = &'a Changes>,
    ) -> Result<(), redb::Error> {
        self.tried = self.tried.max(meta.commit) + 1;
        let next = Meta { commit: self.tried, ..*meta };
        let committed = self.try_commit(&next, changes).and_then(|()| Ok(self.mark.set(next.commit)?));
        match committed {
            Ok(()) => *meta = next,
            Err(_) => self.database = None,
        }
        committed
    }

    fn try_commit<'a>(
        &mut self,
        meta: &Meta,
        changes: impl IntoIterator<Item = &'a Changes>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.database()?.begin_write()?;
        // With a one-phase commit, a flipped bit in the last commit would silently bring back the one before.
        transaction.set_two_phase_commit(true);
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|error| redb::Error::from(io::Error::other(error)))?;
        {
            let mut table = transaction.open_table(META)?;
            table.insert("version", VERSION)?;
            table.insert("first_generation", meta.first_generation)?;
            table.insert("synced", meta.synced.0)?;
            table.insert("starts", meta.starts)?;
            table.insert("next_run", u64::from(meta.next_run))?;
            table.insert("commit", meta.commit)?;
            let mut applied = transaction.open_table(APPLIED)?;
            applied.insert(SHARD, (meta.starts, meta.applied))?;
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut queues = transaction.open_table(QUEUES)?;
            for portion in changes {
                for entry in &portion.entries {
                    let key = (entry.kind as u8, entry.key.as_slice());
                    match &entry.value {
                        Some(value) => drop(entries.insert(key, value.as_slice())?),
                        None => drop(entries.remove(key)?),
                    }
                }
                for (id, state) in &portion.queues {
                    queues.insert((SHARD, id.0), state.as_slice())?;
                }
                for id in &portion.deleted {
                    queues.remove((SHARD, id.0))?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// A [`File`](crate::disk::DiskFile) as redb needs it.
#[derive(Debug)]
struct Backend {
    file: Box<dyn DiskFile>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, &[io::IoSlice::new(data)])
    }
}
