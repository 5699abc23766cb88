//! What the tests share: a store in its own folder, a listener that records its calls, and short functions for
//! messages.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ferrymq_model::{BodyRef, DialectId, Facts, MessageKey, MessageRef, Position, QueueId, Sequence, Time};
use ferrymq_storage::{
    Backpressure, Disk, Driver, FatalError, Next, Notify, OpenError, Options, RealDisk, Recovered, Store, open,
};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// The owner of the shard: a store behind a lock, and the calls of storage.
#[derive(Debug, Default)]
pub struct Shard {
    pub store: Mutex<Option<Store>>,
    hearsay: Arc<Hearsay>,
    /// The scheduler, if storage has no threads.
    pub driver: OnceLock<Weak<dyn Driver>>,
}

#[derive(Debug, Default)]
struct Hearsay {
    heard: Mutex<Heard>,
    news: Condvar,
}

#[derive(Default, Debug)]
pub struct Heard {
    pub durable: Position,
    pub fatal: Option<String>,
    pub failed: Vec<QueueId>,
    pub backpressures: Vec<Backpressure>,
    /// How many runs were merged.
    pub merged: usize,
    /// Why long bodies wait.
    pub long_bodies_wait: Option<String>,
    /// How often something was read for a queue.
    pub loads: u64,
}

pub struct Ears {
    hearsay: Arc<Hearsay>,
    shard: Weak<Shard>,
}

impl Ears {
    /// Those of a shard.
    pub fn of(shard: &Arc<Shard>) -> Self {
        Self { hearsay: Arc::clone(&shard.hearsay), shard: Arc::downgrade(shard) }
    }

    fn hear(&self, what: impl FnOnce(&mut Heard)) {
        what(&mut self.hearsay.heard.lock());
        self.hearsay.news.notify_all();
    }
}

impl Notify for Ears {
    fn durable(&self, position: Position) {
        self.hear(|heard| heard.durable = position);
    }

    fn loaded(&self, _queues: &[QueueId]) {
        self.hear(|heard| heard.loads += 1);
    }

    fn backpressure(&self, backpressure: &Backpressure) {
        self.hear(|heard| heard.backpressures.push(backpressure.clone()));
    }

    fn long_bodies_wait(&self, reason: Option<&str>) {
        self.hear(|heard| heard.long_bodies_wait = reason.map(str::to_owned));
    }

    fn queue_failed(&self, queue: QueueId, _reason: &str) {
        self.hear(|heard| heard.failed.push(queue));
    }

    fn merged(&self, runs: usize) {
        self.hear(|heard| heard.merged += runs);
    }

    fn fatal(&self, error: &FatalError) {
        self.hear(|heard| heard.fatal = Some(error.to_string()));
    }

    fn with_store(&self, visit: &mut dyn FnMut(&mut Store)) {
        let Some(shard) = self.shard.upgrade() else { return };
        if let Some(store) = shard.store.lock().as_mut() {
            visit(store);
        }
    }
}

