//! Settling deliveries.

use ferrymq_broker::SequenceRange;
use ferrymq_model::{Deliveries, Event, Origin, Refusal, Reply, Settle, Settlement};

use super::Client;
use crate::core::transition::Deferred;

impl Client {
    /// Removes deliveries from their counters. They are settled with the rest of the batch.
    pub(super) fn collect_settle(&mut self, settle: Settle, events: &mut Vec<Event>) {
        self.settlement = settle.settlement;
        let Settle { origin, deliveries, settlement } = settle;
        let mut mailbox = self.connection.mailbox();
        let Some(channel) = mailbox.channels.get(&origin.channel).filter(|channel| !channel.refused) else { return };
        let known = if channel.transaction.is_some() {
            mailbox.set_aside(origin.channel, deliveries, settlement)
        } else {
            mailbox.settle(origin.channel, deliveries, &mut self.settled)
        };
        if !known && let Deliveries::One(tag) | Deliveries::UpTo(tag) = deliveries {
            let refusal = Refusal::PreconditionFailed(format!("unknown delivery tag {tag}"));
            mailbox.refuse(origin, &refusal, events);
        }
    }

    /// Requeues everything that the channel holds unsettled.
    pub(super) fn recover(&mut self, origin: Origin) -> Result<(), Refusal> {
        let mut held = Vec::new();
        let waiting = {
            let mut mailbox = self.connection.mailbox();
            mailbox.settle(origin.channel, Deliveries::All, &mut held);
            mailbox.take_waiting(self.connection.id)
        };
        let mut deferred = Deferred::default();
        self.node.decide(&mut deferred, |shard, ports| {
            // Before any of them can be delivered again: clients rely on that order.
            self.connection.mailbox().reply(origin, None, Reply::Recovered);
            ports.touch(&self.connection);
            shard.settle(&held, Settlement::Release, ports.now(), ports);
            shard.credit(&waiting);
        });
        self.run_deferred(deferred);
        Ok(())
    }

    pub(super) fn count_acked<'a>(&self, ranges: impl Iterator<Item = &'a SequenceRange>) {
        if let Some(counters) = self.connection.usage_counters.get() {
            counters.acked(ranges.map(|range| range.last + 1 - range.first).sum());
        }
    }

    /// Decides the settlements that were collected so far, and lets this connection's subscriptions use the credit.
    pub(super) fn settle_collected(&mut self) {
        let settled = std::mem::take(&mut self.settled);
        let waiting = self.connection.mailbox().take_waiting(self.connection.id);
        let settlement = self.settlement;
        let mut deferred = Deferred::default();
        self.node.decide(&mut deferred, |shard, ports| {
            shard.settle(&settled, settlement, ports.now(), ports);
            shard.credit(&waiting);
        });
        if settlement == Settlement::Accept {
            self.count_acked(settled.iter());
        }
        self.settled = settled;
        self.settled.clear();
        self.run_deferred(deferred);
    }
}
