//! Publishing in the broker under test, one by one and in transactions.

use std::collections::BTreeSet;

use ferrymq_broker::{Committed, Ports, Published};
use ferrymq_model::{BodyRef, DialectId, Facts, MessageRef, QueueId, Refusal, Settlement};

use super::messages::ranges_of;
use super::{Checked, Held, World, caller, names};
use crate::port::Written;
use crate::reference::{By, Full, Publish};

/// What a connection has done since its last commit.
#[derive(Debug, Default)]
pub struct Transaction {
    publishes: Vec<Publish>,
    pub(super) settlements: Vec<(Settlement, Vec<Held>)>,
}

/// A publish on its way into the broker.
struct Routed {
    publish: Publish,
    body: Vec<u8>,
    facts: Facts,
    targets: Vec<QueueId>,
    names: BTreeSet<String>,
}

impl Routed {
    fn message(&self) -> MessageRef<'_> {
        MessageRef {
            dialect: DialectId(1),
            exchange: &self.publish.exchange,
            routing_key: &self.publish.keys[0],
            properties: &[],
            annotations: &[],
            body: BodyRef::Inline(&self.body),
        }
    }
}

impl World {
    /// The publish gets its number and length here.
    pub fn publish(&mut self, by: By, mut publish: Publish) -> Checked {
        publish.id = self.port.write(Written { persistent: publish.envelope.persistent, ..Written::default() });
        publish.bytes = 8 + publish.id % 5;
        let (user, vhost) = names(by);
        let keys = &publish.keys;
        let may = self.catalog.may_publish(&caller(by, &user, &vhost), &publish.exchange, &keys[0], &keys[1..]);
        let answer = may.and_then(|()| self.targets_of(&publish, 0));
        let expected = self.reference.may_publish(by, &publish.exchange);
        let Ok(targets) = answer else { return self.agree("publish", answer.map(drop), expected) };
        if let Some(transaction) = self.transactions.get_mut(&by.connection) {
            transaction.publishes.push(publish);
            return self.agree("publish in a transaction", Ok(()), expected);
        }
        let routed = self.routed(publish, targets)?;
        let mut published = Published::default();
        // Each shard decides over its own queues, in ascending order.
        for shard in 0..self.shards.len() {
            let own = self.own_targets(&routed, shard);
            let persistent = routed.publish.envelope.persistent;
            let one = self.shards[shard].publish(&routed.message(), &routed.facts, persistent, &own, &mut self.port);
            published.queues += one.queues;
            published.refused |= one.refused;
        }
        assert_eq!(published.queues as usize, routed.targets.len(), "every target was reached");
        let refused = self.reference.take_in(&routed.publish, &routed.names);
        if refused {
            self.count("publish: refused");
        }
        self.agree("publish", Ok(published.refused), expected.map(|()| refused))
    }

    fn targets_of(&self, publish: &Publish, random: u64) -> Result<Vec<QueueId>, Refusal> {
        let (mut targets, keys) = (Vec::new(), &publish.keys);
        let envelope = ferrymq_broker::Envelope {
            headers: &|| publish.headers.clone(),
            random: &|| publish.id + random,
            ..ferrymq_broker::Envelope::EMPTY
        };
        self.catalog.route("/", &publish.exchange, &keys[0], &keys[1..], &envelope, &mut targets)?;
        Ok(targets)
    }

    /// Whether the broker may send it there.
    fn routed(&mut self, mut publish: Publish, targets: Vec<QueueId>) -> Result<Routed, String> {
        let names: BTreeSet<_> = targets.iter().map(|id| self.names[id].clone()).collect();
        let ways = self.reference.routes(&publish.exchange, &publish.keys, &publish.headers);
        let met = std::mem::take(&mut self.reference.met);
        let chance = met.contains(&"publish: left to chance");
        if !ways.contains(&names) {
            return Err(format!("{publish:?} goes to {names:?}, which is none of {ways:?}"));
        }
        if !chance && self.targets_of(&publish, 1).unwrap_or_default() != targets {
            return Err(format!("{publish:?} goes elsewhere when it is routed again"));
        }
        met.into_iter().for_each(|what| self.count(what));
        if names.is_empty() {
            self.count("publish: unroutable");
        }
        // See the reference's policies.
        if names.iter().any(|name| self.reference.queues[name].policy.full != Full::DropHead) {
            publish.envelope.expiration_ms = None;
        }
        let mut body = publish.id.to_le_bytes().to_vec();
        body.resize(publish.bytes as usize, 0);
        let facts = Facts {
            body_bytes: body.len() as u32,
            priority: publish.envelope.priority,
            expires: publish.envelope.expiration_ms.map(|ms| self.now().after_ms(ms)),
            arrived: self.now(),
        };
        Ok(Routed { publish, body, facts, targets, names })
    }

