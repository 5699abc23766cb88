//! The broker under test: what `node` does with a catalog and shards, at its simplest, and beside it the reference.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_broker::{Caller, Catalog, DeleteWhen, Epoch, Got, Sabotage, Shard, Stretch, Subscriber};
use ferrymq_model::{
    Access, BindCommand, BodyRef, CatalogEntry, ConnectionId, DeclareExchange, DeclareQueue, DeleteExchange,
    DeleteQueue, Dialect, Facts, MessageRef, Name, Place, QueueId, Refusal, Settlement, SubscriptionId, Table, Time,
};

use crate::port::{Event, Port};
use crate::random::Random;
use crate::reference::{By, Given, LIMITED, No, Reference};

/// A delivery that a connection holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub connection: u64,
    pub subscription: Option<u64>,
    queue: String,
    place: Place,
    message: u64,
    body_bytes: u32,
}

#[derive(Debug)]
pub struct World {
    catalog: Catalog,
    shards: Vec<Shard>,
    sabotage: Option<Sabotage>,
    pub port: Port,
    pub reference: Reference,
    changes: Vec<CatalogEntry>,
    epoch: Epoch,
    names: BTreeMap<QueueId, String>,
    pub held: Vec<Held>,
    /// Subscriptions and their connections.
    pub subscriptions: BTreeMap<u64, u64>,
    pub next_message: u64,
    next_subscription: u64,
    pub happened: BTreeMap<String, u64>,
}

