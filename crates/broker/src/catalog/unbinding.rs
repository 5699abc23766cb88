//! Removes the bindings of deleted queues and exchanges. They may be many, so they are removed in portions, and the
//! catalog's lock is released in between.
//!
//! Until all bindings of a deleted queue are removed, routing ignores this queue. Until all bindings of a deleted
//! exchange are removed, messages are still routed to it, and it routes them nowhere. The number of a binding is never
//! used again, so either end of a binding may be removed first. A new exchange with the name of a deleted one is
//! declared only after all old bindings are removed.

use std::{collections::BTreeSet, ops::Range};

use ferrymq_model::{CatalogEntry, Name};

use super::Catalog;
use super::bindings::Target;
use super::events::{CatalogEvent, facts};
use super::exchanges::Exchange;

/// The maximum number of bindings that are removed while the catalog is locked once.
const UNBOUND_AT_ONCE: usize = 128;

/// A deleted queue or exchange that still has bindings.
#[derive(Debug)]
pub(super) struct Unbinding {
    vhost: Name,
    name: Name,
    /// The number of the deletion that caused this one. It is its own number if nothing else caused it.
    cause: u64,
    /// The bindings that lead to it.
    inbound: BTreeSet<u64>,
    /// The exchange; `None` for a queue.
    exchange: Option<Exchange>,
}

impl Unbinding {
    pub(super) fn of_queue(vhost: Name, name: Name, bindings: BTreeSet<u64>) -> Self {
        Self { vhost, name, cause: 0, inbound: bindings, exchange: None }
    }

    pub(super) fn of_exchange(vhost: Name, name: Name, mut exchange: Exchange) -> Self {
        let inbound = std::mem::take(&mut exchange.inbound);
        Self { vhost, name, cause: 0, inbound, exchange: Some(exchange) }
    }

    /// How many bindings are left.
    fn count(&self) -> usize {
        self.inbound.len() + self.exchange.as_ref().map_or(0, |exchange| exchange.bindings.len())
    }
}

impl Catalog {
    /// The number of queues and exchanges that have been deleted so far.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// Whether there are bindings left of the deletions with these numbers ([`Catalog::gone`]), or of deletions that
    /// they caused. Then the caller must call [`Catalog::unbind_some`].
    #[must_use]
    pub fn is_unbinding(&self, gone: &Range<u64>) -> bool {
        self.unbinding.values().any(|one| gone.contains(&one.cause))
    }

    /// Removes at most 128 bindings of deleted queues and exchanges. An auto-delete exchange is deleted with its last
    /// binding. Returns whether bindings are left. The queue or exchange with the fewest bindings comes first, so that
    /// its client does not wait for another with more.
    pub fn unbind_some(&mut self, changes: &mut Vec<CatalogEntry>) -> bool {
        let mut left = UNBOUND_AT_ONCE;
        while left > 0
            && let Some(((_, number), mut unbinding)) = self.unbinding.pop_first()
        {
            self.unbinding_cause = Some(unbinding.cause);
            if self.unbind_portion(&mut unbinding, &mut left, changes) {
                self.unbinding.insert((unbinding.count(), number), unbinding);
            }
        }
        self.unbinding_cause = None;
        !self.unbinding.is_empty()
    }

    /// Records a deleted queue or exchange.
    pub(super) fn has_gone(&mut self, mut unbinding: Unbinding) {
        unbinding.cause = self.unbinding_cause.unwrap_or(self.gone);
        self.unbinding.insert((unbinding.count(), self.gone), unbinding);
        self.gone += 1;
    }

    /// Removes bindings of one deleted queue or exchange. Returns whether some are left.
    fn unbind_portion(&mut self, of: &mut Unbinding, left: &mut usize, changes: &mut Vec<CatalogEntry>) -> bool {
        while let Some(number) = of.inbound.pop_first() {
            self.unbind_inbound(of, number, changes);
            *left -= 1;
            if *left == 0 {
                return true;
            }
        }
        if let Some(exchange) = &mut of.exchange {
            while let Some(number) = exchange.bindings.pop_first() {
                let found = self.vhosts.get_mut(&of.vhost).expect("a vhost's bindings go before it does");
                if let Some(binding) = found.take_binding(number, changes) {
                    exchange.remove_binding(number, &binding);
                    self.record_binding(&of.vhost, &binding, CatalogEvent::BindingDeleted);
                    self.detach_target(&of.vhost, number, &binding.target);
                }
                *left -= 1;
                if *left == 0 {
                    return true;
                }
            }
        } else {
            self.record(|| CatalogEvent::QueueDeleted { vhost: of.vhost.clone(), name: of.name.clone() });
        }
        false
    }

    /// Removes a binding that leads to the deleted queue or exchange.
    fn unbind_inbound(&mut self, of: &mut Unbinding, number: u64, changes: &mut Vec<CatalogEntry>) {
        let found = self.vhosts.get_mut(&of.vhost).expect("a vhost's bindings go before it does");
        let Some(binding) = found.take_binding(number, changes) else { return };
        let to_queue = matches!(binding.target, Target::Queue(_));
        let source_is_over = match &mut of.exchange {
            // The binding leads from the exchange to itself.
            Some(exchange) if binding.source == of.name => {
                exchange.remove_binding(number, &binding);
                exchange.bindings.remove(&number);
                false
            }
            _ => found.detach_source(number, &binding),
        };
        self.record(|| CatalogEvent::BindingDeleted(facts(&of.vhost, &binding, of.name.clone(), to_queue)));
        if source_is_over {
            self.remove_exchange(&of.vhost, binding.source, changes);
        }
    }

    /// Whether bindings are left of a deleted exchange with this name.
    #[must_use]
    pub fn is_unbinding_exchange(&self, vhost: &Name, exchange: &Name) -> bool {
        let had_it = |gone: &Unbinding| gone.exchange.is_some() && (&gone.vhost, &gone.name) == (vhost, exchange);
        self.unbinding.values().any(had_it)
    }

    /// Prepares the declaration of an exchange with this name: the bindings of a deleted one must be removed before.
    pub(super) fn unbind_before(&mut self, vhost: &Name, exchange: &Name, changes: &mut Vec<CatalogEntry>) {
        while self.is_unbinding_exchange(vhost, exchange) {
            self.unbind_some(changes);
        }
    }
}
