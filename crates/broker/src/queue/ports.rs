//! What a shard needs from outside: storage behind it, connections before it.

use ferrymq_model::{
    CatalogEntry, DeathReason, Facts, MessageRef, OwnedMessage, Place, QueueId, Sequence, Settled, SubscriptionId, Time,
};

use super::QueueSettings;
use crate::schedule::ScheduleSettings;

/// The way out of a [`Shard`](super::Shard). `node` adapts it to storage and mailboxes; transitions are generic over it,
/// so that the calls are direct.
///
/// No call may wait. What is decided holds after a crash up to some point in the order of the calls; only what stands
/// between [`Ports::begin_unit`] and [`Ports::end_unit`] holds together. Where a call is about messages, its queue is the
/// [lane](QueueId::lane) that they are in.
pub trait Ports {
    /// Keep a message at these places; `durable` ones are to survive a restart.
    ///
    /// A queue's sequences ascend by one; a message that never comes here takes none.
    fn enqueue(&mut self, message: &MessageRef<'_>, facts: &Facts, durable: &[Place], transient: &[Place]);

    /// The first message of `queue` at or behind `from` that is stored and not settled. Its handle is used for the next
    /// call only, which delivers it or makes a letter of it; until it is settled, it is found again in the same
    /// transition.
    fn next(&mut self, queue: QueueId, from: Sequence) -> Next;

    /// The messages `first..=last` left the queue.
    fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled);

    /// Everything up to `sequence` was delivered at least once.
    fn delivered_up_to(&mut self, queue: QueueId, sequence: Sequence);

    /// The messages `first..=last` have now been delivered and come back so many times, and are not delivered again before
    /// `due`.
    fn attempts(&mut self, queue: QueueId, first: Sequence, last: Sequence, attempts: u32, due: Option<Time>);

    /// Whether storage has room for letters. Where it has none, what would become one waits until
    /// [`Shard::room_again`](super::Shard::room_again).
    fn takes_letters(&mut self) -> bool;

    /// A change of the catalog that the transition causes.
    fn put(&mut self, entry: CatalogEntry);

    /// Push a message to a subscription's mailbox, taking from all its credit accounts or from none.
    fn deliver(&mut self, to: SubscriptionId, delivery: &Delivery<'_>) -> Taken;

    /// Hand over the message that [`Shard::get`](super::Shard::get) found.
    fn got(&mut self, delivery: &Delivery<'_>, remaining: u64);

    /// The subscription's queue went away, and the subscription with it.
    fn cancelled(&mut self, subscription: SubscriptionId);

    /// The queue is gone with all it held, in all lanes up to `priority_max`. Once the shard's lock is let go,
    /// [`Catalog::forget_queue`](crate::Catalog::forget_queue) is due.
    fn queue_gone(&mut self, queue: QueueId, priority_max: u8);

    /// What becomes of a message that is dead in a queue with dead-lettering: a new message and its targets. Nothing where
    /// its exchange is not there or sends it nowhere, or it would go in a circle.
    fn dead_letter(&mut self, dead: &Dead<'_>) -> Option<Letter>;

    /// A schedule uses this lane for the first time.
    fn create_lane(&mut self, lane: QueueId, durable: bool);

    /// How long a message that was routed to a schedule is to wait there, in milliseconds.
    fn delay_ms(&self, message: &MessageRef<'_>) -> u64;

    /// What [`Ports::next`] found just before, to be put into another lane, and whether it is written to disk, where its
    /// schedule is durable.
    fn copy(&mut self, handle: u64) -> (OwnedMessage, bool);

    /// What a message becomes whose time has come in a schedule, and where it goes. Nothing where its exchange is not there
    /// or sends it nowhere.
    fn come_due(&mut self, due: &Due<'_>) -> Option<Letter>;

    /// What follows, up to [`Ports::end_unit`], survives a crash as a whole or not at all. Units may stand in units; the
    /// outermost counts.
    fn begin_unit(&mut self);

    /// See [`Ports::begin_unit`].
    fn end_unit(&mut self);
}

/// A message that has come to its end in a queue.
#[derive(Clone, Copy, Debug)]
pub struct Dead<'a> {
    /// The queue, which has [`QueueSettings::dead_letters`].
    pub queue: &'a QueueSettings,
    /// The message.
    pub content: Content<'a>,
    /// Its facts.
    pub facts: &'a Facts,
    /// Why.
    pub reason: DeathReason,
    /// When.
    pub at: Time,
}

/// A message whose time has come.
#[derive(Clone, Copy, Debug)]
pub struct Due<'a> {
    /// The schedule it waited in.
    pub schedule: &'a ScheduleSettings,
    /// Where storage finds it: see [`Next::Message`].
    pub handle: u64,
    /// Its facts; what stands there as its expiry is the time it waited for.
    pub facts: &'a Facts,
    /// When that came.
    pub at: Time,
}

/// A message that the house sends itself: a dead letter, or one that was delayed.
#[derive(Clone, Debug)]
pub struct Letter {
    /// What it says.
    pub message: OwnedMessage,
    /// Its facts: it has arrived just now.
    pub facts: Facts,
    /// Whether it is written to disk, where its queues are durable.
    pub persistent: bool,
    /// Where it goes: each queue once, in ascending order.
    pub targets: Vec<QueueId>,
}

/// What storage answers when asked for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Here it is.
    Message {
        /// Its sequence, at or behind the one asked for.
        sequence: Sequence,
        /// Where storage finds it again during this transition. Opaque.
        handle: u64,
        /// Its facts.
        facts: Facts,
    },
    /// Not in memory. The queue rests until [`Shard::loaded`](super::Shard::loaded) names it.
    Pending,
    /// There is none.
    End,
}

/// A delivery's message: in storage, or still in the hands of the caller.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Storage finds it by this handle.
    Stored(u64),
    /// The message that is just being published.
    Passing(&'a MessageRef<'a>),
}

/// A message on its way to a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Where it stands. Means nothing where it is settled already.
    pub from: Place,
    /// What it says.
    pub content: Content<'a>,
    /// Its facts.
    pub facts: &'a Facts,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often it was delivered and came back.
    pub attempts: u32,
    /// Whether the consumer is told so.
    pub shows_attempts: bool,
    /// Whether it is settled with this delivery: nobody will name it again.
    pub settled: bool,
}

/// Whether a delivery found credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the mailbox.
    Yes,
    /// Nothing was taken. The subscription waits until [`Shard::credit`](super::Shard::credit) names it.
    NoCredit,
    /// The same, where there is credit and too much waits for the connection's socket already.
    Lags,
}

/// Consecutive messages of one queue, all of them delivered and not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The queue's lane, as [`Delivery::from`] names it.
    pub queue: QueueId,
    /// The first message.
    pub first: Sequence,
    /// The last message.
    pub last: Sequence,
    /// Their bodies' bytes, all together: [`Facts::body_bytes`] of each delivery.
    pub body_bytes: u64,
}
