//! A channel's publishes and settlements since its last commit, in transactional mode (AMQP 0-9-1 section 1.9).

use bytes::Bytes;
use ferrymq_model::{Body, BodyRef, MessageRef, Publish, Settlement, Span};

use crate::connection::unacked::Delivery;

/// Publishes and settlements that wait for a commit, in the order in which they arrived.
#[derive(Debug, Default)]
pub struct Transaction {
    pub publishes: Vec<Publish>,
    pub settlements: Vec<Settling>,
    /// The bytes of the publishes.
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

/// The bytes of a kept publish.
pub fn kept_bytes(publish: &Publish) -> usize {
    let shared = match &publish.body {
        Body::Span(_) => 0,
        Body::Shared(body) => body.len(),
        Body::Filed(filed) => filed.bytes.len(),
    };
    publish.source(&[]).len() + publish.annotations().len() + shared
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
