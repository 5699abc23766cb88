//! A connection in the node: the socket's side of it, and which thread sends the contents of its mailbox.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use ferrymq_model::{ConnectionId, Event, Limits, Name, Position, Refusal, SubscriptionId};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    connection::{
        effects::Effects,
        ledger::{Account, Kind, Ledger},
        mailbox::Mailbox,
    },
    management::{counters::UsageCounters, trace::ConnectionIdentity},
};

/// The socket of a connection: what the server gives the node for each connection.
pub trait Peer: Send + Sync {
    /// Encodes the effects, in order, after what is waiting already, and writes to the socket without blocking.
    /// Only one thread at a time calls it for a connection.
    fn send(&self, effects: &Effects);

    /// How many bytes wait for the socket now. Called under the mailbox's lock, so it must not wait for a write.
    fn waiting(&self) -> usize;

    /// How many of these bytes are in files, so that they take no memory.
    fn in_files(&self) -> usize {
        0
    }

    /// How many bytes of effects wait until the client opens a window of its protocol. They are not among the bytes that
    /// wait for the socket. Called under the mailbox's lock, too.
    fn stopped(&self) -> usize {
        0
    }

    /// Drops what waits for the socket or for a window, up to where the session's own bytes can follow. Of later effects
    /// only these and refusals are sent.
    fn discard(&self) {}

    /// Notifies the connection's owner: there are events for its session, or deliveries can continue.
    fn wake(&self);

    /// The connection's name: from which address to which.
    fn name(&self) -> String {
        "unknown".to_owned()
    }

    /// The user that a certificate of the client names.
    ///
    /// # Errors
    /// If none does: the reason, for the log.
    fn certificate_user(&self) -> Result<Name, String> {
        Err("the connection is not under TLS".to_owned())
    }
}

/// The position up to which the journal is durable. Storage's flush thread writes it, everybody reads it.
#[derive(Debug, Default)]
pub struct Durable(AtomicU64);

impl Durable {
    pub fn get(&self) -> Position {
        Position(self.0.load(Ordering::Acquire))
    }

    pub fn set(&self, position: Position) {
        self.0.fetch_max(position.0, Ordering::AcqRel);
    }
}

/// The number of bytes that make a write efficient: the results of one input of 256 KiB took 28 writes before. No
/// other value was measured.
const WRITE_BYTES: usize = 16 << 10;

/// How often in a row one thread sends what arrives for a connection meanwhile.
const DRAINS_MAX: usize = 8;

