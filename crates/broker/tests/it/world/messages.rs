//! Publishing and delivering in the broker under test, and crashes.

use std::collections::BTreeMap;

use ferrymq_broker::{Catalog, DeleteWhen, Got, HashKey, SequenceRange, Shard, Subscriber};
use ferrymq_model::{Access, ConnectionId, MessageKey, QueueId, Settlement, SubscriptionId};

use super::{Checked, Held, World, caller, names, plain, shard_of};
use crate::port::Event;
use crate::reference::{By, declared};

impl World {
    pub fn consume(
        &mut self,
        by: By,
        queue: &str,
        no_ack: bool,
        exclusive: bool,
        priority: i64,
        prefetch: u64,
    ) -> Checked {
        let (user, vhost) = names(by);
        let (now, number) = (self.now(), self.next_subscription);
        self.next_subscription += 1;
        let found = self.catalog.queue(&caller(by, &user, &vhost), queue, Some(Access::Read));
        let answer = found.map(|record| record.id).and_then(|id| {
            let subscriber = Subscriber { id: SubscriptionId(number), no_ack, exclusive, priority };
            self.shard(id).consume(id, subscriber, now)
        });
        let answer = answer.map(|there| assert!(there, "the catalog knows no queue that has gone"));
        if answer.is_ok() {
            self.subscriptions.insert(number, by.connection);
            if !no_ack && prefetch > 0 {
                self.port.credit.insert(number, prefetch);
            }
        }
        let expected = self.reference.consume(by, queue, number, no_ack, exclusive, priority);
        self.agree("consume", answer, expected)
    }

    pub fn cancel(&mut self, subscription: u64) -> Checked {
        let now = self.now();
        // Only its own shard knows it.
        for shard in &mut self.shards {
            shard.cancel(SubscriptionId(subscription), now, &mut self.port);
        }
        self.subscriptions.remove(&subscription);
        self.port.waiting.remove(&subscription);
        self.reference.cancel(subscription);
        self.agree("cancel", Ok(()), Ok(()))
    }

    pub fn get(&mut self, by: By, queue: &str, no_ack: bool) -> Checked {
        let expired = self.port.expired();
        let (user, vhost) = names(by);
        let found = self.catalog.queue(&caller(by, &user, &vhost), queue, Some(Access::Read));
        let answer = match found.map(|record| record.id) {
            Err(refusal) => Err(refusal),
            Ok(id) => Ok(self.get_from(by, id, no_ack)),
        };
        self.take_events()?;
        let expected = self.reference.get(by, queue, no_ack).map(|got| got.map(plain));
        // The next message may have to be read before it is found to have expired, or there may be too many for one
        // hold of the lock: then it is still counted.
        let inexact = !self.port.pending.is_empty() || self.port.expired() - expired >= 100;
        let answer = answer.map(|got| match (got, &expected) {
            (Some(got), Ok(Some(exact))) if inexact && got.4 > exact.4 => Some((got.0, got.1, got.2, got.3, exact.4)),
            (got, _) => got,
        });
        self.agree("get", answer, expected)
    }

    fn get_from(&mut self, by: By, id: QueueId, no_ack: bool) -> Option<(u64, bool, u32, bool, u64)> {
        let now = self.now();
        let shard = self.index(id);
        loop {
            match self.shards[shard].get(id, no_ack, now, &mut self.port) {
                Got::Pending => self.loaded(),
                Got::Busy => {
                    self.shards[shard].dispatch(now, &mut self.port);
                }
                Got::Empty => return None,
                Got::Gone => panic!("the catalog knows no queue that has gone"),
                Got::Message => break,
            }
        }
        let Some(Event::Got { place, body_bytes, given, remaining }) = self.port.events.pop() else {
            panic!("a message was given last");
        };
        if !no_ack {
            self.hold(by.connection, None, place, given.message, body_bytes);
        }
        Some(plain((given, remaining)))
    }

    pub fn purge(&mut self, by: By, queue: &str) -> Checked {
        let (user, vhost) = names(by);
        let found = self.catalog.queue(&caller(by, &user, &vhost), queue, Some(Access::Read));
        let answer = found.map(|record| record.id).map(|id| {
            let shard = self.index(id);
            self.shards[shard].purge(id, &mut self.port)
        });
        let expected = self.reference.purge(by, queue);
        self.agree("purge", answer, expected)
    }

