//! Exchanges that let messages wait: a message that asks for it goes to the exchange's schedule first, and through its
//! bindings when its time has come. They route like the kind of exchange that they are declared with.
//!
//! A schedule is the shard's, as a queue's content is; what is made and what goes is listed until the caller has told it.

use ferrymq_model::{CatalogEntry, ExchangeKind, ExchangeSpec, Name, QueueId, Refusal, Value};

use super::Catalog;
use crate::schedule::ScheduleSettings;

pub(super) const ROUTES_AS: &str = "x-delayed-type";

/// What a shard has to be told of schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleChange {
    /// One was made.
    Made(QueueId, ScheduleSettings),
    /// One has gone with its exchange.
    Gone(QueueId),
}

/// The kind that an exchange routes as.
pub(super) fn routes_as(spec: &ExchangeSpec) -> ExchangeKind {
    match spec.kind {
        ExchangeKind::Delayed => named(spec).expect("this was checked when it was declared"),
        kind => kind,
    }
}

/// Refuses an exchange that does not say how it routes.
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
    /// The schedule of a new exchange, where it needs one.
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

    /// Whether the shard has to be told something of schedules.
    #[must_use]
    pub fn has_schedule_changes(&self) -> bool {
        !self.schedule_changes.is_empty()
    }

    /// What has become of schedules since this was asked last. To be told to the shard before anyone else sees the catalog.
    pub fn take_schedule_changes(&mut self) -> Vec<ScheduleChange> {
        std::mem::take(&mut self.schedule_changes)
    }

    /// The schedules of all exchanges, in no order.
    pub fn schedules(&self) -> impl Iterator<Item = (QueueId, ScheduleSettings)> {
        self.vhosts.values().flat_map(|vhost| {
            let exchanges = vhost.exchanges.iter();
            exchanges.filter_map(|(name, found)| Some((found.schedule?, settings(&vhost.name, name, &found.spec))))
        })
    }
}

fn settings(vhost: &Name, exchange: &Name, spec: &ExchangeSpec) -> ScheduleSettings {
    ScheduleSettings { vhost: vhost.clone(), exchange: exchange.clone(), durable: spec.durable }
}
