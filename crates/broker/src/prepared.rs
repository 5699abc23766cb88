//! Prepared transactions: what they publish and settle, as it is stored until somebody decides.

use ferrymq_model::{CatalogEntry, DialectId, EntryKind, Name, OwnedBody, OwnedMessage, QueueId, Sequence, Settlement};
use serde::{Deserialize, Serialize};

use crate::{KeptMessage, SequenceRange};

/// A transaction that is prepared: it is committed or rolled back later, also after a restart.
#[derive(Clone, Debug)]
pub struct PreparedTransaction {
    /// The vhost.
    pub vhost: Name,
    /// Its name, which the client has chosen.
    pub name: Vec<u8>,
    /// The user who may decide about it.
    pub user: Name,
    /// What it publishes.
    pub publishes: Vec<KeptMessage>,
    /// What it settles. Until then these messages are not ready.
    pub settlements: Vec<(Settlement, Vec<SequenceRange>)>,
}

/// A stored transaction is in parts of this length: it may be longer than a file of the journal.
const PART_BYTES: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct PreparedEntry {
    vhost: String,
    name: Vec<u8>,
    user: String,
    publishes: Vec<PublishEntry>,
    settlements: Vec<SettlementEntry>,
}

#[derive(Serialize, Deserialize)]
struct PublishEntry {
    dialect: u8,
    exchange: String,
    #[serde(with = "serde_bytes")]
    routing_key: Vec<u8>,
    more_keys: Vec<Vec<u8>>,
    #[serde(with = "serde_bytes")]
    properties: Vec<u8>,
    #[serde(with = "serde_bytes")]
    annotations: Vec<u8>,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    persistent: bool,
    priority: u8,
    expiration_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct SettlementEntry {
    /// 1: accept, 2: release, 3: fail, 4: reject.
    settlement: u8,
    delay_ms: u64,
    /// Lane, first, last, bytes of the bodies.
    ranges: Vec<(u64, Sequence, Sequence, u64)>,
}

impl PreparedTransaction {
    /// The entries that store it; with `gone`, those that remove it.
    #[must_use]
    pub fn entries(&self, gone: bool) -> Vec<CatalogEntry> {
        let stored = PreparedEntry {
            vhost: self.vhost.to_string(),
            name: self.name.clone(),
            user: self.user.to_string(),
            publishes: self.publishes.iter().map(publish_entry).collect(),
            settlements: self.settlements.iter().map(settlement_entry).collect(),
        };
        let bytes = rmp_serde::to_vec_named(&stored).expect("plain values can be encoded");
        let part = |(number, part): (usize, &[u8])| CatalogEntry {
            kind: EntryKind::PreparedTransaction,
            key: self.key(u32::try_from(number).expect("it has far fewer parts")),
            value: (!gone).then(|| part.to_vec()),
        };
        bytes.chunks(PART_BYTES).enumerate().map(part).collect()
    }

    fn key(&self, part: u32) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.vhost.len() + self.name.len() + 6);
        key.extend_from_slice(&u16::try_from(self.vhost.len()).expect("a name is short").to_be_bytes());
        key.extend_from_slice(self.vhost.as_bytes());
        key.extend_from_slice(&self.name);
        key.extend_from_slice(&part.to_be_bytes());
        key
    }

    /// The transactions that these entries store.
    ///
    /// # Errors
    /// If one is unreadable: says why.
    pub fn load(entries: &[CatalogEntry]) -> Result<Vec<Self>, String> {
        let mut parts: Vec<(&[u8], &[u8])> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::PreparedTransaction)
            .filter_map(|entry| Some((&*entry.key, entry.value.as_deref()?)))
            .collect();
        let name = |key: &[u8]| key.len().saturating_sub(4);
        // Not by whole keys: a name may be the beginning of another one.
        parts.sort_unstable_by_key(|(key, _)| key.split_at(name(key)));
        let whole = parts.chunk_by(|(one, _), (other, _)| one[..name(one)] == other[..name(other)]);
        whole
            .map(|parts| Self::read(&parts.iter().flat_map(|(_, value)| *value).copied().collect::<Vec<u8>>()))
            .collect()
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let stored: PreparedEntry = rmp_serde::from_slice(bytes).map_err(|why| why.to_string())?;
        let publishes = stored.publishes.into_iter().map(publish).collect::<Result<_, _>>()?;
        let settlements = stored.settlements.into_iter().map(settlement).collect::<Result<_, _>>()?;
        let (vhost, user) = (stored_name(&stored.vhost)?, stored_name(&stored.user)?);
        Ok(Self { vhost, name: stored.name, user, publishes, settlements })
    }
}

fn stored_name(name: &str) -> Result<Name, String> {
    Name::parse(name.as_bytes()).map_err(|why| format!("a name: {why:?}"))
}

