//! The read-ahead thread: reads blocks and long bodies back from disk, and reports which queues may continue.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use ferrymq_model::{FiledBody, QueueId, Sequence};
use parking_lot::{Condvar, Mutex};

use crate::blob::BlobFiles;
use crate::cache::BodyKey;
use crate::disk::Disk;
use crate::driver::Turn;
use crate::error::Unreadable;
use crate::notify::Notify;
use crate::run::{self, Block, RunId, RunReader};
use crate::stored::BodyPlace;

/// How many runs are kept open, each with its index in memory.
const OPEN_RUNS: usize = 16;
/// How many blocks are read ahead for a queue, as long as no other queue waits.
const BLOCKS_AHEAD: usize = 7;

/// A request of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub queue: QueueId,
    pub sequence: Sequence,
    pub what: Wanted,
}

/// Where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// The block of a run with the message.
    Block(RunId),
    /// The message's long body.
    Body(BodyKey, BodyPlace, u32),
}

/// Something that was read.
#[derive(Debug)]
pub(crate) enum Loaded {
    Block(RunId, Block),
    /// From a run, and where in it.
    Body(RunId, u64, Bytes),
    Filed(FiledBody),
}

/// What the shard and the read-ahead thread share.
#[derive(Debug, Default)]
pub(crate) struct ReadQueue {
    asked: Mutex<Asked>,
    changed: Condvar,
    loaded: Mutex<Vec<(Want, Vec<Loaded>)>>,
    /// The memory of the indexes of all open runs.
    index_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Asked {
    wants: VecDeque<Want>,
    /// Runs that were deleted.
    gone: Vec<RunId>,
    stop: bool,
}

impl ReadQueue {
    pub fn ask(&self, want: Want) {
        self.asked.lock().wants.push_back(want);
        self.changed.notify_one();
    }

    pub fn index_bytes(&self) -> u64 {
        self.index_bytes.load(Ordering::Relaxed)
    }

    pub fn forget(&self, run: RunId) {
        self.asked.lock().gone.push(run);
    }

    pub fn stop(&self) {
        self.asked.lock().stop = true;
        self.changed.notify_one();
    }

    pub fn take_loaded(&self) -> Vec<(Want, Vec<Loaded>)> {
        std::mem::take(&mut *self.loaded.lock())
    }
}

/// The folders that are read.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub runs: PathBuf,
    pub transient: PathBuf,
}

impl Folders {
    pub fn run(&self, run: RunId) -> PathBuf {
        run::path_of(if run.is_transient() { &self.transient } else { &self.runs }, run)
    }
}

/// Starts the thread.
pub(crate) fn spawn(mut reader: Reader) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("read-ahead".to_owned()).spawn(move || while reader.turn(true) != Turn::Over {})
}

/// How often a read is tried again after a temporary error.
const RETRY: Duration = Duration::from_millis(100);

/// The thread's state.
pub(crate) struct Reader {
    queue: Arc<ReadQueue>,
    disk: Arc<dyn Disk>,
    folders: Folders,
    blob_files: BlobFiles,
    notify: Arc<dyn Notify>,
    /// The runs that were used last, newest first.
    open: VecDeque<(RunId, RunReader)>,
    /// What could not be read for now, and when it is tried again.
    later: Option<(Want, Duration)>,
}

impl Reader {
    pub fn new(
        queue: Arc<ReadQueue>,
        disk: Arc<dyn Disk>,
        folders: Folders,
        blob_files: BlobFiles,
        notify: Arc<dyn Notify>,
    ) -> Self {
        Self { queue, disk, folders, blob_files, notify, open: VecDeque::new(), later: None }
    }

    /// Reads one requested thing; sleeps first until there is one, if it may.
    pub fn turn(&mut self, may_sleep: bool) -> Turn {
        let want = match self.wait(may_sleep) {
            Ok(want) => want,
            Err(turn) => return turn,
        };
        match self.read(&want) {
            Ok(loaded) => {
                self.queue.loaded.lock().push((want, loaded));
                self.notify.loaded(&[want.queue]);
            }
            // No descriptors, for example: the queue is undamaged, and continues when there are some.
            Err(reason) if reason.passes() => self.later = Some((want, self.disk.elapsed() + RETRY)),
            Err(reason) => self.fail(&want, &reason.what),
        }
        Turn::Worked
    }

