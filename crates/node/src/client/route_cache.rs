//! A cache of the routes that a publisher has used last.

use ferrymq_model::QueueId;

/// A cache of the last routes: most publishers use the same ones again and again. It is valid as long as the
/// vhost's epoch does not change.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    epoch: u64,
    entries: Vec<CachedRoute>,
    /// The entry that the next new one replaces.
    next: usize,
}

/// Exchange and key are in one buffer: comparing with an empty buffer of its own is expensive, because its dangling
/// pointer causes a masked load that processors complete slowly.
#[derive(Debug)]
struct CachedRoute {
    names: Box<[u8]>,
    exchange_bytes: usize,
    queues: Vec<QueueId>,
}

impl CachedRoute {
    fn is_of(&self, exchange: &[u8], key: &[u8]) -> bool {
        self.names.len() == exchange.len() + key.len()
            && self.exchange_bytes == exchange.len()
            && self.names[exchange.len()..] == *key
            && self.names[..exchange.len()] == *exchange
    }
}

impl RouteCache {
    const ENTRIES_MAX: usize = 8;

    pub(super) fn find(&mut self, epoch: u64, exchange: &[u8], key: &[u8]) -> Option<&[QueueId]> {
        if self.epoch != epoch {
            self.entries.clear();
            self.epoch = epoch;
        }
        let found = self.entries.iter().find(|entry| entry.is_of(exchange, key));
        found.map(|entry| entry.queues.as_slice())
    }

    /// Whether this route is in the cache.
    pub(super) fn knows(&self, exchange: &[u8], key: &[u8]) -> bool {
        self.entries.iter().any(|entry| entry.is_of(exchange, key))
    }

    pub(super) fn keep(&mut self, exchange: &str, key: &[u8], queues: Vec<QueueId>) {
        let (exchange_bytes, names) = (exchange.len(), [exchange.as_bytes(), key].concat().into());
        let entry = CachedRoute { names, exchange_bytes, queues };
        if self.entries.len() < Self::ENTRIES_MAX {
            self.entries.push(entry);
        } else {
            self.entries[self.next] = entry;
            self.next = (self.next + 1) % Self::ENTRIES_MAX;
        }
    }
}