    /// Settles the held deliveries for which `which` returns true, consecutive ones as one range.
    pub fn settle(&mut self, settlement: Settlement, mut which: impl FnMut(&Held) -> bool) -> Checked {
        let chosen: Vec<Held> = self.held.extract_if(.., |held| which(held)).collect();
        if let Some(transaction) = chosen.first().and_then(|held| self.transactions.get_mut(&held.connection)) {
            transaction.settlements.push((settlement, chosen));
            return self.agree("settle in a transaction", Ok(()), Ok(()));
        }
        let ranges = ranges_of(&chosen);
        let now = self.now();
        for shard in 0..self.shards.len() {
            let own: Vec<_> = ranges.iter().copied().filter(|one| self.index(one.queue) == shard).collect();
            self.shards[shard].settle(&own, settlement, now, &mut self.port);
        }
        self.settled(settlement, &chosen);
        self.agree(&format!("settle {settlement:?}"), Ok(()), Ok(()))
    }

    /// The broker has settled these.
    pub(super) fn settled(&mut self, settlement: Settlement, chosen: &[Held]) {
        for held in chosen {
            if let Some(credit) = held.subscription.and_then(|id| self.port.credit.get_mut(&id)) {
                *credit += 1;
            }
            // A queue that was declared again under the same name does not have it.
            if self.catalog.queue_by_id(held.place.queue.queue()).is_some() {
                self.reference.settle(&held.queue, held.message, settlement);
            }
        }
    }

    pub fn disconnect(&mut self, connection: u64) -> Checked {
        let own: Vec<u64> = self.subscriptions.iter().filter(|(_, of)| **of == connection).map(|(id, _)| *id).collect();
        for subscription in own {
            self.cancel(subscription)?;
        }
        self.forget_transaction(connection);
        self.settle(Settlement::RELEASE, |held| held.connection == connection)?;
        let owned: Vec<_> = self.catalog.owned_by(ConnectionId(connection)).collect();
        for id in owned {
            let shard = self.index(id);
            self.shards[shard].delete(id, DeleteWhen::default(), &mut self.port).unwrap();
        }
        self.reference.disconnect(connection);
        self.agree("disconnect", Ok(()), Ok(()))
    }

    pub fn advance(&mut self, ms: u64) -> Checked {
        let now = self.now().after_ms(ms);
        for shard in &mut self.shards {
            while shard.deadline().is_some_and(|deadline| deadline <= now) {
                shard.timeout(now, &mut self.port);
            }
        }
        self.reference.advance(now);
        self.agree("time passes", Ok(()), Ok(()))
    }

    /// A crash and a recovery, with the numbers of the shards or of storage.
    pub fn restart(&mut self, by_storage: bool) -> Checked {
        // By lane.
        let states: BTreeMap<_, _> = self
            .names
            .iter()
            .flat_map(|(id, name)| (0..=declared(name).priority_max).map(|lane| id.lane(lane)))
            .filter_map(|id| {
                let kept = self.port.states.get(&id).cloned();
                let state = if by_storage { kept } else { self.shards[self.index(id)].state(id) };
                Some((id, state?))
            })
            .collect();
        let entries: Vec<_> = self.port.catalog.values().cloned().collect();
        self.catalog =
            Catalog::load(&entries, HashKey::known(), &mut self.changes).map_err(|why| why.to_string())?.catalog;
        self.epoch = self.catalog.epoch("/").unwrap();
        let now = self.now();
        let catalog = &self.catalog;
        self.port.restart(|id| catalog.queue_by_id(id).is_some());
        self.shards.iter_mut().for_each(|shard| *shard = Shard::new());
        self.names.clear();
        self.port.queues.clear();
        for record in self.catalog.queues() {
            self.names.insert(record.id, record.settings.name.to_string());
            self.port.queues.insert(record.settings.name.to_string(), record.id);
            let lanes = states.range(record.id..=record.id.lane(u8::MAX));
            let recovered: Vec<_> = lanes.map(|(lane, state)| self.port.recovered(*lane, state.clone())).collect();
            let shard = shard_of(&record.settings.name, self.shards.len());
            self.shards[shard].open(record.id, record.settings.clone(), &recovered, now);
        }
        self.held.clear();
        self.transactions.clear();
        self.subscriptions.clear();
        self.port.events.clear();
        self.reference.restart();
        self.agree("restart", Ok(()), Ok(()))
    }
}

/// Consecutive deliveries as one range.
pub(super) fn ranges_of(chosen: &[Held]) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for held in chosen {
        let MessageKey { queue, sequence } = held.place;
        let body_bytes = u64::from(held.body_bytes);
        match ranges.last_mut() {
            Some(last) if last.queue == queue && last.last + 1 == sequence => {
                last.last = sequence;
                last.body_bytes += body_bytes;
            }
            _ => ranges.push(SequenceRange { queue, first: sequence, last: sequence, body_bytes }),
        }
    }
    ranges
}
