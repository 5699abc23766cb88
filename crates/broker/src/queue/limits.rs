//! Length limits: how much may be ready in a queue, and whether the front message is dropped or the new one
//! refused.

use ferrymq_model::Facts;

use super::shard::Queue;
use super::{Overflow, QueueSettings};

/// A queue's limits in a form for comparing; without a limit nothing is above it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LengthLimit {
    messages: u64,
    bytes: u64,
    overflow: Overflow,
}

impl LengthLimit {
    pub(super) fn of(settings: &QueueSettings) -> Self {
        Self {
            messages: settings.messages_max.unwrap_or(u64::MAX),
            bytes: settings.bytes_max.unwrap_or(u64::MAX),
            overflow: settings.overflow,
        }
    }
}

impl Queue {
    /// Whether the front message has to be dropped. (AMQP-65)
    #[inline]
    pub(super) fn is_over_limit(&self) -> bool {
        (self.ready > self.limit.messages || self.ready_bytes > self.limit.bytes)
            && self.limit.overflow == Overflow::DropHead
    }

    /// Whether a new message is refused. As in RabbitMQ, it does not matter whether a consumer would accept it at
    /// once. (AMQP-65)
    #[inline]
    pub(super) fn refuses(&self, facts: &Facts) -> bool {
        self.limit.overflow != Overflow::DropHead && self.is_full(facts)
    }

    /// With at-least-once dead-lettering, dead letters that are not accepted count too.
    fn is_full(&self, facts: &Facts) -> bool {
        let (messages, bytes) = if self.is_at_least_once() {
            (self.pending_dead_letters.messages, self.pending_dead_letters.bytes)
        } else {
            (0, 0)
        };
        self.ready + messages >= self.limit.messages
            || self.ready_bytes + bytes + u64::from(facts.body_bytes) > self.limit.bytes
    }
}