    fn own_targets(&self, routed: &Routed, shard: usize) -> Vec<QueueId> {
        routed.targets.iter().copied().filter(|id| self.index(*id) == shard).collect()
    }

    // Transactions.

    /// The connection is transactional from now on.
    pub fn select(&mut self, connection: u64) -> Checked {
        self.transactions.entry(connection).or_default();
        self.agree("select", Ok(()), Ok(()))
    }

    pub fn rollback(&mut self, connection: u64) -> Checked {
        if self.transactions.contains_key(&connection) {
            self.forget_transaction(connection);
            self.transactions.insert(connection, Transaction::default());
            self.count("rollback: done");
        }
        Ok(())
    }

    /// Settled and uncommitted deliveries are held again, and uncommitted publishes are discarded.
    pub(super) fn forget_transaction(&mut self, connection: u64) {
        let forgotten = self.transactions.remove(&connection).unwrap_or_default();
        self.held.extend(forgotten.settlements.into_iter().flat_map(|(_, held)| held));
    }

    /// All of it happens, or nothing. The power may fail after this many of the broker's decisions, or right after
    /// the last.
    pub fn commit(&mut self, connection: u64, power: Option<u64>) -> Checked {
        let Some(transaction) = self.transactions.get_mut(&connection).map(std::mem::take) else { return Ok(()) };
        let mut routed = Vec::new();
        for publish in transaction.publishes {
            // Its exchange may be deleted meanwhile.
            let targets = self.targets_of(&publish, 0).unwrap_or_default();
            routed.push(self.routed(publish, targets)?);
        }
        let before = power.map(|_| self.reference.clone());
        self.port.lose_power_after(power);
        if self.shards.len() > 1 {
            self.port.begin_unit();
        }
        let published: Vec<_> =
            (0..self.shards.len()).flat_map(|shard| self.commit_in(shard, &routed, &transaction.settlements)).collect();
        if self.shards.len() > 1 {
            self.port.end_unit();
        }
        let survives = power.is_none() || self.port.restore_power();
        if !survives {
            self.count("commit: undone by a crash");
            self.committing.clear();
            self.reference = before.expect("the power was to fail");
            return self.restart(true);
        }
        self.take_events()?;
        if !published.iter().map(|one| one.refused).eq(self.refusals.drain(..)) {
            return Err(format!("commit: {published:?} is not what the reference refused"));
        }
        for (settlement, held) in &transaction.settlements {
            self.settled(*settlement, held);
        }
        if power.is_some() {
            self.count("commit: survives a crash");
            return self.restart(true);
        }
        self.agree("commit", Ok(()), Ok(()))
    }

    /// What a shard does for a commit, which the reference does not have yet.
    fn commit_in(
        &mut self,
        shard: usize,
        routed: &[Routed],
        settlements: &[(Settlement, Vec<Held>)],
    ) -> Vec<Published> {
        let own: Vec<_> = routed.iter().map(|one| self.own_targets(one, shard)).collect();
        for (one, targets) in routed.iter().zip(&own) {
            let names = targets.iter().map(|id| self.names[id].clone()).collect();
            self.committing.push_back((one.publish.clone(), names));
        }
        let is_own = |held: &&Held| self.index(held.place.queue) == shard;
        let settlements: Vec<_> = settlements
            .iter()
            .map(|(settlement, held)| {
                (*settlement, ranges_of(&held.iter().filter(is_own).cloned().collect::<Vec<_>>()))
            })
            .collect();
        let begun = self.port.begun.clone();
        let publishes = routed.iter().zip(&own).map(|(one, targets)| {
            begun.set(begun.get() + 1);
            let persistent = one.publish.envelope.persistent;
            Committed { message: one.message(), facts: one.facts, persistent, targets, matched: &[] }
        });
        let now = self.reference.now;
        let published = self.shards[shard].commit(publishes, &settlements, now, &mut self.port);
        self.port.tell_begun();
        published
    }
}
