//! What was declared and deleted in the catalog, for events. Recorded only if somebody asked for it.

use ferrymq_model::{BindingFacts, ExchangeSpec, Name, QueueSpec};

use super::bindings::{Binding, Target};
use super::{Catalog, delayed::ScheduleChange, in_order};

/// A declaration or deletion.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogEvent {
    /// An exchange was declared for the first time.
    ExchangeCreated {
        /// Its vhost.
        vhost: Name,
        /// Its name.
        name: Name,
        /// Its declaration.
        spec: ExchangeSpec,
    },
    /// An exchange was deleted.
    ExchangeDeleted {
        /// Its vhost.
        vhost: Name,
        /// Its name.
        name: Name,
    },
    /// A queue was declared for the first time.
    QueueCreated {
        /// Its vhost.
        vhost: Name,
        /// Its name.
        name: Name,
        /// Its declaration.
        spec: QueueSpec,
    },
    /// A queue was deleted.
    QueueDeleted {
        /// Its vhost.
        vhost: Name,
        /// Its name.
        name: Name,
    },
    /// A binding was made.
    BindingCreated(BindingFacts),
    /// A binding was deleted.
    BindingDeleted(BindingFacts),
}

/// What follows from changes of the catalog, in addition to their entries.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The changes as others are told of them, in order, if they are recorded.
    pub events: Vec<CatalogEvent>,
    /// The schedules that the shard must open or close.
    pub schedules: Vec<ScheduleChange>,
}

impl Catalog {
    /// From now on changes are recorded as events of the outcome.
    pub fn record_events(&mut self) {
        self.events.get_or_insert_default();
    }

    /// What has followed from the changes since the last call, in addition to their entries. The shard must be told before
    /// anyone else sees the catalog.
    pub fn take_outcome(&mut self) -> Outcome {
        let events = self.events.as_mut().map(std::mem::take).unwrap_or_default();
        Outcome { events, schedules: std::mem::take(&mut self.schedule_changes) }
    }

    /// Whether anything is bound to an exchange.
    #[must_use]
    pub fn leads_anywhere(&self, vhost: &str, exchange: &str) -> bool {
        self.vhosts
            .get(vhost)
            .and_then(|vhost| vhost.exchanges.get(exchange))
            .is_some_and(|exchange| !exchange.bindings.is_empty())
    }

    /// The durable bindings of a vhost, in the order in which they were made.
    pub fn durable_bindings(&self, vhost: &str) -> impl Iterator<Item = BindingFacts> {
        let found = self.vhosts.get(vhost).into_iter();
        let bindings = found.flat_map(|vhost| in_order(&vhost.bindings).map(move |(_, binding)| (vhost, binding)));
        bindings.filter(|(_, binding)| binding.durable).filter_map(|(vhost, binding)| {
            vhost.exchanges.get(&binding.source)?;
            let (target, to_queue) = self.named(&binding.target)?;
            Some(facts(&vhost.name, binding, target, to_queue))
        })
    }

    /// The name of a binding's target, and whether it is a queue; none if it was deleted.
    fn named(&self, target: &Target) -> Option<(Name, bool)> {
        match target {
            Target::Exchange(name) => Some((name.clone(), false)),
            Target::Queue(id) => self.queues.get(id).map(|queue| (queue.settings.name.clone(), true)),
        }
    }

    pub(super) fn record(&mut self, event: impl FnOnce() -> CatalogEvent) {
        if let Some(events) = &mut self.events {
            events.push(event());
        }
    }

    /// A binding was made or deleted. Bindings of a deleted queue were recorded with the queue.
    pub(super) fn record_binding(
        &mut self,
        vhost: &str,
        binding: &Binding,
        recorded_as: fn(BindingFacts) -> CatalogEvent,
    ) {
        let Some((target, to_queue)) = self.named(&binding.target) else { return };
        self.record(|| recorded_as(facts(vhost, binding, target, to_queue)));
    }
}

pub(super) fn facts(vhost: &str, binding: &Binding, target: Name, to_queue: bool) -> BindingFacts {
    let Binding { source, key, arguments, .. } = binding;
    let (vhost, source) = (Name::from(vhost), source.clone());
    BindingFacts { vhost, source, target, to_queue, key: key.clone(), arguments: arguments.clone() }
}
