//! One member: joins the catalog, the shard and its storage, and the connections.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ferrymq_auth::{DelayedLogins, FailedLogins, PasswordChecks};
use ferrymq_broker::{Catalog, HistoryBudget, Ports, Shard};
use ferrymq_model::{ConnectionId, Dialects, Event, Limits, Position, QueueId, Refusal, Time};
use ferrymq_storage::{BodyFiles, Store};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use crate::{
    client::Client,
    connection::{
        ledger::Ledger,
        peer::{Connection, Durable, Peer, subscription_parts},
    },
    core::{
        disk::DiskState,
        failed_queues::FailedQueues,
        gets::WaitingGets,
        host::Host,
        prepared::PreparedTransactions,
        transition::{CatalogLock, Core, Deferred, Transition},
    },
    login::authentication::Backend,
    management::{catalog_change, counters::Counters, durable_changes::WaitingChange, trace::Firehose},
    routing::replies::ReplyAddresses,
};

/// The user who may only log in from this machine: the one of a new data directory, whose password everybody knows.
pub(crate) const GUEST: &str = "guest";

/// Costs in units of work. One unit is about the work of putting one small message into one queue and delivering
/// it.
pub(crate) const WORK_OF_CHANGE: u64 = 32;
pub(crate) const WORK_OF_WRITE: u64 = 16;
const WORK_OF_ROUND: u64 = 64;

/// How many queues of an ending connection are deleted during one hold of the locks.
const HELD_QUEUES_MAX: usize = 128;

/// How often a connection continues with its own deliveries before others have their turn.
const ROUNDS_MAX: u32 = 8;

/// To how many connections a thread sends the results of its input at once. The rest waits for the client's next
/// turn, or, without a client, for the connections' owners.
const HANDED_CONNECTIONS_MAX: usize = 512;

/// Up to how many connections the flush thread sends confirms itself (measured: ARCHITECTURE.md).
const FLUSHED_CONNECTIONS_MAX: usize = 16;

/// What a node needs to open.
pub struct NodeSettings {
    /// The directory for all durable data.
    pub directory: PathBuf,
    /// Limits of connections and queues.
    pub limits: Limits,
    /// How messages are stored.
    pub storage: ferrymq_storage::Options,
    /// Values that were asked for and cannot change in an existing directory.
    pub fixed: FixedStorage,
    /// The dialects of messages. The server writes its own messages in the first one.
    pub dialects: Dialects,
    /// The user backends, in their order.
    pub backends: Vec<Backend>,
    /// Whether events are published to the exchange `amq.rabbitmq.event`.
    pub events: bool,
}

/// The required length and number of the journal's files, if somebody asked for them. They are fixed when the
/// directory is created.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedStorage {
    /// Length of one, in bytes.
    pub file_bytes: Option<u32>,
    /// How many.
    pub files: Option<u32>,
}

/// What a data directory contained when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Nothing: it is new.
    pub is_new: bool,
    /// Durable queues.
    pub queues: usize,
    /// Messages in them.
    pub messages: u64,
}

