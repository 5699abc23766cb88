//! The broker under test: what `node` does with a catalog and shards, in its simplest form, and the reference.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ferrymq_broker::{Caller, Catalog, DeleteWhen, Epoch, HashKey, Shard};
use ferrymq_model::{
    Access, BindCommand, CatalogEntry, ConnectionId, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue,
    Destination, MessageKey, Name, QueueId, Refusal, SubscriptionId, Time,
};

use crate::port::{Event, Port};
use crate::random::Random;
use crate::reference::{By, Given, LIMITED, No, Publish, Reference, Stands};

mod messages;
mod policies;
mod publishing;

use publishing::Transaction;

/// A delivery that a connection holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub connection: u64,
    pub subscription: Option<u64>,
    queue: String,
    place: MessageKey,
    message: u64,
    body_bytes: u32,
}

#[derive(Debug)]
pub struct World {
    catalog: Catalog,
    shards: Vec<Shard>,
    pub port: Port,
    pub reference: Reference,
    changes: Vec<CatalogEntry>,
    epoch: Epoch,
    names: BTreeMap<QueueId, String>,
    pub held: Vec<Held>,
    /// Subscriptions and their connections.
    pub subscriptions: BTreeMap<u64, u64>,
    next_subscription: u64,
    /// Connections that work in transactions.
    transactions: BTreeMap<u64, Transaction>,
    /// What a commit publishes, and its targets: the reference does not have it yet.
    committing: VecDeque<(Publish, BTreeSet<String>)>,
    /// Whether the reference refused a part of a commit.
    refusals: Vec<bool>,
    pub happened: BTreeMap<String, u64>,
}

