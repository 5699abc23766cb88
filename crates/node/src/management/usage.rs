//! Who uses how much: the counters, and the ledger of memory by owner.

use ferrymq_model::UsageReport;

use crate::core::node::Node;

impl Node {
    /// What vhosts and users have open and did, and where the memory is.
    #[must_use]
    pub fn usage(&self) -> UsageReport {
        let [vhosts, users] = self.counters.usage();
        UsageReport { vhosts, users, memory: self.memory(), process_bytes: self.host.memory_bytes() }
    }

    /// Bytes, by owner.
    pub(crate) fn memory(&self) -> Vec<(&'static str, u64)> {
        let stored = self.core.lock().store.as_ref().map(|store| store.stats().memory).unwrap_or_default();
        let storage = [
            ("queues", stored.index),
            ("journal", stored.journal + stored.journal_bodies),
            ("transient messages", stored.transient),
            ("what was read back", stored.caches + stored.read_ahead),
        ];
        self.ledger.by_owner().chain(storage).collect()
    }
}
