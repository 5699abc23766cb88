//! Transactions: publishes and settlements that wait for a commit, and then apply together or not at all.
//!
//! As in RabbitMQ, an error in one of them is reported when it arrives. Unlike in RabbitMQ, a commit is atomic over
//! all its queues: it is one unit of the journal.

use ferrymq_broker::Committed;
use ferrymq_model::{Origin, Publish, Refusal, Reply, ReturnReason, Settlement, TransactionId};

use super::{
    Client,
    message::{body_bytes, facts_of, message_of},
};
use crate::{
    connection::{ledger::Kind, transaction::Transaction},
    core::transition::{CatalogLock, Deferred},
    management::counters::Batch,
    routing::envelope::Routed,
};

/// How many transactions of one channel may be open.
const OPEN_MAX: usize = 1_000;

impl Client {
    pub(super) fn select_transactions(&mut self, origin: Origin) -> Result<(), Refusal> {
        self.with_channel(origin.channel, |channel| {
            // AMQP-36
            if channel.confirms.is_some() {
                return Err(Refusal::PreconditionFailed("cannot switch from confirm to tx mode".to_owned()));
            }
            channel.is_transactional = true;
            channel.transactions.entry(TransactionId::SELECTED).or_default();
            Ok(())
        })?;
        self.reply(origin, None, Reply::TxSelected);
        Ok(())
    }

    pub(super) fn begin(&mut self, origin: Origin, id: TransactionId) -> Result<(), Refusal> {
        self.with_channel(origin.channel, |channel| {
            if channel.transactions.contains_key(&id) {
                return Err(Refusal::PreconditionFailed(format!("transaction {} is open", id.0)));
            }
            if channel.transactions.len() >= OPEN_MAX {
                return Err(Refusal::ResourceLimit(format!("{OPEN_MAX} transactions of the channel are open")));
            }
            channel.transactions.insert(id, Transaction::default());
            Ok(())
        })?;
        self.reply(origin, None, Reply::TxBegun);
        Ok(())
    }

    pub(super) fn roll_back(&mut self, origin: Origin, id: TransactionId) -> Result<(), Refusal> {
        let bytes = self.connection.mailbox().roll_back(origin.channel, id).ok_or_else(|| not_open(id))?;
        self.connection.account.subtract(Kind::Transactions, bytes);
        self.reply(origin, None, Reply::TxRolledBack);
        Ok(())
    }

    // AMQP-37
    pub(super) fn commit(&mut self, origin: Origin, id: TransactionId) -> Result<(), Refusal> {
        let channel = origin.channel;
        let (publishes, settlements) = {
            let mut mailbox = self.connection.mailbox();
            let transaction = mailbox.end_transaction(channel, id).ok_or_else(|| not_open(id))?;
            self.connection.account.subtract(Kind::Transactions, transaction.bytes);
            (transaction.publishes, mailbox.committed(channel, transaction.settlements))
        };
        let waiting = self.connection.mailbox().take_waiting(self.connection.id());
        let (now, mut deferred) = (self.node.now(), Deferred::default());
        let catalog = self.node.catalog.read();
        let routed: Vec<Routed> =
            publishes.iter().map(|publish| self.node.route_again(&catalog, self.caller().vhost, publish)).collect();
        if self.node.firehose.is_on() {
            for (publish, Routed { targets, .. }) in publishes.iter().zip(&routed) {
                self.trace_publish(&catalog, publish, &message_of(publish, &[]), targets, &mut deferred);
            }
        }
        let messages = publishes.iter().zip(&routed).map(|(publish, Routed { targets, matched })| {
            let message = message_of(publish, &[]);
            let facts = facts_of(publish, &message, now);
            Committed { message, facts, persistent: publish.persistent, targets, matched }
        });
        let (published, position) =
            self.node.decide_with(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
                let published = shard.commit(messages, &settlements, ports.now(), ports);
                shard.credit(&waiting);
                (published, ports.flushed_position())
            });
        drop(catalog);
        let accepted = settlements.iter().filter(|(settlement, _)| *settlement == Settlement::Accept);
        self.count_acked(accepted.flat_map(|(_, ranges)| ranges));
        let mut batch = Batch::default();
        publishes.iter().for_each(|publish| batch.add(body_bytes(publish)));
        if let Some(counters) = self.connection.usage_counters.get() {
            counters.published(batch);
        }
        let mut unroutable = Vec::new();
        for (publish, _) in publishes.iter().zip(&published).filter(|(_, published)| published.queues == 0) {
            let message = message_of(publish, &[]);
            let target = self.node.replies.find(message.routing_key).filter(|_| message.exchange.is_empty());
            match target {
                Some(target) if self.node.deliver_reply(&target, &message) => {
                    deferred.touch(&target.connection);
                }
                _ => unroutable.push(publish),
            }
        }
        self.return_unroutable(channel, &unroutable);
        self.reply(origin, Some(position), Reply::TxCommitted);
        self.run_deferred(deferred);
        Ok(())
    }

    /// Returns the mandatory messages that are unroutable.
    fn return_unroutable(&self, channel: u16, unroutable: &[&Publish]) {
        let mut mailbox = self.connection.mailbox();
        for publish in unroutable.iter().filter(|publish| publish.mandatory) {
            mailbox.effects.returned(channel, ReturnReason::Unroutable, &message_of(publish, &[]));
        }
    }
}

/// The refusal of a request that names a transaction that is not open.
pub(super) fn not_open(id: TransactionId) -> Refusal {
    Refusal::PreconditionFailed(match id {
        TransactionId::SELECTED => "channel is not transactional".to_owned(),
        TransactionId(number) => format!("transaction {number} is not open"),
    })
}
