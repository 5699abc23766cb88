//! Exchanges: declared and deleted.

use std::collections::BTreeSet;

use ferrymq_model::{
    Access, CatalogEntry, DeclareExchange, DeleteExchange, ExchangeKind, ExchangeSpec, Name, Object, QueueId, Refusal,
    Table,
};

use super::bindings::Binding;
use super::events::CatalogEvent;
use super::named::{self, NamedBindings};
use super::queues::give_back;
use super::routing::Router;
use super::unbinding::Unbinding;
use super::{Caller, Catalog, ScheduleChange, Vhost, arguments, entries, in_order, shown, without_line_ends};
use crate::keyed::{HashKey, KeyedTable};

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) spec: ExchangeSpec,
    pub(super) router: Router,
    /// Those of its bindings that ask to be named.
    pub(super) named: Option<Box<NamedBindings>>,
    /// The bindings of which it is the source.
    pub(super) bindings: BTreeSet<u64>,
    /// The bindings of other exchanges, or its own, that lead to it.
    pub(super) inbound: BTreeSet<u64>,
    /// The exchange for messages that none of its bindings routes.
    pub(super) alternate: Option<Name>,
    /// The schedule of its delayed messages.
    pub(super) schedule: Option<QueueId>,
    /// The key of its tables.
    pub(super) key: HashKey,
}

impl Exchange {
    pub(super) fn new(spec: ExchangeSpec, key: HashKey) -> Self {
        Self {
            router: Router::new(&spec, key),
            named: None,
            bindings: BTreeSet::new(),
            inbound: BTreeSet::new(),
            alternate: arguments::alternate_exchange(&spec.arguments),
            schedule: None,
            key,
            spec,
        }
    }

    pub(super) fn add_binding(&mut self, number: u64, binding: &Binding) {
        self.router.add(number, binding);
        if named::number(&binding.arguments).is_some() {
            let new = || Box::new(NamedBindings::new(&self.spec, self.key));
            self.named.get_or_insert_with(new).add(number, binding);
        }
    }

    pub(super) fn remove_binding(&mut self, number: u64, binding: &Binding) {
        self.router.remove(number, binding);
        if named::number(&binding.arguments).is_some() {
            self.named.take_if(|named| named.remove(number, binding));
        }
    }
}

// AMQP-12
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

/// The predeclared exchanges of every vhost. They are made with it and never journaled.
pub(super) fn predeclared(key: HashKey) -> KeyedTable<Name, Exchange> {
    let exchanges = PREDECLARED.into_iter().map(|(name, kind, internal)| {
        let spec = ExchangeSpec { kind, durable: true, auto_delete: false, internal, arguments: Table::default() };
        (Name::from(name), Exchange::new(spec, key))
    });
    let mut table = KeyedTable::with_hasher(key);
    table.extend(exchanges);
    table
}

/// Whether every vhost has an exchange of that name.
pub(super) fn is_predeclared(name: &str) -> bool {
    PREDECLARED.iter().any(|(predeclared, ..)| *predeclared == name)
}

impl Catalog {
    /// Declares an exchange, or checks that it exists with the same declaration.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission, for the default exchange and for a new reserved name;
    /// [`Refusal::PreconditionFailed`] for an unknown kind, an argument that is not implemented, or another
    /// declaration than before; [`Refusal::NotFound`] for a passive declaration without an exchange.
    pub fn declare_exchange(
        &mut self,
        caller: &Caller<'_>,
        request: &DeclareExchange,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let name = without_line_ends(&request.exchange);
        // AMQP-13
        if request.passive {
            check_not_default(&name)?;
            return self.vhost(caller.vhost)?.exchange(&name).map(|_| ());
        }
        // AMQP-13
        let kind = ExchangeKind::parse(&request.kind)
            .ok_or_else(|| Refusal::PreconditionFailed(format!("unknown exchange type '{}'", request.kind)))?;
        check_not_default(&name)?;
        self.check(caller, Access::Configure, Object::Exchange, &name)?;
        let spec = ExchangeSpec {
            kind,
            durable: request.durable,
            auto_delete: request.auto_delete,
            internal: request.internal,
            arguments: request.arguments.clone(),
        };
        if self.is_same_exchange(caller.vhost, &name, &spec)? {
            return Ok(());
        }
        // AMQP-12
        if name.starts_with("amq.") {
            return Err(Refusal::AccessRefused(format!("exchange name '{name}' contains reserved prefix 'amq.*'")));
        }
        let whose = shown(Object::Exchange, &name, caller.vhost);
        if let Some(alternate) = arguments::exchange_named("alternate-exchange", &whose, &spec.arguments)? {
            self.check(caller, Access::Read, Object::Exchange, &name)?;
            self.check(caller, Access::Write, Object::Exchange, alternate)?;
        }
        self.make_exchange(caller.vhost, name, spec, changes)
    }

    /// Like [`Catalog::declare_exchange`], for one that an operator sets up: without permission checks.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`]; [`Refusal::PreconditionFailed`] like there.
    pub fn put_exchange(
        &mut self,
        vhost: &Name,
        name: &Name,
        spec: &ExchangeSpec,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        if self.is_same_exchange(vhost, name, spec)? {
            return Ok(());
        }
        self.make_exchange(vhost, name.clone(), spec.clone(), changes)
    }

    /// Whether there is an exchange of that name: then its declaration must be equivalent.
    fn is_same_exchange(&self, vhost: &str, name: &str, spec: &ExchangeSpec) -> Result<bool, Refusal> {
        let Some(there) = self.vhost(vhost)?.exchanges.get(name) else { return Ok(false) };
        arguments::check_same_exchange(&shown(Object::Exchange, name, vhost), &there.spec, spec)?;
        Ok(true)
    }

