//! Long bodies are written to their own files, before their messages are decided.
//!
//! ```text
//! publisher: BodyFiles::file ──▶ waiting ──▶ thread: write, sync, sync the folder ──▶ Filing::take ──▶ Store::enqueue
//!                                   ▲ no space│
//!                                   └─────────┘ tried again every second
//! ```
//! Only the publisher waits for its body: the journal refers only to complete files. A file stays as long as a stored
//! message refers to it or somebody has a [`FiledBody::claim`]; one that a crash leaves is found at the next start,
//! because nothing refers to it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use ferrymq_model::FiledBody;
use hashbrown::{HashMap, hash_map::Entry};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::blob::BlobFiles;
use crate::disk::Disk;
use crate::driver::Turn;
use crate::error::{FatalError, Kind, kind_of};
use crate::journal::DiskWatch;
use crate::notify::Notify;

/// How often a body is tried again that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// The interface for publishers of long bodies. It needs no lock of the shard.
#[derive(Debug)]
pub struct BodyFiles {
    own_file_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next file's number.
    next_number: u64,
    waiting: Vec<Waiting>,
    /// Complete files that somebody may still publish.
    claimed: HashMap<u64, Claimed>,
    /// Files to which no message will ever refer.
    unused: Vec<u64>,
    stop: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("State").field("waiting", &self.waiting.len()).field("claimed", &self.claimed.len()).finish()
    }
}

/// A complete file that somebody may still publish.
#[derive(Debug)]
struct Claimed {
    /// Whether a stored message refers to it.
    named: bool,
    /// How many claims there are.
    claims: u32,
}

/// A body without a file yet.
struct Waiting {
    number: u64,
    body: Bytes,
    progress: Arc<Mutex<Progress>>,
    wake: Box<dyn Fn() + Send>,
}

/// The state of such a body.
#[derive(Debug)]
enum Progress {
    /// Not written yet. Why the last try failed, if there was one.
    Waits(Option<Arc<str>>),
    Done(FiledBody),
    /// The publisher has disconnected, or has taken it.
    Over,
}

/// A body that is being written. Dropping it gives the body up.
#[derive(Debug)]
pub struct Filing {
    progress: Arc<Mutex<Progress>>,
    bytes: usize,
}

impl Filing {
    /// The body, once it is in its file.
    #[must_use]
    pub fn take(&mut self) -> Option<FiledBody> {
        let mut progress = self.progress.lock();
        if !matches!(*progress, Progress::Done(_)) {
            return None;
        }
        match std::mem::replace(&mut *progress, Progress::Over) {
            Progress::Done(filed) => Some(filed),
            Progress::Waits(_) | Progress::Over => None,
        }
    }

    /// Whether the body is not in its file yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(*self.progress.lock(), Progress::Waits(_))
    }

    /// Why the body could not be written so far.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        match &*self.progress.lock() {
            Progress::Waits(reason) => reason.clone(),
            Progress::Done(_) | Progress::Over => None,
        }
    }

    /// Length of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Filing {
    fn drop(&mut self) {
        // A dropped claim locks the state, so it is dropped after this one.
        let _claim = std::mem::replace(&mut *self.progress.lock(), Progress::Over);
    }
}

/// Everybody who may still publish a body has one; see [`FiledBody::claim`].
struct Claim {
    files: Arc<BodyFiles>,
    number: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.files.release(self.number);
    }
}

impl BodyFiles {
    pub(crate) fn new(next_number: u64, own_file_bytes: u32) -> Self {
        let state = Mutex::new(State { next_number, ..State::default() });
        Self { own_file_bytes: own_file_bytes as usize, state, changed: Condvar::new() }
    }

    /// Whether a stored body of this length gets its own file.
    #[must_use]
    pub fn takes(&self, body_bytes: usize) -> bool {
        body_bytes > self.own_file_bytes
    }

    /// Starts to write a body to its own file. `wake` is called, from another thread, when the file is complete,
    /// and when a try failed for a new reason.
    #[must_use]
    pub fn file(&self, body: Bytes, wake: Box<dyn Fn() + Send>) -> Filing {
        let progress = Arc::new(Mutex::new(Progress::Waits(None)));
        let filing = Filing { progress: Arc::clone(&progress), bytes: body.len() };
        let mut state = self.state.lock();
        let number = state.take_number();
        state.waiting.push(Waiting { number, body, progress, wake });
        self.changed.notify_one();
        filing
    }

