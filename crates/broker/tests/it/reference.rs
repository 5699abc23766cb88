//! The specification of exchanges and queues in its simplest form: lists, searched from the front.
//!
//! It knows nothing of the broker. What the broker decides by itself (who gets which message, and when a
//! subscription without credit is skipped) it reports as events, and the reference says whether each was correct.
//! When the broker has nothing more to do, [`Reference::check_idle`] says whether anything was forgotten.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_model::{
    Access, BindCommand, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Destination, ExchangeKind, Table,
    Time, Value,
};

mod policy;
mod queue;
mod routing;

pub use policy::{Full, OPERATOR_PATTERN, POLICIES, Policy, declared, goes_in_a_circle, operators, policy};
pub use queue::{Envelope, Given, Publish, Queue, RoutedMessage, Stands};
use queue::{Message, Subscription};

/// The refusals of the model, without their texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum No {
    NotFound,
    AccessRefused,
    ResourceLocked,
    PreconditionFailed,
}

/// Arguments of queues that a second declaration must repeat.
const COMPARED: [&str; 10] = [
    "x-overflow",
    "x-dead-letter-strategy",
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-dead-letter-exchange",
    "x-max-priority",
    "x-single-active-consumer",
    "x-queue-type",
];

/// The permissions of the limited user: names with these prefixes.
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
    /// What a second declaration must repeat.
    alternate: Option<Value>,
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq)]
struct Binding {
    to: Destination,
    key: Vec<u8>,
    arguments: Table,
}

#[derive(Clone, Debug, Default)]
pub struct Reference {
    pub now: Time,
    pub exchanges: BTreeMap<String, Exchange>,
    pub queues: BTreeMap<String, Queue>,
    subscriptions: BTreeMap<u64, Subscription>,
    /// What happened during routing, for counting.
    pub met: Vec<&'static str>,
    /// The policies for the queues of each name.
    policies: BTreeMap<String, Policy>,
    /// The operator's.
    operators: Option<Policy>,
    /// Dead letters of refused messages, until the broker puts them into their queues.
    in_flight: Vec<RoutedMessage>,
}

