//! The specification of exchanges and queues, as naively as it can be said: lists, searched from the front.
//!
//! It knows nothing of the broker. What the broker decides by itself (who gets which message, and when a subscription
//! without credit is passed over) it reports as events, and the reference says whether each was right. When the broker
//! has come to rest, [`Reference::rest`] says whether anything was left undone.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_model::{
    Access, BindCommand, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, ExchangeKind, Settlement, Table,
    Time, Value,
};

/// Why not; the refusals of the model, without their texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum No {
    NotFound,
    AccessRefused,
    ResourceLocked,
    PreconditionFailed,
}

/// Arguments of queues that a second declaration must repeat.
const COMPARED: [&str; 3] = ["x-message-ttl", "x-expires", "x-max-length"];

/// What the limited user may configure, write and read: names with these beginnings.
pub const LIMITED: [&[&str]; 3] = [&["q1"], &["q", "x1"], &["q1", "q2", "x"]];

#[derive(Clone, Copy, Debug)]
pub struct By {
    pub connection: u64,
    pub limited: bool,
}

#[derive(Clone, Debug)]
pub struct Exchange {
    pub kind: ExchangeKind,
    pub durable: bool,
    auto_delete: bool,
    internal: bool,
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq)]
struct Binding {
    queue: String,
    key: Vec<u8>,
    arguments: Table,
}

#[derive(Clone, Debug)]
pub struct Queue {
    pub durable: bool,
    pub owner: Option<u64>,
    auto_delete: bool,
    message_ttl_ms: Option<u64>,
    unused_ms_max: Option<u64>,
    arguments: Table,
    last_used: Time,
    /// In the order in which they came, wherever they are now.
    pub messages: Vec<Message>,
    /// In the order in which they came.
    subscriptions: Vec<u64>,
    /// Those with credit, in the order in which they are served.
    turns: Vec<u64>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub id: u64,
    pub bytes: u64,
    persistent: bool,
    expires: Option<Time>,
    pub out: bool,
    redelivered: bool,
    attempts: u32,
    /// Published in this very step: a consumer may still have it, even if it may not wait at all.
    new: bool,
}

#[derive(Clone, Copy, Debug)]
struct Subscription {
    no_ack: bool,
    exclusive: bool,
    priority: i64,
}

/// A message on its way to somebody, as the broker reports it.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    pub message: u64,
    pub redelivered: bool,
    pub attempts: u32,
    pub settled: bool,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub now: Time,
    pub exchanges: BTreeMap<String, Exchange>,
    pub queues: BTreeMap<String, Queue>,
    subscriptions: BTreeMap<u64, Subscription>,
}

impl Reference {
    pub fn new(now: Time) -> Self {
        let exchange =
            |kind, internal| Exchange { kind, durable: true, auto_delete: false, internal, bindings: Vec::new() };
        let exchanges = BTreeMap::from([
            (String::new(), exchange(ExchangeKind::Direct, false)),
            ("amq.direct".to_owned(), exchange(ExchangeKind::Direct, false)),
            ("amq.fanout".to_owned(), exchange(ExchangeKind::Fanout, false)),
            ("amq.topic".to_owned(), exchange(ExchangeKind::Topic, false)),
            ("amq.headers".to_owned(), exchange(ExchangeKind::Headers, false)),
            ("amq.match".to_owned(), exchange(ExchangeKind::Headers, false)),
            ("amq.rabbitmq.trace".to_owned(), exchange(ExchangeKind::Topic, true)),
        ]);
        Self { now, exchanges, ..Self::default() }
    }

    // Declarations.

    pub fn declare_exchange(&mut self, by: By, request: &DeclareExchange) -> Result<(), No> {
        let name = request.exchange.to_string();
        if request.passive {
            refuse_if(name.is_empty(), No::AccessRefused)?;
            return refuse_if(!self.exchanges.contains_key(&name), No::NotFound);
        }
        let kind = ExchangeKind::parse(&request.kind).ok_or(No::PreconditionFailed)?;
        refuse_if(name.is_empty(), No::AccessRefused)?;
        allowed(by, Access::Configure, &name)?;
        if let Some(found) = self.exchanges.get(&name) {
            let same = found.kind == kind
                && found.durable == request.durable
                && found.auto_delete == request.auto_delete
                && found.internal == request.internal
                && request.arguments.get("alternate-exchange").is_none();
            return refuse_if(!same, No::PreconditionFailed);
        }
        refuse_if(name.starts_with("amq."), No::AccessRefused)?;
        refuse_if(request.arguments.get("alternate-exchange").is_some(), No::PreconditionFailed)?;
        let exchange = Exchange {
            kind,
            durable: request.durable,
            auto_delete: request.auto_delete,
            internal: request.internal,
            bindings: Vec::new(),
        };
        self.exchanges.insert(name, exchange);
        Ok(())
    }

