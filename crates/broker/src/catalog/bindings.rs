//! Bindings: which exchange sends what to which queue.

use ferrymq_model::{
    Access, BindCommand, BindingSpec, CatalogEntry, Destination, ExchangeKind, Name, Object, QueueId, Refusal, Table,
};

use super::exchanges::check_not_default;
use super::{Caller, Catalog, Vhost, entries, headers, missing, without_line_ends};

#[derive(Debug)]
pub(super) struct Binding {
    /// What tells it from all others of the vhost.
    identity: Box<[u8]>,
    source: Name,
    pub(super) queue: QueueId,
    pub(super) key: Box<[u8]>,
    pub(super) arguments: Table,
    durable: bool,
}

impl Catalog {
    /// Binds a queue to an exchange; does nothing where it is bound alike.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission and for the default exchange; [`Refusal::NotFound`];
    /// [`Refusal::ResourceLocked`]; [`Refusal::PreconditionFailed`] for an `x-match` that does not exist.
    pub fn bind(
        &mut self,
        caller: &Caller<'_>,
        request: &BindCommand,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let request = &without_line_ends_in(request);
        let queue_name = queue_of(request)?;
        self.check_binding(caller, request)?;
        let vhost = self.vhost(caller.vhost)?;
        let exchange = vhost.exchange(&request.exchange)?;
        let id = *vhost.queues.get(&**queue_name).ok_or_else(|| missing(Object::Queue, queue_name, &vhost.name))?;
        if exchange.spec.kind == ExchangeKind::Headers {
            headers::check_arguments(&request.arguments)?;
        }
        let queue = &self.queues[&id];
        queue.check_open_to(caller.connection)?;
        let arguments = request.arguments.clone().sorted();
        let durable = exchange.spec.durable && queue.spec.durable;
        if self.insert_binding(caller.vhost, &request.exchange, id, &request.key, arguments.clone(), durable) && durable
        {
            let spec = BindingSpec {
                source: request.exchange.to_string(),
                queue: queue_name.to_string(),
                exchange: None,
                key: request.key.clone(),
                arguments,
            };
            let identity = identity_of(&request.exchange, id, &request.key, &spec.arguments);
            changes.push(entries::binding(caller.vhost, &identity, id, spec));
        }
        Ok(())
    }

    /// Takes a binding away; one that is not there is as good as gone. An auto-delete exchange goes with its last.
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
        let Some(&id) = vhost.queues.get(&**queue_of(request)?) else { return Ok(()) };
        let arguments = request.arguments.clone().sorted();
        let identity = identity_of(&request.exchange, id, &request.key, &arguments);
        let Some(&slot) = vhost.binding_slots.get(&identity) else { return Ok(()) };
        let queue = self.queues.get_mut(&id).expect("a name stands for a queue that is there");
        queue.check_open_to(caller.connection)?;
        queue.bindings.remove(&slot);
        self.remove_binding_of_source(caller.vhost, slot, changes);
        Ok(())
    }

    /// RabbitMQ wants write access to what is bound, and read access to what it is bound to.
    fn check_binding(&self, caller: &Caller<'_>, request: &BindCommand) -> Result<(), Refusal> {
        self.check(caller, Access::Write, Object::Queue, queue_of(request)?)?;
        check_not_default(&request.exchange)?;
        self.check(caller, Access::Read, Object::Exchange, &request.exchange)
    }

    /// Says whether the binding is new.
    pub(super) fn insert_binding(
        &mut self,
        vhost: &str,
        source: &Name,
        id: QueueId,
        key: &[u8],
        arguments: Table,
        durable: bool,
    ) -> bool {
        let vhost = self.vhosts.get_mut(vhost).expect("the binding's vhost is there");
        let identity = identity_of(source, id, key, &arguments);
        if vhost.binding_slots.contains_key(&identity) {
            return false;
        }
        let binding = Binding {
            identity: identity.clone(),
            source: source.clone(),
            queue: id,
            key: key.into(),
            arguments,
            durable,
        };
        let exchange = vhost.exchanges.get_mut(source).expect("the binding's exchange is there");
        let slot = vhost.bindings.vacant_key();
        exchange.router.add(slot, &binding);
        exchange.bindings.insert(slot);
        vhost.bindings.insert(binding);
        vhost.binding_slots.insert(identity, slot);
        vhost.epoch.advance();
        self.queues.get_mut(&id).expect("the binding's queue is there").bindings.insert(slot);
        true
    }

    /// Takes a binding out everywhere but in its queue's list, and an auto-delete exchange with it.
    pub(super) fn remove_binding_of_source(&mut self, vhost: &str, slot: usize, changes: &mut Vec<CatalogEntry>) {
        let found = self.vhosts.get_mut(vhost).expect("the binding's vhost is there");
        let binding = found.take_binding(slot, changes);
        let exchange = found.exchanges.get_mut(&binding.source).expect("a binding's source is there");
        exchange.router.remove(slot, &binding);
        exchange.bindings.remove(&slot);
        found.epoch.advance();
        if exchange.spec.auto_delete && exchange.bindings.is_empty() {
            self.remove_exchange(vhost, &binding.source, changes);
        }
    }
}

impl Vhost {
    /// Takes a binding out of the vhost's own lists.
    pub(super) fn take_binding(&mut self, slot: usize, changes: &mut Vec<CatalogEntry>) -> Binding {
        let binding = self.bindings.remove(slot);
        self.binding_slots.remove(&binding.identity);
        if binding.durable {
            changes.push(entries::binding_tombstone(&binding.identity));
        }
        binding
    }
}

/// The queue that a binding leads to.
fn queue_of(request: &BindCommand) -> Result<&Name, Refusal> {
    match &request.destination {
        Destination::Queue(name) => Ok(name),
        Destination::Exchange(_) => Err(Refusal::NotImplemented("bindings between exchanges are not built yet".into())),
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

/// `arguments` must be sorted.
fn identity_of(source: &str, queue: QueueId, key: &[u8], arguments: &Table) -> Box<[u8]> {
    entries::binding_identity(source, queue, key, &entries::encode(arguments))
}
