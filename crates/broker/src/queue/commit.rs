//! Transactions: messages and settlements over several queues, applied together or not at all.

use ferrymq_model::{Facts, MessageRef, QueueId, Settlement, Time};

use super::shard::Shard;
use super::{Ports, Published, SequenceRange};

/// A message that a transaction publishes, and its targets: each queue once.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// Its properties and body.
    pub message: MessageRef<'a>,
    /// Its facts.
    pub facts: Facts,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// Its queues, in ascending order.
    pub targets: &'a [QueueId],
    /// The bindings that ask to be named, for each queue that it reaches through them.
    pub matched: &'a [(QueueId, u64)],
}

impl Shard {
    /// Publishes messages and settles deliveries, like [`Shard::publish`] and [`Shard::settle`], in this order and
    /// in one unit: all of it survives a crash, or nothing. Returns the outcome of each message.
    pub fn commit<'a>(
        &mut self,
        publishes: impl IntoIterator<Item = Committed<'a>>,
        settlements: &[(Settlement, Vec<SequenceRange>)],
        now: Time,
        ports: &mut impl Ports,
    ) -> Vec<Published> {
        ports.begin_unit();
        let published = publishes
            .into_iter()
            .map(|one| self.publish_matched(&one.message, &one.facts, one.persistent, one.targets, one.matched, ports))
            .collect();
        for (settlement, ranges) in settlements {
            self.settle(ranges, *settlement, now, ports);
        }
        ports.end_unit();
        published
    }
}
