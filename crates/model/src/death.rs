//! Dead-lettering, as the node describes it to the crate of a protocol.

use crate::Time;

/// Why a message is dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected,
    /// It expired.
    Expired,
    /// Its queue was over its length limit.
    MaxLength,
    /// It came back more often than the delivery limit allows.
    DeliveryLimit,
}

impl DeathReason {
    const ALL: [Self; 4] = [Self::Rejected, Self::Expired, Self::MaxLength, Self::DeliveryLimit];

    /// The value that storage keeps in place of a message's attempts while the message waits as an at-least-once dead
    /// letter. It is stored: never change it.
    #[must_use]
    pub const fn as_attempts(self) -> u32 {
        u32::MAX - self as u32
    }

    /// The reason that is stored in place of the attempts, if there is one.
    #[must_use]
    pub fn from_attempts(attempts: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_attempts() == attempts)
    }
}

/// Why, when and from where a message is dead-lettered.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// The reason.
    pub reason: DeathReason,
    /// The exchange that had routed it to the queue.
    pub exchange: &'a str,
    /// Its routing key until now.
    pub routing_key: &'a [u8],
    /// Whether it gets another routing key, which also replaces the further keys (AMQP: CC).
    pub new_key: bool,
    /// The time.
    pub at: Time,
}

/// A message's properties after dead-lettering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The properties, with this death added and the expiration removed.
    pub properties: Vec<u8>,
    /// The further routing keys that the message keeps.
    pub more_keys: Vec<Vec<u8>>,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// All its deaths, the latest first and this one included: the queue's name, and whether a consumer rejected it
    /// there. A message that would enter a queue again without a rejection in between is in a cycle.
    pub deaths: Vec<(String, bool)>,
}
