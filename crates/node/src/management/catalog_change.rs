//! Changes of the catalog: applied, sent to the shard and written to the journal in one step.
//!
//! The locks of the catalog and of the shard are both held from the moment when a change is applied until it is in
//! the journal. So the journal has all changes in the order in which they were applied, and nobody sees a change
//! that is not in it.

use ferrymq_broker::{Catalog, Outcome, Shard};
use ferrymq_model::{CatalogEntry, Name, Position, Refusal};
use parking_lot::RwLockWriteGuard;

use crate::{
    connection::peer::Connection,
    core::{
        node::Node,
        transition::{CatalogLock, Deferred, Transition},
    },
    routing::schedules,
};
use std::sync::Arc;

/// Locks the catalog and applies a change, as one unit of the journal. If the change is refused, the entries that it
/// has appended to the list are written, too, because they were applied. If it has deleted a queue or an exchange with
/// very many bindings, [`Node::run_deferred`] removes the rest of them.
///
/// The returned position makes the current state of the catalog durable, whoever changed it last: a connection that
/// has found what another connection has just declared is not answered before that is durable.
///
/// This is the only place that takes what follows from a change: entries go to the journal, schedules to the shard, and
/// events wait until the locks are released. `by` is the user who asks for the change.
pub fn apply<T>(
    shard: &mut Shard,
    ports: &mut Transition<'_>,
    by: Option<&Name>,
    change: impl FnOnce(&mut Shard, &mut Transition<'_>, &mut Vec<CatalogEntry>) -> T,
) -> (T, Position) {
    use ferrymq_broker::Ports as _;

    let mut changes = Vec::new();
    ports.begin_unit();
    let gone_before = ports.gone();
    let result = change(shard, ports, &mut changes);
    ports.unbind_some(gone_before, &mut changes);
    ports.write_changes(&changes);
    let Outcome { events, schedules } = ports.catalog().take_outcome();
    schedules::follow_catalog(schedules, shard, ports);
    if !events.is_empty() {
        ports.deferred.events.push((by.cloned(), events));
    }
    if !ports.is_unbinding() {
        // Dead letters that wait for a target are tried again once, not for each portion of removed bindings.
        shard.routes_changed();
    }
    ports.end_unit();
    // Not earlier: a unit may be in two groups, and counts once both are there.
    (result, ports.catalog_position())
}

impl Node {
    /// Like [`apply`], for callers that hold no lock. `by` is the user who asks for the change, and `own` is that
    /// user's connection.
    pub(crate) fn change_catalog<T>(
        &self,
        by: Option<&Name>,
        own: Option<&Arc<Connection>>,
        change: impl FnOnce(&mut Shard, &mut Transition<'_>, &mut Vec<CatalogEntry>) -> T,
    ) -> (T, Position) {
        let (mut deferred, mut catalog) = (Deferred::default(), self.catalog.write());
        let changed = self.decide_with(CatalogLock::Write(&mut catalog), &mut deferred, |shard, ports| {
            apply(shard, ports, by, change)
        });
        // Whoever waits for the lock gets it, although the next change may follow at once.
        RwLockWriteGuard::unlock_fair(catalog);
        self.run_deferred(deferred, own);
        changed
    }

    /// Prepares the declaration of an exchange with this name: removes the bindings of a deleted one, in portions.
    pub(crate) fn unbind_exchange(&self, vhost: &Name, exchange: &Name) {
        let is_left = || self.catalog.read().is_unbinding_exchange(vhost, exchange);
        if is_left() {
            self.host.lengthy(&mut || {
                while is_left() {
                    self.change_catalog(None, None, |_, ports, changes| ports.catalog().unbind_some(changes));
                }
            });
        }
    }

    /// Like [`Node::change_catalog`], for changes that need only the catalog.
    pub(crate) fn change_catalog_alone<T>(
        &self,
        by: Option<&Name>,
        own: Option<&Arc<Connection>>,
        change: impl FnOnce(&mut Catalog, &mut Vec<CatalogEntry>) -> Result<T, Refusal>,
    ) -> Result<(T, Position), Refusal> {
        let (result, position) = self.change_catalog(by, own, |_, ports, changes| change(ports.catalog(), changes));
        result.map(|value| (value, position))
    }
}