    pub fn delete_exchange(&mut self, by: By, request: &DeleteExchange) -> Result<(), No> {
        let name = &*request.exchange;
        refuse_if(name.is_empty() || name.starts_with("amq."), No::AccessRefused)?;
        allowed(by, Access::Configure, name)?;
        let used = self.exchanges.get(name).is_some_and(|exchange| !exchange.bindings.is_empty());
        refuse_if(request.if_unused && used, No::PreconditionFailed)?;
        self.exchanges.remove(name);
        Ok(())
    }

    /// How many messages are ready, and how many subscriptions there are.
    pub fn declare_queue(&mut self, by: By, request: &DeclareQueue) -> Result<(u64, u64), No> {
        let name = request.queue.to_string();
        if request.passive {
            self.queue_for(by, None, &name)?;
        } else {
            refuse_if(name.starts_with("amq."), No::AccessRefused)?;
            allowed(by, Access::Configure, &name)?;
            let owner = request.exclusive.then_some(by.connection);
            let durable = request.durable && !request.exclusive;
            if let Some(found) = self.queues.get(&name) {
                refuse_if(found.owner != owner, No::ResourceLocked)?;
                let same = found.durable == durable
                    && found.auto_delete == request.auto_delete
                    && COMPARED.iter().all(|key| found.arguments.get(key) == request.arguments.get(key));
                refuse_if(!same, No::PreconditionFailed)?;
            } else {
                let queue = self.new_queue(request, owner, durable)?;
                self.queues.insert(name.clone(), queue);
            }
        }
        let now = self.now;
        let queue = self.queues.get_mut(&name).expect("it was found or made");
        queue.last_used = now;
        Ok((queue.ready().count() as u64, queue.subscriptions.len() as u64))
    }

    fn new_queue(&self, request: &DeclareQueue, owner: Option<u64>, durable: bool) -> Result<Queue, No> {
        let number = |key| match request.arguments.get(key) {
            None => Ok(None),
            Some(Value::Int(number)) if *number >= 0 => Ok(Some(*number as u64)),
            Some(_) => Err(No::PreconditionFailed),
        };
        let (message_ttl_ms, unused_ms_max) = (number("x-message-ttl")?, number("x-expires")?);
        refuse_if(unused_ms_max == Some(0), No::PreconditionFailed)?;
        refuse_if(request.arguments.get("x-max-length").is_some(), No::PreconditionFailed)?;
        Ok(Queue {
            durable,
            owner,
            auto_delete: request.auto_delete,
            message_ttl_ms,
            unused_ms_max,
            arguments: request.arguments.clone(),
            last_used: self.now,
            messages: Vec::new(),
            subscriptions: Vec::new(),
            turns: Vec::new(),
        })
    }

    pub fn delete_queue(&mut self, by: By, request: &DeleteQueue) -> Result<u64, No> {
        let queue = match self.queue_for(by, Some(Access::Configure), &request.queue) {
            Err(No::NotFound) => return Ok(0),
            found => found?,
        };
        let ready = queue.ready().count() as u64;
        refuse_if(request.if_empty && ready > 0, No::PreconditionFailed)?;
        refuse_if(request.if_unused && !queue.subscriptions.is_empty(), No::PreconditionFailed)?;
        self.remove_queue(&request.queue);
        Ok(ready)
    }

    pub fn bind(&mut self, by: By, request: &BindCommand) -> Result<(), No> {
        self.check_binding(by, request)?;
        let exchange = self.exchanges.get_mut(&*request.exchange).ok_or(No::NotFound)?;
        let queue = self.queues.get(&**request.destination.name()).ok_or(No::NotFound)?;
        let kinds = ["all", "any", "all-with-x", "any-with-x"];
        let kind = request.arguments.get("x-match").and_then(Value::as_text).unwrap_or("all");
        refuse_if(exchange.kind == ExchangeKind::Headers && !kinds.contains(&kind), No::PreconditionFailed)?;
        refuse_if(queue.owner.is_some_and(|owner| owner != by.connection), No::ResourceLocked)?;
        let binding = Binding::of(request);
        if !exchange.bindings.contains(&binding) {
            exchange.bindings.push(binding);
        }
        Ok(())
    }

