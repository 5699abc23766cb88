//! A new binding of an `x-recent-history` exchange gets the messages that the exchange has kept.

use ferrymq_broker::{Catalog, History, KeptMessage, binding_number};
use ferrymq_model::{BindCommand, Destination, Facts, Position, Time};

use super::Client;
use crate::{
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
    routing::envelope::{Routed, with_envelope},
};

impl Client {
    /// Puts the kept messages into the queues of a new binding. Returns the position that makes that durable, if it
    /// must be durable. The caller holds the lock of the catalog since the binding was made, so that later
    /// publishes come after these messages.
    pub(super) fn replay(
        &self,
        catalog: &Catalog,
        history: &History,
        bound: &BindCommand,
        deferred: &mut Deferred,
    ) -> Option<Position> {
        let vhost = self.caller().vhost;
        let replayed: Vec<_> = history
            .messages()
            .into_iter()
            .map(|kept| (self.node.targets_behind(catalog, vhost, history, bound, &kept), kept))
            .collect();
        let (now, mut after) = (self.node.now(), None);
        for batch in replayed.chunks(self.node.limits().batch_messages_max) {
            self.node.decide_with(CatalogLock::Read(catalog), deferred, |shard, ports| {
                for (Routed { targets, matched }, kept) in batch {
                    let message = kept.message.borrowed();
                    let facts = facts_of(kept, now);
                    let published = shard.publish_matched(&message, &facts, kept.persistent, targets, matched, ports);
                    if published.durable {
                        after = Some(ports.flushed_position());
                    }
                }
            });
        }
        after
    }
}

impl Node {
    /// The queues that a kept message reaches through a new binding, and the bindings that ask to be named. Other history
    /// exchanges on the way keep it, too.
    fn targets_behind(
        &self,
        catalog: &Catalog,
        vhost: &str,
        history: &History,
        bound: &BindCommand,
        kept: &KeptMessage,
    ) -> Routed {
        let (message, mut targets) = (kept.message.borrowed(), Vec::new());
        let keep = |other: &History| {
            if !std::ptr::eq(other, history) {
                self.keep(other, kept.clone());
            }
        };
        let (key, more_keys) = (message.routing_key, &*kept.more_keys);
        let ((), mut matched) = with_envelope(&self.dialects, &message, &|| self.random() as u64, &keep, |envelope| {
            catalog
                .route_to(vhost, &bound.destination, key, more_keys, envelope, &mut targets)
                .expect("what has just been bound is there");
        });
        // A queue's own new binding is not on the way: the message comes from it.
        if let (Destination::Queue(_), Some(number)) = (&bound.destination, binding_number(&bound.arguments)) {
            matched.extend(targets.iter().map(|queue| (*queue, number)));
        }
        Routed { targets, matched }
    }
}

/// As if it were published now.
pub(super) fn facts_of(kept: &KeptMessage, now: Time) -> Facts {
    Facts {
        body_bytes: u32::try_from(kept.message.borrowed().body.bytes().len()).expect("as it was when it was published"),
        priority: kept.priority,
        expires: kept.expiration_ms.map(|ms| now.after_ms(ms)),
        arrived: now,
    }
}
