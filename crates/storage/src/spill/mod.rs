//! The spill thread: moves messages that wait for long out of the journal and out of memory, into runs; writes
//! checkpoints; deletes files that nobody needs; and [merges](crate::merge) runs when there is nothing else to do.
//!
//! Retiring a journal generation: its live messages are written to a run and synced; the queues' index is replaced
//! by extents; the checkpoint is committed, after the journal is durable as far as the checkpoint contains it; only
//! then is the file free. What fails is tried again; until it works, publishers wait.

pub(crate) mod store_side;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ferrymq_model::{Position, QueueId};
use parking_lot::{Condvar, Mutex};

use crate::blob::BlobFiles;
use crate::checkpoint::{Changes, Checkpoint, Meta};
use crate::disk::Disk;
use crate::driver::Turn;
use crate::image::Image;
use crate::journal::Shared;
use crate::merge::Merging;
use crate::notify::Notify;
use crate::read_ahead::{Folders, ReadQueue};
use crate::run::{BodySource, RunContent, RunId, RunMessage, RunWriter};
use crate::sabotage::{self, Sabotage};
use crate::segment::SegmentId;
use crate::spill::store_side::{Batch, Collected, Cursor, DeadFile};
use crate::store::Store;
use crate::stored::{Stored, StoredBody};

/// How often something that failed is tried again, and how often files are checked without a call.
const RETRY: Duration = Duration::from_secs(1);
/// How often the thread looks for a store that is not installed yet.
pub(crate) const NO_STORE: Duration = Duration::from_millis(5);

/// Wakes the spill thread.
#[derive(Debug, Default)]
pub(crate) struct SpillSignal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    go: bool,
    stop: bool,
}

impl SpillSignal {
    pub fn go(&self) {
        self.state.lock().go = true;
        self.changed.notify_one();
    }

    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    fn stopped(&self) -> bool {
        self.state.lock().stop
    }

    /// Sleeps until there is something to do, or for a while; false when it is time to end.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        while !state.go && !state.stop {
            match at_most {
                Some(time) if self.changed.wait_for(&mut state, time).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
        state.go = false;
        !state.stop
    }
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Incomplete {
    /// The store is closed, or the thread was asked to end. An unfinished step has no effect.
    Stopped,
    /// To be tried again.
    Failed(io::Error),
}

impl From<io::Error> for Incomplete {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Detects that there are no requests to storage any more.
pub(crate) struct IdleWatch {
    after: Duration,
    /// The position at the last look, and since when it has not changed.
    seen: Option<(Position, Duration)>,
    /// Memory was freed since.
    over: bool,
}

impl IdleWatch {
    pub fn new(after_ms: u64) -> Self {
        Self { after: Duration::from_millis(after_ms), seen: None, over: false }
    }

    /// The position now. Returns whether it is time to free memory.
    fn has_come(&mut self, position: Position, now: Duration) -> bool {
        match self.seen {
            Some((seen, since)) if seen == position => !self.over && now.saturating_sub(since) >= self.after,
            _ => {
                (self.seen, self.over) = (Some((position, now)), false);
                false
            }
        }
    }
}

/// What the spill thread works with.
pub(crate) struct Spill {
    pub signal: Arc<SpillSignal>,
    pub shared: Arc<Shared>,
    pub notify: Arc<dyn Notify>,
    pub disk: Arc<dyn Disk>,
    pub folders: Folders,
    pub blob_files: BlobFiles,
    pub reads: Arc<ReadQueue>,
    pub checkpoint: Checkpoint,
    pub meta: Meta,
    pub next_transient_run: u32,
    pub merging: Merging,
    pub copy_bytes_max: u32,
    pub rest: IdleWatch,
    /// Files without a reference at the start. They are deleted when a later checkpoint does not refer to them
    /// either.
    pub strays: Vec<PathBuf>,
    /// When to look again, without a call.
    pub pause: Option<Duration>,
}

/// Starts the thread.
pub(crate) fn spawn(mut spill: Spill) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("spill".to_owned()).spawn(move || {
        while spill.signal.wait(spill.pause) {
            spill.pause = spill.work();
        }
    })
}

impl Spill {
    /// One turn of a thread that does not sleep.
    pub fn turn(&mut self) -> Turn {
        if self.signal.stopped() {
            return Turn::Over;
        }
        self.signal.state.lock().go = false;
        self.pause = self.work();
        Turn::Idle(self.pause.map(|pause| self.disk.elapsed() + pause))
    }

