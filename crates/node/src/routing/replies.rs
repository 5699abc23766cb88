//! Direct reply-to: replies that go straight to the channel that asked, without a queue.

use std::sync::Arc;

use ferrymq_model::Name;
use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::connection::peer::Connection;

/// The receiver of replies to an address.
#[derive(Clone, Debug)]
pub struct ReplyTarget {
    pub connection: Arc<Connection>,
    pub channel: u16,
}

/// A channel's own reply address, and the tag of the subscription that gets the replies.
#[derive(Clone, Debug)]
pub struct ReplyAddress {
    pub address: Name,
    pub tag: Name,
}

/// All reply addresses. Looked up only for messages to the default exchange that no queue matches.
#[derive(Debug, Default)]
pub struct ReplyAddresses(RwLock<HashMap<Name, ReplyTarget>>);

impl ReplyAddresses {
    pub fn add(&self, address: Name, target: ReplyTarget) {
        self.0.write().insert(address, target);
    }

    pub fn remove(&self, address: &str) {
        self.0.write().remove(address);
    }

    /// The channel of an address.
    pub fn find(&self, address: &[u8]) -> Option<ReplyTarget> {
        let addresses = self.0.read();
        if addresses.is_empty() {
            return None;
        }
        addresses.get(std::str::from_utf8(address).ok()?).cloned()
    }
}