/// What a disagreement is about.
pub type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, shards: usize, moody: u64, sabotage: Option<Sabotage>) -> Self {
        let mut changes = Vec::new();
        let mut catalog = Catalog::fresh("hash", &mut changes);
        let (root, limited) = (Name::from("/"), Name::from("limited"));
        catalog.put_user(&limited, "", &[], &mut changes);
        let patterns = LIMITED.map(|beginnings| format!("^({})", beginnings.join("|")));
        let patterns = [&*patterns[0], &*patterns[1], &*patterns[2]];
        catalog.set_permission(&limited, &root, patterns, &mut changes).unwrap();
        let now = Time(1_000_000);
        let epoch = catalog.epoch("/").unwrap();
        let mut world = Self {
            catalog,
            shards: (0..shards).map(|_| new_shard(sabotage)).collect(),
            sabotage,
            port: Port::new(Random::new(seed ^ 0x5eed), moody),
            reference: Reference::new(now),
            changes,
            epoch,
            names: BTreeMap::new(),
            held: Vec::new(),
            subscriptions: BTreeMap::new(),
            next_message: 1,
            next_subscription: 1,
            happened: BTreeMap::new(),
        };
        world.port.keep(&mut world.changes);
        world
    }

    pub fn now(&self) -> Time {
        self.reference.now
    }

    pub fn declare_exchange(&mut self, by: By, request: &DeclareExchange) -> Checked {
        let (user, vhost) = names(by);
        let answer = self.catalog.declare_exchange(&caller(by, &user, &vhost), request, &mut self.changes);
        let expected = self.reference.declare_exchange(by, request);
        self.agree("declare exchange", answer, expected)
    }

    pub fn delete_exchange(&mut self, by: By, request: &DeleteExchange) -> Checked {
        let (user, vhost) = names(by);
        let answer = self.catalog.delete_exchange(&caller(by, &user, &vhost), request, &mut self.changes);
        let expected = self.reference.delete_exchange(by, request);
        self.agree("delete exchange", answer, expected)
    }

    pub fn declare_queue(&mut self, by: By, request: &DeclareQueue) -> Checked {
        let (user, vhost) = names(by);
        let now = self.now();
        let answer = self.catalog.declare_queue(&caller(by, &user, &vhost), request, 0, &mut self.changes);
        let answer = answer.map(|declared| {
            let queue = declared.queue;
            self.names.insert(queue, declared.name.to_string());
            if let Some(settings) = declared.created {
                self.shard(queue).open(queue, settings, &[], now);
            }
            self.shard(queue).used(queue, now);
            let counts = self.shard(queue).counts(queue).unwrap();
            (counts.ready, u64::from(counts.subscriptions))
        });
        let expected = self.reference.declare_queue(by, request);
        self.agree("declare queue", answer, expected)
    }

    pub fn delete_queue(&mut self, by: By, request: &DeleteQueue) -> Checked {
        let (user, vhost) = names(by);
        let found = self.catalog.queue(&caller(by, &user, &vhost), &request.queue, Some(Access::Configure));
        let answer = match found.map(|record| record.id) {
            Err(Refusal::NotFound { .. }) => Ok(0),
            Err(refusal) => Err(refusal),
            Ok(id) => {
                let when = DeleteWhen { unused: request.if_unused, empty: request.if_empty };
                let shard = self.index(id);
                self.shards[shard].delete(id, when, &mut self.port)
            }
        };
        let expected = self.reference.delete_queue(by, request);
        self.agree("delete queue", answer, expected)
    }

    pub fn bind(&mut self, by: By, request: &BindCommand) -> Checked {
        let (user, vhost) = names(by);
        let answer = self.catalog.bind(&caller(by, &user, &vhost), request, &mut self.changes);
        let expected = self.reference.bind(by, request);
        self.agree("bind", answer, expected)
    }

    pub fn unbind(&mut self, by: By, request: &BindCommand) -> Checked {
        let (user, vhost) = names(by);
        let answer = self.catalog.unbind(&caller(by, &user, &vhost), request, &mut self.changes);
        let expected = self.reference.unbind(by, request);
        self.agree("unbind", answer, expected)
    }

    pub fn publish(
        &mut self,
        by: By,
        exchange: &str,
        keys: &[Vec<u8>],
        headers: &Table,
        persistent: bool,
        expiration_ms: Option<u64>,
    ) -> Checked {
        let (user, vhost) = names(by);
        let number = self.next_message;
        self.next_message += 1;
        let mut body = number.to_le_bytes().to_vec();
        body.resize(8 + (number % 5) as usize, 0);
        let answer = self.catalog.may_publish(&caller(by, &user, &vhost), exchange).and_then(|()| {
            let mut targets = Vec::new();
            self.catalog.route("/", exchange, &keys[0], &keys[1..], &|| headers.clone(), &mut targets)?;
            Ok(targets)
        });
        let answer = answer.map(|targets| {
            let message = MessageRef {
                dialect: Dialect::Amqp091,
                exchange,
                routing_key: &keys[0],
                properties: &[],
                body: BodyRef::Inline(&body),
            };
            let facts = Facts {
                body_bytes: body.len() as u32,
                priority: 0,
                expires: expiration_ms.map(|ms| self.now().after_ms(ms)),
                arrived: self.now(),
            };
            let mut reached = 0;
            // Each shard decides over its own queues, in ascending order.
            for shard in 0..self.shards.len() {
                let own: Vec<_> = targets.iter().copied().filter(|id| self.index(*id) == shard).collect();
                reached += self.shards[shard].publish(&message, &facts, persistent, &own, &mut self.port).queues;
            }
            assert_eq!(reached as usize, targets.len(), "every target took it");
            targets.iter().map(|id| self.names[id].clone()).collect::<BTreeSet<_>>()
        });
        let sizes = (number, body.len() as u64);
        let expected = self.reference.publish(by, exchange, keys, headers, persistent, expiration_ms, sizes);
        if expected.as_ref().is_ok_and(BTreeSet::is_empty) {
            self.count("publish: unroutable");
        }
        self.agree("publish", answer, expected)
    }

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
        let expected = self.reference.get(by, queue, no_ack).map(|got| got.map(plain));
        // What stands next may have to be read before it is found to have expired, or be too much for one hold of the
        // lock: then it is still counted.
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
                Got::Busy => {}
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

    /// Settles the held deliveries for which `which` says so, consecutive ones as one stretch.
    pub fn settle(&mut self, settlement: Settlement, mut which: impl FnMut(&Held) -> bool) -> Checked {
        let chosen: Vec<Held> = self.held.extract_if(.., |held| which(held)).collect();
        let mut stretches: Vec<Stretch> = Vec::new();
        for held in &chosen {
            let Place { queue, sequence } = held.place;
            let body_bytes = u64::from(held.body_bytes);
            match stretches.last_mut() {
                Some(last) if last.queue == queue && last.last + 1 == sequence => {
                    last.last = sequence;
                    last.body_bytes += body_bytes;
                }
                _ => stretches.push(Stretch { queue, first: sequence, last: sequence, body_bytes }),
            }
        }
        for shard in 0..self.shards.len() {
            let own: Vec<_> = stretches.iter().copied().filter(|one| self.index(one.queue) == shard).collect();
            self.shards[shard].settle(&own, settlement, &mut self.port);
        }
        for held in &chosen {
            if let Some(credit) = held.subscription.and_then(|id| self.port.credit.get_mut(&id)) {
                *credit += 1;
            }
            // A queue that was made anew under the same name knows nothing of it.
            if self.catalog.queue_by_id(held.place.queue).is_some() {
                self.reference.settle(&held.queue, held.message, settlement);
            }
        }
        self.agree(&format!("settle {settlement:?}"), Ok(()), Ok(()))
    }

    pub fn disconnect(&mut self, connection: u64) -> Checked {
        let own: Vec<u64> = self.subscriptions.iter().filter(|(_, of)| **of == connection).map(|(id, _)| *id).collect();
        for subscription in own {
            self.cancel(subscription)?;
        }
        self.settle(Settlement::Release, |held| held.connection == connection)?;
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

    /// A crash and a recovery, with the numbers as the shards or as storage kept them.
    pub fn restart(&mut self, by_storage: bool) -> Checked {
        let states: BTreeMap<_, _> = self
            .names
            .keys()
            .filter_map(|id| {
                let kept = self.port.states.get(id).cloned();
                let state = if by_storage { kept } else { self.shards[self.index(*id)].state(*id) };
                Some((*id, state?))
            })
            .collect();
        let entries: Vec<_> = self.port.catalog.values().cloned().collect();
        self.catalog = Catalog::load(&entries, &mut self.changes).map_err(|why| why.to_string())?;
        self.epoch = self.catalog.epoch("/").unwrap();
        let now = self.now();
        let catalog = &self.catalog;
        self.port.restart(|id| catalog.queue_by_id(id).is_some());
        self.shards.iter_mut().for_each(|shard| *shard = new_shard(self.sabotage));
        self.names.clear();
        for record in self.catalog.queues() {
            self.names.insert(record.id, record.settings.name.to_string());
            let state = states.get(&record.id).cloned().unwrap_or_default();
            let recovered = self.port.recovered(record.id, state);
            let shard = shard_of(&record.settings.name, self.shards.len());
            self.shards[shard].open(record.id, record.settings.clone(), &[recovered], now);
        }
        self.held.clear();
        self.subscriptions.clear();
        self.port.events.clear();
        self.reference.restart();
        self.agree("restart", Ok(()), Ok(()))
    }

    // After every operation: both have said the same, the broker comes to rest, and all counts are alike.

    fn agree<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        broker: Result<T, Refusal>,
        reference: Result<T, No>,
    ) -> Checked {
        let outcome = match &broker {
            Ok(_) => "done".to_owned(),
            Err(refusal) => no_of(refusal).map_or_else(|| "strange".to_owned(), |no| format!("{no:?}")),
        };
        self.count(&format!("{what}: {outcome}"));
        let same = match (&broker, &reference) {
            (Ok(broker), Ok(reference)) => broker == reference,
            (Err(refusal), Err(no)) => no_of(refusal) == Some(*no),
            _ => false,
        };
        if !same {
            return Err(format!("{what}: the broker says {broker:?}, the reference {reference:?}"));
        }
        self.settle_down().map_err(|why| format!("{what}: {why}"))
    }

    fn count(&mut self, what: &str) {
        *self.happened.entry(what.to_owned()).or_default() += 1;
    }

    fn settle_down(&mut self) -> Checked {
        loop {
            self.take_events()?;
            self.port.keep(&mut self.changes);
            self.loaded();
            self.credit();
            let now = self.now();
            let mut busy = false;
            for shard in &mut self.shards {
                busy |= shard.dispatch(now, &mut self.port);
            }
            let can_go_on = |port: &Port| port.waiting.iter().any(|id| port.credit.get(id) != Some(&0));
            if !busy && self.port.events.is_empty() && self.port.pending.is_empty() && !can_go_on(&self.port) {
                break;
            }
        }
        self.reference.rest()?;
        self.compare()
    }

    fn take_events(&mut self) -> Checked {
        for event in std::mem::take(&mut self.port.events) {
            match event {
                Event::Delivered { subscription, place, body_bytes, given } => {
                    let queue = self.names[&place.queue].clone();
                    self.reference.delivered(&queue, subscription, given)?;
                    self.count(if given.redelivered { "delivered again" } else { "delivered" });
                    if !given.settled {
                        let connection = self.subscriptions[&subscription];
                        self.hold(connection, Some(subscription), place, given.message, body_bytes);
                    }
                }
                Event::Refused { subscription } => {
                    self.count("no credit");
                    self.reference.refused(subscription)?;
                }
                Event::Cancelled { subscription } => {
                    self.count("cancelled by the broker");
                    self.subscriptions.remove(&subscription);
                    self.port.waiting.remove(&subscription);
                }
                Event::Gone { queue } => {
                    self.count("queue gone");
                    self.catalog.forget_queue(queue, &mut self.changes);
                    self.names.remove(&queue);
                }
                Event::Got { .. } => return Err("a message was given that nobody asked for".to_owned()),
            }
        }
        Ok(())
    }

    fn loaded(&mut self) {
        let pending: Vec<_> = std::mem::take(&mut self.port.pending).into_iter().collect();
        for shard in &mut self.shards {
            shard.loaded(&pending);
        }
    }

    fn credit(&mut self) {
        let ready = |id: &u64| self.port.credit.get(id) != Some(&0);
        let credited: Vec<u64> = self.port.waiting.iter().copied().filter(ready).collect();
        for id in credited {
            self.port.waiting.remove(&id);
            self.reference.credited(id);
            for shard in &mut self.shards {
                shard.credit(&[SubscriptionId(id)]);
            }
        }
    }

    fn compare(&self) -> Checked {
        let queues: BTreeSet<_> = self.names.values().collect();
        if !queues.iter().copied().eq(self.reference.queues.keys()) {
            let expected = self.reference.queues.keys();
            return Err(format!("queues: the broker has {queues:?}, the reference {expected:?}"));
        }
        let exchanges: BTreeSet<_> = self.catalog.exchanges("/").map(|(name, _)| name.to_string()).collect();
        if !exchanges.iter().eq(self.reference.exchanges.keys()) {
            return Err(format!("exchanges: {exchanges:?}, not {:?}", self.reference.exchanges.keys()));
        }
        for (id, name) in &self.names {
            let counts = self.shards[self.index(*id)].counts(*id).unwrap();
            let queue = &self.reference.queues[name];
            let broker = (counts.ready, counts.unacked, counts.ready_bytes, counts.unacked_bytes);
            let bytes = |out| queue.messages.iter().filter(|one| one.out == out).map(|one| one.bytes).sum::<u64>();
            let out = queue.messages.iter().filter(|one| one.out).count() as u64;
            let reference = (queue.ready().count() as u64, out, bytes(false), bytes(true));
            if broker != reference {
                let what = "(ready, unacked, bytes ready, bytes unacked)";
                return Err(format!("{name} {what}: {broker:?}, the reference {reference:?}"));
            }
        }
        Ok(())
    }

    fn hold(&mut self, connection: u64, subscription: Option<u64>, place: Place, message: u64, body_bytes: u32) {
        let queue = self.names[&place.queue].clone();
        self.held.push(Held { connection, subscription, queue, place, message, body_bytes });
    }

    fn shard(&mut self, id: QueueId) -> &mut Shard {
        let index = self.index(id);
        &mut self.shards[index]
    }

    /// A queue belongs to a shard by its name. One that has gone belongs to none that knows it.
    fn index(&self, id: QueueId) -> usize {
        self.names.get(&id).map_or(0, |name| shard_of(name, self.shards.len()))
    }
}

fn new_shard(sabotage: Option<Sabotage>) -> Shard {
    sabotage.map_or_else(Shard::new, Shard::sabotaged)
}

fn shard_of(name: &str, shards: usize) -> usize {
    name.bytes().map(usize::from).sum::<usize>() % shards
}

fn names(by: By) -> (Name, Name) {
    (Name::from(if by.limited { "limited" } else { "guest" }), Name::from("/"))
}

fn caller<'a>(by: By, user: &'a Name, vhost: &'a Name) -> Caller<'a> {
    Caller { vhost, user, connection: ConnectionId(by.connection) }
}

fn plain((given, remaining): (Given, u64)) -> (u64, bool, u32, bool, u64) {
    (given.message, given.redelivered, given.attempts, given.settled, remaining)
}

fn no_of(refusal: &Refusal) -> Option<No> {
    Some(match refusal {
        Refusal::NotFound { .. } => No::NotFound,
        Refusal::AccessRefused(_) => No::AccessRefused,
        Refusal::ResourceLocked(_) => No::ResourceLocked,
        Refusal::PreconditionFailed(_) => No::PreconditionFailed,
        _ => return None,
    })
}