/// How often a waiting publisher checks the store itself.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl Shard {
    /// Does something with the store.
    pub fn with<T>(&self, what: impl FnOnce(&mut Store) -> T) -> T {
        what(self.store.lock().as_mut().expect("the store is open"))
    }

    /// Waits until everything decided so far is durable; false if the journal failed first.
    pub fn flush(&self) -> bool {
        let position = self.with(|store| {
            store.request_flush();
            store.position()
        });
        let mut heard = self.hearsay.heard.lock();
        while self.with(|store| store.durable_position()) < position && heard.fatal.is_none() {
            if !self.wait(&mut heard, None) {
                return false;
            }
        }
        heard.fatal.is_none()
    }

    /// Waits for news, or gives others a turn; false if nothing will ever come.
    fn wait(&self, heard: &mut MutexGuard<'_, Heard>, at_most: Option<Duration>) -> bool {
        match (self.driver.get(), at_most) {
            (Some(driver), _) => MutexGuard::unlocked(heard, || driver.upgrade().is_some_and(|driver| driver.turn())),
            (None, Some(at_most)) => {
                self.hearsay.news.wait_for(heard, at_most);
                true
            }
            (None, None) => {
                self.hearsay.news.wait(heard);
                true
            }
        }
    }

    /// Waits as a publisher does that was told to wait.
    pub fn wait_for_room(&self) {
        while self.with(|store| store.backpressure()) != Backpressure::Open {
            // Nobody is told about a space that was there for a moment only, so the store is asked again.
            if !self.wait(&mut self.hearsay.heard.lock(), Some(ASK_AGAIN)) {
                return;
            }
        }
    }

    /// The first message at or after `from`, however long it takes to read it.
    pub fn next(&self, queue: u64, from: Sequence) -> Option<(Sequence, Vec<u8>)> {
        self.try_next(queue, from).expect("no queue failed")
    }

    /// Every message of a queue, in order.
    pub fn messages(&self, queue: u64) -> Vec<(Sequence, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some(message) = self.next(queue, found.last().map_or(0, |(sequence, _)| sequence + 1)) {
            found.push(message);
        }
        found
    }

    pub fn heard<T>(&self, what: impl FnOnce(&Heard) -> T) -> T {
        what(&self.hearsay.heard.lock())
    }

    /// The first message at or after `from`; an error if the queue or the journal failed.
    pub fn try_next(&self, queue: u64, from: Sequence) -> Result<Option<(Sequence, Vec<u8>)>, ()> {
        loop {
            let loads = self.hearsay.heard.lock().loads;
            let found = self.with(|store| {
                // An earlier request may have caused the read without waiting for it. Then it is already read, and no
                // notice will come.
                store.install_loaded();
                match store.next(QueueId(queue), from) {
                    Next::Message { sequence, handle, .. } => Ok(Some((sequence, body(&store.message(handle))))),
                    Next::End => Ok(None),
                    Next::Pending => Err(()),
                }
            });
            if found.is_ok() {
                return found;
            }
            // An earlier request may have caused the read without waiting for it.
            if !self.with(|store| store.install_loaded()).is_empty() {
                continue;
            }
            let mut heard = self.hearsay.heard.lock();
            let mut goes_on = true;
            while heard.loads == loads && heard.failed.is_empty() && goes_on {
                goes_on = self.wait(&mut heard, None);
            }
            if !heard.failed.is_empty() || !goes_on {
                return Err(());
            }
        }
    }

    /// Closes the store like a server in an orderly stop.
    pub fn close(&self) {
        let store = self.store.lock().take();
        store.expect("the store is open").close().unwrap();
    }
}

fn body(message: &MessageRef<'_>) -> Vec<u8> {
    message.body.bytes().to_vec()
}

/// A folder that is removed at the end of the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ferrymq-storage-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    pub fn open(&self, options: Options) -> Result<(Owned, Recovered), OpenError> {
        open_on(Arc::new(RealDisk), &self.0, options)
    }
}

/// The shard as a test holds it. When it goes, the store goes, also while one of storage's threads tells the shard
/// something.
#[derive(Debug)]
pub struct Owned(Arc<Shard>);

impl std::ops::Deref for Owned {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // The threads that it waits for may want the lock.
        let store = self.0.store.lock().take();
        drop(store);
    }
}

/// Opens a data directory on some disk.
pub fn open_on(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<(Owned, Recovered), OpenError> {
    let shard = Arc::new(Shard::default());
    let (store, recovered) = open(disk, path, options, Arc::new(Ears::of(&shard)))?;
    *shard.store.lock() = Some(store);
    Ok((Owned(shard), recovered))
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Options with the smallest journal, so that little fills it.
pub fn small() -> Options {
    Options { file_bytes: 256 << 10, ..Options::default() }
}

pub fn place(queue: u64, sequence: Sequence) -> MessageKey {
    MessageKey { queue: QueueId(queue), sequence }
}

/// A message whose body is `body`.
pub fn message(body: BodyRef<'_>) -> MessageRef<'_> {
    MessageRef {
        dialect: DialectId(1),
        exchange: "",
        routing_key: b"hello",
        properties: &[0x10, 0, 2],
        annotations: &[],
        body,
    }
}

pub fn facts(body: BodyRef<'_>) -> Facts {
    let body_bytes = body.bytes().len() as u32;
    Facts { body_bytes, priority: 3, expires: Some(Time(77)), arrived: Time(1_700_000_000_000) }
}

/// Puts a durable message into queues.
pub fn publish(store: &mut Store, body: &[u8], places: &[MessageKey]) {
    let body = BodyRef::Inline(body);
    store.enqueue(&message(body), &facts(body), places, &[]);
}

/// Waits until a condition holds that no call reports.
pub fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        std::thread::sleep(ASK_AGAIN);
    }
}
