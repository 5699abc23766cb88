//! The ledger of memory: what each connection holds, and what happens when all of them hold too much.
//!
//! A connection's account changes once for each turn or write, not for each message. When a limit is exceeded, the
//! server takes the user whose connections hold the most together. It reads no more from that user's connection that
//! holds the most, while other connections go on. If that lasts for [`GRACE_MS`], the connection is closed: what waits for
//! its socket is dropped at once. A connection that holds less than an equal part of what connections may hold is never
//! the reason, and connections that are ending do not count: what they hold is on its way back.

use std::collections::BTreeMap;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};

use ferrymq_model::{Event, Limits, Name, Refusal, Time};
use parking_lot::Mutex;

use crate::{connection::peer::Connection, core::node::Node};

/// How long a limit may be exceeded before the connection that holds the most is closed, in milliseconds.
const GRACE_MS: u64 = 1_000;

/// How often the node checks while a limit is exceeded, in milliseconds.
const LOOK_MS: u64 = 100;

/// How often the node checks while connections hold a large part of the budget, in milliseconds: others take
/// memory, too.
const WATCH_MS: u64 = 1_000;

/// The node checks again when connections hold this many bytes more.
const STEP_BYTES: usize = 1 << 20;

/// The part of the budget that belongs to connections, whatever else takes memory: a half.
const SHARE: usize = 2;

/// A connection that holds less than this is always read, however much others hold.
const READ_ON_BYTES: usize = 64 << 10;

/// The kinds of memory that a connection holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages that have arrived only in part.
    Uploads,
    /// Input that was read and not used yet.
    Unread,
    /// Publishes and settlements that wait for a commit.
    Transactions,
    /// Requests that were read and wait: for a get of their channel, for a file, or for their turn.
    Waiting,
    /// Output that the peer has not read.
    Outbox,
}

/// All kinds, with their names in the ledger.
const KINDS: [(Kind, &str); 5] = [
    (Kind::Uploads, "messages that have arrived in part"),
    (Kind::Unread, "unread input"),
    (Kind::Transactions, "open transactions"),
    (Kind::Waiting, "requests that wait for their turn"),
    (Kind::Outbox, "outboxes of connections"),
];

/// Bytes by [`Kind`].
#[derive(Debug, Default)]
struct Bytes([AtomicUsize; KINDS.len()]);

impl Bytes {
    fn get(&self, kind: Kind) -> usize {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    fn of(&self, pool: Pool) -> usize {
        match pool {
            Pool::Uploads => self.get(Kind::Uploads) + self.get(Kind::Transactions),
            Pool::Memory => KINDS.iter().map(|(kind, _)| self.get(*kind)).sum(),
        }
    }
}

/// What has its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    /// [`Limits::uploads_bytes_max`]: incomplete messages, and those that wait for a commit.
    Uploads,
    /// [`Limits::memory_bytes_max`]: the memory of the process.
    Memory,
}

/// The account of one connection. Dropping it returns everything.
#[derive(Debug)]
pub struct Account {
    ledger: Arc<Ledger>,
    bytes: Bytes,
    state: AtomicU8,
}

const FREE: u8 = 0;
const BLOCKED: u8 = 1;
const CLOSING: u8 = 2;

impl Account {
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, bytes: Bytes::default(), state: AtomicU8::new(FREE) }
    }

    /// The connection holds this many bytes of this kind now. The caller checks the ledger afterwards, if it is
    /// due.
    #[inline]
    pub fn set(&self, kind: Kind, bytes: usize) {
        if self.bytes.get(kind) != bytes {
            let before = self.bytes.0[kind as usize].swap(bytes, Ordering::Relaxed);
            self.ledger.change(kind, before, bytes);
        }
    }

    /// The connection holds this many bytes more of this kind.
    pub fn add(&self, kind: Kind, bytes: usize) {
        self.bytes.0[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        self.ledger.change(kind, 0, bytes);
    }

    /// The connection holds this many bytes less of this kind.
    pub fn subtract(&self, kind: Kind, bytes: usize) {
        self.bytes.0[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.ledger.change(kind, bytes, 0);
    }

    /// Whether the connection is not to be read for now.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.ledger.is_exceeded.load(Ordering::Acquire) && self.should_wait()
    }

    /// Whether the connection is to be closed because of what it holds.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSING
    }

    #[cold]
    fn should_wait(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            FREE => self.ledger.is_full.load(Ordering::Acquire) && self.bytes.of(Pool::Memory) >= READ_ON_BYTES,
            state => state == BLOCKED,
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        KINDS.iter().for_each(|(kind, _)| self.set(*kind, 0));
    }
}

/// What all connections hold together.
#[derive(Debug)]
pub struct Ledger {
    uploads_bytes_max: usize,
    memory_bytes_max: usize,
    bytes: Bytes,
    /// It is time to check when a pool has more bytes than this.
    look_at: [AtomicUsize; 2],
    /// A limit is exceeded.
    is_exceeded: AtomicBool,
    /// A limit is exceeded by so much that no connection that holds much is read.
    is_full: AtomicBool,
    /// Since when a limit is exceeded, or since the last connection was closed for it. Locked during the check;
    /// before all other locks of the node.
    since: Mutex<Option<Time>>,
}

