//! Dead-lettering: why and where messages die, and what a message that died says of it.

use std::borrow::Cow;

use crate::{Annotations, Dialect, MessageRef, Time};

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

    /// The value that annotations have for it, from 1. It is stored: never change it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The reason with this value.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// Why, when and from where a message is dead-lettered.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// The reason.
    pub reason: DeathReason,
    /// Whether it gets another routing key, which also replaces the further keys (AMQP: CC).
    pub new_key: bool,
    /// The time.
    pub at: Time,
}

/// The deaths of a message in one queue for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeathRecord<'a> {
    /// The queue; empty if a publisher wrote the record without one.
    pub queue: Cow<'a, str>,
    /// The reason; `None` if a publisher wrote one that the server does not know.
    pub reason: Option<DeathReason>,
    /// How many deaths.
    pub count: u64,
    /// The time of the first of them; 0 if a publisher wrote none.
    pub at: Time,
    /// The exchange through which the message had come to the queue, the first time.
    pub exchange: Cow<'a, str>,
    /// Its routing keys then: the first one, and the further ones that readers can see.
    pub routing_keys: Vec<&'a [u8]>,
    /// Its time to live then, in milliseconds, if it had one.
    pub ttl_ms: Option<u64>,
    /// The record's place in the publisher's own list, from 0, if the publisher wrote it. It may have more fields there,
    /// which a reader of the same protocol gets, too.
    pub written: Option<u32>,
}

impl<'a> DeathRecord<'a> {
    /// The place of its first death.
    #[must_use]
    pub fn place(&self) -> DeathPlace<'a> {
        DeathPlace { queue: self.queue.clone(), reason: self.reason, exchange: self.exchange.clone() }
    }
}

/// Where a message died, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeathPlace<'a> {
    /// The queue.
    pub queue: Cow<'a, str>,
    /// The reason.
    pub reason: Option<DeathReason>,
    /// The exchange through which it had come to the queue.
    pub exchange: Cow<'a, str>,
}

/// What becomes of a message as a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its annotations, with this death.
    pub annotations: Vec<u8>,
    /// The further routing keys that the message keeps.
    pub more_keys: Vec<Vec<u8>>,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// All its deaths, the latest first and this one included: the queue's name, and whether a consumer rejected it
    /// there. A message that would enter a queue again without a rejection in between is in a cycle.
    pub deaths: Vec<(String, bool)>,
}

impl DeadLetter {
    /// The message as it leaves `death.queue` for its dead-letter exchange.
    #[must_use]
    pub fn of(message: &MessageRef<'_>, dialect: &dyn Dialect, death: &Death<'_>) -> Self {
        let mut annotations = Annotations::read(message.annotations);
        if annotations.deaths.is_empty() {
            annotations.deaths = dialect.deaths(message);
        }
        let copies = if annotations.new_key { Vec::new() } else { dialect.more_keys(message) };
        let ttl_ms = if annotations.expiration_removed { None } else { dialect.ttl_ms(message) };
        let keys = std::iter::once(message.routing_key).chain(copies.iter().map(Vec::as_slice));
        let record = DeathRecord {
            queue: death.queue.into(),
            reason: Some(death.reason),
            count: 1,
            at: death.at,
            exchange: message.exchange.into(),
            routing_keys: keys.collect(),
            ttl_ms,
            written: None,
        };
        annotations.add_death(record);
        annotations.new_key |= death.new_key;
        annotations.expiration_removed = true;
        annotations.bindings.clear();
        annotations.forget_oldest_deaths();
        let named = annotations.deaths.iter().filter(|record| !record.queue.is_empty());
        Self {
            deaths: named
                .map(|record| (record.queue.to_string(), record.reason == Some(DeathReason::Rejected)))
                .collect(),
            annotations: annotations.write(),
            more_keys: if death.new_key { Vec::new() } else { copies },
            persistent: dialect.is_persistent(message),
        }
    }
}

impl<'a> Annotations<'a> {
    /// Adds a death. If there is a record for this queue and reason, it only counts one more; it keeps the time and the
    /// keys of the first death.
    fn add_death(&mut self, death: DeathRecord<'a>) {
        let place = death.place();
        if self.deaths.is_empty() {
            self.first_death = Some(place.clone());
        }
        let is_same = |record: &DeathRecord<'_>| record.queue == place.queue && record.reason == place.reason;
        let latest = match self.deaths.iter().find(|record| is_same(record)) {
            Some(before) => DeathRecord { count: before.count.saturating_add(1), ..before.clone() },
            None => death,
        };
        self.deaths.retain(|record| !is_same(record));
        self.deaths.insert(0, latest);
        self.last_death = Some(place);
    }
}
