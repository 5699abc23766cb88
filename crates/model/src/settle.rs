//! What a client says of its deliveries.

use crate::{Origin, TransactionId};

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Accepted: the message is removed.
    Accept,
    /// Requeued.
    Release {
        /// It is not delivered again before, in milliseconds from now. A longer delay of the queue counts.
        delay_ms: u64,
    },
    /// Requeued after a failure.
    Fail {
        /// Like that of `Release`.
        delay_ms: u64,
    },
    /// Rejected: dead-lettered, or dropped.
    Reject,
}

impl Settlement {
    /// Requeued at once, if the queue has no delay for it.
    pub const RELEASE: Self = Self::Release { delay_ms: 0 };
    /// Requeued after a failure, at once if the queue has no delay for it.
    pub const FAIL: Self = Self::Fail { delay_ms: 0 };
}

/// What a client says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is settled.
    Settled(Settlement),
    /// The message is accepted, and its delivery id stays in use until it is settled; then how does not matter (MQTT:
    /// QoS 2 between PUBREC and PUBCOMP). It still counts in windows, and has no consumer timeout.
    AcceptedIdKept,
    /// It stays unsettled, and its consumer timeout ends in so many milliseconds from now.
    Extended {
        /// In milliseconds.
        ms: u64,
    },
}

/// Settles deliveries of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The request.
    pub origin: Origin,
    /// Which deliveries.
    pub deliveries: Deliveries,
    /// What becomes of them.
    pub outcome: Outcome,
    /// The transaction in which they are settled, if it is one that [`crate::Ask::Begin`] has begun.
    pub transaction: Option<TransactionId>,
}

/// Deliveries of a channel by their numbers, the delivery tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliveries {
    /// This one. It is an error if it is not unsettled.
    One(u64),
    /// All unsettled ones up to this one. It is an error if this one is not unsettled (AMQP 0-9-1: multiple; STOMP:
    /// client).
    UpTo(u64),
    /// All unsettled ones.
    All,
    /// All unsettled ones of this range, which may be none (AMQP 1.0: disposition; OpenWire: ack ranges).
    Range {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
}