/// One client's connection.
pub struct Connection {
    /// Its slot among all connections: see [`Connection::id`].
    id: AtomicU64,
    /// Its number since the process started.
    pub serial: u64,
    peer: Arc<dyn Peer>,
    durable: Arc<Durable>,
    /// Known after its vhost was opened.
    pub identity: OnceLock<ConnectionIdentity>,
    /// The counters for its actions, from then on.
    pub usage_counters: OnceLock<UsageCounters>,
    /// The memory that it holds.
    pub account: Account,
    /// The longest properties that its client takes with a message, in bytes.
    properties_bytes_max: AtomicUsize,
    /// Locked only to add or remove effects and to change credit, never while anything is encoded or written. The
    /// last one in the lock order.
    mailbox: Mutex<Mailbox>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        serial: u64,
        peer: Arc<dyn Peer>,
        durable: Arc<Durable>,
        ledger: Arc<Ledger>,
        limits: &Limits,
    ) -> Self {
        let (mailbox, account) = (Mailbox::new(limits).into(), Account::new(ledger));
        let (identity, usage_counters) = (OnceLock::new(), OnceLock::new());
        let properties_bytes_max = AtomicUsize::new(usize::MAX);
        Self {
            id: id.0.into(),
            serial,
            peer,
            durable,
            identity,
            usage_counters,
            account,
            properties_bytes_max,
            mailbox,
        }
    }

    /// Its number among the connections that are open. Subscriptions and exclusive queues belong to it. A connection that
    /// takes over a kept session gets the session's number, before it has any of these.
    pub fn id(&self) -> ConnectionId {
        ConnectionId(self.id.load(Ordering::Relaxed))
    }

    /// See [`Connection::id`]. Under the shard's lock.
    pub fn set_id(&self, id: ConnectionId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    /// The client takes no longer properties with a message. Known before anything is delivered.
    pub fn set_properties_bytes_max(&self, bytes: usize) {
        self.properties_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// The longest properties that the client takes with a message, in bytes.
    pub fn properties_bytes_max(&self) -> usize {
        self.properties_bytes_max.load(Ordering::Relaxed)
    }

    pub fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock()
    }

    /// Sends what may leave, unless another thread does so. Returns whether there are waiting subscriptions that
    /// could continue. If others add effects faster than they leave, the owner continues.
    pub fn drain(&self) -> bool {
        for _ in 0..DRAINS_MAX {
            let (batch, was_flooded) = {
                let mut mailbox = self.mailbox.lock();
                if mailbox.draining {
                    return false;
                }
                let (mut batch, was_flooded) = (Effects::default(), mailbox.is_flooded());
                mailbox.effects.take(self.durable.get(), &mut batch);
                if batch.is_empty() {
                    if mailbox.ending {
                        self.peer.wake();
                    }
                    if !mailbox.effects.is_empty() {
                        // They wait for the journal.
                        self.heard(&mut mailbox);
                    }
                    return mailbox.is_refilled();
                }
                mailbox.draining = true;
                (batch, was_flooded)
            };
            // Before it is sent, so that a client that has a message finds it counted.
            if let Some(usage_counters) = self.usage_counters.get().filter(|_| batch.delivered().messages > 0) {
                usage_counters.delivered(batch.delivered());
            }
            self.peer.send(&batch);
            batch.recycle();
            let mut mailbox = self.mailbox.lock();
            self.heard(&mut mailbox);
            mailbox.draining = false;
            if was_flooded {
                // Its owner may wait for that.
                self.peer.wake();
            }
        }
        self.peer.wake();
        false
    }

    /// From now on the owner is notified whenever everything has left.
    pub fn end(&self) {
        self.mailbox.lock().ending = true;
    }

    /// Whether everything has left. Another thread may be sending, and some of it may wait for the journal.
    pub fn is_drained(&self) -> bool {
        let mailbox = self.mailbox.lock();
        !mailbox.draining && mailbox.effects.is_empty()
    }

    /// Whether enough is waiting here for a write of its own, although more may follow from the same input.
    pub fn worth_a_write(&self) -> bool {
        self.mailbox.lock().effects.len_bytes() >= WRITE_BYTES
    }

    /// The socket accepted bytes. Returns whether there are waiting subscriptions that could continue.
    pub fn written(&self) -> bool {
        let mut mailbox = self.mailbox.lock();
        self.heard(&mut mailbox);
        mailbox.is_refilled()
    }

    /// Why the ledger of memory closes this connection, if it does and the session does not know it yet.
    pub fn take_ledger_close(&self) -> Option<Refusal> {
        if !self.account.is_closing() {
            return None;
        }
        let mut mailbox = self.mailbox.lock();
        let at = mailbox.events.iter().position(|event| matches!(event, Event::Close(_)))?;
        match mailbox.events.remove(at) {
            Event::Close(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Drops what waits for the socket.
    pub fn discard(&self) {
        self.peer.discard();
        self.heard(&mut self.mailbox.lock());
    }

    /// Asks how many bytes wait for the socket, or for a window.
    fn heard(&self, mailbox: &mut Mailbox) {
        mailbox.backlog = self.peer.waiting();
        mailbox.stopped = self.peer.stopped();
        let in_memory = mailbox.backlog.saturating_sub(self.peer.in_files());
        self.account.set(Kind::Outbox, in_memory + mailbox.stopped + mailbox.effects.memory_bytes());
    }

    /// The connection's name.
    pub fn name(&self) -> String {
        self.peer.name()
    }

    /// The user that a certificate names, or why none does.
    pub fn certificate_user(&self) -> Result<Name, String> {
        self.peer.certificate_user()
    }

    /// Asks the connection's owner to handle its events and its waiting subscriptions.
    pub fn wake(&self) {
        self.peer.wake();
    }
}

/// A subscription's id contains its connection and its number there.
pub fn subscription_id(connection: ConnectionId, number: u32) -> SubscriptionId {
    SubscriptionId((connection.0 << 32) | u64::from(number))
}

/// The slot of the connection, and the number of the subscription in it.
pub fn subscription_parts(id: SubscriptionId) -> (usize, u32) {
    ((id.0 >> 32) as usize, (id.0 & u64::from(u32::MAX)) as u32)
}