/// What a disagreement is about.
pub type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, shards: usize, moody: u64) -> Self {
        let mut changes = Vec::new();
        let mut catalog = Catalog::fresh("hash", HashKey::known(), &mut changes);
        let (root, limited) = (Name::from("/"), Name::from("limited"));
        catalog.put_user(&limited, "", &[], &mut changes);
        let patterns = LIMITED.map(|beginnings| format!("^({})", beginnings.join("|")));
        let patterns = [&*patterns[0], &*patterns[1], &*patterns[2]];
        catalog.set_permission(&limited, &root, patterns, &mut changes).unwrap();
        let now = Time(1_000_000);
        let epoch = catalog.epoch("/").unwrap();
        let mut world = Self {
            catalog,
            shards: (0..shards).map(|_| Shard::new()).collect(),
            port: Port::new(Random::new(seed ^ 0x5eed), moody),
            reference: Reference::new(now),
            changes,
            epoch,
            names: BTreeMap::new(),
            held: Vec::new(),
            subscriptions: BTreeMap::new(),
            next_subscription: 1,
            transactions: BTreeMap::new(),
            committing: VecDeque::new(),
            refusals: Vec::new(),
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
        while self.catalog.unbind_some(&mut self.changes) {}
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
            self.port.queues.insert(declared.name.to_string(), queue);
            if let Some(settings) = declared.created {
                self.shard(queue).open(queue, settings, &[], now);
                self.shard(queue).routes_changed();
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
        let answer = self.catalog.bind(&caller(by, &user, &vhost), request, &mut self.changes).map(drop);
        let expected = self.reference.bind(by, request);
        self.agree(&binding_step("bind", request), answer, expected)
    }

    pub fn unbind(&mut self, by: By, request: &BindCommand) -> Checked {
        let (user, vhost) = names(by);
        let answer = self.catalog.unbind(&caller(by, &user, &vhost), request, &mut self.changes);
        let expected = self.reference.unbind(by, request);
        self.agree(&binding_step("unbind", request), answer, expected)
    }

    // After every operation: both have given the same answer, the broker has nothing more to do, and all counts are
    // equal.

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
        self.run_deferred().map_err(|why| format!("{what}: {why}"))
    }

    fn count(&mut self, what: &str) {
        *self.happened.entry(what.to_owned()).or_default() += 1;
    }

    fn run_deferred(&mut self) -> Checked {
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
            if !busy
                && self.port.events.is_empty()
                && self.port.pending.is_empty()
                && !self.port.short
                && !can_go_on(&self.port)
            {
                break;
            }
        }
        let port = &self.port;
        self.reference.check_idle(&|queue, names, id, reason| port.dead_letter_targets(queue, names, id, reason).0)?;
        self.compare()
    }

    fn take_events(&mut self) -> Checked {
        for event in std::mem::take(&mut self.port.events) {
            match event {
                Event::Stored { message } => self.reference.seen(message),
                Event::DeadLettered { queue, message, reason, dead_letter } => {
                    let went = if dead_letter.is_some() { "a dead letter" } else { "nothing" };
                    self.count(&format!("{reason:?} becomes {went}"));
                    self.reference.dead_lettered(&queue, message, reason, dead_letter)?;
                    for what in std::mem::take(&mut self.reference.met) {
                        self.count(what);
                    }
                }
                Event::Delivered { subscription, place, body_bytes, given } => {
                    let queue = self.names[&place.queue.queue()].clone();
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
                Event::Drained { .. } => return Err("nobody drains".to_owned()),
                Event::Cancelled { subscription } => {
                    self.count("cancelled by the broker");
                    self.subscriptions.remove(&subscription);
                    self.port.waiting.remove(&subscription);
                }
                Event::Gone { queue } => {
                    self.count("queue gone");
                    self.catalog.forget_queue(queue);
                    while self.catalog.unbind_some(&mut self.changes) {}
                    if let Some(name) = self.names.remove(&queue) {
                        self.port.queues.remove(&name);
                    }
                }
                Event::Publishing => {
                    let (publish, targets) = self.committing.pop_front().expect("each is told of once");
                    self.refusals.push(self.reference.take_in(&publish, &targets));
                }
                Event::Got { .. } => return Err("a message was given that nobody asked for".to_owned()),
            }
        }
        Ok(())
    }

    fn loaded(&mut self) {
        let pending: Vec<_> = std::mem::take(&mut self.port.pending).into_iter().collect();
        let room = std::mem::take(&mut self.port.short);
        for shard in &mut self.shards {
            shard.loaded(&pending);
            if room {
                shard.storage_unblocked();
            }
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
            let active = counts.active.map(|active| active.0);
            let pending_dead_letter_bytes =
                if queue.policy.at_least_once { counts.pending_dead_letter_bytes } else { 0 };
            let bytes = (counts.ready_bytes + pending_dead_letter_bytes, counts.unacked_bytes);
            let broker = (counts.ready, counts.unacked, counts.pending_dead_letters, bytes, active);
            let (ready, out) = (queue.count(Stands::Ready), queue.count(Stands::Out));
            let pending_dead_letters = queue.count(Stands::PendingDeadLetter);
            let reference =
                (ready.0, out.0, pending_dead_letters.0, (ready.1 + pending_dead_letters.1, out.1), queue.active);
            if broker != reference {
                let what = "(ready, unacked, pending dead letters, (bytes there, bytes unacked), active)";
                return Err(format!("{name} {what}: {broker:?}, the reference {reference:?}: {queue:?}"));
            }
        }
        Ok(())
    }

    fn hold(&mut self, connection: u64, subscription: Option<u64>, place: MessageKey, message: u64, body_bytes: u32) {
        let queue = self.names[&place.queue.queue()].clone();
        self.held.push(Held { connection, subscription, queue, place, message, body_bytes });
    }

    fn shard(&mut self, id: QueueId) -> &mut Shard {
        let index = self.index(id);
        &mut self.shards[index]
    }

    /// A queue belongs to a shard by its name. A deleted one belongs to no shard.
    fn index(&self, id: QueueId) -> usize {
        self.names.get(&id.queue()).map_or(0, |name| shard_of(name, self.shards.len()))
    }
}

fn binding_step(what: &str, request: &BindCommand) -> String {
    match request.destination {
        Destination::Queue(_) => what.to_owned(),
        Destination::Exchange(_) => format!("{what} exchange"),
    }
}

fn shard_of(name: &str, shards: usize) -> usize {
    name.bytes().map(usize::from).sum::<usize>() % shards
}

fn names(by: By) -> (Name, Name) {
    (Name::from(if by.limited { "limited" } else { "guest" }), Name::from("/"))
}

fn caller<'a>(by: By, user: &'a Name, vhost: &'a Name) -> Caller<'a> {
    Caller::of_user(vhost, user, ConnectionId(by.connection))
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
