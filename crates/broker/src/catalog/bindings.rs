//! Bindings: from an exchange to a queue, or to another exchange.

use ferrymq_model::{
    Access, BindCommand, BindingFacts, BindingSpec, CatalogEntry, Destination, ExchangeKind, MessageRef, Name, Object,
    QueueId, Refusal, Table,
};

use super::arguments::check_length;
use super::events::CatalogEvent;
use super::exchanges::check_not_default;
use super::queue_arguments::QueueKind;
use super::queues::give_back;
use super::topics::{has_too_many_words, too_many_words};

use super::{Caller, Catalog, Vhost, delayed, entries, hashing, headers, jms, missing, named, without_line_ends};

/// The target of a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target {
    Queue(QueueId),
    /// An exchange of the same vhost.
    Exchange(Name),
}

#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// The identity of a binding in its vhost.
    pub(super) identity: Box<[u8]>,
    pub(super) source: Name,
    pub(super) target: Target,
    pub(super) key: Box<[u8]>,
    pub(super) arguments: Table,
    pub(super) durable: bool,
}

impl Catalog {
    /// Binds a queue or an exchange to an exchange; does nothing if the binding exists. Returns the binding if it
    /// is new.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission and for the default exchange; [`Refusal::NotFound`];
    /// [`Refusal::ResourceLocked`]; [`Refusal::PreconditionFailed`] for an unknown `x-match`.
    pub fn bind(
        &mut self,
        caller: &Caller<'_>,
        request: &BindCommand,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<Option<BindCommand>, Refusal> {
        let request = without_line_ends_in(request);
        self.check_binding(caller, &request)?;
        let BindCommand { exchange, destination, key, arguments, .. } = &request;
        let target = self.check_target(caller.vhost, exchange, destination, key, arguments)?;
        if let Target::Queue(id) = &target {
            self.queues[id].check_open_to(caller.connection)?;
        }
        let is_new = self.make_binding(caller.vhost, exchange, destination, &target, key, arguments, changes);
        Ok(is_new.then_some(request))
    }

    /// Like [`Catalog::bind`], for a binding that an operator sets up: without permission checks.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`], [`Refusal::NotFound`], [`Refusal::PreconditionFailed`] like there.
    pub fn put_binding(
        &mut self,
        vhost: &Name,
        source: &Name,
        destination: &Destination,
        key: &[u8],
        arguments: &Table,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        check_not_default(source)?;
        let target = self.check_target(vhost, source, destination, key, arguments)?;
        self.make_binding(vhost, source, destination, &target, key, arguments, changes);
        Ok(())
    }

    /// The new binding, if the source accepts it.
    fn check_target(
        &self,
        vhost: &str,
        source: &str,
        destination: &Destination,
        key: &[u8],
        arguments: &Table,
    ) -> Result<Target, Refusal> {
        let vhost = self.vhost(vhost)?;
        let exchange = vhost.exchange(source)?;
        let target = vhost.target(destination)?;
        check_length("a binding", arguments)?;
        if key.len() > MessageRef::KEY_BYTES_MAX {
            let text = format!("a binding key has at most {} bytes", MessageRef::KEY_BYTES_MAX);
            return Err(Refusal::PreconditionFailed(text));
        }
        let kind = delayed::routes_as(&exchange.spec);
        named::check(arguments, kind, destination)?;
        match kind {
            ExchangeKind::Headers => headers::check_arguments(arguments)?,
            ExchangeKind::ConsistentHash => drop(hashing::weight(key)?),
            ExchangeKind::JmsTopic => jms::check_arguments(arguments, source, destination)?,
            ExchangeKind::LocalRandom => self.check_local(&target, key)?,
            ExchangeKind::Topic if has_too_many_words(key) => return Err(too_many_words()),
            _ => {}
        }
        Ok(target)
    }

    /// An `x-local-random` exchange accepts classic queues, bound without a key.
    fn check_local(&self, target: &Target, key: &[u8]) -> Result<(), Refusal> {
        let refuse = |text: String| Err(Refusal::PreconditionFailed(text));
        if !key.is_empty() {
            let key = String::from_utf8_lossy(key);
            return refuse(format!("Non empty binding '{key}' key not permitted"));
        }
        match target {
            Target::Exchange(_) => refuse("Destination not found".to_owned()),
            Target::Queue(id) => match self.queues[id].kind {
                QueueKind::Classic => Ok(()),
                other => refuse(format!("Queue type {} not valid for this exchange type", other.as_str())),
            },
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a binding has many parts")]
    fn make_binding(
        &mut self,
        vhost: &Name,
        source: &Name,
        destination: &Destination,
        target: &Target,
        key: &[u8],
        arguments: &Table,
        changes: &mut Vec<CatalogEntry>,
    ) -> bool {
        let found = &self.vhosts[vhost];
        let target_is_durable = match target {
            Target::Queue(id) => self.queues[id].spec.durable,
            Target::Exchange(name) => found.exchanges[name].spec.durable,
        };
        let durable = found.exchanges[source].spec.durable && target_is_durable;
        let arguments = arguments.clone().sorted();
        let identity = entries::binding_identity(vhost, source, target, key, &arguments);
        let is_new = self.insert_binding(vhost, source, target, key, arguments.clone(), durable);
        if is_new {
            let facts = BindingFacts {
                vhost: vhost.clone(),
                source: source.clone(),
                target: destination.name().clone(),
                to_queue: matches!(destination, Destination::Queue(_)),
                key: key.into(),
                arguments: arguments.clone(),
            };
            self.record(|| CatalogEvent::BindingCreated(facts));
        }
        if is_new && durable {
            let (queue, exchange) = match destination {
                Destination::Queue(name) => (name.to_string(), None),
                Destination::Exchange(name) => (String::new(), Some(name.to_string())),
            };
            let spec = BindingSpec { source: source.to_string(), queue, exchange, key: key.to_vec(), arguments };
            changes.push(entries::binding(vhost, &identity, target, spec));
        }
        is_new
    }

    /// Removes a binding. Succeeds if there is none. An auto-delete exchange is deleted with its last binding.
    /// (AMQP-22)
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission and for the default exchange; [`Refusal::ResourceLocked`].
    pub fn unbind(
        &mut self,
        caller: &Caller<'_>,
        request: &BindCommand,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let request = &without_line_ends_in(request);
        self.check_binding(caller, request)?;
        let vhost = self.vhost(caller.vhost)?;
        let Ok(target) = vhost.target(&request.destination) else { return Ok(()) };
        let arguments = request.arguments.clone().sorted();
        let identity = entries::binding_identity(caller.vhost, &request.exchange, &target, &request.key, &arguments);
        let Some(&number) = vhost.binding_numbers.get(&identity) else { return Ok(()) };
        if let Target::Queue(id) = target {
            self.queues[&id].check_open_to(caller.connection)?;
        }
        self.remove_binding(caller.vhost, number, changes);
        Ok(())
    }

    /// As in RabbitMQ, this needs write access to the target, and read access to the source.
    fn check_binding(&self, caller: &Caller<'_>, request: &BindCommand) -> Result<(), Refusal> {
        match &request.destination {
            Destination::Queue(name) => self.check(caller, Access::Write, Object::Queue, name)?,
            Destination::Exchange(name) => {
                self.check(caller, Access::Write, Object::Exchange, name)?;
                check_not_default(name)?;
            }
        }
        check_not_default(&request.exchange)?;
        self.check(caller, Access::Read, Object::Exchange, &request.exchange)?;
        match self.exchange(caller.vhost, &request.exchange) {
            Ok(source) if source.kind == ExchangeKind::Topic => {
                self.check_topic(caller, Access::Read, &request.exchange, &request.key)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the binding is new. `arguments` must be sorted. (AMQP-22)
    pub(super) fn insert_binding(
        &mut self,
        vhost: &Name,
        source: &Name,
        target: &Target,
        key: &[u8],
        arguments: Table,
        durable: bool,
    ) -> bool {
        let identity = entries::binding_identity(vhost, source, target, key, &arguments);
        let vhost = self.vhosts.get_mut(vhost).expect("the binding's vhost is there");
        if vhost.binding_numbers.contains_key(&identity) {
            return false;
        }
        let binding = Binding {
            identity: identity.clone(),
            source: source.clone(),
            target: target.clone(),
            key: key.into(),
            arguments,
            durable,
        };
        let exchange = vhost.exchanges.get_mut(source).expect("the binding's exchange is there");
        let number = vhost.next_binding;
        vhost.next_binding += 1;
        exchange.add_binding(number, &binding);
        exchange.bindings.insert(number);
        match target {
            Target::Queue(id) => {
                self.queues.get_mut(id).expect("the binding's queue is there").bindings.insert(number);
            }
            Target::Exchange(name) => {
                let exchange = vhost.exchanges.get_mut(name).expect("the exchange that it leads to is there");
                exchange.inbound.insert(number);
            }
        }
        vhost.bindings.insert(number, Box::new(binding));
        vhost.binding_numbers.insert(identity, number);
        vhost.epoch.advance();
        true
    }

    /// Removes a binding from all lists. An auto-delete exchange is deleted with its last binding.
    pub(super) fn remove_binding(&mut self, vhost: &str, number: u64, changes: &mut Vec<CatalogEntry>) {
        let found = self.vhosts.get_mut(vhost).expect("the binding's vhost is there");
        let Some(binding) = found.take_binding(number, changes) else { return };
        let source_is_over = found.detach_source(number, &binding);
        self.record_binding(vhost, &binding, CatalogEvent::BindingDeleted);
        self.detach_target(vhost, number, &binding.target);
        if source_is_over {
            self.remove_exchange(vhost, binding.source, changes);
        }
    }

    /// Removes a binding from the list of its target. The target may already be deleted.
    pub(super) fn detach_target(&mut self, vhost: &str, number: u64, target: &Target) {
        match target {
            Target::Queue(id) => {
                if let Some(queue) = self.queues.get_mut(id) {
                    queue.bindings.remove(&number);
                }
            }
            Target::Exchange(name) => {
                let vhost = self.vhosts.get_mut(vhost).expect("the binding's vhost is there");
                if let Some(exchange) = vhost.exchanges.get_mut(name) {
                    exchange.inbound.remove(&number);
                }
            }
        }
    }
}

impl Vhost {
    /// The object of a destination's name.
    pub(super) fn target(&self, destination: &Destination) -> Result<Target, Refusal> {
        match destination {
            Destination::Queue(name) => match self.queues.get(name) {
                Some(id) => Ok(Target::Queue(*id)),
                None => Err(missing(Object::Queue, name, &self.name)),
            },
            Destination::Exchange(name) => self.exchange(name).map(|_| Target::Exchange(name.clone())),
        }
    }

    /// Removes a binding from the lists of the vhost, if it is still there.
    pub(super) fn take_binding(&mut self, number: u64, changes: &mut Vec<CatalogEntry>) -> Option<Box<Binding>> {
        let binding = self.bindings.remove(&number)?;
        self.binding_numbers.remove(&binding.identity);
        give_back(&mut self.bindings);
        give_back(&mut self.binding_numbers);
        self.epoch.advance();
        if binding.durable {
            changes.push(entries::binding_tombstone(&binding.identity));
        }
        Some(binding)
    }

    /// Removes a binding from its source, which may already be deleted. Returns whether the source must be deleted now.
    /// (AMQP-15)
    pub(super) fn detach_source(&mut self, number: u64, binding: &Binding) -> bool {
        let Some(exchange) = self.exchanges.get_mut(&binding.source) else { return false };
        exchange.remove_binding(number, binding);
        exchange.bindings.remove(&number);
        exchange.spec.auto_delete && exchange.bindings.is_empty()
    }
}

fn without_line_ends_in(request: &BindCommand) -> BindCommand {
    BindCommand {
        destination: match &request.destination {
            Destination::Queue(name) => Destination::Queue(without_line_ends(name)),
            Destination::Exchange(name) => Destination::Exchange(without_line_ends(name)),
        },
        exchange: without_line_ends(&request.exchange),
        ..request.clone()
    }
}