/// A limit that is exceeded.
#[derive(Clone, Copy, Debug)]
struct Excess {
    pool: Pool,
    bytes: usize,
    bytes_max: usize,
}

impl Ledger {
    pub fn new(limits: &Limits) -> Self {
        let memory_bytes_max = match limits.memory_bytes_max {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        Self {
            uploads_bytes_max: limits.uploads_bytes_max,
            memory_bytes_max,
            bytes: Bytes::default(),
            look_at: [limits.uploads_bytes_max, memory_bytes_max / SHARE].map(AtomicUsize::new),
            is_exceeded: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            since: Mutex::new(None),
        }
    }

    /// Bytes by kind.
    pub fn by_owner(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.iter().map(|(kind, name)| (*name, self.bytes.get(*kind) as u64))
    }

    /// Whether connections hold so much more than at the last check that it is time for another one.
    #[inline]
    pub fn is_due(&self) -> bool {
        let exceeds = |pool: Pool| self.bytes.of(pool) > self.look_at[pool as usize].load(Ordering::Relaxed);
        exceeds(Pool::Memory) || exceeds(Pool::Uploads)
    }

    fn change(&self, kind: Kind, before: usize, after: usize) {
        let total = &self.bytes.0[kind as usize];
        if after >= before {
            total.fetch_add(after - before, Ordering::Relaxed);
        } else {
            total.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Connections hold a large part of the budget.
    fn is_watched(&self) -> bool {
        self.bytes.of(Pool::Memory) > self.memory_bytes_max / SHARE
    }

    /// The limit that is exceeded. `memory` returns the memory of the whole process, if it is known: a body that
    /// waits in several outboxes counts in each of them, and is in memory once.
    fn excess(&self, memory: impl FnOnce() -> Option<u64>) -> Option<Excess> {
        let [uploads, all] = [Pool::Uploads, Pool::Memory].map(|pool| self.bytes.of(pool));
        let look_at = |pool: Pool, bytes| self.look_at[pool as usize].store(bytes, Ordering::Relaxed);
        let exceeds = uploads > self.uploads_bytes_max;
        look_at(Pool::Uploads, if exceeds { uploads + STEP_BYTES } else { self.uploads_bytes_max });
        if exceeds {
            return Some(Excess { pool: Pool::Uploads, bytes: uploads, bytes_max: self.uploads_bytes_max });
        }
        if !self.is_watched() {
            look_at(Pool::Memory, self.memory_bytes_max / SHARE);
            return None;
        }
        let bytes = memory().map_or(all, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let (pool, bytes_max) = (Pool::Memory, self.memory_bytes_max);
        look_at(pool, all.saturating_add((bytes_max.saturating_sub(bytes) / 4).max(STEP_BYTES)));
        (bytes > bytes_max).then_some(Excess { pool, bytes, bytes_max })
    }
}

impl Excess {
    /// Why the connection that holds the most is closed.
    fn refusal(&self, account: &Account) -> Refusal {
        let Self { pool, bytes, bytes_max } = self;
        let most = account.bytes.of(*pool);
        Refusal::ResourceLimit(match pool {
            Pool::Uploads => format!(
                "this connection holds the most ({most} bytes) of messages that have arrived in part or wait for a commit; \
                 all take {bytes} bytes, more than uploads_bytes_max ({bytes_max})"
            ),
            Pool::Memory => {
                let kinds = KINDS.iter().filter(|(kind, _)| account.bytes.get(*kind) > 0);
                let kinds: Vec<String> =
                    kinds.map(|(kind, name)| format!("{name}: {}", account.bytes.get(*kind))).collect();
                format!(
                    "this connection holds the most memory ({most} bytes); the server takes {bytes} bytes, more than \
                     memory_bytes_max ({bytes_max}); {}",
                    kinds.join(", ")
                )
            }
        })
    }

    /// Whether connections that hold so much are the reason. Other memory may fill the budget; a half of it belongs to
    /// connections.
    fn is_caused_by(&self, held: usize) -> bool {
        match self.pool {
            Pool::Uploads => true,
            Pool::Memory => held > self.bytes_max / SHARE,
        }
    }

    /// The least that one of so many connections holds if it is to be closed: an equal part of what all may hold.
    fn least(&self, connections: usize) -> usize {
        (self.bytes_max / SHARE / connections.max(1)).max(1)
    }

    /// Whether it is more than an eighth over the limit.
    fn is_large(&self) -> bool {
        self.bytes > self.bytes_max + self.bytes_max / 8
    }
}

/// The user of a connection that has opened its vhost.
fn user_of(connection: &Connection) -> Option<&Name> {
    connection.identity.get().map(|identity| &identity.user)
}

/// The bytes that the connections of each user hold. Connections without a user and closing connections are not
/// included.
fn by_user(connections: &[Option<Arc<Connection>>], pool: Pool) -> BTreeMap<Option<&Name>, usize> {
    let mut by_user = BTreeMap::new();
    for connection in connections.iter().flatten() {
        let is_closing = connection.account.state.load(Ordering::Acquire) == CLOSING;
        if let user @ Some(_) = user_of(connection).filter(|_| !is_closing) {
            *by_user.entry(user).or_default() += connection.account.bytes.of(pool);
        }
    }
    by_user
}

impl Connection {
    /// Closes the connection because of what it holds. What waits for its socket is dropped now, because a peer that does
    /// not read would keep it for as long as the socket is open.
    fn close_for(&self, refusal: Refusal) {
        self.account.state.store(CLOSING, Ordering::Release);
        {
            let mut mailbox = self.mailbox();
            mailbox.discard();
            mailbox.events.push(Event::Close(refusal));
        }
        self.discard();
        self.wake();
    }
}

impl Node {
    /// Checks the ledger, if connections hold so much more that it is time to. The caller holds no lock.
    #[inline]
    pub(crate) fn look_at_ledger_if_due(&self) {
        if self.ledger.is_due() {
            self.look_at_ledger();
        }
    }

    /// Checks whether a limit is exceeded: then the connection that holds the most is not read, and closed if that
    /// does not help.
    #[cold]
    pub(crate) fn look_at_ledger(&self) {
        let Some(mut since) = self.ledger.since.try_lock() else { return };
        let now = self.now();
        let excess = self.ledger.excess(|| self.host.memory_bytes());
        let due = match excess {
            Some(excess) => {
                self.ledger.is_exceeded.store(true, Ordering::Release);
                self.relieve(excess, &mut since, now);
                Some(now.after_ms(LOOK_MS))
            }
            None => {
                *since = None;
                if self.ledger.is_exceeded.load(Ordering::Acquire) {
                    self.read_all_on();
                }
                self.ledger.is_watched().then(|| now.after_ms(WATCH_MS))
            }
        };
        let moved = {
            let mut core = self.core.lock();
            core.ledger_due = due;
            core.move_timer()
        };
        if let Some(due) = moved {
            self.host.set_timer(due);
        }
    }

    /// Checks the ledger when it is due.
    pub(crate) fn watch_ledger(&self, now: Time) {
        if self.core.lock().ledger_due.is_some_and(|due| due <= now) {
            self.look_at_ledger();
        }
    }

    /// Stops reading or closes the connection that holds the most, unless enough is on its way back.
    fn relieve(&self, mut excess: Excess, since: &mut Option<Time>, now: Time) {
        let connections = self.core.lock().connections.clone();
        let open = |connection: &&Arc<Connection>| connection.account.state.load(Ordering::Acquire) != CLOSING;
        let open: Vec<&Arc<Connection>> = connections.iter().flatten().filter(open).collect();
        let held: usize = open.iter().map(|connection| connection.account.bytes.of(excess.pool)).sum();
        // What the others hold, of which many are not among the connections any more.
        let ending = self.ledger.bytes.of(excess.pool).saturating_sub(held);
        excess.bytes = excess.bytes.saturating_sub(ending);
        let is_reason = excess.is_caused_by(held);
        let (mut most, mut most_free) = (None, None);
        let by_user = by_user(&connections, excess.pool);
        for connection in &open {
            let bytes = connection.account.bytes.of(excess.pool);
            if !is_reason || bytes < excess.least(open.len()) {
                continue;
            }
            // First the user whose connections hold the most together, then that user's connection that holds the most.
            let rank = (by_user.get(&user_of(connection)).copied().unwrap_or(bytes), bytes, connection.serial);
            most = most.max(Some(rank));
            if connection.account.state.load(Ordering::Acquire) == FREE {
                most_free = most_free.max(Some(rank));
            }
        }
        let find = |most: Option<(usize, usize, u64)>| {
            open.iter().find(|one| most.is_some_and(|(_, _, serial)| serial == one.serial))
        };
        self.ledger.is_full.store(is_reason && excess.is_large(), Ordering::Release);
        let Some(holder) = find(most).filter(|_| excess.bytes > excess.bytes_max) else {
            // The next one has its time, too.
            *since = None;
            return;
        };
        let began = *since.get_or_insert(now);
        if now.since_ms(began) >= GRACE_MS || holder.account.bytes.of(excess.pool) > excess.bytes_max {
            let freed = holder.account.bytes.of(excess.pool);
            holder.close_for(excess.refusal(&holder.account));
            // What it held is free at once. If that is not enough, the next one has had its time, too.
            let is_enough = excess.bytes.saturating_sub(freed) <= excess.bytes_max;
            *since = is_enough.then_some(now).or(*since);
        } else if let Some(holder) = find(most_free) {
            holder.account.state.store(BLOCKED, Ordering::Release);
        }
    }

    /// No limit is exceeded any more: all connections are read again.
    fn read_all_on(&self) {
        self.ledger.is_exceeded.store(false, Ordering::Release);
        self.ledger.is_full.store(false, Ordering::Release);
        let connections = self.core.lock().connections.clone();
        for connection in connections.iter().flatten() {
            let state = &connection.account.state;
            // One that is closing stays in that state.
            let _ = state.compare_exchange(BLOCKED, FREE, Ordering::AcqRel, Ordering::Acquire);
            connection.wake();
        }
    }
}
