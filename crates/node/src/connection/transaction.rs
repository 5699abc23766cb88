//! The open transactions of a channel: publishes and settlements that wait for a commit (AMQP 0-9-1 section 1.9).

use bytes::Bytes;
use ferrymq_broker::SequenceRange;
use ferrymq_model::{
    Body, BodyRef, Deliveries, FiledBody, MessageRef, Publish, PublishExtras, Settlement, Span, TransactionId,
};

use crate::connection::{
    mailbox::{ClientState, Mailbox, add_to, give_back},
    unacked::Delivery,
};

/// About what an allocation takes beyond the bytes that were asked for.
const ALLOCATION_BYTES: usize = 16;

/// A list that grows has room for up to so many times what is in it.
const GROWTH: usize = 2;

/// Publishes and settlements that wait for a commit, in the order in which they arrived.
#[derive(Debug, Default)]
pub struct Transaction {
    pub publishes: Vec<Publish>,
    pub settlements: Vec<Settling>,
    /// The memory of all of them, in bytes.
    pub bytes: usize,
}

/// Deliveries that were settled and not yet committed: they are off the channel's list, and their credit is not
/// returned.
#[derive(Debug)]
pub struct Settling {
    pub settlement: Settlement,
    /// With their delivery tags.
    pub deliveries: Vec<(u64, Delivery)>,
}

impl Settling {
    /// The memory that it takes in the list of its transaction.
    fn memory_bytes(&self) -> usize {
        GROWTH * size_of::<Self>() + ALLOCATION_BYTES + self.deliveries.len() * size_of::<(u64, Delivery)>()
    }
}

impl Mailbox {
    /// Takes the transaction, which is over, out of its channel. The one of a transactional channel begins again.
    pub fn end_transaction(&mut self, channel: u16, id: TransactionId) -> Option<Transaction> {
        let channel = self.state.channels.get_mut(&channel)?;
        let ended = channel.transactions.remove(&id)?;
        if channel.is_transactional && id == TransactionId::SELECTED {
            channel.transactions.insert(id, Transaction::default());
        }
        Some(ended)
    }

    /// Removes deliveries from the channel's list until the transaction, which is open, is committed. False: one of them
    /// is not unsettled. Returns also the memory that they take, in bytes.
    pub fn set_aside(
        &mut self,
        channel: u16,
        id: TransactionId,
        which: Deliveries,
        settlement: Settlement,
    ) -> (bool, usize) {
        let Some(channel) = self.state.channels.get_mut(&channel) else { return (false, 0) };
        let Some(transaction) = channel.transactions.get_mut(&id) else { return (false, 0) };
        let mut deliveries = Vec::new();
        let known = channel.unacked.settle(which, |tag, delivery| deliveries.push((tag, delivery)));
        if deliveries.is_empty() {
            return (known, 0);
        }
        deliveries.shrink_to_fit();
        let settling = Settling { settlement, deliveries };
        let bytes = settling.memory_bytes();
        transaction.settlements.push(settling);
        transaction.bytes += bytes;
        (known, bytes)
    }

    /// The settlements of a transaction are committed: returns their credit, and what is to be decided.
    pub fn committed(&mut self, channel: u16, settlements: Vec<Settling>) -> Vec<(Settlement, Vec<SequenceRange>)> {
        let ClientState { channels, subscriptions, .. } = &mut self.state;
        let Some(channel) = channels.get_mut(&channel) else { return Vec::new() };
        let mut decided = Vec::with_capacity(settlements.len());
        for Settling { settlement, deliveries } in settlements {
            let mut ranges = Vec::new();
            for (_, delivery) in &deliveries {
                add_to(&mut ranges, delivery);
                give_back(&mut channel.delivered, subscriptions, delivery);
            }
            decided.push((settlement, ranges));
        }
        decided
    }