    fn wait(&mut self, may_sleep: bool) -> Result<Want, Turn> {
        let mut asked = self.queue.asked.lock();
        loop {
            for run in std::mem::take(&mut asked.gone) {
                self.open.retain(|(open, _)| *open != run);
            }
            if asked.stop {
                return Err(Turn::Over);
            }
            let now = self.disk.elapsed();
            if let Some((want, _)) = self.later.take_if(|(_, at)| *at <= now) {
                return Ok(want);
            }
            // Later requests wait behind it: they would get the same error.
            let until = self.later.as_ref().map(|(_, at)| *at);
            match (until, may_sleep) {
                (None, _) if !asked.wants.is_empty() => return Ok(asked.wants.pop_front().expect("there is one")),
                (until, false) => return Err(Turn::Idle(until)),
                (None, true) => self.queue.changed.wait(&mut asked),
                (Some(until), true) => drop(self.queue.changed.wait_for(&mut asked, until - now)),
            }
        }
    }

    /// An unreadable request fails its queue, unless the queue does not need it any more, or needs it from another
    /// run. Then the queue is told that it may ask again.
    fn fail(&mut self, want: &Want, reason: &str) {
        let mut failed = false;
        self.notify.with_store(&mut |store| failed = store.fail_queue(want));
        if failed {
            self.notify.queue_failed(want.queue, reason);
        } else {
            self.queue.loaded.lock().push((*want, Vec::new()));
            self.notify.loaded(&[want.queue]);
        }
    }

    fn read(&mut self, want: &Want) -> Result<Vec<Loaded>, Unreadable> {
        match want.what {
            Wanted::Block(run) => self.read_blocks(run, want.queue, want.sequence),
            Wanted::Body(BodyKey::BlobFile(number), place, length) => {
                let bytes = self.blob_files.read(place, length)?;
                Ok(vec![Loaded::Filed(FiledBody { bytes, number, crc: place.crc, claim: None })])
            }
            Wanted::Body(BodyKey::InRun(run, at), place, length) => {
                Ok(vec![Loaded::Body(run, at, self.open(run)?.read_body(place, length)?)])
            }
        }
    }

    /// The block with the message, and the following ones of the same queue.
    fn read_blocks(&mut self, run: RunId, queue: QueueId, sequence: Sequence) -> Result<Vec<Loaded>, Unreadable> {
        let ahead = if self.queue.asked.lock().wants.is_empty() { BLOCKS_AHEAD } else { 0 };
        let path = self.folders.run(run);
        let reader = self.open(run)?;
        let missing = || Unreadable::rot(&path, 0, format!("it has no message {sequence} of queue {}", queue.0));
        let first = reader.block_of(queue, sequence).ok_or_else(missing)?;
        let mut loaded = vec![Loaded::Block(run, reader.read_block(first)?)];
        for block in first + 1..=first + ahead {
            if reader.last_queue(block - 1) != Some(queue) || reader.first_queue(block) != Some(queue) {
                break;
            }
            // Nobody needs it yet: a later request will report why it cannot be read.
            let Ok(block) = reader.read_block(block) else { break };
            loaded.push(Loaded::Block(run, block));
        }
        Ok(loaded)
    }

    fn open(&mut self, run: RunId) -> Result<&RunReader, Unreadable> {
        let known = self.open.iter().position(|(open, _)| *open == run);
        let entry = match known.and_then(|at| self.open.remove(at)) {
            Some(entry) => entry,
            None => (run, RunReader::open(&*self.disk, &self.folders.run(run), run)?),
        };
        self.open.truncate(OPEN_RUNS - 1);
        self.open.push_front(entry);
        let index_bytes = self.open.iter().map(|(_, reader)| reader.index_bytes()).sum();
        self.queue.index_bytes.store(index_bytes, Ordering::Relaxed);
        Ok(&self.open[0].1)
    }
}
