//! Schedules between the catalog, which creates them with their exchanges, and the shard, which has their messages.

use std::collections::BTreeMap;

use ferrymq_broker::{Catalog, DelayedMessage, History, KeptMessage, RoutedMessage, ScheduleChange, Shard};
use ferrymq_model::{Annotations, Dialects, Facts, MessageRef, QueueId};
use ferrymq_storage::RecoveredQueue;

use super::envelope::with_envelope;
use crate::core::{start, transition::Transition};

/// The message whose delay is over, and its targets; none if its exchange was deleted or routes it to no queue.
pub fn release_delayed(
    catalog: &Catalog,
    dialects: &Dialects,
    delayed: &DelayedMessage<'_>,
    message: &MessageRef<'_>,
    keeper: &dyn Fn(&History, KeptMessage),
) -> Option<RoutedMessage> {
    let dialect = dialects.get(message.dialect)?;
    let before = Annotations::read(message.annotations);
    let more_keys = if before.new_key { Vec::new() } else { dialect.more_keys(message) };
    let expiration_ms = if before.expiration_removed { None } else { dialect.ttl_ms(message) };
    let persistent = dialect.is_persistent(message);
    let annotations = Annotations { delay_over: true, ..before }.write();
    let sent = MessageRef { annotations: &annotations, ..*message };
    let keep = |history: &History| {
        let kept = KeptMessage {
            message: sent.owned(),
            more_keys: more_keys.clone().into(),
            persistent,
            priority: delayed.facts.priority,
            expiration_ms,
        };
        keeper(history, kept);
    };
    // No random numbers under the shard's lock: messages of one moment go to the same queue of an x-random
    // exchange.
    let (vhost, exchange) = (&delayed.schedule.vhost, &delayed.schedule.exchange);
    let mut targets = Vec::new();
    let (routed, matched) = with_envelope(dialects, &sent, &|| delayed.at.0, &keep, |envelope| {
        catalog.route(vhost, exchange, message.routing_key, &more_keys, envelope, &mut targets)
    });
    if routed.is_err() || targets.is_empty() {
        tracing::debug!(%vhost, %exchange, "a delayed message has nowhere to go");
        return None;
    }
    let expires = expiration_ms.map(|ms| delayed.at.after_ms(ms));
    Some(RoutedMessage {
        message: sent.owned(),
        facts: Facts { expires, arrived: delayed.at, ..*delayed.facts },
        persistent,
        targets,
        matched,
    })
}

/// Opens the schedules of durable exchanges with what storage found of their lanes, which it removes from `found`.
pub fn load(catalog: &Catalog, found: &mut BTreeMap<QueueId, &RecoveredQueue>, shard: &mut Shard) {
    for (id, settings) in catalog.schedules() {
        let lanes = (0..=u8::MAX).filter_map(|lane| Some(start::recovered_lane(lane, found.remove(&id.lane(lane))?)));
        shard.open_schedule(id, settings, &lanes.collect::<Vec<_>>());
    }
}

/// Tells the shard which schedules changed with the catalog.
pub fn follow_catalog(changes: Vec<ScheduleChange>, shard: &mut Shard, ports: &mut Transition<'_>) {
    for change in changes {
        match change {
            ScheduleChange::Made(id, settings) => shard.open_schedule(id, settings, &[]),
            ScheduleChange::Gone(id) => shard.close_schedule(id, ports),
        }
    }
}
