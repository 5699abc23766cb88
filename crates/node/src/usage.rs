//! Who uses how much: what was counted, and the ledger of memory by owner.

use std::sync::atomic::Ordering;

use ferrymq_model::UsageReport;

use crate::node::Node;

impl Node {
    /// What vhosts and users have open and did, and where the memory is.
    #[must_use]
    pub fn usage(&self) -> UsageReport {
        let [vhosts, users] = self.census.usage();
        UsageReport { vhosts, users, memory: self.memory() }
    }

    /// Bytes, by owner.
    pub(crate) fn memory(&self) -> Vec<(&'static str, u64)> {
        let (connections, stored) = {
            let core = self.core.lock();
            (core.connections.clone(), core.store.as_ref().map(|store| store.stats().memory).unwrap_or_default())
        };
        let outboxes: usize = connections.iter().flatten().map(|connection| connection.waiting_bytes()).sum();
        vec![
            ("outboxes of connections", outboxes as u64),
            ("messages that have arrived in part", self.uploads_bytes.load(Ordering::Relaxed) as u64),
            ("queues", stored.index),
            ("journal", stored.journal + stored.journal_bodies),
            ("transient messages", stored.transient),
            ("what was read back", stored.caches + stored.read_ahead),
        ]
    }
}
