//! Opening a node: recovery first, then the callbacks of storage's threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
};

use ferrymq_auth::{PasswordChecks, passwords};
use ferrymq_broker::{Catalog, HashKey, HistoryBudget, LoadError, Shard};
use ferrymq_model::{CatalogEntry, Limits, Position, QueueId, Time};
use ferrymq_storage::{Backpressure, Disk, FatalError, Notify, OpenError, Recovered, RecoveredQueue, Stall, Store};

use crate::{
    connection::{consumer_timeouts::ConsumerTimeouts, ledger::Ledger, peer::Durable},
    core::{
        disk::DiskState,
        host::Host,
        node::{FixedStorage, Found, Node, NodeSettings},
        pull_timers::PullTimers,
        transition::{CatalogLock, Core, Deferred, Transition},
    },
    management::events,
    routing::schedules,
};

/// Why a node cannot open.
#[derive(Debug)]
pub enum NodeError {
    /// The data directory cannot be used.
    Storage(OpenError),
    /// The catalog in it cannot be read.
    Catalog(LoadError),
    /// A prepared transaction in it cannot be read: says why.
    Prepared(String),
    /// It cannot be written.
    Write(FatalError),
    /// It was created with other values than those that are asked for now: which, and what would be right.
    Fixed(String),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Fixed(why) => f.write_str(why),
            Self::Prepared(why) => write!(f, "a prepared transaction in the data directory cannot be read: {why}"),
            Self::Catalog(error) => write!(f, "the catalog in the data directory cannot be read: {error}"),
        }
    }
}

impl std::error::Error for NodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Storage(error) => Some(error),
            Self::Write(error) => Some(error),
            Self::Catalog(error) => Some(error),
            Self::Fixed(_) | Self::Prepared(_) => None,
        }
    }
}

/// The callbacks of storage's threads. It exists before the node, because recovery comes first.
#[derive(Debug, Default)]
struct StorageEvents {
    node: OnceLock<Weak<Node>>,
    durable: Arc<Durable>,
}

impl StorageEvents {
    fn node(&self) -> Option<Arc<Node>> {
        self.node.get().and_then(Weak::upgrade)
    }
}

impl Notify for StorageEvents {
    fn durable(&self, position: Position) {
        self.durable.set(position);
        if let Some(node) = self.node() {
            node.on_durable(position);
        }
    }

    fn loaded(&self, _: &[QueueId]) {
        if let Some(node) = self.node() {
            node.install_loaded();
        }
    }

    fn backpressure(&self, backpressure: &Backpressure) {
        if let Some(node) = self.node() {
            node.set_backpressure(backpressure);
        }
    }

    fn long_bodies_wait(&self, reason: Option<&str>) {
        match reason {
            Some(reason) => {
                tracing::warn!("publishers of long message bodies wait: the disk accepts no more: {reason}");
            }
            None => tracing::info!("publishers of long message bodies continue"),
        }
        if let Some(node) = self.node() {
            *node.long_bodies_wait.lock() = reason.map(str::to_owned);
        }
    }

    fn queue_failed(&self, queue: QueueId, reason: &str) {
        match self.node() {
            Some(node) => node.stop_queue(queue.queue(), reason),
            None => tracing::error!(queue = queue.0, "a queue has stopped: {reason}"),
        }
    }

    fn merged(&self, runs: usize) {
        tracing::debug!(files = runs, "files of waiting messages were merged");
    }

    fn fatal(&self, error: &FatalError) {
        if let Some(node) = self.node() {
            node.host.fault(error.to_string());
        }
    }

    fn with_store(&self, visit: &mut dyn FnMut(&mut Store)) {
        if let Some(node) = self.node()
            && let Some(store) = node.core.lock().store.as_mut()
        {
            visit(store);
        }
    }
}

