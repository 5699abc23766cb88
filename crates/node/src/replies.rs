//! Answers that go straight to the channel that asked, without a queue.

use std::sync::Arc;

use ferrymq_model::Name;
use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::connection::Connection;

/// Where answers to an address go.
#[derive(Clone, Debug)]
pub struct ReplyTarget {
    pub connection: Arc<Connection>,
    pub channel: u16,
}

/// A channel's own address for answers, and the name of the subscription that gets them.
#[derive(Clone, Debug)]
pub struct ReplyAddress {
    pub address: Name,
    pub tag: Name,
}

/// All addresses for answers. Looked at only for messages to the default exchange that no queue takes.
#[derive(Debug, Default)]
pub struct ReplyAddresses(RwLock<HashMap<Name, ReplyTarget>>);

impl ReplyAddresses {
    pub fn add(&self, address: Name, target: ReplyTarget) {
        self.0.write().insert(address, target);
    }

    pub fn remove(&self, address: &str) {
        self.0.write().remove(address);
    }

    /// Whose address this is.
    pub fn find(&self, address: &[u8]) -> Option<ReplyTarget> {
        let addresses = self.0.read();
        if addresses.is_empty() {
            return None;
        }
        addresses.get(std::str::from_utf8(address).ok()?).cloned()
    }
}