    pub fn unbind(&mut self, by: By, request: &BindCommand) -> Result<(), No> {
        self.check_binding(by, request)?;
        let Some(queue) = self.queues.get(&**request.destination.name()) else { return Ok(()) };
        let Some(exchange) = self.exchanges.get_mut(&*request.exchange) else { return Ok(()) };
        let binding = Binding::of(request);
        if exchange.bindings.contains(&binding) {
            refuse_if(queue.owner.is_some_and(|owner| owner != by.connection), No::ResourceLocked)?;
            exchange.bindings.retain(|other| *other != binding);
            if exchange.auto_delete && exchange.bindings.is_empty() {
                self.exchanges.remove(&*request.exchange);
            }
        }
        Ok(())
    }

    fn check_binding(&self, by: By, request: &BindCommand) -> Result<(), No> {
        allowed(by, Access::Write, request.destination.name())?;
        refuse_if(request.exchange.is_empty(), No::AccessRefused)?;
        allowed(by, Access::Read, &request.exchange)
    }

    fn remove_queue(&mut self, name: &str) {
        let queue = self.queues.remove(name).expect("only a queue that is there is removed");
        for subscription in queue.subscriptions {
            self.subscriptions.remove(&subscription);
        }
        self.exchanges.retain(|_, exchange| {
            let before = exchange.bindings.len();
            exchange.bindings.retain(|binding| binding.queue != name);
            !(exchange.auto_delete && exchange.bindings.is_empty() && before > 0)
        });
    }

    fn queue_for(&mut self, by: By, access: Option<Access>, name: &str) -> Result<&mut Queue, No> {
        if let Some(access) = access {
            allowed(by, access, name)?;
        }
        let queue = self.queues.get_mut(name).ok_or(No::NotFound)?;
        refuse_if(queue.owner.is_some_and(|owner| owner != by.connection), No::ResourceLocked)?;
        Ok(queue)
    }

    // Messages.

    /// The queues that it goes to.
    #[expect(clippy::too_many_arguments, reason = "a message has many parts")]
    pub fn publish(
        &mut self,
        by: By,
        exchange: &str,
        keys: &[Vec<u8>],
        headers: &Table,
        persistent: bool,
        expiration_ms: Option<u64>,
        (id, bytes): (u64, u64),
    ) -> Result<BTreeSet<String>, No> {
        allowed(by, Access::Write, if exchange.is_empty() { "amq.default" } else { exchange })?;
        let found = self.exchanges.get(exchange).ok_or(No::NotFound)?;
        refuse_if(found.internal, No::AccessRefused)?;
        let targets = self.route(exchange, keys, headers);
        for name in &targets {
            let queue = self.queues.get_mut(name).expect("a target is there");
            let ttl = [expiration_ms, queue.message_ttl_ms].into_iter().flatten().min();
            queue.messages.push(Message {
                id,
                bytes,
                persistent,
                expires: ttl.map(|ms| self.now.after_ms(ms)),
                out: false,
                redelivered: false,
                attempts: 0,
                new: true,
            });
        }
        Ok(targets)
    }

    fn route(&self, exchange: &str, keys: &[Vec<u8>], headers: &Table) -> BTreeSet<String> {
        if exchange.is_empty() {
            let named = |key: &Vec<u8>| String::from_utf8(key.clone()).ok();
            return keys.iter().filter_map(named).filter(|name| self.queues.contains_key(name)).collect();
        }
        let exchange = &self.exchanges[exchange];
        let matches = |binding: &&Binding| match exchange.kind {
            ExchangeKind::Direct => keys.contains(&binding.key),
            ExchangeKind::Fanout => true,
            ExchangeKind::Topic => keys.iter().any(|key| topic_matches(&words(&binding.key), &words(key))),
            ExchangeKind::Headers => headers_match(&binding.arguments, headers),
        };
        exchange.bindings.iter().filter(matches).map(|binding| binding.queue.clone()).collect()
    }

