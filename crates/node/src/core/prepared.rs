//! The prepared transactions of a node.

use std::{collections::BTreeMap, sync::Arc};

use ferrymq_broker::PreparedTransaction;
use ferrymq_model::{Name, Refusal};

/// How many there may be.
const COUNT_MAX: usize = 10_000;

/// The maximum of one of them, in bytes of its messages.
const EACH_BYTES_MAX: usize = 4 << 20;

/// The maximum of all of them together: they stay in memory until they are decided.
const BYTES_MAX: usize = 64 << 20;

/// A vhost, and a transaction's name in it.
type Key = (Name, Vec<u8>);

/// All prepared transactions.
#[derive(Debug, Default)]
pub struct PreparedTransactions {
    all: BTreeMap<Key, Prepared>,
    bytes: usize,
}

/// One of them.
#[derive(Debug)]
pub struct Prepared {
    pub transaction: Arc<PreparedTransaction>,
    /// What its messages take.
    pub bytes: usize,
    /// Somebody decides it now.
    pub is_decided: bool,
}

impl Prepared {
    /// One that was there before a restart.
    pub fn recovered(transaction: PreparedTransaction) -> Self {
        let bytes = transaction.publishes.iter().map(|kept| kept.message.borrowed().body.bytes().len()).sum();
        Self { transaction: transaction.into(), bytes, is_decided: false }
    }
}

impl PreparedTransactions {
    /// Whether another one of this name and size may be added.
    pub fn check(&self, key: &Key, bytes: usize) -> Result<(), Refusal> {
        if self.all.contains_key(key) {
            return Err(Refusal::PreconditionFailed("a transaction of this name is prepared".to_owned()));
        }
        if bytes > EACH_BYTES_MAX {
            return Err(Refusal::ResourceLimit(format!("a prepared transaction has at most {EACH_BYTES_MAX} bytes")));
        }
        if self.all.len() >= COUNT_MAX || self.bytes + bytes > BYTES_MAX {
            let text = format!("at most {COUNT_MAX} transactions of {BYTES_MAX} bytes can be prepared");
            return Err(Refusal::ResourceLimit(text));
        }
        Ok(())
    }

    /// Adds one.
    pub fn insert(&mut self, prepared: Prepared) {
        let PreparedTransaction { vhost, name, .. } = &*prepared.transaction;
        let key = (vhost.clone(), name.clone());
        self.bytes += prepared.bytes;
        self.all.insert(key, prepared);
    }

    /// The transaction of this name, if the user may decide it and nobody else does. Its name stays in use until it is
    /// removed.
    pub fn begin_decision(&mut self, key: &Key, user: &Name) -> Option<Arc<PreparedTransaction>> {
        let found = self.all.get_mut(key).filter(|found| found.transaction.user == *user && !found.is_decided)?;
        found.is_decided = true;
        Some(found.transaction.clone())
    }

    /// Removes one that is decided.
    pub fn remove(&mut self, key: &Key) {
        if let Some(removed) = self.all.remove(key) {
            self.bytes -= removed.bytes;
        }
    }

    /// The names of those that a user may decide, ascending.
    pub fn names(&self, vhost: &Name, user: &Name) -> Vec<Vec<u8>> {
        let open = self.all.values().filter(|found| !found.is_decided).map(|found| &found.transaction);
        open.filter(|found| found.vhost == *vhost && found.user == *user).map(|found| found.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_decides_and_all_together_are_bounded() {
        let mut all = PreparedTransactions::default();
        let (vhost, user) = (Name::from("/"), Name::from("u"));
        let of = |name: &[u8]| PreparedTransaction {
            vhost: vhost.clone(),
            name: name.to_vec(),
            user: user.clone(),
            publishes: Vec::new(),
            settlements: Vec::new(),
        };
        let key = |name: &[u8]| (vhost.clone(), name.to_vec());
        for number in 0..16_u8 {
            all.check(&key(&[number]), EACH_BYTES_MAX).unwrap();
            all.insert(Prepared { transaction: of(&[number]).into(), bytes: EACH_BYTES_MAX, is_decided: false });
        }
        assert!(matches!(all.check(&key(b"more"), 1), Err(Refusal::ResourceLimit(_))));
        assert!(matches!(all.check(&key(&[3]), 0), Err(Refusal::PreconditionFailed(_))));
        assert!(all.begin_decision(&key(&[3]), &Name::from("other")).is_none());
        assert!(all.begin_decision(&key(&[3]), &user).is_some());
        assert!(all.begin_decision(&key(&[3]), &user).is_none(), "somebody decides it");
        assert_eq!(all.names(&vhost, &user).len(), 15);
        assert!(all.check(&key(&[3]), 0).is_err(), "its name is in use until it is decided");
        all.remove(&key(&[3]));
        all.check(&key(&[3]), EACH_BYTES_MAX).unwrap();
    }
}
