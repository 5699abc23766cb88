//! What a queue is told when it is made, and what it tells when it is asked.

use ferrymq_model::{Facts, Name, QueueState, SubscriptionId, Time};

/// What a queue does, resolved from its declaration and the policies that apply to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Its vhost, for texts.
    pub vhost: Name,
    /// Its name, for texts.
    pub name: Name,
    /// Whether it survives a restart, and with it its persistent messages.
    pub durable: bool,
    /// Whether it keeps transient messages as if they were persistent.
    pub persists_all: bool,
    /// Whether it goes when its last subscription goes.
    pub auto_delete: bool,
    /// How long a message may wait, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// How long it may stay unused, in milliseconds, before it goes.
    pub unused_ms_max: Option<u64>,
    /// The highest priority that it tells apart: it has one lane more than that. Never changes.
    pub priority_max: u8,
    /// How many messages may be ready.
    pub messages_max: Option<u64>,
    /// How many bytes the bodies of ready messages may have.
    pub bytes_max: Option<u64>,
    /// What happens at these limits.
    pub overflow: Overflow,
    /// Where messages go that are rejected, expire, or are too many; they are dropped where there is nothing here.
    pub dead_letters: Option<DeadLettering>,
    /// Whether one subscription gets all messages, and the next one only once it has gone.
    pub single_active: bool,
    /// How often a message may come back; once more, and it is a dead letter.
    pub attempts_max: Option<u32>,
    /// How long a message that came back rests before it is ready again, where it does.
    pub retry: Option<RetryDelay>,
    /// Whether consumers are told how often a message has come back.
    pub shows_attempts: bool,
    /// How long a consumer may hold a delivery, in milliseconds, where the node's limit does not hold.
    pub consumer_timeout_ms: Option<u64>,
}

/// What a queue does with one message too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The front message gives way.
    #[default]
    DropHead,
    /// The new message is not taken, and its publisher is told.
    RejectPublish,
    /// The same, and the new message is a dead letter.
    RejectPublishDeadLetter,
}

/// When messages that come back rest, and how long: the longer, the more often they have come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryDelay {
    /// Those with which something has failed do.
    pub failed: bool,
    /// Those that were just given back do.
    pub returned: bool,
    /// Milliseconds for each time that a message has come back.
    pub min_ms: u64,
    /// It rests no longer than this, in milliseconds.
    pub max_ms: u64,
}

/// Where a queue's dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettering {
    /// The exchange.
    pub exchange: Name,
    /// The routing key they get, where they do not keep their own.
    pub routing_key: Option<Name>,
    /// Whether none may be lost (RabbitMQ: at-least-once): one that nobody would get, or that a full queue does not take,
    /// stays here until something changes.
    pub keeps: bool,
}

impl QueueSettings {
    /// When a message with these facts expires here: its own time or the queue's, whichever is first.
    pub(crate) fn expires(&self, facts: &Facts) -> Option<Time> {
        let by_queue = self.message_ttl_ms.map(|ms| facts.arrived.after_ms(ms));
        match (facts.expires, by_queue) {
            (Some(own), Some(by_queue)) => Some(own.min(by_queue)),
            (own, by_queue) => own.or(by_queue),
        }
    }
}

/// What storage found of one lane of a queue after a restart.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The lane: the priority of its messages.
    pub lane: u8,
    /// Its numbers. What was open is ready again, and redelivered.
    pub state: QueueState,
    /// How many messages it holds.
    pub messages: u64,
    /// Their bodies' bytes.
    pub body_bytes: u64,
    /// Whether any of them may have an expiry of its own.
    pub expiring: bool,
}

/// Someone who wants a queue's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The subscription.
    pub id: SubscriptionId,
    /// Deliveries are settled as they leave.
    pub no_ack: bool,
    /// No other subscription may be there.
    pub exclusive: bool,
    /// Higher goes first as long as it has credit; equal ones take turns.
    pub priority: i64,
}

/// What must hold for a queue to be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteWhen {
    /// It has no subscription.
    pub unused: bool,
    /// It has nothing ready.
    pub empty: bool,
}

/// What became of a `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// A message was handed to [`Ports::got`](super::Ports::got).
    Message,
    /// Nothing is ready.
    Empty,
    /// The first message is not in memory: ask again when storage has read it.
    Pending,
    /// Messages came to their end before it, and more of them or their letters are to be seen to by dispatch: ask again
    /// after it.
    Busy,
    /// The queue has gone meanwhile.
    Gone,
}

/// What a queue has done since it was made or recovered, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Routed to it.
    pub published: u64,
    /// Delivered to subscriptions that settle them.
    pub delivered: u64,
    /// Delivered to subscriptions, and settled with that.
    pub delivered_no_ack: u64,
    /// Asked for and given.
    pub got: u64,
    /// Asked for and given, and settled with that.
    pub got_no_ack: u64,
    /// Asked for in vain.
    pub got_empty: u64,
    /// Of all these deliveries, those that may have happened before.
    pub redelivered: u64,
    /// Accepted by consumers.
    pub accepted: u64,
    /// Released by consumers, or by their end.
    pub released: u64,
    /// Rejected by consumers.
    pub rejected: u64,
    /// Waited too long.
    pub expired: u64,
    /// Left because the queue was over its limit, or because they came back too often.
    pub dropped: u64,
    /// Not taken, because the queue was full.
    pub refused: u64,
    /// Of those four, the ones that became letters and left.
    pub dead_lettered: u64,
    /// Of those four, the ones that became none, although the queue has dead-lettering: the exchange was not there, sent
    /// them nowhere, or in a circle.
    pub letters_unroutable: u64,
    /// Purged.
    pub purged: u64,
}

/// A queue as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait.
    pub ready: u64,
    /// Messages that came back, and rest before they are ready again.
    pub resting: u64,
    /// Messages that are out.
    pub unacked: u64,
    /// Messages that have come to their end and not left yet: their letters wait for somebody to take them.
    pub dying: u64,
    /// Bytes of the waiting messages' bodies.
    pub ready_bytes: u64,
    /// Bytes of the bodies that are out.
    pub unacked_bytes: u64,
    /// Bytes of the bodies of those that are dying, as far as they do not count as waiting.
    pub dying_bytes: u64,
    /// Subscriptions.
    pub subscriptions: u32,
    /// Where only one of them is active: which one.
    pub active: Option<SubscriptionId>,
    /// What it has done.
    pub counters: Counters,
}
