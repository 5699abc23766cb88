//! Routing of messages that the node itself makes: events and trace messages.

use ferrymq_broker::{Catalog, History, KeptMessage};
use ferrymq_model::{MessageRef, OwnedBody};
use ferrymq_storage::Store;

use super::envelope::{Routed, with_envelope};
use crate::core::node::Node;

impl Node {
    /// An exchange keeps a message. A long body's file stays with it if somebody has claimed it, so that nobody has to
    /// write it again for a new binding. Otherwise the file may be deleted at any time.
    pub(crate) fn keep(&self, history: &History, mut kept: KeptMessage) {
        if let OwnedBody::Filed(filed) = &kept.message.body
            && filed.claim.is_none()
        {
            kept.message.body = OwnedBody::Shared(filed.bytes.clone());
        }
        history.keep(kept, &self.histories);
    }

    /// The same for a message that storage may have.
    pub(crate) fn keep_stored(&self, history: &History, mut kept: KeptMessage, store: &Store) {
        if let OwnedBody::Filed(filed) = &mut kept.message.body {
            store.claim_body(filed);
        }
        self.keep(history, kept);
    }

    /// The queues of such a message, through all kinds of exchanges, and the bindings that ask to be named. None if its
    /// vhost was deleted.
    pub(crate) fn route_internal(
        &self,
        catalog: &Catalog,
        vhost: &str,
        message: &MessageRef<'_>,
        persistent: bool,
    ) -> Routed {
        let mut targets = Vec::new();
        let keep = |history: &History| {
            let (message, more_keys) = (message.owned(), Box::default());
            let kept = KeptMessage { message, more_keys, persistent, priority: 0, expiration_ms: None };
            self.keep(history, kept);
        };
        let (routed, matched) = with_envelope(&self.dialects, message, &|| self.random() as u64, &keep, |envelope| {
            catalog.route(vhost, message.exchange, message.routing_key, &[], envelope, &mut targets)
        });
        match routed {
            Ok(_) => Routed { targets, matched },
            Err(_) => Routed::default(),
        }
    }
}