impl fmt::Debug for NodeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSettings").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// One member of what will be a cluster.
///
/// Locks, in this order: `catalog`, `core`, the journal's open group (inside storage), a connection's mailbox. Nothing
/// is encoded, written or waited for while one of the first three is held.
pub struct Node {
    pub(crate) limits: Limits,
    pub(crate) dialects: Dialects,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) password_checks: PasswordChecks<Connection>,
    /// Locked only to look into the table or to change it.
    pub(crate) failed_logins: Mutex<FailedLogins>,
    /// Locked only to add or to take some.
    pub(crate) delayed_logins: Mutex<DelayedLogins<Connection>>,
    pub(crate) counters: Counters,
    pub(crate) durable: Arc<Durable>,
    pub(crate) catalog: RwLock<Catalog>,
    pub(crate) core: Mutex<Core>,
    /// Writes long bodies to files.
    pub(crate) bodies: Arc<BodyFiles>,
    /// Connections with something to send after the journal is durable. Locked only to add one or to take all.
    pub(crate) awaiting: Mutex<Vec<Arc<Connection>>>,
    /// Changes whose answers wait for the journal. Locked only to add one or to take some.
    pub(crate) waiting_changes: Mutex<Vec<WaitingChange>>,
    /// Gets whose message storage is reading. Locked only to find, add or remove one, after the shard's lock.
    pub(crate) gets: Mutex<WaitingGets>,
    /// Connections that get outstanding deliveries once more, and the queues that storage is reading for that.
    pub(crate) redelivering: Mutex<Vec<(QueueId, Arc<Connection>)>>,
    /// Locked only to add, find or remove one, after the shard's lock.
    pub(crate) prepared: Mutex<PreparedTransactions>,
    /// The memory that connections hold.
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stalled: AtomicBool,
    /// Storage's own flag for that, which is set at once. The notification may take as long as a sync.
    pub(crate) storage_stalled: Arc<AtomicBool>,
    pub(crate) disk: DiskState,
    /// Whether everybody waits for the journal, because it is that far behind.
    pub(crate) storage_overfull: Arc<AtomicBool>,
    /// Whether they wait because the disk is full.
    pub(crate) disk_full: AtomicBool,
    /// Why long bodies cannot be written, while they cannot.
    pub(crate) long_bodies_wait: Mutex<Option<String>>,
    /// Why publishers wait, while they do.
    pub(crate) stall_reason: Mutex<String>,
    pub(crate) replies: ReplyAddresses,
    pub(crate) failed: FailedQueues,
    pub(crate) firehose: Firehose,
    pub(crate) publishes_events: bool,
    /// How many connections there have been.
    pub(crate) connections_made: AtomicU64,
    /// The memory limit of `x-recent-history` exchanges.
    pub(crate) histories: HistoryBudget,
    pub(crate) found: Found,
    /// A sabotage: a batch counts messages, whatever the number of their deliveries.
    #[cfg(test)]
    pub(crate) counts_messages: AtomicBool,
    /// A sabotage: equal checks of passwords are not shared.
    #[cfg(test)]
    pub(crate) checks_each_login: AtomicBool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("durable", &self.durable).finish_non_exhaustive()
    }
}