fn publish_entry(kept: &KeptMessage) -> PublishEntry {
    let message = kept.message.borrowed();
    PublishEntry {
        dialect: message.dialect.0,
        exchange: message.exchange.to_owned(),
        routing_key: message.routing_key.to_vec(),
        more_keys: kept.more_keys.to_vec(),
        properties: message.properties.to_vec(),
        annotations: message.annotations.to_vec(),
        body: message.body.bytes().to_vec(),
        persistent: kept.persistent,
        priority: kept.priority,
        expiration_ms: kept.expiration_ms,
    }
}

fn publish(stored: PublishEntry) -> Result<KeptMessage, String> {
    let message = OwnedMessage {
        dialect: DialectId(stored.dialect),
        exchange: stored_name(&stored.exchange)?,
        routing_key: stored.routing_key.into(),
        properties: stored.properties,
        annotations: stored.annotations.into(),
        body: OwnedBody::Shared(stored.body.into()),
    };
    let PublishEntry { more_keys, persistent, priority, expiration_ms, .. } = stored;
    Ok(KeptMessage { message, more_keys: more_keys.into(), persistent, priority, expiration_ms })
}

fn settlement_entry((settlement, ranges): &(Settlement, Vec<SequenceRange>)) -> SettlementEntry {
    let (settlement, delay_ms) = match *settlement {
        Settlement::Accept => (1, 0),
        Settlement::Release { delay_ms } => (2, delay_ms),
        Settlement::Fail { delay_ms } => (3, delay_ms),
        Settlement::Reject => (4, 0),
    };
    let ranges = ranges.iter().map(|range| (range.queue.0, range.first, range.last, range.body_bytes)).collect();
    SettlementEntry { settlement, delay_ms, ranges }
}

fn settlement(stored: SettlementEntry) -> Result<(Settlement, Vec<SequenceRange>), String> {
    let SettlementEntry { settlement, delay_ms, ranges } = stored;
    let settlement = match settlement {
        1 => Settlement::Accept,
        2 => Settlement::Release { delay_ms },
        3 => Settlement::Fail { delay_ms },
        4 => Settlement::Reject,
        other => return Err(format!("settlement {other}")),
    };
    let range = |(queue, first, last, body_bytes)| SequenceRange { queue: QueueId(queue), first, last, body_bytes };
    Ok((settlement, ranges.into_iter().map(range).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(name: &[u8], body: usize) -> PreparedTransaction {
        let message = OwnedMessage {
            dialect: DialectId(1),
            exchange: Name::from("x"),
            routing_key: b"key".as_slice().into(),
            properties: vec![1, 2],
            annotations: Box::default(),
            body: OwnedBody::Inline(vec![7; body].into()),
        };
        let more_keys = vec![b"more".to_vec()].into();
        let kept = KeptMessage { message, more_keys, persistent: true, priority: 3, expiration_ms: Some(9) };
        let range = SequenceRange { queue: QueueId(256), first: 3, last: 5, body_bytes: 12 };
        let settlements = vec![(Settlement::Accept, vec![range]), (Settlement::Fail { delay_ms: 8 }, vec![])];
        let (vhost, user) = (Name::from("/"), Name::from("u"));
        PreparedTransaction { vhost, name: name.to_vec(), user, publishes: vec![kept], settlements }
    }

    #[test]
    fn what_is_stored_is_read_back_in_whatever_order_its_parts_come() {
        let all =
            [transaction(b"one", 10), transaction(b"\0\0", 200_000), transaction(b"", 0), transaction(b"\0\0\0", 1)];
        let mut entries: Vec<CatalogEntry> = all.iter().flat_map(|one| one.entries(false)).collect();
        assert_eq!(entries.len(), 1 + 4 + 1 + 1);
        entries.reverse();
        let mut loaded = PreparedTransaction::load(&entries).unwrap();
        loaded.sort_by_key(|one| one.name.clone());
        let shown = |one: &PreparedTransaction| {
            let kept = &one.publishes[0];
            let message = kept.message.borrowed();
            let parts = (message.exchange.to_owned(), message.routing_key.to_vec(), message.body.bytes().len());
            (one.name.clone(), parts, kept.more_keys.clone(), kept.expiration_ms, one.settlements.clone())
        };
        let wanted = [&all[2], &all[1], &all[3], &all[0]].map(shown);
        assert_eq!(loaded.iter().map(shown).collect::<Vec<_>>(), wanted);

        let gone = all[1].entries(true);
        assert!(gone.iter().all(|entry| entry.value.is_none()));
        assert_eq!(gone.len(), 4);
        let at = entries.iter().position(|entry| entry.key == gone[1].key).unwrap();
        entries.remove(at);
        assert!(PreparedTransaction::load(&entries).is_err(), "a part is missing");
    }
}