    /// The transaction is rolled back: its settled deliveries are unsettled again. Returns its memory in bytes.
    /// (AMQP-37)
    pub fn roll_back(&mut self, channel: u16, id: TransactionId) -> Option<usize> {
        let transaction = self.end_transaction(channel, id)?;
        let channel = self.state.channels.get_mut(&channel)?;
        for (tag, delivery) in transaction.settlements.into_iter().flat_map(|settling| settling.deliveries) {
            channel.unacked.put_back(tag, delivery);
        }
        Some(transaction.bytes)
    }

    /// All transactions of the channel are rolled back. Returns their memory in bytes.
    pub fn roll_back_all(&mut self, channel: u16) -> usize {
        let open =
            self.state.channels.get(&channel).map(|channel| channel.transactions.keys().copied().collect::<Vec<_>>());
        open.into_iter().flatten().filter_map(|id| self.roll_back(channel, id)).sum()
    }
}

/// The bytes of a kept publish's message.
pub fn message_bytes(publish: &Publish) -> usize {
    let body = match &publish.body {
        Body::Span(_) => 0,
        Body::Shared(body) => body.len(),
        Body::Filed(filed) => filed.bytes.len(),
    };
    publish.source(&[]).len() + publish.annotations().len() + body
}

/// The memory of a kept publish in a list, in bytes: a small message takes far more than its own bytes.
pub fn kept_bytes(publish: &Publish) -> usize {
    let body = match &publish.body {
        Body::Span(_) => 0,
        Body::Shared(body) => BYTES_BYTES + body.len(),
        Body::Filed(filed) => size_of::<FiledBody>() + BYTES_BYTES + filed.bytes.len(),
    };
    GROWTH * size_of::<Publish>() + publish.rare.as_ref().map_or(0, |rare| extras_bytes(rare)) + body
}

/// The memory of a buffer that is shared, without its bytes.
const BYTES_BYTES: usize = 2 * ALLOCATION_BYTES + 3 * size_of::<usize>();

fn extras_bytes(extras: &PublishExtras) -> usize {
    let PublishExtras { head, user, more_keys, annotations, matched, wants_replies: _, transaction: _ } = extras;
    let key_bytes = |key: &Vec<u8>| size_of::<Vec<u8>>() + ALLOCATION_BYTES + key.len();
    size_of::<PublishExtras>()
        + ALLOCATION_BYTES
        + head.as_ref().map_or(0, |head| BYTES_BYTES + head.len())
        + user.as_ref().map_or(0, |user| user.len())
        + more_keys.iter().map(key_bytes).sum::<usize>()
        + annotations.len()
        + size_of_val(&matched[..])
}

/// The same publish with its own data, of a message that may have other annotations now.
pub fn kept(publish: &Publish, message: &MessageRef<'_>) -> Publish {
    let inline: &[u8] = match message.body {
        BodyRef::Inline(body) => body,
        BodyRef::Shared(_) | BodyRef::Filed(_) => &[],
    };
    let mut head = Vec::with_capacity(
        message.exchange.len() + message.routing_key.len() + message.properties.len() + inline.len(),
    );
    let mut part = |bytes: &[u8]| {
        let start = u32::try_from(head.len()).expect("names, properties and a small body are far below 4 GiB");
        head.extend_from_slice(bytes);
        Span { start, len: u32::try_from(bytes.len()).expect("each of them is") }
    };
    let (exchange, routing_key) = (part(message.exchange.as_bytes()), part(message.routing_key));
    let properties = part(message.properties);
    let body = match message.body {
        BodyRef::Inline(body) => Body::Span(part(body)),
        BodyRef::Shared(body) => Body::Shared(body.clone()),
        BodyRef::Filed(filed) => Body::Filed(Box::new(filed.clone())),
    };
    let mut rare = publish.rare.clone().unwrap_or_default();
    rare.head = Some(Bytes::from(head));
    rare.annotations = message.annotations.into();
    Publish { exchange, routing_key, properties, body, rare: Some(rare), ..publish.clone() }
}
