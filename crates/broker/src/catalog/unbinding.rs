//! Bindings of queues and exchanges that have gone. They may be many, so they go in portions, between which the catalog's lock
//! is let go.
//!
//! Until its bindings are gone, an exchange that led to a queue which has gone is asked without that queue. One that led to an
//! exchange which has gone still leads there, and a message finds nothing. The number of a binding is never used again, so it does not matter
//! which side of a binding goes first. An exchange that has gone gets its name back only without bindings.

use std::{collections::BTreeSet, ops::Range};

use ferrymq_model::{CatalogEntry, Name};

use super::Catalog;
use super::bindings::Target;
use super::exchanges::Exchange;
use super::happenings::{Happening, facts};

/// So many bindings go under one hold of the catalog's lock.
const UNBOUND_AT_ONCE: usize = 128;

/// What has gone and still has bindings.
#[derive(Debug)]
pub(super) struct Unbinding {
    vhost: Name,
    name: Name,
    /// The number of what went, and took this with it.
    cause: u64,
    /// The bindings that lead to it.
    inbound: BTreeSet<u64>,
    /// Where it is no queue, the exchange.
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
    /// How many queues and exchanges have gone so far.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// Whether bindings are left of what has gone while [`Catalog::gone`] went from the one to the other, and of what went with
    /// it: [`Catalog::unbind_some`] is due.
    #[must_use]
    pub fn is_unbinding(&self, gone: &Range<u64>) -> bool {
        self.unbinding.values().any(|one| gone.contains(&one.cause))
    }

    /// Takes away at most 128 bindings of what has gone, and auto-delete exchanges with their last; says whether more are left.
    /// What has the fewest comes first, so that nobody waits for one who has more.
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

    /// Something has gone.
    pub(super) fn has_gone(&mut self, mut unbinding: Unbinding) {
        unbinding.cause = self.unbinding_cause.unwrap_or(self.gone);
        self.unbinding.insert((unbinding.count(), self.gone), unbinding);
        self.gone += 1;
    }

    /// Says whether bindings are left of this.
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
                    exchange.router.remove(number, &binding);
                    self.note_binding(&of.vhost, &binding, Happening::BindingGone);
                    self.detach_target(&of.vhost, number, &binding.target);
                }
                *left -= 1;
                if *left == 0 {
                    return true;
                }
            }
        } else {
            self.note(|| Happening::QueueGone { vhost: of.vhost.clone(), name: of.name.clone() });
        }
        false
    }

    /// Takes away a binding that leads to what has gone.
    fn unbind_inbound(&mut self, of: &mut Unbinding, number: u64, changes: &mut Vec<CatalogEntry>) {
        let found = self.vhosts.get_mut(&of.vhost).expect("a vhost's bindings go before it does");
        let Some(binding) = found.take_binding(number, changes) else { return };
        let to_queue = matches!(binding.target, Target::Queue(_));
        let source_is_over = match &mut of.exchange {
            // It leads from the exchange to itself.
            Some(exchange) if binding.source == of.name => {
                exchange.router.remove(number, &binding);
                exchange.bindings.remove(&number);
                false
            }
            _ => found.detach_source(number, &binding),
        };
        self.note(|| Happening::BindingGone(facts(&of.vhost, &binding, of.name.clone(), to_queue)));
        if source_is_over {
            self.remove_exchange(&of.vhost, binding.source, changes);
        }
    }

    /// Whether bindings are left of an exchange that had this name.
    #[must_use]
    pub fn is_unbinding_exchange(&self, vhost: &Name, exchange: &Name) -> bool {
        let had_it = |gone: &Unbinding| gone.exchange.is_some() && (&gone.vhost, &gone.name) == (vhost, exchange);
        self.unbinding.values().any(had_it)
    }

    /// An exchange of this name is about to be made: the bindings of one that had it are to be gone.
    pub(super) fn unbind_before(&mut self, vhost: &Name, exchange: &Name, changes: &mut Vec<CatalogEntry>) {
        while self.is_unbinding_exchange(vhost, exchange) {
            self.unbind_some(changes);
        }
    }
}
