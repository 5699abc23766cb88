//! Exchanges with delays: a message that asks for a delay goes to the exchange's schedule first, and through its
//! bindings when the delay is over. They route like the kind of exchange that their declaration names.
//!
//! A schedule belongs to the shard, as a queue's content does. New and deleted schedules are kept in a list until
//! the caller has told the shard.

use ferrymq_model::{CatalogEntry, ExchangeKind, ExchangeSpec, Name, QueueId, Refusal, Value};

use super::{Catalog, in_order};
use crate::schedule::ScheduleSettings;

pub(super) const ROUTES_AS: &str = "x-delayed-type";

/// A change of schedules, for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleChange {
    /// A schedule was made.
    Made(QueueId, ScheduleSettings),
    /// A schedule was deleted with its exchange.
    Gone(QueueId),
}

/// The kind whose routing the exchange uses.
pub(super) fn routes_as(spec: &ExchangeSpec) -> ExchangeKind {
    match spec.kind {
        ExchangeKind::Delayed => named(spec).expect("this was checked when it was declared"),
        kind => kind,
    }
}

/// Refuses an exchange without the kind of its routing.
pub(super) fn check(spec: &ExchangeSpec) -> Result<(), Refusal> {
    if spec.kind != ExchangeKind::Delayed || named(spec).is_some() {
        return Ok(());
    }
    Err(Refusal::PreconditionFailed(match spec.arguments.get(ROUTES_AS) {
        Some(Value::Text(kind)) if ExchangeKind::parse(kind).is_none() => format!("unknown exchange type '{kind}'"),
        _ => format!("Invalid argument, '{ROUTES_AS}' must be an existing exchange type"),
    }))
}

/// The kind that the argument names, other than its own.
fn named(spec: &ExchangeSpec) -> Option<ExchangeKind> {
    let name = spec.arguments.get(ROUTES_AS).and_then(Value::as_text)?;
    ExchangeKind::parse(name).filter(|kind| *kind != ExchangeKind::Delayed)
}

impl Catalog {
    /// The schedule of a new exchange, if it needs one.
    pub(super) fn make_schedule(
        &mut self,
        vhost: &Name,
        exchange: &Name,
        spec: &ExchangeSpec,
        changes: &mut Vec<CatalogEntry>,
    ) -> Option<QueueId> {
        (spec.kind == ExchangeKind::Delayed).then(|| {
            let id = self.next_queue_id(changes);
            self.schedule_changes.push(ScheduleChange::Made(id, settings(vhost, exchange, spec)));
            id
        })
    }

    /// The schedules of all exchanges, in the order of the names of vhosts and exchanges.
    pub fn schedules(&self) -> impl Iterator<Item = (QueueId, ScheduleSettings)> {
        in_order(&self.vhosts).flat_map(|(_, vhost)| {
            let exchanges = in_order(&vhost.exchanges);
            exchanges.filter_map(|(name, found)| Some((found.schedule?, settings(&vhost.name, name, &found.spec))))
        })
    }
}

fn settings(vhost: &Name, exchange: &Name, spec: &ExchangeSpec) -> ScheduleSettings {
    ScheduleSettings { vhost: vhost.clone(), exchange: exchange.clone(), durable: spec.durable }
}