impl Reference {
    pub fn new(now: Time) -> Self {
        let exchange = |kind, internal| Exchange {
            kind,
            durable: true,
            auto_delete: false,
            internal,
            alternate: None,
            bindings: Vec::new(),
        };
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
        let alternate = request.arguments.get("alternate-exchange").cloned();
        if let Some(found) = self.exchanges.get(&name) {
            let same = found.kind == kind
                && found.durable == request.durable
                && found.auto_delete == request.auto_delete
                && found.internal == request.internal
                && found.alternate == alternate;
            return refuse_if(!same, No::PreconditionFailed);
        }
        refuse_if(name.starts_with("amq."), No::AccessRefused)?;
        if let Some(alternate) = &alternate {
            let alternate = alternate.as_text().ok_or(No::PreconditionFailed)?;
            allowed(by, Access::Read, &name)?;
            allowed(by, Access::Write, alternate)?;
        }
        let exchange = Exchange {
            kind,
            durable: request.durable,
            auto_delete: request.auto_delete,
            internal: request.internal,
            alternate,
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
        self.remove_exchange(name);
        Ok(())
    }

    fn remove_exchange(&mut self, name: &str) {
        self.exchanges.remove(name);
        self.unbind_all(&Destination::Exchange(name.into()));
    }

    /// Removes all bindings with that target, and auto-delete exchanges that are left without any.
    fn unbind_all(&mut self, to: &Destination) {
        let mut over = Vec::new();
        for (name, exchange) in &mut self.exchanges {
            let before = exchange.bindings.len();
            exchange.bindings.retain(|binding| binding.to != *to);
            if exchange.auto_delete && exchange.bindings.is_empty() && before > 0 {
                over.push(name.clone());
            }
        }
        over.iter().for_each(|name| self.remove_exchange(name));
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
                let queue = self.new_queue(by, request, owner, durable)?;
                self.queues.insert(name.clone(), queue);
            }
        }
        let now = self.now;
        let queue = self.queues.get_mut(&name).expect("it was found or made");
        queue.last_used = now;
        Ok((queue.ready().count() as u64, queue.subscriptions.len() as u64))
    }

    fn new_queue(&self, by: By, request: &DeclareQueue, owner: Option<u64>, durable: bool) -> Result<Queue, No> {
        if let Some(exchange) = request.arguments.get("x-dead-letter-exchange").and_then(Value::as_text) {
            allowed(by, Access::Read, &request.queue)?;
            allowed(by, Access::Write, exchange)?;
        }
        let number = |key| match request.arguments.get(key) {
            None => Ok(None),
            Some(Value::Int(number)) if *number >= 0 => Ok(Some(*number as u64)),
            Some(_) => Err(No::PreconditionFailed),
        };
        let (message_ttl_ms, unused_ms_max) = (number("x-message-ttl")?, number("x-expires")?);
        refuse_if(unused_ms_max == Some(0), No::PreconditionFailed)?;
        number("x-max-length")?;
        let own = Policy { message_ttl_ms, unused_ms_max, ..declared(&request.queue) };
        refuse_if(own.quorum && (request.auto_delete || owner.is_some() || !durable), No::PreconditionFailed)?;
        Ok(Queue {
            durable,
            owner,
            auto_delete: request.auto_delete,
            arguments: request.arguments.clone(),
            last_used: self.now,
            messages: Vec::new(),
            subscriptions: Vec::new(),
            turns: Vec::new(),
            active: None,
            policy: own.with(self.policy_of(&request.queue)),
            own,
            pending_dead_letters: Vec::new(),
            delivered_to: BTreeMap::new(),
            turned_away: Vec::new(),
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
        refuse_if(!self.exchanges.contains_key(&*request.exchange), No::NotFound)?;
        refuse_if(!self.is_there(&request.destination), No::NotFound)?;
        let owner = self.owner(&request.destination);
        let exchange = self.exchanges.get_mut(&*request.exchange).expect("it was just found");
        let kinds = ["all", "any", "all-with-x", "any-with-x"];
        let kind = request.arguments.get("x-match").and_then(Value::as_text).unwrap_or("all");
        refuse_if(exchange.kind == ExchangeKind::Headers && !kinds.contains(&kind), No::PreconditionFailed)?;
        let is_weight = std::str::from_utf8(&request.key).is_ok_and(|key| key.parse::<u32>().is_ok_and(|key| key > 0));
        refuse_if(exchange.kind == ExchangeKind::ConsistentHash && !is_weight, No::PreconditionFailed)?;
        refuse_if(owner.is_some_and(|owner| owner != by.connection), No::ResourceLocked)?;
        let binding = Binding::of(request);
        if !exchange.bindings.contains(&binding) {
            exchange.bindings.push(binding);
        }
        Ok(())
    }

    pub fn unbind(&mut self, by: By, request: &BindCommand) -> Result<(), No> {
        self.check_binding(by, request)?;
        let owner = self.owner(&request.destination);
        let Some(exchange) = self.exchanges.get_mut(&*request.exchange) else { return Ok(()) };
        let binding = Binding::of(request);
        if exchange.bindings.contains(&binding) {
            refuse_if(owner.is_some_and(|owner| owner != by.connection), No::ResourceLocked)?;
            exchange.bindings.retain(|other| *other != binding);
            if exchange.auto_delete && exchange.bindings.is_empty() {
                self.remove_exchange(&request.exchange);
            }
        }
        Ok(())
    }

    /// What is durable on both sides is recovered.
    fn restart_exchanges(&mut self) {
        self.exchanges.retain(|_, exchange| exchange.durable);
        let exchanges: BTreeSet<_> = self.exchanges.keys().cloned().collect();
        for exchange in self.exchanges.values_mut() {
            exchange.bindings.retain(|binding| match &binding.to {
                Destination::Queue(name) => self.queues.contains_key(&**name),
                Destination::Exchange(name) => exchanges.contains(&**name),
            });
        }
    }

    fn is_there(&self, destination: &Destination) -> bool {
        match destination {
            Destination::Queue(name) => self.queues.contains_key(&**name),
            Destination::Exchange(name) => self.exchanges.contains_key(&**name),
        }
    }

    fn owner(&self, destination: &Destination) -> Option<u64> {
        match destination {
            Destination::Queue(name) => self.queues.get(&**name).and_then(|queue| queue.owner),
            Destination::Exchange(_) => None,
        }
    }

    fn check_binding(&self, by: By, request: &BindCommand) -> Result<(), No> {
        allowed(by, Access::Write, request.destination.name())?;
        refuse_if(request.destination == Destination::Exchange("".into()), No::AccessRefused)?;
        refuse_if(request.exchange.is_empty(), No::AccessRefused)?;
        allowed(by, Access::Read, &request.exchange)
    }

    fn remove_queue(&mut self, name: &str) {
        let queue = self.queues.remove(name).expect("only a queue that is there is removed");
        for subscription in queue.subscriptions {
            self.subscriptions.remove(&subscription);
        }
        self.unbind_all(&Destination::Queue(name.into()));
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

    pub fn may_publish(&self, by: By, exchange: &str) -> Result<(), No> {
        allowed(by, Access::Write, if exchange.is_empty() { "amq.default" } else { exchange })?;
        let found = self.exchanges.get(exchange).ok_or(No::NotFound)?;
        refuse_if(found.internal, No::AccessRefused)
    }

    /// A message is put into these queues; returns whether one of them refused it.
    pub fn take_in(&mut self, publish: &Publish, targets: &BTreeSet<String>) -> bool {
        let Envelope { persistent, priority, expiration_ms } = publish.envelope;
        let expires = expiration_ms.map(|ms| self.now.after_ms(ms));
        let message = Message { persistent, expires, priority, ..Message::new(publish.id, publish.bytes, self.now) };
        let mut refused = false;
        for name in targets {
            refused |= !self.queues.get_mut(name).expect("a target is there").arrive(message.clone());
        }
        refused
    }
}

impl Binding {
    fn of(request: &BindCommand) -> Self {
        let arguments = request.arguments.clone().sorted();
        Self { to: request.destination.clone(), key: request.key.clone(), arguments }
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