    fn make_exchange(
        &mut self,
        vhost: &str,
        name: Name,
        spec: ExchangeSpec,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let whose = shown(Object::Exchange, &name, vhost);
        arguments::exchange_named("alternate-exchange", &whose, &spec.arguments)?;
        arguments::check_exchange(&whose, &spec)?;
        let vhost = self.vhost(vhost)?.name.clone();
        self.unbind_before(&vhost, &name, changes);
        let schedule = self.make_schedule(&vhost, &name, &spec, changes);
        let vhost = self.vhost_mut(&vhost)?;
        if spec.durable {
            changes.push(entries::exchange(&vhost.name, &name, &spec, schedule));
        }
        let alternate = vhost.policies.alternate(&name, &spec.arguments);
        let named = (vhost.name.clone(), name.clone(), spec.clone());
        let key = *vhost.exchanges.hasher();
        vhost.exchanges.insert(name, Exchange { alternate, schedule, ..Exchange::new(spec, key) });
        vhost.epoch.advance();
        self.record(|| CatalogEvent::ExchangeCreated { vhost: named.0, name: named.1, spec: named.2 });
        Ok(())
    }

    /// Deletes an exchange. Succeeds if there is none. [`Catalog::unbind_some`] removes its bindings.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission and for predeclared exchanges; [`Refusal::PreconditionFailed`]
    /// if `if_unused` does not hold.
    pub fn delete_exchange(
        &mut self,
        caller: &Caller<'_>,
        request: &DeleteExchange,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let name = without_line_ends(&request.exchange);
        check_not_default(&name)?;
        // AMQP-12
        if name.starts_with("amq.") {
            let whose = shown(Object::Exchange, &name, caller.vhost);
            return Err(Refusal::AccessRefused(format!("deletion of system {whose} not allowed")));
        }
        self.check(caller, Access::Configure, Object::Exchange, &name)?;
        let vhost = self.vhost_mut(caller.vhost)?;
        let Some(exchange) = vhost.exchanges.get(&name) else { return Ok(()) };
        if request.if_unused && !exchange.bindings.is_empty() {
            let whose = shown(Object::Exchange, &name, &vhost.name);
            return Err(Refusal::PreconditionFailed(format!("{whose} in use")));
        }
        self.remove_exchange(caller.vhost, name, changes);
        Ok(())
    }

    /// Removes an exchange. [`Catalog::unbind_some`] removes its bindings in both directions, and with them auto-delete
    /// exchanges that have no other bindings.
    pub(super) fn remove_exchange(&mut self, vhost: &str, name: Name, changes: &mut Vec<CatalogEntry>) {
        let found = self.vhosts.get_mut(vhost).expect("the exchange's vhost is there");
        let exchange = found.exchanges.remove(&name).expect("only an exchange that is there is removed");
        give_back(&mut found.exchanges);
        found.epoch.advance();
        self.schedule_changes.extend(exchange.schedule.map(ScheduleChange::Gone));
        if exchange.spec.durable {
            changes.push(entries::exchange_tombstone(&found.name, &name));
        }
        let vhost = found.name.clone();
        self.record(|| CatalogEvent::ExchangeDeleted { vhost: vhost.clone(), name: name.clone() });
        self.has_gone(Unbinding::of_exchange(vhost, name, exchange));
    }

    /// The declaration of an exchange.
    ///
    /// # Errors
    /// If there is no such exchange or vhost.
    pub fn exchange(&self, vhost: &str, name: &str) -> Result<&ExchangeSpec, Refusal> {
        self.vhost(vhost)?.exchange(name).map(|exchange| &exchange.spec)
    }

    /// The exchanges of a vhost, in the order of their names.
    pub fn exchanges(&self, vhost: &str) -> impl Iterator<Item = (&Name, &ExchangeSpec)> {
        self.vhosts.get(vhost).into_iter().flat_map(Vhost::exchange_specs)
    }

    /// Whether a client may publish to an exchange with these keys. The answer is valid as long as the vhost's
    /// epoch does not change.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission and for internal exchanges; [`Refusal::NotFound`].
    pub fn may_publish(
        &self,
        caller: &Caller<'_>,
        exchange: &str,
        routing_key: &[u8],
        more_keys: &[Vec<u8>],
    ) -> Result<(), Refusal> {
        self.check(caller, Access::Write, Object::Exchange, exchange)?;
        let vhost = self.vhost(caller.vhost)?;
        let found = vhost.exchange(exchange)?;
        // AMQP-14
        if found.spec.internal {
            let whose = shown(Object::Exchange, exchange, &vhost.name);
            return Err(Refusal::AccessRefused(format!("cannot publish to internal {whose}")));
        }
        if found.spec.kind == ExchangeKind::Topic {
            let mut keys = std::iter::once(routing_key).chain(more_keys.iter().map(Vec::as_slice));
            keys.try_for_each(|key| self.check_topic(caller, Access::Write, exchange, key))?;
        }
        Ok(())
    }
}

impl Vhost {
    fn exchange_specs(&self) -> impl Iterator<Item = (&Name, &ExchangeSpec)> {
        in_order(&self.exchanges).map(|(name, exchange)| (name, &exchange.spec))
    }
}

// AMQP-11
pub(super) fn check_not_default(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::AccessRefused("operation not permitted on the default exchange".to_owned()));
    }
    Ok(())
}