    /// Does everything there is to do; returns when to look again without a call.
    fn work(&mut self) -> Option<Duration> {
        loop {
            if self.signal.stopped() {
                return None;
            }
            let looked = self.visit(|store| {
                let dead = store.take_dead();
                let batch = store.generation_to_retire().or_else(|| store.transient_to_move());
                (dead, store.has_files(), batch)
            });
            let Ok((dead, waiting, batch)) = looked else { return Some(NO_STORE) };
            dead.iter().for_each(|dead| self.remove(dead.file));
            self.give_up_files();
            let Some(batch) = batch else {
                self.shared.space_again();
                match self.merge() {
                    Ok(true) => continue,
                    Ok(false) => match self.rest() {
                        Ok(true) => continue,
                        Ok(false) => return (waiting || !self.rest.over).then_some(RETRY),
                        Err(_) => return Some(NO_STORE),
                    },
                    Err(Incomplete::Stopped) => return Some(NO_STORE),
                    // Nobody waits for it.
                    Err(Incomplete::Failed(_)) => return Some(RETRY),
                }
            };
            let done = match batch.generation {
                Some((generation, decided)) => self.retire(&batch, generation, decided),
                None => self.move_transient(&batch),
            };
            match done {
                Ok(()) => self.shared.space_again(),
                Err(Incomplete::Stopped) => return Some(NO_STORE),
                Err(Incomplete::Failed(error)) => {
                    self.shared.no_space(&error.to_string());
                    return Some(RETRY);
                }
            }
        }
    }

    /// After a while without requests, frees memory of the journal. Returns whether there is more to do.
    fn rest(&mut self) -> Result<bool, Incomplete> {
        let now = self.disk.elapsed();
        let position = self.visit(|store| store.position())?;
        if !self.rest.has_come(position, now) {
            return Ok(false);
        }
        let more = self.visit(|store| store.rest())?;
        // Its own writes are not requests.
        let position = self.visit(|store| store.position())?;
        self.rest = IdleWatch { seen: Some((position, now)), over: !more, ..self.rest };
        Ok(more)
    }

    /// Runs a visit in the store. It may be closed at any time; then nothing may be done with what the visit
    /// returned.
    pub(crate) fn visit<T>(&self, mut look: impl FnMut(&mut Store) -> T) -> Result<T, Incomplete> {
        let mut seen = None;
        self.notify.with_store(&mut |store| seen = Some(look(store)));
        seen.ok_or(Incomplete::Stopped)
    }

    /// Waits for the journal. The position may be beyond all its files, because settlements continue while
    /// publishers wait, and no file becomes free before: then files are added.
    pub(crate) fn wait_durable(&self, position: Position) -> Result<(), Incomplete> {
        for _ in 0..self.shared.files_missing(position) {
            self.shared.added(self.shared.files.add(&*self.disk)?);
        }
        if self.shared.wait_durable(position) { Ok(()) } else { Err(Incomplete::Stopped) }
    }

    /// Deletes files that were added to the journal and are free. One that cannot be deleted now is opened again at
    /// the next start.
    fn give_up_files(&self) {
        while self.shared.give_up_file().is_some() {
            let _ = self.shared.files.remove_last(&*self.disk);
        }
    }

    /// Nobody needs this file; if it cannot be deleted now, the next start deletes it.
    pub(crate) fn remove(&mut self, file: DeadFile) {
        let path = match file {
            DeadFile::Run(run) => {
                self.reads.forget(run);
                self.merging.gone(run);
                self.folders.run(run)
            }
            DeadFile::Body(number) => self.blob_files.path_of(number),
        };
        let _ = self.disk.remove(&path);
    }

