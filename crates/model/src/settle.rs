//! What a client says of its deliveries.

use crate::Origin;

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Accepted: the message is removed.
    Accept,
    /// Requeued.
    Release,
    /// Requeued after a failure.
    Fail,
    /// Rejected: dead-lettered, or dropped.
    Reject,
}

/// Settles deliveries of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The request.
    pub origin: Origin,
    /// Which deliveries.
    pub deliveries: Deliveries,
    /// How they are settled.
    pub settlement: Settlement,
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