impl Node {
    /// Opens a data directory, or creates one, and recovers what is in it.
    ///
    /// # Errors
    /// If the directory is in use, damaged, or of a newer version: one sentence that says which.
    pub fn open(settings: NodeSettings, disk: Arc<dyn Disk>, host: Arc<dyn Host>) -> Result<Arc<Self>, NodeError> {
        let storage_events = Arc::new(StorageEvents::default());
        let (mut store, recovered) =
            ferrymq_storage::open(disk, &settings.directory, settings.storage, storage_events.clone())
                .map_err(NodeError::Storage)?;
        if let Err(why) = settings.fixed.check(&recovered) {
            drop(store.close());
            return Err(NodeError::Fixed(why));
        }
        recovered.missing.iter().for_each(|missing| tracing::warn!("{missing}"));
        let (now, mut changes) = (host.now(), Vec::new());
        let mut catalog = load_catalog(&recovered.entries, host.random().to_le_bytes(), host.random(), &mut changes)?;
        let mut publishes_events = settings.events;
        if publishes_events && let Err(refusal) = events::prepare(&mut catalog, &mut changes) {
            tracing::warn!("events are not published: {refusal}");
            publishes_events = false;
        }
        let shard = write_changes(&catalog, &recovered, &mut store, &changes, now);
        storage_events.durable.set(store.durable_position());
        // What was recovered is durable.
        let catalog_position = if changes.is_empty() { Position::default() } else { store.position() };
        let (storage_stalled, storage_overfull, bodies) = (store.stalled(), store.overfull(), store.bodies());
        let node = Arc::new(Self {
            disk: DiskState::new(store.disk_watch()),
            histories: HistoryBudget::new(settings.limits.histories_bytes_max),
            ledger: Ledger::new(&settings.limits).into(),
            dialects: settings.dialects,
            backends: settings.backends,
            password_checks: PasswordChecks::new(host.random().to_le_bytes()),
            failed_logins: Default::default(),
            delayed_logins: Default::default(),
            counters: Default::default(),
            host,
            durable: storage_events.durable.clone(),
            catalog: catalog.into(),
            core: Core::new(shard, store, &settings.limits, catalog_position, now).into(),
            limits: settings.limits,
            bodies,
            awaiting: Default::default(),
            waiting_changes: Default::default(),
            gets: Default::default(),
            prepared: Default::default(),
            redelivering: Default::default(),
            replies: Default::default(),
            stalled: false.into(),
            storage_stalled,
            storage_overfull,
            stall_reason: Default::default(),
            disk_full: false.into(),
            long_bodies_wait: Default::default(),
            failed: Default::default(),
            firehose: Default::default(),
            publishes_events,
            connections_made: 0.into(),
            found: found(&recovered),
            #[cfg(test)]
            counts_messages: false.into(),
            #[cfg(test)]
            checks_each_login: false.into(),
        });
        node.restore_prepared(&recovered.entries)?;
        storage_events.node.set(Arc::downgrade(&node)).expect("storage's events have one node");
        node.run_deferred(Deferred { more: true, ..Deferred::default() }, None);
        Ok(node)
    }

    /// Writes and syncs what was decided, and closes the data directory. All connections should have ended.
    ///
    /// # Errors
    /// If something could not be written. Confirmed messages are safe; acknowledgements may be lost.
    pub fn stop(&self) -> Result<(), FatalError> {
        self.post_what_waits();
        // Outside the lock: storage's threads may be waiting for it.
        let store = self.core.lock().store.take();
        store.map_or(Ok(()), Store::close)
    }

    /// Puts dead letters that wait in memory into their queues, as long as there is space. Their messages have already
    /// left their queues.
    fn post_what_waits(&self) {
        // A few dead letters can cause more and more of them.
        const ROUNDS_MAX: usize = 1_000;
        let mut more = self.core.lock().shard.has_waiting_dead_letters();
        let mut rounds = 0..ROUNDS_MAX;
        while more && rounds.next().is_some() {
            let mut deferred = Deferred::default();
            let catalog = self.catalog.read();
            let waits = |shard: &mut Shard, _: &mut Transition<'_>| shard.has_waiting_dead_letters();
            let waited = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, waits);
            drop(catalog);
            more = waited == Some(true) && std::mem::take(&mut deferred.more);
            self.run_deferred(deferred, None);
        }
    }

    fn install_loaded(&self) {
        let mut deferred = Deferred::default();
        let catalog = self.catalog.read();
        let loaded = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            let queues = ports.install_loaded();
            shard.loaded(&queues);
            queues
        });
        drop(catalog);
        let Some(queues) = loaded else { return };
        self.gets_are_ready(&queues);
        self.retry_redeliveries(&queues);
        self.run_deferred(deferred, None);
    }

    fn set_backpressure(&self, backpressure: &Backpressure) {
        match backpressure {
            Backpressure::Stalled(reason) => {
                self.log_stall(reason);
                *self.stall_reason.lock() = reason.to_string();
                self.disk_full.store(matches!(reason, Stall::NoSpace(_)), Ordering::Release);
            }
            Backpressure::Open => self.log_end_of_stall(),
        }
        if *backpressure == Backpressure::Open {
            self.disk_full.store(false, Ordering::Release);
        }
        self.stalled.store(*backpressure != Backpressure::Open, Ordering::Release);
        self.wake_connections();
        if *backpressure == Backpressure::Open {
            self.resume_dead_letters();
        }
    }

    pub(crate) fn wake_connections(&self) {
        let connections = self.core.lock().connections.clone();
        connections.iter().flatten().for_each(|connection| connection.wake());
    }

    /// There is space for dead letters that waited for it. Storage's thread has other work, so the host's timer
    /// starts them.
    fn resume_dead_letters(&self) {
        let now = self.host.now();
        let mut core = self.core.lock();
        if !core.shard.is_blocked_on_storage() {
            return;
        }
        let blocked_on_storage = core.shard.storage_unblocked();
        core.timer = Some(now);
        drop(core);
        self.host.set_timer(Some(now));
        self.gets_are_ready(&blocked_on_storage);
    }
}