    fn retire(&mut self, batch: &Batch, generation: u64, decided: Position) -> Result<(), Incomplete> {
        self.wait_durable(decided)?;
        if batch.live {
            let run = self.next_run();
            self.write_run(batch, run)?;
            self.swap(batch, run)?;
        }
        let mut portions = Vec::new();
        let applied = self.shared.last_section();
        let position = self.snapshot(batch, &mut portions)?;
        if !sabotage::is(Sabotage::RetireBeforeSync) {
            self.wait_durable(position)?;
        }
        if sabotage::is(Sabotage::FreeBeforeCheckpoint) {
            self.visit(Store::retire_oldest)?;
            self.shared.release(generation);
            return Ok(());
        }
        let mut meta = Meta { first_generation: generation + 1, synced: position, applied, ..self.meta };
        let catalog = portions.pop().expect("the catalog's changes are always there");
        if let Err(error) = self.checkpoint.commit(&mut meta, portions.iter().chain([&catalog])) {
            self.visit(|store| store.give_back(&catalog))?;
            return Err(io::Error::other(error).into());
        }
        self.meta = meta;
        self.remove_strays();
        self.visit(Store::retire_oldest)?;
        self.shared.release(generation);
        Ok(())
    }

    /// The checkpoint does not refer to them either: nothing ever will.
    fn remove_strays(&mut self) {
        for stray in self.strays.drain(..) {
            // If it cannot be deleted now, the next start finds it again.
            let _ = self.disk.remove(&stray);
        }
    }

    fn move_transient(&mut self, batch: &Batch) -> Result<(), Incomplete> {
        let run = self.next_transient();
        self.write_run(batch, run)?;
        self.swap(batch, run)
    }

    pub(crate) fn next_run(&mut self) -> RunId {
        let run = RunId(self.meta.next_run);
        self.meta.next_run += 1;
        run
    }

    pub(crate) fn next_transient(&mut self) -> RunId {
        let run = RunId::transient(self.next_transient_run);
        self.next_transient_run += 1;
        run
    }

    fn write_run(&mut self, batch: &Batch, run: RunId) -> Result<(), Incomplete> {
        match self.try_write_run(batch, run) {
            Ok(content) => self.merging.written(run, content),
            Err(incomplete) => {
                let _ = self.disk.remove(&self.folders.run(run));
                return Err(incomplete);
            }
        }
        Ok(())
    }

    fn try_write_run(&self, batch: &Batch, run: RunId) -> Result<RunContent, Incomplete> {
        let path = self.folders.run(run);
        let mut writer = RunWriter::create(&*self.disk, &path, run, batch.sections)?;
        let (mut cursor, mut collected) = (Some(Cursor::default()), Vec::new());
        while let Some(from) = cursor {
            collected.clear();
            cursor = self.visit(|store| store.collect(batch, from, &mut collected))?;
            for message in &collected {
                self.push(&mut writer, batch, message)?;
            }
        }
        let content = writer.finish()?;
        if !run.is_transient() {
            self.disk.sync_folder(&self.folders.runs)?;
        }
        Ok(content)
    }

    fn push(&self, writer: &mut RunWriter, batch: &Batch, message: &Collected) -> io::Result<()> {
        let slot = message.slot;
        let stored = image_of(batch, slot.segment).tail(slot.at as usize);
        let key: BodySource = (slot.segment.0, slot.at.into());
        let body = match &message.body {
            Some(body) => Some((&body[..], key)),
            None if slot.body_bytes > self.copy_bytes_max => match Stored::read(stored).map(|stored| stored.body) {
                Some(StoredBody::Here(body)) => Some((body, key)),
                _ => None,
            },
            None => None,
        };
        writer.push(&RunMessage { queue: message.queue, sequence: message.sequence, stored, body })
    }

    fn swap(&self, batch: &Batch, run: RunId) -> Result<(), Incomplete> {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.visit(|store| store.swap(batch, run, from))?;
        }
        Ok(())
    }

    /// Collects what the checkpoint needs, the catalog's changes last; returns how far the journal must be durable.
    fn snapshot(&self, batch: &Batch, portions: &mut Vec<Changes>) -> Result<Position, Incomplete> {
        self.rows(&batch.queues, portions)?;
        let (changes, position) = self.visit(|store| (store.take_changes(), store.position()))?;
        portions.push(changes);
        Ok(position)
    }

    /// What the checkpoint needs of these queues; returns how far the journal must be durable.
    pub(crate) fn rows(&self, queues: &[QueueId], portions: &mut Vec<Changes>) -> Result<Position, Incomplete> {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let mut changes = Changes::default();
            cursor = self.visit(|store| store.rows(queues, from, &mut changes))?;
            portions.push(changes);
        }
        self.visit(|store| store.position())
    }
}

fn image_of(batch: &Batch, segment: SegmentId) -> &Image {
    let found = batch.images.iter().find(|(id, _)| *id == segment);
    &found.expect("what is collected is of the batch").1
}
