//! The key of hash tables whose keys clients choose.
//!
//! Clients name queues, exchanges and routing keys. If they knew how these are hashed, they could choose names that all
//! fall into one place of a table, and each look-up would compare them all. So the hash depends on a secret key. It is an
//! argument: the server draws it, and a test has a fixed one.

use std::hash::BuildHasher;

use foldhash::{SharedSeed, fast::FoldHasher};

/// A table whose keys clients choose.
pub(crate) type KeyedTable<K, V> = hashbrown::HashMap<K, V, HashKey>;

/// The key of such tables.
#[derive(Clone, Copy, Debug)]
pub struct HashKey(&'static Seeds);

#[derive(Debug)]
struct Seeds {
    each: u64,
    shared: SharedSeed,
}

impl HashKey {
    /// A key of 128 bits that nobody can guess. Its memory is not freed: one is enough for a process.
    #[must_use]
    pub fn new(key: u128) -> Self {
        Self(Box::leak(Box::new(Seeds { each: key as u64, shared: SharedSeed::from_u64((key >> 64) as u64) })))
    }

    /// A key that everybody knows, for tests and for tools that serve no client.
    #[must_use]
    pub fn known() -> Self {
        static KNOWN: Seeds = Seeds { each: 1, shared: SharedSeed::from_u64(2) };
        Self(&KNOWN)
    }
}

impl BuildHasher for HashKey {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> FoldHasher<'static> {
        FoldHasher::with_seed(self.0.each, &self.0.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of many names fall into the fullest of 256 places.
    fn fullest(key: HashKey, names: &[String]) -> usize {
        let mut places = [0; 256];
        for name in names {
            places[(key.hash_one(name) >> 56) as usize] += 1;
        }
        places.into_iter().max().unwrap()
    }

    /// Names that all fall into one place by one key are spread by another one, and each key gives the same hashes always.
    #[test]
    fn names_that_collide_by_one_key_are_spread_by_another() {
        let (one, other) = (HashKey::new(1 << 64 | 7), HashKey::new(2 << 64 | 7));
        let collide = |name: &String| one.hash_one(name) >> 56 == 0;
        let names: Vec<String> = (0..).map(|number| format!("queue {number}")).filter(collide).take(4_096).collect();
        assert_eq!(fullest(one, &names), names.len());
        assert_eq!(fullest(HashKey::new(1 << 64 | 7), &names), names.len());
        assert!(fullest(other, &names) < 64, "{} in one place", fullest(other, &names));
        // Also if only one half of the key is another.
        assert!(fullest(HashKey::new(1 << 64 | 8), &names) < 64);
    }
}
