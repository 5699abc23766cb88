//! A cache of the routes that a publisher has used last.

use ferrymq_model::QueueId;

/// A cache of the last routes: most publishers use the same ones again and again. It is valid as long as the
/// vhost's epoch does not change.
///
/// A hash of the names says in which set of entries a route may be, so a search checks few entries, however many there
/// are. The places are octets, because each connection has such a cache.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    epoch: u64,
    entries: Vec<CachedRoute>,
    /// For each set the places of its entries, counted from 1. A 0 is free, and so are those after it.
    sets: [[u8; WAYS]; SETS],
    /// The place of the entry that was found or kept last, counted from 0.
    last: u8,
    /// Which entry of a full set the next new one replaces.
    next: u8,
}

const SETS: usize = 16;
const WAYS: usize = 4;

/// Exchange and key are in one buffer: comparing with an empty buffer of its own is expensive, because its dangling
/// pointer causes a masked load that processors complete slowly.
#[derive(Debug, Default)]
struct CachedRoute {
    hash: u64,
    names: Vec<u8>,
    exchange_bytes: usize,
    queues: Vec<QueueId>,
}

impl CachedRoute {
    #[inline]
    fn is_of(&self, exchange: &[u8], key: &[u8]) -> bool {
        self.names.len() == exchange.len() + key.len()
            && self.exchange_bytes == exchange.len()
            && self.names[exchange.len()..] == *key
            && self.names[..exchange.len()] == *exchange
    }
}

impl RouteCache {
    // Inlined down to the comparison with the last route, which most publishes use.
    #[inline(always)]
    pub(super) fn find(&mut self, epoch: u64, exchange: &[u8], key: &[u8]) -> Option<&[QueueId]> {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.last = self.place(exchange, key)?;
        Some(self.entries[usize::from(self.last)].queues.as_slice())
    }

    /// Whether this route is in the cache.
    pub(super) fn knows(&self, exchange: &[u8], key: &[u8]) -> bool {
        self.place(exchange, key).is_some()
    }

    pub(super) fn keep(&mut self, exchange: &str, key: &[u8], queues: Vec<QueueId>) {
        let exchange = exchange.as_bytes();
        let hash = hash(exchange, key);
        let set = &mut self.sets[set_of(hash)];
        let place = match set.iter().position(|&place| place == 0) {
            Some(free) => {
                self.entries.push(CachedRoute::default());
                set[free] = self.entries.len() as u8;
                self.entries.len() - 1
            }
            None => {
                self.next = (self.next + 1) % WAYS as u8;
                usize::from(set[usize::from(self.next)]) - 1
            }
        };
        // A replaced entry's buffer is used again.
        let entry = &mut self.entries[place];
        entry.names.clear();
        entry.names.reserve_exact(exchange.len() + key.len());
        entry.names.extend_from_slice(exchange);
        entry.names.extend_from_slice(key);
        (entry.hash, entry.exchange_bytes, entry.queues) = (hash, exchange.len(), queues);
        self.last = place as u8;
    }

    /// The place of a route. The last one is checked first, because this needs no hash.
    #[inline(always)]
    fn place(&self, exchange: &[u8], key: &[u8]) -> Option<u8> {
        if self.entries.get(usize::from(self.last))?.is_of(exchange, key) {
            return Some(self.last);
        }
        self.place_in_set(exchange, key)
    }

    fn place_in_set(&self, exchange: &[u8], key: &[u8]) -> Option<u8> {
        let hash = hash(exchange, key);
        let set = self.sets[set_of(hash)].iter().take_while(|&&place| place > 0);
        set.map(|&place| place - 1).find(|&place| {
            let entry = &self.entries[usize::from(place)];
            entry.hash == hash && entry.is_of(exchange, key)
        })
    }
}

/// Hashes eight bytes at a time. A client that chooses names with the same hash only makes its own cache worse.
fn hash(exchange: &[u8], key: &[u8]) -> u64 {
    let mut hash = exchange.len() as u64;
    for chunk in exchange.chunks(8).chain(key.chunks(8)) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    hash
}

/// The set of a hash, by its highest bits, which depend on all others.
fn set_of(hash: u64) -> usize {
    (hash >> 60) as usize % SETS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(cache: &mut RouteCache, names: impl Iterator<Item = u32>) {
        for number in names {
            if cache.find(1, b"x", format!("key.{number:05}").as_bytes()).is_none() {
                cache.keep("x", format!("key.{number:05}").as_bytes(), vec![QueueId(number.into())]);
            }
        }
    }

    fn found(cache: &mut RouteCache, names: impl Iterator<Item = u32>) -> usize {
        let mut found = 0;
        for number in names {
            if let Some(queues) = cache.find(1, b"x", format!("key.{number:05}").as_bytes()) {
                assert_eq!(queues, [QueueId(number.into())]);
                found += 1;
            }
        }
        found
    }

    #[test]
    fn a_publisher_that_takes_twenty_keys_in_turn_finds_them() {
        let mut cache = RouteCache::default();
        keep(&mut cache, 0..20);
        assert!(found(&mut cache, 0..20) >= 18);
    }

    #[test]
    fn it_has_a_bound_and_stays_right_when_entries_are_replaced() {
        let mut cache = RouteCache::default();
        keep(&mut cache, 0..10_000);
        let count = cache.entries.len();
        assert_eq!(count, SETS * WAYS);
        assert_eq!(found(&mut cache, 0..10_000), count);
    }

    #[test]
    fn another_epoch_or_other_names_are_not_found() {
        let mut cache = RouteCache::default();
        cache.find(1, b"", b"q");
        cache.keep("", b"q", vec![QueueId(1)]);
        assert!(cache.knows(b"", b"q"));
        assert!(!cache.knows(b"q", b"") && !cache.knows(b"", b"") && !cache.knows(b"", b"qq"));
        assert!(cache.find(2, b"", b"q").is_none());
    }
}
