//! What a shard needs from outside: storage, and connections.

use ferrymq_model::{
    CatalogEntry, DeathReason, Facts, MessageKey, MessageRef, OwnedMessage, QueueId, Sequence, Settled, SubscriptionId,
    Time,
};

use super::QueueSettings;
use crate::schedule::ScheduleSettings;

/// The interface of a [`Shard`](super::Shard) to the outside. `node` connects it to storage and mailboxes;
/// transitions are generic over it, so that the calls are direct.
///
/// No call may wait. After a crash, everything is there up to some point in the order of the calls; only what is
/// between [`Ports::begin_unit`] and [`Ports::end_unit`] is atomic. If a call is about messages, its queue is the
/// [lane](QueueId::lane) that they are in.
pub trait Ports {
    /// Store a message in these places; `durable` ones must survive a restart.
    ///
    /// A queue's sequences ascend by one; a message that is never stored takes none.
    fn enqueue(&mut self, message: &MessageRef<'_>, facts: &Facts, durable: &[MessageKey], transient: &[MessageKey]);

    /// The first message of `queue` at or after `from` that is stored and not settled. Its handle is valid for the
    /// next call only, which delivers or dead-letters the message; until it is settled, it can be found again in
    /// the same transition.
    fn next(&mut self, queue: QueueId, from: Sequence) -> Next;

    /// The messages `first..=last` left the queue.
    fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled);

    /// Everything up to `sequence` was delivered at least once.
    fn delivered_up_to(&mut self, queue: QueueId, sequence: Sequence);

    /// The messages `first..=last` have now been delivered and come back this many times, and are not delivered
    /// again before `due`.
    fn attempts(&mut self, queue: QueueId, first: Sequence, last: Sequence, attempts: u32, due: Option<Time>);

    /// Whether storage has space for dead letters. If not, what would be dead-lettered waits for
    /// [`Shard::storage_unblocked`](super::Shard::storage_unblocked).
    fn accepts_dead_letters(&mut self) -> bool;

    /// A change of the catalog that the transition causes.
    fn put(&mut self, entry: CatalogEntry);

    /// Push a message to a subscription's mailbox, taking from all its credit accounts or from none.
    fn deliver(&mut self, to: SubscriptionId, delivery: &Delivery<'_>) -> Taken;

    /// Hand over the message that [`Shard::get`](super::Shard::get) found.
    fn got(&mut self, delivery: &Delivery<'_>, remaining: u64);

    /// Whether who asked can get this message at all. If not, [`Ports::got`] does not send it, and the message is
    /// unsettled until it is given back.
    fn fits(&mut self, delivery: &Delivery<'_>) -> bool;

    /// A queue has no ready message for a subscription that [`Shard::drain`](super::Shard::drain) has named.
    fn drained(&mut self, subscription: SubscriptionId);

    /// The subscription's queue was deleted, and the subscription with it.
    fn cancelled(&mut self, subscription: SubscriptionId);

    /// The queue was deleted with all its messages, in all lanes up to `priority_max`. After the shard's lock is
    /// released, [`Catalog::forget_queue`](crate::Catalog::forget_queue) must be called.
    fn queue_gone(&mut self, queue: QueueId, priority_max: u8);

    /// The dead letter of a message in a queue with dead-lettering: a new message and its targets. None if its
    /// exchange does not exist or has no target for it, or if it is in a cycle.
    fn dead_letter(&mut self, dead: &Dead<'_>) -> Option<RoutedMessage>;

    /// A schedule uses this lane for the first time.
    fn create_lane(&mut self, lane: QueueId, durable: bool);

    /// The delay of a message that was routed to a schedule, in milliseconds.
    fn delay_ms(&self, message: &MessageRef<'_>) -> u64;

    /// Puts what [`Ports::next`] found just before into another lane, and says whether it is written to disk if its
    /// schedule is durable.
    fn copy(&mut self, handle: u64) -> (OwnedMessage, bool);

    /// The message whose delay in a schedule is over, and its targets. None if its exchange does not exist or has
    /// no target for it.
    fn release_delayed(&mut self, delayed: &DelayedMessage<'_>) -> Option<RoutedMessage>;

    /// What follows, up to [`Ports::end_unit`], survives a crash as a whole or not at all. Units may be nested; the
    /// outermost counts.
    fn begin_unit(&mut self);

    /// See [`Ports::begin_unit`].
    fn end_unit(&mut self);
}

/// A message that leaves a queue with dead-lettering, to be dead-lettered.
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

/// A message whose delay is over.
#[derive(Clone, Copy, Debug)]
pub struct DelayedMessage<'a> {
    /// The schedule it waited in.
    pub schedule: &'a ScheduleSettings,
    /// Where storage finds it: see [`Next::Message`].
    pub handle: u64,
    /// Its facts; their expiry is the time when the delay is over.
    pub facts: &'a Facts,
    /// When that came.
    pub at: Time,
}

/// A message that the server sends itself: a dead letter, or a delayed message.
#[derive(Clone, Debug)]
pub struct RoutedMessage {
    /// Its properties and body.
    pub message: OwnedMessage,
    /// Its facts: it has arrived just now.
    pub facts: Facts,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// Its targets: each queue once, in ascending order.
    pub targets: Vec<QueueId>,
    /// The bindings that ask to be named, for each queue that it reaches through them.
    pub matched: Vec<(QueueId, u64)>,
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
    /// Not in memory. The queue waits until [`Shard::loaded`](super::Shard::loaded) names it.
    Pending,
    /// There is none.
    End,
}

/// A delivery's message: in storage, or still with the caller.
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
    /// Its place. Without meaning if it is settled already.
    pub from: MessageKey,
    /// Its properties and body.
    pub content: Content<'a>,
    /// Its facts.
    pub facts: &'a Facts,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often it was delivered and came back.
    pub attempts: u32,
    /// Whether the consumer gets that count.
    pub shows_attempts: bool,
    /// Whether it is settled with this delivery: the consumer will not settle it.
    pub settled: bool,
}

/// Whether a delivery had credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the mailbox.
    Yes,
    /// Nothing was delivered. The subscription waits until [`Shard::credit`](super::Shard::credit) names it.
    NoCredit,
    /// The same, but there is credit, and too much waits for the connection's socket.
    Lags,
}

/// Consecutive messages of one queue, all of them delivered and not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceRange {
    /// The queue's lane, as [`Delivery::from`] names it.
    pub queue: QueueId,
    /// The first message.
    pub first: Sequence,
    /// The last message.
    pub last: Sequence,
    /// Their bodies' bytes, all together: [`Facts::body_bytes`] of each delivery.
    pub body_bytes: u64,
}