    pub fn consume(
        &mut self,
        by: By,
        name: &str,
        id: u64,
        no_ack: bool,
        exclusive: bool,
        priority: i64,
    ) -> Result<(), No> {
        let now = self.now;
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        let others = queue.subscriptions.clone();
        let taken = others.iter().any(|other| self.subscriptions[other].exclusive);
        refuse_if(taken || (exclusive && !others.is_empty()), No::AccessRefused)?;
        let queue = self.queues.get_mut(name).expect("it was just found");
        queue.subscriptions.push(id);
        queue.turns.push(id);
        queue.last_used = now;
        self.subscriptions.insert(id, Subscription { no_ack, exclusive, priority });
        Ok(())
    }

    pub fn cancel(&mut self, id: u64) {
        self.subscriptions.remove(&id);
        let Some((name, queue)) = self.queues.iter_mut().find(|(_, queue)| queue.subscriptions.contains(&id)) else {
            return;
        };
        queue.subscriptions.retain(|other| *other != id);
        queue.turns.retain(|other| *other != id);
        queue.last_used = self.now;
        if queue.auto_delete && queue.subscriptions.is_empty() {
            let name = name.clone();
            self.remove_queue(&name);
        }
    }

    /// The message it gets, and how many are ready behind it.
    pub fn get(&mut self, by: By, name: &str, no_ack: bool) -> Result<Option<(Given, u64)>, No> {
        let now = self.now;
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        queue.last_used = now;
        queue.expire(now);
        let Some(message) = queue.messages.iter_mut().find(|message| !message.out) else { return Ok(None) };
        let given = Given {
            message: message.id,
            redelivered: message.redelivered,
            attempts: message.attempts,
            settled: no_ack,
        };
        message.out = true;
        if no_ack {
            queue.messages.retain(|message| message.id != given.message);
        }
        queue.expire(now);
        Ok(Some((given, queue.ready().count() as u64)))
    }

    pub fn purge(&mut self, by: By, name: &str) -> Result<u64, No> {
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        let ready = queue.ready().count() as u64;
        queue.messages.retain(|message| message.out);
        Ok(ready)
    }

    /// A delivery of this message comes to its end. The queue may have gone meanwhile.
    pub fn settle(&mut self, name: &str, id: u64, settlement: Settlement) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        match settlement {
            Settlement::Accept | Settlement::Reject => queue.messages.retain(|message| message.id != id),
            Settlement::Release => {
                for message in queue.messages.iter_mut().filter(|message| message.id == id) {
                    message.out = false;
                    message.redelivered = true;
                    message.attempts += 1;
                }
            }
        }
    }

    /// A connection's queues go with it. (Its subscriptions and deliveries have ended before.)
    pub fn disconnect(&mut self, connection: u64) {
        let owned = |(_, queue): &(&String, &Queue)| queue.owner == Some(connection);
        let names: Vec<_> = self.queues.iter().filter(owned).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_queue(name));
    }

    pub fn advance(&mut self, now: Time) {
        self.now = now;
        let is_over = |queue: &Queue| {
            queue.subscriptions.is_empty() && queue.unused_ms_max.is_some_and(|ms| queue.last_used.after_ms(ms) <= now)
        };
        let over = |(_, queue): &(&String, &Queue)| is_over(queue);
        let names: Vec<_> = self.queues.iter().filter(over).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_queue(name));
    }

    /// What is durable comes back; what was out is ready again.
    pub fn restart(&mut self) {
        self.subscriptions.clear();
        self.queues.retain(|_, queue| queue.durable);
        for queue in self.queues.values_mut() {
            queue.subscriptions.clear();
            queue.turns.clear();
            queue.last_used = self.now;
            queue.messages.retain(|message| message.persistent);
            for message in queue.messages.iter_mut().filter(|message| message.out) {
                message.out = false;
                message.redelivered = true;
            }
        }
        self.exchanges.retain(|_, exchange| exchange.durable);
        for exchange in self.exchanges.values_mut() {
            exchange.bindings.retain(|binding| self.queues.contains_key(&binding.queue));
        }
    }

    // What the broker decides by itself.

    /// The next in turn among those of the highest priority.
    fn next_in_turn(&self, queue: &Queue) -> Option<u64> {
        let highest = queue.turns.iter().map(|id| self.subscriptions[id].priority).max()?;
        queue.turns.iter().copied().find(|id| self.subscriptions[id].priority == highest)
    }

    /// A message was given to a subscription.
    pub fn delivered(&mut self, name: &str, subscription: u64, given: Given) -> Result<(), String> {
        let queue = self.queues.get(name).ok_or_else(|| format!("a delivery from {name}, which is not there"))?;
        let next = self.next_in_turn(queue);
        agree("the subscription in turn", &Some(subscription), &next)?;
        let no_ack = self.subscriptions[&subscription].no_ack;
        let (now, queue) = (self.now, self.queues.get_mut(name).expect("it was just found"));
        queue.expire(now);
        let message = queue.messages.iter_mut().find(|message| !message.out);
        let message = message.ok_or_else(|| format!("a delivery from {name}, which has nothing ready"))?;
        agree("the message", &given.message, &message.id)?;
        agree("redelivered", &given.redelivered, &message.redelivered)?;
        agree("attempts", &given.attempts, &message.attempts)?;
        agree("settled with the delivery", &given.settled, &no_ack)?;
        message.out = true;
        if no_ack {
            queue.messages.retain(|message| message.id != given.message);
        }
        queue.turns.retain(|id| *id != subscription);
        queue.turns.push(subscription);
        Ok(())
    }

    /// A subscription had no credit when its turn came.
    pub fn refused(&mut self, subscription: u64) -> Result<(), String> {
        let found = self.queues.values().find(|queue| queue.turns.contains(&subscription));
        let queue = found.ok_or_else(|| format!("subscription {subscription} was offered something out of turn"))?;
        agree("the subscription in turn", &Some(subscription), &self.next_in_turn(queue))?;
        for queue in self.queues.values_mut() {
            queue.turns.retain(|id| *id != subscription);
        }
        Ok(())
    }

    /// A subscription has credit again.
    pub fn credited(&mut self, subscription: u64) {
        for queue in self.queues.values_mut().filter(|queue| queue.subscriptions.contains(&subscription)) {
            queue.turns.push(subscription);
        }
    }

    /// The broker has come to rest: nothing that could be delivered is left.
    pub fn rest(&mut self) -> Result<(), String> {
        for (name, queue) in &mut self.queues {
            queue.messages.iter_mut().for_each(|message| message.new = false);
            queue.expire(self.now);
            if queue.ready().next().is_some() && !queue.turns.is_empty() {
                return Err(format!("{name} has ready messages and subscriptions with credit"));
            }
        }
        Ok(())
    }
}