    /// A number that no file has.
    pub(crate) fn next_number(&self) -> u64 {
        self.state.lock().take_number()
    }

    /// Keeps a file for another publish, if a message refers to it now (`is_named`) or somebody else has kept it.
    /// Otherwise it may be gone, and there is no claim.
    pub(crate) fn claim(self: &Arc<Self>, filed: &mut FiledBody, is_named: bool) {
        if filed.claim.is_some() {
            return;
        }
        let mut state = self.state.lock();
        let claimed = match state.claimed.entry(filed.number) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if is_named => entry.insert(Claimed { named: true, claims: 0 }),
            Entry::Vacant(_) => return,
        };
        claimed.claims += 1;
        filed.claim = Some(Arc::new(Claim { files: Arc::clone(self), number: filed.number }));
    }

    /// A message refers to this file from now on. False if nobody has kept the file for that.
    pub(crate) fn adopt(&self, number: u64) -> bool {
        self.state.lock().claimed.get_mut(&number).map(|claimed| claimed.named = true).is_some()
    }

    /// No message refers to this file any more. False if it can be deleted.
    pub(crate) fn let_go(&self, number: u64) -> bool {
        self.state.lock().claimed.get_mut(&number).map(|claimed| claimed.named = false).is_some()
    }

    /// Somebody will not publish this body any more.
    fn release(&self, number: u64) {
        let mut state = self.state.lock();
        let Some(claimed) = state.claimed.get_mut(&number) else { return };
        claimed.claims -= 1;
        if claimed.claims > 0 {
            return;
        }
        if !claimed.named {
            state.unused.push(number);
            self.changed.notify_one();
        }
        state.claimed.remove(&number);
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }
}

impl State {
    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }
}

/// Starts the thread.
pub(crate) fn spawn(mut filer: Filer) -> io::Result<JoinHandle<()>> {
    let run = move || while filer.turn(true) != Turn::Over {};
    thread::Builder::new().name("bodies".to_owned()).spawn(run)
}

/// The thread's state.
pub(crate) struct Filer {
    files: Arc<BodyFiles>,
    blob_files: BlobFiles,
    disk: Arc<dyn Disk>,
    notify: Arc<dyn Notify>,
    watch: DiskWatch,
    /// The reported reason why bodies wait.
    told: Option<Arc<str>>,
    /// When bodies that could not be written are tried again.
    later: Option<Duration>,
    /// How many of the waiting ones were tried and failed.
    tried: usize,
}

impl Filer {
    pub fn new(
        files: Arc<BodyFiles>,
        blob_files: BlobFiles,
        disk: Arc<dyn Disk>,
        notify: Arc<dyn Notify>,
        watch: DiskWatch,
    ) -> Self {
        Self { files, blob_files, disk, notify, watch, told: None, later: None, tried: 0 }
    }

    /// Writes what waits; sleeps first until there is something, if it may.
    pub fn turn(&mut self, may_sleep: bool) -> Turn {
        let (waiting, unused) = match self.wait(may_sleep) {
            Ok(work) => work,
            Err(turn) => return turn,
        };
        for number in unused {
            // If it cannot be deleted now, the next start sets it aside.
            let _ = self.disk.remove(&self.blob_files.path_of(number));
        }
        match self.write_all(waiting) {
            Ok(()) => Turn::Worked,
            Err(error) => {
                self.notify.fatal(&error);
                Turn::Over
            }
        }
    }

