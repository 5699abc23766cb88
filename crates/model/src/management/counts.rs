//! The state and the counters of queues.

use crate::SubscriptionId;

/// A queue's counters since it was declared or recovered, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Routed to it.
    pub published: u64,
    /// Delivered to subscriptions that settle them.
    pub delivered: u64,
    /// Delivered to subscriptions, and settled with that.
    pub delivered_no_ack: u64,
    /// Got, and to be settled.
    pub got: u64,
    /// Got, and settled with that.
    pub got_no_ack: u64,
    /// Gets without a message.
    pub got_empty: u64,
    /// Of all these deliveries, those that were redelivered.
    pub redelivered: u64,
    /// Accepted by consumers.
    pub accepted: u64,
    /// Released by consumers, or when they ended.
    pub released: u64,
    /// Rejected by consumers.
    pub rejected: u64,
    /// Expired.
    pub expired: u64,
    /// Dropped because the queue was above its limit, or because they came back too often.
    pub dropped: u64,
    /// Refused, because the queue was full.
    pub refused: u64,
    /// Of those four, the ones that were dead-lettered.
    pub dead_lettered: u64,
    /// Of those four, the ones that were not, although the queue has dead-lettering: the exchange did not exist or
    /// had no target, or there was a cycle.
    pub dead_letters_unroutable: u64,
    /// Purged.
    pub purged: u64,
}

/// The state of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait.
    pub ready: u64,
    /// Messages that came back, and wait for their delayed retry.
    pub delayed_retries: u64,
    /// Unsettled deliveries.
    pub unacked: u64,
    /// Pending dead letters: messages that have expired, were rejected or exceed a limit, and have not left yet.
    pub pending_dead_letters: u64,
    /// Bytes of the waiting messages' bodies.
    pub ready_bytes: u64,
    /// Bytes of the unsettled deliveries' bodies.
    pub unacked_bytes: u64,
    /// Bytes of the pending dead letters' bodies, as far as they do not count as waiting.
    pub pending_dead_letter_bytes: u64,
    /// Subscriptions.
    pub subscriptions: u32,
    /// The single active consumer, if there is one.
    pub active: Option<SubscriptionId>,
    /// Its counters.
    pub counters: QueueCounters,
}
