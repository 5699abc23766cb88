//! Settling deliveries.

use ferrymq_broker::SequenceRange;
use ferrymq_model::{Deliveries, Event, Origin, Outcome, Refusal, Reply, Settle, Settlement, TransactionId};

use super::{Client, transaction::not_open};
use crate::{connection::ledger::Kind, core::transition::Deferred};

/// Shorter extensions do not make the node look at all channels more often.
const EXTENSION_MS_MIN: u64 = 1_000;

impl Client {
    /// Removes deliveries from their counters. They are settled with the rest of the batch.
    pub(super) fn collect_settle(&mut self, settle: Settle, events: &mut Vec<Event>) {
        let Settle { origin, deliveries, outcome, transaction } = settle;
        let number = origin.channel;
        let mut mailbox = self.connection.mailbox();
        let Some(channel) = mailbox.state.channels.get(&number).filter(|channel| !channel.refused) else { return };
        let transaction = transaction.or(channel.is_transactional.then_some(TransactionId::SELECTED));
        let known = match (outcome, transaction) {
            (_, Some(id)) if !channel.transactions.contains_key(&id) => {
                return mailbox.refuse(origin, &not_open(id), events);
            }
            (Outcome::Settled(settlement), Some(id)) => {
                let (known, bytes) = mailbox.set_aside(number, id, deliveries, settlement);
                self.connection.account.add(Kind::Transactions, bytes);
                known
            }
            (_, Some(_)) => {
                let text = "only settlements can wait for a commit";
                return mailbox.refuse(origin, &Refusal::CommandInvalid(text.to_owned()), events);
            }
            (Outcome::Settled(_), None) => mailbox.settle(number, deliveries, &mut self.settled),
            (Outcome::AcceptedIdKept, None) => mailbox.accept_and_keep(number, deliveries, &mut self.settled),
            (Outcome::Extended { ms }, None) => mailbox.extend(number, deliveries, self.node.now().after_ms(ms)),
        };
        // AMQP-43
        if !known && let Deliveries::One(tag) | Deliveries::UpTo(tag) = deliveries {
            let refusal = Refusal::PreconditionFailed(format!("unknown delivery tag {tag}"));
            mailbox.refuse(origin, &refusal, events);
        }
        drop(mailbox);
        self.credit_is_back = true;
        if transaction.is_some() {
            self.node.look_at_ledger_if_due();
        }
        if let (Outcome::Extended { ms }, true) = (outcome, known) {
            // The node may have to look at the channel sooner than before.
            let mut deferred = Deferred::default();
            self.node.decide(&mut deferred, |_, ports| ports.watch_for(ms.max(EXTENSION_MS_MIN)));
            self.run_deferred(deferred);
        }
    }

    /// Whether there are settlements that are not decided, or credit that subscriptions do not use yet.
    #[inline]
    pub(super) fn has_settled(&self) -> bool {
        !self.settled.is_empty() || self.credit_is_back
    }

    /// Requeues everything that the channel holds unsettled: whatever its client gets before the answer. (AMQP-45)
    pub(super) fn recover(&mut self, origin: Origin) -> Result<(), Refusal> {
        let mut deferred = Deferred::default();
        self.node.decide(&mut deferred, |shard, ports| {
            let (mut held, mut mailbox) = (Vec::new(), self.connection.mailbox());
            // Under the shard's lock, without which nothing is delivered: what others publish is either delivered before
            // the answer and requeued, or delivered after it.
            mailbox.settle(origin.channel, Deliveries::All, &mut held);
            let waiting = mailbox.take_waiting(self.connection.id());
            // Before any of them can be delivered again: clients rely on that order.
            mailbox.reply(origin, None, Reply::Recovered);
            drop(mailbox);
            ports.touch(&self.connection);
            shard.settle(&held, Settlement::RELEASE, ports.now(), ports);
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
        let waiting = self.connection.mailbox().take_waiting(self.connection.id());
        let settlement = self.settlement;
        self.credit_is_back = false;
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