    fn wait(&mut self, may_sleep: bool) -> Result<(Vec<Waiting>, Vec<u64>), Turn> {
        let files = Arc::clone(&self.files);
        let mut state = files.state.lock();
        loop {
            if state.stop {
                return Err(Turn::Over);
            }
            let due = self.later.is_none_or(|at| at <= self.disk.elapsed());
            if !state.unused.is_empty() || state.waiting.len() > self.tried || due && self.tried > 0 {
                let waiting = if due {
                    std::mem::take(&mut state.waiting)
                } else {
                    // Those that failed a moment ago would fail again.
                    state.waiting.split_off(self.tried)
                };
                self.later = if due { None } else { self.later };
                self.tried = if due { 0 } else { self.tried };
                return Ok((waiting, std::mem::take(&mut state.unused)));
            }
            if !may_sleep {
                return Err(Turn::Idle(self.later));
            }
            self.sleep(&mut state);
        }
    }

    fn sleep(&self, state: &mut MutexGuard<'_, State>) {
        match self.later {
            Some(at) => {
                let left = at.saturating_sub(self.disk.elapsed());
                let _ = self.files.changed.wait_for(state, left);
            }
            None => self.files.changed.wait(state),
        }
    }

    /// Writes bodies and makes their names survive. Those without space keep waiting.
    fn write_all(&mut self, waiting: Vec<Waiting>) -> Result<(), FatalError> {
        let (mut written, mut failed) = (Vec::new(), Vec::new());
        for one in waiting {
            if matches!(*one.progress.lock(), Progress::Over) {
                continue;
            }
            match self.watch.during(|| self.blob_files.write(one.number, &one.body)) {
                Ok(crc) => written.push((one, crc)),
                Err(error) if may_pass(&error) => failed.push((one, error.to_string().into())),
                Err(error) => return Err(self.fatal("write", one.number, &error)),
            }
        }
        if let Some((first, _)) = written.first() {
            match self.watch.during(|| self.blob_files.sync_names()) {
                Ok(()) => written.drain(..).for_each(|(one, crc)| self.done(one, crc)),
                Err(error) if may_pass(&error) => {
                    // All of it is written again: the names of these files may not survive.
                    for (one, _) in written {
                        let _ = self.disk.remove(&self.blob_files.path_of(one.number));
                        failed.push((one, error.to_string().into()));
                    }
                }
                Err(error) => return Err(self.fatal("sync the folder of", first.number, &error)),
            }
        }
        let reason = failed.first().map(|(_, reason): &(_, Arc<str>)| Arc::clone(reason));
        if !failed.is_empty() {
            self.put_back(failed);
        }
        // Whether other publishers still wait is not known here.
        if (reason.is_some() || self.tried == 0) && self.told != reason {
            self.notify.long_bodies_wait(reason.as_deref());
            self.told = reason;
        }
        Ok(())
    }

    fn done(&self, one: Waiting, crc: u32) {
        let claim = Claim { files: Arc::clone(&self.files), number: one.number };
        self.files.state.lock().claimed.insert(one.number, Claimed { named: false, claims: 1 });
        let filed = FiledBody { bytes: one.body, number: one.number, crc, claim: Some(Arc::new(claim)) };
        let mut progress = one.progress.lock();
        if matches!(*progress, Progress::Over) {
            // The publisher has disconnected; the file is deleted with its claim.
            drop(progress);
            return;
        }
        *progress = Progress::Done(filed);
        drop(progress);
        (one.wake)();
    }

    fn put_back(&mut self, failed: Vec<(Waiting, Arc<str>)>) {
        self.later = Some(self.disk.elapsed() + RETRY);
        let mut waiting = Vec::with_capacity(failed.len());
        for (one, reason) in failed {
            let mut progress = one.progress.lock();
            let is_news = matches!(&*progress, Progress::Waits(last) if last.as_ref() != Some(&reason));
            if is_news {
                *progress = Progress::Waits(Some(reason));
            }
            drop(progress);
            if is_news {
                (one.wake)();
            }
            waiting.push(one);
        }
        let mut state = self.files.state.lock();
        // Before new ones, after those that were tried before.
        let at = self.tried;
        self.tried += waiting.len();
        state.waiting.splice(at..at, waiting);
    }

    fn fatal(&self, what: &'static str, number: u64, error: &io::Error) -> FatalError {
        FatalError { what, file: self.blob_files.path_of(number), error: error.to_string() }
    }
}

/// Whether a body that could not be written may be written later.
fn may_pass(error: &io::Error) -> bool {
    matches!(kind_of(error), Kind::Full | Kind::Passing)
}