impl Core {
    /// Without connections and timers.
    fn new(shard: Shard, store: Store, limits: &Limits, catalog_position: Position, now: Time) -> Self {
        Self {
            shard,
            store: Some(store),
            connections: Vec::new(),
            free_slots: Vec::new(),
            timer: None,
            consumer_timeouts: ConsumerTimeouts::new(limits.consumer_timeout_ms, now),
            pull_timers: PullTimers::default(),
            sessions: Default::default(),
            ledger_due: None,
            logins_due: None,
            catalog_position,
        }
    }
}

impl FixedStorage {
    fn check(&self, recovered: &Recovered) -> Result<(), String> {
        let pairs = [
            ("storage.file_bytes", self.file_bytes, recovered.file_bytes),
            ("storage.files", self.files, recovered.files),
        ];
        for (option, asked, made) in pairs {
            if let Some(asked) = asked.filter(|asked| *asked != made) {
                return Err(format!(
                    "{option} is {asked}, and the data directory was made with {made}, which stays; leave the option out, \
                     or make another directory"
                ));
            }
        }
        Ok(())
    }
}

fn found(recovered: &Recovered) -> Found {
    // A queue has a lane for each priority.
    let queues: BTreeSet<QueueId> = recovered.queues.iter().map(|lane| lane.id.queue()).collect();
    let messages = recovered.queues.iter().map(|lane| lane.messages).sum();
    Found { is_new: recovered.entries.is_empty(), queues: queues.len(), messages }
}

/// After a crash during the deletion of a queue or exchange with very many bindings, this many may be left.
const ORPHANS_SHOWN: usize = 16;

/// The catalog in these entries; without any, a new one, in which the password of the default user has this salt. The key is
/// that of its tables.
fn load_catalog(
    entries: &[CatalogEntry],
    salt: [u8; 16],
    key: u128,
    changes: &mut Vec<CatalogEntry>,
) -> Result<Catalog, NodeError> {
    let key = HashKey::new(key);
    if entries.is_empty() {
        return Ok(Catalog::fresh(&passwords::hash(b"guest", salt), key, changes));
    }
    let loaded = Catalog::load(entries, key, changes).map_err(NodeError::Catalog)?;
    for orphan in loaded.orphans.iter().take(ORPHANS_SHOWN) {
        tracing::warn!("dropped, because what it belongs to is not there: {orphan}");
    }
    if let Some(more @ 1..) = loaded.orphans.len().checked_sub(ORPHANS_SHOWN) {
        tracing::warn!("dropped, because what they belong to is not there: {more} more catalog entries");
    }
    Ok(loaded.catalog)
}

/// Opens the durable queues, and writes what has changed at the start. That is one unit: a new catalog is written
/// as a whole or not at all, and what is dropped is dropped with everything that belongs to it.
fn write_changes(
    catalog: &Catalog,
    recovered: &Recovered,
    store: &mut Store,
    changes: &[CatalogEntry],
    now: Time,
) -> Shard {
    store.begin_unit();
    let shard = load_shard(catalog, recovered, store, now);
    for entry in changes {
        store.put(entry);
    }
    store.end_unit();
    store.request_flush();
    shard
}

/// Opens the durable queues with what storage found of their lanes.
fn load_shard(catalog: &Catalog, recovered: &Recovered, store: &mut Store, now: Time) -> Shard {
    let mut shard = Shard::new();
    let mut found: BTreeMap<QueueId, &RecoveredQueue> =
        recovered.queues.iter().map(|queue| (queue.id, queue)).collect();
    for queue in catalog.queues() {
        let mut lanes = Vec::new();
        for lane in 0..=queue.settings.priority_max {
            match found.remove(&queue.id.lane(lane)) {
                Some(queue) => lanes.push(recovered_lane(lane, queue)),
                None => store.create_queue(queue.id.lane(lane), true),
            }
        }
        shard.open(queue.id, queue.settings.clone(), &lanes, now);
    }
    schedules::load(catalog, &mut found, &mut shard);
    // Queues without a catalog entry: their messages can be deleted too.
    for queue in found.into_keys() {
        store.delete_queue(queue);
    }
    shard
}

/// What storage found of one lane, in the broker's terms.
pub fn recovered_lane(lane: u8, found: &RecoveredQueue) -> ferrymq_broker::Recovered {
    ferrymq_broker::Recovered {
        lane,
        state: found.state.clone(),
        messages: found.messages,
        body_bytes: found.bytes,
        expiring: found.messages > 0,
    }
}