impl Node {
    /// Limits of connections and queues.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the data directory contained.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.core.lock().connections.iter().flatten().count()
    }

    /// Begins a connection. `loopback` says whether the peer is on this machine.
    ///
    /// # Errors
    /// [`Refusal::ResourceLimit`] if there are too many.
    pub fn connect(self: &Arc<Self>, peer: Arc<dyn Peer>, address: String, loopback: bool) -> Result<Client, Refusal> {
        let mut core = self.core.lock();
        if core.open_connections() >= self.limits.connections_max as usize {
            let max = self.limits.connections_max;
            return Err(Refusal::ResourceLimit(format!("connections_max ({max}) connections are open")));
        }
        let slot = core.take_slot();
        let id = ConnectionId(slot as u64);
        let serial = self.connections_made.fetch_add(1, Ordering::Relaxed);
        let (durable, ledger) = (self.durable.clone(), self.ledger.clone());
        let connection = Arc::new(Connection::new(id, serial, peer, durable, ledger, &self.limits));
        core.connections[slot] = Some(connection.clone());
        drop(core);
        Ok(Client::new(self.clone(), connection, address, loopback))
    }

    /// Asks the sessions of all connections to send their peers the reason, and to end.
    pub fn close_connections(&self, why: &Refusal) {
        let connections: Vec<Arc<Connection>> = self.core.lock().connections.iter().flatten().cloned().collect();
        for connection in connections {
            connection.mailbox().events.push(Event::Close(why.clone()));
            connection.wake();
        }
    }

    /// A connection has ended: its exclusive queues are deleted, and its slot is free.
    pub(crate) fn disconnect(self: &Arc<Self>, connection: &Arc<Connection>) {
        // AMQP-27
        let exclusive: Vec<QueueId> = self.catalog.read().owned_by(connection.id()).collect();
        let mut delete = || {
            for queues in exclusive.chunks(HELD_QUEUES_MAX) {
                let (mut deferred, catalog) = (Deferred::default(), self.catalog.read());
                self.decide_unit(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
                    for queue in queues {
                        // A queue that was deleted already cannot be refused.
                        let _ = shard.delete(*queue, ferrymq_broker::DeleteWhen::default(), ports);
                    }
                });
                drop(catalog);
                self.run_deferred(deferred, Some(connection));
            }
        };
        if exclusive.len() > HELD_QUEUES_MAX {
            self.host.lengthy(&mut delete);
        } else {
            delete();
        }
        self.redelivering.lock().retain(|(_, waiting)| !Arc::ptr_eq(waiting, connection));
        self.core.lock().free_slot(connection.id().0 as usize);
    }

    pub(crate) fn now(&self) -> Time {
        self.host.now()
    }

    /// The wall clock, for texts and timestamps.
    pub(crate) fn wall(&self) -> Time {
        self.host.wall()
    }

    pub(crate) fn random(&self) -> u128 {
        self.host.random()
    }

    /// A salt for a password, another one each time.
    pub(crate) fn salt(&self) -> [u8; 16] {
        self.host.random().to_le_bytes()
    }

    /// Whether publishers are not to be read: they are blocked, or will be.
    pub(crate) fn holds_publishers(&self) -> bool {
        self.is_stalled() || self.storage_stalled.load(Ordering::Acquire)
    }

    /// Whether no connection is to be read: the journal has no space even for settlements.
    pub(crate) fn holds_everybody(&self) -> bool {
        self.storage_overfull.load(Ordering::Acquire)
    }

    /// A queue's messages on disk cannot be read: its subscriptions end, and requests to it are refused from now
    /// on, until it is purged or deleted.
    pub(crate) fn stop_queue(&self, queue: QueueId, reason: &str) {
        let name = self
            .catalog
            .read()
            .queue_by_id(queue)
            .map(|found| format!("queue '{}' in vhost '{}'", found.settings.name, found.settings.vhost));
        let reason = format!(
            "{} has stopped, because its messages on disk cannot be read: {reason}; purge or delete it to go on without them",
            name.unwrap_or_else(|| format!("queue {}", queue.0))
        );
        tracing::error!("{reason}");
        let refusal = Refusal::Fault(reason.clone());
        self.failed.add(queue, reason);
        let (mut deferred, catalog) = (Deferred::default(), self.catalog.read());
        let open = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            shard.cancel_all(queue, ports);
        });
        drop(catalog);
        if open.is_some() {
            self.run_deferred(deferred, None);
        }
        self.retry_redeliveries(&[queue]);
        self.end_gets(queue, Some(&refusal));
    }

    /// Whether publishers are ahead of a queue's consumers: see [`Shard::is_ahead`].
    pub(crate) fn is_ahead(&self, queue: QueueId, bytes: u64) -> bool {
        let now = self.now();
        self.core.lock().shard.is_ahead(queue, bytes, now)
    }

    /// Decides something under the shard's lock, and delivers the messages that became deliverable. The caller must
    /// call [`Node::run_deferred`] after it, and must hold no lock.
    pub(crate) fn decide<T>(
        &self,
        deferred: &mut Deferred,
        decide: impl FnOnce(&mut Shard, &mut Transition<'_>) -> T,
    ) -> T {
        let catalog = self.catalog.read();
        self.decide_with(CatalogLock::Read(&catalog), deferred, decide)
    }

    /// Like [`Node::decide`], for callers that have locked the catalog.
    pub(crate) fn decide_with<T>(
        &self,
        catalog: CatalogLock<'_>,
        deferred: &mut Deferred,
        decide: impl FnOnce(&mut Shard, &mut Transition<'_>) -> T,
    ) -> T {
        self.decide_if_open(catalog, deferred, decide).expect("connections end before the node stops")
    }

    /// Like [`Node::decide_with`], for callers that may come after the node has stopped: then nothing is decided.
    pub(crate) fn decide_if_open<T>(
        &self,
        catalog: CatalogLock<'_>,
        deferred: &mut Deferred,
        decide: impl FnOnce(&mut Shard, &mut Transition<'_>) -> T,
    ) -> Option<T> {
        let now = self.now();
        // The bodies that were freed are dropped without the lock.
        let (result, moved, _freed) = {
            let mut core = self.core.lock();
            let (shard, mut transition) = core.begin(self, catalog, now, deferred)?;
            let result = decide(shard, &mut transition);
            let more = shard.dispatch(now, &mut transition);
            transition.report_cancelled();
            deferred.more = more;
            (result, core.move_timer(), core.store.as_mut().map(Store::take_freed))
        };
        if let Some(due) = moved {
            self.host.set_timer(due);
        }
        Some(result)
    }

    /// Sends what was decided, and continues deliveries for some rounds, releasing the shard's lock between them.
    /// The host continues with what is left. `own` is the caller's connection, which continues by itself while its
    /// socket accepts more; other connections' owners are notified for that, so that no thread works for other
    /// connections for long.
    pub(crate) fn run_deferred(&self, mut deferred: Deferred, own: Option<&Arc<Connection>>) {
        self.run_deferred_for_now(&mut deferred, own);
        deferred.touched.iter().for_each(|connection| connection.wake());
    }

    /// Like [`Node::run_deferred`], but connections may stay touched: the caller sends to them later. Returns the
    /// work in units.
    pub(crate) fn run_deferred_for_now(&self, deferred: &mut Deferred, own: Option<&Arc<Connection>>) -> u64 {
        let mut work = self.hand_out(deferred, own);
        while !deferred.gone.is_empty() || deferred.unbinding.is_some() {
            if deferred.unbinding.is_none() {
                work += self.forget_gone(deferred, own);
                continue;
            }
            // Only the client that asked for it waits.
            self.host.lengthy(&mut || {
                while deferred.unbinding.is_some() {
                    work += self.forget_gone(deferred, own);
                }
            });
        }
        for queue in std::mem::take(&mut deferred.forgotten) {
            self.end_gets(queue, None);
        }
        for (connection, subscription) in std::mem::take(&mut deferred.ended) {
            connection.publish_consumer_deleted(self, &subscription);
        }
        for (by, events) in std::mem::take(&mut deferred.events) {
            self.publish_events(events, by.as_ref());
        }
        work
    }

    /// Removes deleted queues from the catalog, and one portion of the bindings that are left of deleted queues and
    /// exchanges.
    fn forget_gone(&self, deferred: &mut Deferred, own: Option<&Arc<Connection>>) -> u64 {
        deferred.gone.iter().for_each(|queue| self.failed.remove(*queue));
        self.retry_redeliveries(&deferred.gone);
        let mut catalog = self.catalog.write();
        self.decide_unit(CatalogLock::Write(&mut catalog), deferred, |shard, ports| {
            // From now on, an alternate exchange may get the messages that were routed to them.
            catalog_change::apply(shard, ports, None, |_, ports, _| ports.forget_gone())
        });
        // Whoever waits for the lock gets it, although the next portion follows at once.
        RwLockWriteGuard::unlock_fair(catalog);
        WORK_OF_CHANGE + self.hand_out(deferred, own)
    }

    /// The part of [`Node::run_deferred`] that deals with messages.
    fn hand_out(&self, deferred: &mut Deferred, own: Option<&Arc<Connection>>) -> u64 {
        let mut work = 0;
        for round in 0.. {
            if !deferred.trace_messages.is_empty() {
                self.publish_trace_messages(deferred);
            }
            let mut refilled = Vec::new();
            let mut touched = deferred.touched.take();
            let rest = touched.split_off(touched.len().min(HANDED_CONNECTIONS_MAX));
            for connection in touched {
                let is_own = own.is_some_and(|own| Arc::ptr_eq(own, &connection));
                work += WORK_OF_WRITE;
                if connection.drain() {
                    if is_own && round < ROUNDS_MAX {
                        refilled = connection.mailbox().take_waiting(connection.id());
                    } else {
                        connection.wake();
                    }
                }
            }
            deferred.touched.add_all(rest);
            let idle = refilled.is_empty() && deferred.trace_messages.is_empty();
            if !deferred.more && idle || round >= ROUNDS_MAX && idle && self.host.deliveries_wait() {
                break;
            }
            work += WORK_OF_ROUND;
            self.decide(deferred, |shard, _| shard.credit(&refilled));
        }
        work
    }

    /// Continues the deliveries that others have left, for some rounds. If that is not enough, the host is notified
    /// again.
    pub fn go_on_delivering(&self) {
        let (mut deferred, catalog) = (Deferred::default(), self.catalog.read());
        let open = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |_, _| ());
        drop(catalog);
        if open.is_some() {
            self.run_deferred(deferred, None);
            self.go_on_with_gets();
        }
    }

    /// Like [`Node::decide_with`], for decisions that are atomic in a crash.
    pub(crate) fn decide_unit<T>(
        &self,
        catalog: CatalogLock<'_>,
        deferred: &mut Deferred,
        decide: impl FnOnce(&mut Shard, &mut Transition<'_>) -> T,
    ) -> T {
        self.decide_with(catalog, deferred, |shard, ports| {
            ports.begin_unit();
            let result = decide(shard, ports);
            ports.end_unit();
            result
        })
    }

    pub(crate) fn durable_position(&self) -> Position {
        self.durable.get()
    }

    /// The connection has something to send after the journal is durable; its mailbox says so. The caller drains
    /// the mailbox afterwards.
    pub(crate) fn await_journal(&self, connection: &Arc<Connection>) {
        self.awaiting.lock().push(connection.clone());
        // The flush may have returned before the connection was in the list.
        let wakes = connection.mailbox().confirm(self.durable.get());
        if wakes {
            connection.wake();
        }
    }

    /// The journal is durable up to here: sends the confirms and replies that waited for it. For a few connections
    /// storage's flush thread does this itself; for many, each write would delay the next flush, so their owners
    /// are notified instead.
    pub(crate) fn on_durable(&self, durable: Position) {
        self.answer_changes(durable);
        let connections = std::mem::take(&mut *self.awaiting.lock());
        let few = connections.len() <= FLUSHED_CONNECTIONS_MAX;
        for connection in connections {
            if few {
                self.send_durable(&connection, durable);
            } else {
                connection.mailbox().overdue = true;
                connection.wake();
            }
        }
    }

    /// Sends what waited for the journal in a connection that is no longer in the list, and adds it to the list
    /// again if something still waits.
    pub(crate) fn send_durable(&self, connection: &Arc<Connection>, durable: Position) {
        let (wakes, still_waits) = {
            let mut mailbox = connection.mailbox();
            mailbox.overdue = false;
            let wakes = mailbox.confirm(durable);
            mailbox.awaiting = mailbox.awaits_journal(durable);
            (wakes, mailbox.awaiting)
        };
        if still_waits {
            self.await_journal(connection);
        }
        if connection.drain() || wakes {
            connection.wake();
        }
    }

    /// Closes channels that have held a delivery for longer than the timeout.
    fn end_overdue_channels(&self, now: Time) {
        let connections = {
            let mut core = self.core.lock();
            if !core.consumer_timeouts.is_over(now) {
                return;
            }
            core.connections.clone()
        };
        for connection in connections.iter().flatten() {
            if connection.mailbox().end_overdue_channels(now) {
                connection.drain();
                connection.wake();
            }
        }
    }

    /// Ends pulls that have waited for long enough.
    fn end_pulls(&self, now: Time) {
        let lapsed: Vec<Arc<Connection>> = {
            let mut core = self.core.lock();
            let ended = core.pull_timers.take_ended(now);
            // Under the lock: a session may leave its connection.
            let lapsed = |(end, subscription)| {
                let (slot, number) = subscription_parts(subscription);
                let connection = core.connections.get(slot)?.clone()?;
                let lapses = connection.mailbox().pull_timer_ended(number, end);
                lapses.then_some(connection)
            };
            ended.into_iter().filter_map(lapsed).collect()
        };
        for connection in lapsed {
            if connection.drain() {
                connection.wake();
            }
        }
    }

    /// Expiry and everything else that is due. The host calls it at the time that was set.
    pub fn on_timer(self: &Arc<Self>) {
        self.end_overdue_channels(self.now());
        self.end_pulls(self.now());
        self.end_sessions(self.now());
        self.watch_ledger(self.now());
        self.check_those_who_waited(self.now());
        let (now, mut deferred) = (self.now(), Deferred::default());
        let catalog = self.catalog.read();
        let open = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            ports.begin_unit();
            shard.timeout(now, ports);
            ports.end_unit();
        });
        drop(catalog);
        if open.is_some() {
            self.run_deferred(deferred, None);
        }
    }
}
