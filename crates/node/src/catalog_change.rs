//! Changes of the catalog: applied, sent to the shard and written to the journal in one step.
//!
//! The locks of the catalog and of the shard are both held from the moment when a change is applied until it is in
//! the journal. So the journal has all changes in the order in which they were applied, and nobody sees a change
//! that is not in it.

use ferrymq_broker::{Catalog, Shard};
use ferrymq_model::{CatalogEntry, Name, Position, Refusal};

use crate::{
    connection::Connection,
    node::Node,
    schedules,
    transition::{Aftermath, CatalogLock, Transition},
};
use std::sync::Arc;

/// Applies a change of the catalog, which is locked for that, as one unit of the journal. What it has appended to the list of
/// entries is written also where it is refused, because it was applied. Where a queue or an exchange has gone that had more
/// bindings than may go at once, [`Node::settle_down`] takes the rest away.
///
/// The returned position makes the current state of the catalog durable, whoever changed it last: a connection that
/// has found what another connection has just declared is not answered before that is durable.
pub fn apply<T>(
    shard: &mut Shard,
    ports: &mut Transition<'_>,
    change: impl FnOnce(&mut Shard, &mut Transition<'_>, &mut Vec<CatalogEntry>) -> T,
) -> (T, Position) {
    use ferrymq_broker::Ports as _;

    let mut changes = Vec::new();
    ports.begin_unit();
    let gone_before = ports.gone();
    let result = change(shard, ports, &mut changes);
    ports.unbind_some(gone_before, &mut changes);
    ports.write_changes(&changes);
    schedules::follow_catalog(shard, ports);
    if !ports.is_unbinding() {
        // Dead letters that wait for a target are tried again: once, not for each portion of the bindings that go.
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
        let (mut aftermath, mut catalog) = (Aftermath::default(), self.catalog.write());
        let changed = self
            .decide_with(CatalogLock::Write(&mut catalog), &mut aftermath, |shard, ports| apply(shard, ports, change));
        let happenings = catalog.take_happenings();
        drop(catalog);
        self.settle_down(aftermath, own);
        self.tell_happenings(happenings, by);
        changed
    }

    /// An exchange of this name is about to be declared: the bindings of one that had it go first, in portions.
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
