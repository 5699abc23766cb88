//! Prepared transactions: they are decided later, from any connection and also after a restart (X/Open XA).

use ferrymq_broker::{Catalog, Committed, History, KeptMessage, PreparedTransaction};
use ferrymq_model::{CatalogEntry, Limits, Origin, Refusal, Reply, Settlement, TransactionId};

use super::{
    Client,
    history::facts_of,
    message::{kept_of, message_of},
    transaction::not_open,
};
use crate::{
    connection::{ledger::Kind, transaction::message_bytes},
    core::{
        node::Node,
        prepared::Prepared,
        start::NodeError,
        transition::{CatalogLock, Deferred},
    },
    routing::envelope::{Routed, with_envelope},
};

impl Client {
    pub(super) fn prepare(&mut self, origin: Origin, id: TransactionId, name: Vec<u8>) -> Result<(), Refusal> {
        let (mut deferred, catalog) = (Deferred::default(), self.node.catalog.read());
        let position = self.node.decide_unit(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            // Under the shard's lock: of two that want a name, one gets it.
            let prepared = self.take_for_prepare(origin.channel, id, name)?;
            ports.write_changes(&prepared.transaction.entries(false));
            shard.credit(&self.connection.mailbox().take_waiting(self.connection.id()));
            self.node.prepared.lock().insert(prepared);
            Ok(ports.flushed_position())
        });
        drop(catalog);
        if let Ok(position) = position {
            self.reply(origin, Some(position), Reply::TxPrepared);
        }
        self.run_deferred(deferred);
        position.map(|_| ())
    }

    /// Takes a transaction out of its channel, if it can be prepared.
    fn take_for_prepare(&self, channel: u16, id: TransactionId, name: Vec<u8>) -> Result<Prepared, Refusal> {
        let (vhost, user) = (self.caller().vhost.clone(), self.caller().user.clone());
        if name.len() > Limits::PREPARED_NAME_BYTES_MAX {
            let max = Limits::PREPARED_NAME_BYTES_MAX;
            return Err(Refusal::PreconditionFailed(format!("a transaction's name has at most {max} bytes")));
        }
        let bytes = self.with_channel(channel, |channel| {
            channel.transactions.get(&id).map(|open| open.publishes.iter().map(message_bytes).sum::<usize>())
        });
        let bytes = bytes.ok_or_else(|| not_open(id))?;
        self.node.prepared.lock().check(&(vhost.clone(), name.clone()), bytes)?;
        let (transaction, settlements) = {
            let mut mailbox = self.connection.mailbox();
            let mut transaction = mailbox.end_transaction(channel, id).ok_or_else(|| not_open(id))?;
            let settlements = std::mem::take(&mut transaction.settlements);
            (transaction, mailbox.committed(channel, settlements))
        };
        self.connection.account.subtract(Kind::Transactions, transaction.bytes);
        let kept = |publish| kept_of(publish, &message_of(publish, &[]));
        let publishes = transaction.publishes.iter().map(kept).collect();
        let prepared = PreparedTransaction { vhost, name, user, publishes, settlements };
        Ok(Prepared { transaction: prepared.into(), bytes, is_decided: false })
    }

    /// Commits a prepared transaction, or rolls it back.
    pub(super) fn decide_prepared(&mut self, origin: Origin, name: &[u8], commits: bool) -> Result<(), Refusal> {
        let key = (self.caller().vhost.clone(), name.to_vec());
        let found = self.node.prepared.lock().begin_decision(&key, self.caller().user);
        let Some(found) = found else {
            return Err(Refusal::PreconditionFailed("no transaction of this name is prepared".to_owned()));
        };
        let (now, mut deferred) = (self.node.now(), Deferred::default());
        let catalog = self.node.catalog.read();
        let publishes = if commits { &found.publishes[..] } else { &[] };
        let routed: Vec<_> = publishes.iter().map(|kept| self.node.route_kept(&catalog, &found.vhost, kept)).collect();
        let messages = publishes.iter().zip(&routed).map(|(kept, Routed { targets, matched })| Committed {
            message: kept.message.borrowed(),
            facts: facts_of(kept, now),
            persistent: kept.persistent,
            targets,
            matched,
        });
        let settlements: Vec<_> = found
            .settlements
            .iter()
            .map(|(settlement, ranges)| (if commits { *settlement } else { Settlement::RELEASE }, ranges.clone()))
            .collect();
        let gone = found.entries(true);
        let position = self.node.decide_unit(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            shard.commit(messages, &settlements, now, ports);
            ports.write_changes(&gone);
            self.node.prepared.lock().remove(&key);
            ports.flushed_position()
        });
        drop(catalog);
        self.reply(origin, Some(position), if commits { Reply::TxCommitted } else { Reply::TxRolledBack });
        self.run_deferred(deferred);
        Ok(())
    }

    pub(super) fn list_prepared(&mut self, origin: Origin) -> Result<(), Refusal> {
        let caller = self.caller();
        let names = self.node.prepared.lock().names(caller.vhost, caller.user);
        self.reply(origin, None, Reply::Prepared(names));
        Ok(())
    }
}

impl Node {
    /// The queues of a message that was checked before, and the bindings that ask to be named; none if its exchange was
    /// deleted meanwhile.
    fn route_kept(&self, catalog: &Catalog, vhost: &str, kept: &KeptMessage) -> Routed {
        let (message, mut targets) = (kept.message.borrowed(), Vec::new());
        let keep = |history: &History| self.keep(history, kept.clone());
        let (key, more_keys) = (message.routing_key, &*kept.more_keys);
        let (routed, matched) = with_envelope(&self.dialects, &message, &|| self.random() as u64, &keep, |envelope| {
            catalog.route(vhost, message.exchange, key, more_keys, envelope, &mut targets)
        });
        if routed.is_ok() { Routed { targets, matched } } else { Routed::default() }
    }

    /// After a restart: what prepared transactions settle is not ready.
    pub(crate) fn restore_prepared(&self, entries: &[CatalogEntry]) -> Result<(), NodeError> {
        let loaded = PreparedTransaction::load(entries).map_err(NodeError::Prepared)?;
        let mut core = self.core.lock();
        for mut found in loaded {
            for (_, ranges) in &mut found.settlements {
                *ranges = ranges.iter().flat_map(|range| core.shard.hold(*range)).collect();
            }
            self.prepared.lock().insert(Prepared::recovered(found));
        }
        Ok(())
    }
}
