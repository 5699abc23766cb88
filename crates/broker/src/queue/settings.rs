//! A queue's settings, and its state for queries.

use ferrymq_model::{Facts, Name, QueueState, SubscriptionId, Time};

/// A queue's settings, resolved from its declaration and its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Its vhost, for texts.
    pub vhost: Name,
    /// Its name, for texts.
    pub name: Name,
    /// Whether it survives a restart, with its persistent messages.
    pub durable: bool,
    /// Whether it stores transient messages like persistent ones.
    pub persists_all: bool,
    /// Whether it is deleted with its last subscription.
    pub auto_delete: bool,
    /// The message TTL, in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// The queue expiry: how long it may stay unused, in milliseconds.
    pub unused_ms_max: Option<u64>,
    /// The highest priority that it distinguishes: it has one lane more than that. Never changes.
    pub priority_max: u8,
    /// How many messages may be ready.
    pub messages_max: Option<u64>,
    /// How many bytes the bodies of ready messages may have.
    pub bytes_max: Option<u64>,
    /// The overflow behaviour.
    pub overflow: Overflow,
    /// Where rejected, expired and excess messages go; without this they are dropped.
    pub dead_letters: Option<DeadLettering>,
    /// Single active consumer: one subscription gets all messages, and the next one only after it has ended.
    pub single_active: bool,
    /// The delivery limit: how often a message may come back before it is dead-lettered.
    pub attempts_max: Option<u32>,
    /// The delayed retry, if there is one.
    pub retry: Option<RetryDelay>,
    /// Whether consumers get the number of times a message has come back.
    pub shows_attempts: bool,
    /// The consumer timeout, in milliseconds, if it is not the node's.
    pub consumer_timeout_ms: Option<u64>,
}

/// What a queue does above its length limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It drops the front message.
    #[default]
    DropHead,
    /// It refuses the new message, and its publisher is told.
    RejectPublish,
    /// The same, and the new message is dead-lettered.
    RejectPublishDeadLetter,
}

/// Which messages that come back wait, and how long: the longer, the more often they have come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryDelay {
    /// Those that failed.
    pub failed: bool,
    /// Those that were only returned.
    pub returned: bool,
    /// Milliseconds for each time that a message has come back.
    pub min_ms: u64,
    /// The maximum, in milliseconds.
    pub max_ms: u64,
}

/// The target of a queue's dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettering {
    /// The exchange.
    pub exchange: Name,
    /// Their routing key, if they do not keep their own.
    pub routing_key: Option<Name>,
    /// Whether none may be lost (RabbitMQ: at-least-once): a message that no target accepts, or not all do, stays
    /// here until something changes.
    pub at_least_once: bool,
}

impl QueueSettings {
    /// When a message with these facts expires here: by its own expiration or by the queue's TTL, whichever is
    /// first. (AMQP-39)
    pub(crate) fn expires(&self, facts: &Facts) -> Option<Time> {
        let by_queue = self.message_ttl_ms.map(|ms| facts.arrived.after_ms(ms));
        match (facts.expires, by_queue) {
            (Some(own), Some(by_queue)) => Some(own.min(by_queue)),
            (own, by_queue) => own.or(by_queue),
        }
    }
}

/// What recovery found of one lane of a queue.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The lane: the priority of its messages.
    pub lane: u8,
    /// Its numbers. Unsettled messages are ready again, and redelivered.
    pub state: QueueState,
    /// How many messages it holds.
    pub messages: u64,
    /// Their bodies' bytes.
    pub body_bytes: u64,
    /// Whether any of them may have its own expiration.
    pub expiring: bool,
}

/// A subscription to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The subscription.
    pub id: SubscriptionId,
    /// Automatic acknowledgement: deliveries are settled as they leave.
    pub no_ack: bool,
    /// Exclusive: no other subscription may exist.
    pub exclusive: bool,
    /// Higher priorities are served first as long as they have credit; equal ones take turns.
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

/// The outcome of a `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// A message was handed to [`Ports::got`](super::Ports::got).
    Message,
    /// Nothing is ready.
    Empty,
    /// The first message is not in memory: ask again when storage has read it.
    Pending,
    /// Dispatch must dead-letter messages before it first: ask again after dispatch.
    Busy,
    /// The queue was deleted meanwhile.
    Gone,
}