impl Queue {
    pub fn ready(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| !message.out)
    }

    /// Time acts at the front only.
    fn expire(&mut self, now: Time) {
        while let Some(front) = self.messages.iter().position(|message| !message.out) {
            let message = &self.messages[front];
            if message.new || message.expires.is_none_or(|time| time > now) {
                return;
            }
            self.messages.remove(front);
        }
    }
}

impl Binding {
    fn of(request: &BindCommand) -> Self {
        let arguments = request.arguments.clone().sorted();
        Self { queue: request.destination.name().to_string(), key: request.key.clone(), arguments }
    }
}

fn allowed(by: By, access: Access, name: &str) -> Result<(), No> {
    let beginnings = LIMITED[access as usize];
    refuse_if(by.limited && !beginnings.iter().any(|beginning| name.starts_with(beginning)), No::AccessRefused)
}

fn refuse_if(condition: bool, no: No) -> Result<(), No> {
    if condition { Err(no) } else { Ok(()) }
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, broker: &T, reference: &T) -> Result<(), String> {
    if broker == reference {
        return Ok(());
    }
    Err(format!("{what}: the broker says {broker:?}, the reference {reference:?}"))
}

fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|byte| *byte == b'.').collect() }
}

pub fn topic_matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    match (pattern, key) {
        ([], key) => key.is_empty(),
        ([b"#", rest @ ..], key) => (0..=key.len()).any(|skipped| topic_matches(rest, &key[skipped..])),
        (_, []) => false,
        ([word, rest @ ..], [first, others @ ..]) => (*word == b"*" || word == first) && topic_matches(rest, others),
    }
}

pub fn headers_match(arguments: &Table, headers: &Table) -> bool {
    let kind = arguments.get("x-match").and_then(Value::as_text).unwrap_or("all");
    let looked_at = |key: &str| key != "x-match" && (kind.ends_with("-with-x") || !key.starts_with("x-"));
    let matches = |(key, wanted): (&str, &Value)| match headers.get(key) {
        None => false,
        Some(header) => *wanted == Value::Void || header == wanted,
    };
    let mut found = arguments.iter().filter(|(key, _)| looked_at(key)).map(matches);
    if kind.starts_with("any") { found.any(|one| one) } else { found.all(|one| one) }
}
