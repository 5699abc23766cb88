//! A connection as the node sees it: the socket's side of it, and who sends what is in its mailbox.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ferrymq_model::{ConnectionId, Event, Limits, Name, Position, Refusal, SubscriptionId};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    counters::Accounts,
    effects::Effects,
    firehose::Who,
    ledger::{Account, Kind, Ledger},
    mailbox::Mailbox,
};

/// The socket behind a connection: what the server gives the node for each connection.
pub trait Peer: Send + Sync {
    /// Encodes the effects, in order, behind what waits already, and tries the socket. Never waits itself. Only one
    /// thread at a time calls it for a connection.
    fn send(&self, effects: &Effects);

    /// How many bytes wait for the socket now. Called under the mailbox's lock, so it must not wait for a write.
    fn waiting(&self) -> usize;

    /// The connection's owner should look: events wait for its session, or deliveries can go on.
    fn wake(&self);

    /// What people call the connection: from where to where it goes.
    fn name(&self) -> String {
        "unknown".to_owned()
    }

    /// The user that the connection itself proves, by a certificate that the client has shown.
    ///
    /// # Errors
    /// Where it proves none: why, for the log.
    fn proves(&self) -> Result<Name, String> {
        Err("the connection is not under TLS".to_owned())
    }
}

/// The position up to which the journal is durable; written by storage's flush thread, read by everybody.
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

/// What makes a write worth while: what one input of 256 KiB causes used to leave in 28 writes. No other value than this was
/// measured.
const WRITE_BYTES: usize = 16 << 10;

/// How often in a row one thread hands out what comes to a connection meanwhile.
const DRAINS_MAX: usize = 8;

/// One client's connection.
pub struct Connection {
    pub id: ConnectionId,
    /// Its number since the process began.
    pub serial: u64,
    peer: Arc<dyn Peer>,
    durable: Arc<Durable>,
    /// Known since its vhost was opened.
    pub who: OnceLock<Who>,
    /// Where what it does is counted, since then.
    pub accounts: OnceLock<Accounts>,
    /// The memory that it holds.
    pub account: Account,
    /// Held only to add or take effects and to move credit, never while anything is encoded or written. Last in the
    /// order of locks.
    mailbox: Mutex<Mailbox>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).finish_non_exhaustive()
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
        let (who, accounts) = (OnceLock::new(), OnceLock::new());
        Self { id, serial, peer, durable, who, accounts, account, mailbox }
    }

    pub fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock()
    }

    /// Hands out what may leave, unless somebody is doing so. Says whether subscriptions wait that could go on now. Where
    /// others add faster than it leaves, the owner goes on.
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
                    return mailbox.is_refilled();
                }
                mailbox.draining = true;
                (batch, was_flooded)
            };
            // Before it is sent, so that whoever has got a message finds it counted.
            if let Some(accounts) = self.accounts.get().filter(|_| batch.handed().messages > 0) {
                accounts.delivered(batch.handed());
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

    /// From now on the owner is woken whenever everything has left.
    pub fn end(&self) {
        self.mailbox.lock().ending = true;
    }

    /// Whether everything has left. Somebody else may be sending, and some of it may wait for the journal.
    pub fn is_drained(&self) -> bool {
        let mailbox = self.mailbox.lock();
        !mailbox.draining && mailbox.effects.is_empty()
    }

    /// Whether so much waits here that it is worth a write of its own, though more may come of the same input.
    pub fn holds_much(&self) -> bool {
        self.mailbox.lock().effects.len_bytes() >= WRITE_BYTES
    }

    /// The socket has taken bytes. Says whether subscriptions wait that could go on now.
    pub fn written(&self) -> bool {
        let mut mailbox = self.mailbox.lock();
        self.heard(&mut mailbox);
        mailbox.is_refilled()
    }

    /// Why the ledger of memory closes this connection, if it does and the session does not know yet.
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

    /// Asks how much waits for the socket.
    fn heard(&self, mailbox: &mut Mailbox) {
        mailbox.backlog = self.peer.waiting();
        self.account.set(Kind::Outbox, mailbox.backlog + mailbox.effects.len_bytes());
    }

    /// What people call the connection.
    pub fn name(&self) -> String {
        self.peer.name()
    }

    /// The user that the connection itself proves, or why it proves none.
    pub fn proves(&self) -> Result<Name, String> {
        self.peer.proves()
    }

    /// Asks the connection's owner to look at its events and its waiting subscriptions.
    pub fn wake(&self) {
        self.peer.wake();
    }
}

/// A subscription's id says which connection it is on and which of its subscriptions it is.
pub fn subscription_id(connection: ConnectionId, number: u32) -> SubscriptionId {
    SubscriptionId((connection.0 << 32) | u64::from(number))
}

/// The slot of the connection, and the number of the subscription in it.
pub fn subscription_parts(id: SubscriptionId) -> (usize, u32) {
    ((id.0 >> 32) as usize, (id.0 & u64::from(u32::MAX)) as u32)
}
