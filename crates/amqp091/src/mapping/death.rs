//! The headers that RabbitMQ adds to a dead letter. Consumers can see from which queues it came.
//!
//! `x-death` is an array with one entry for each queue and reason, the latest death first. An entry has the number of
//! its deaths. The first and the latest death also have headers of their own. A client may publish a message that
//! already has an `x-death`. Then new deaths are added to the entries that can be read.

use ferrymq_model::{DeadLetter, Death, DeathReason};
use ferrymq_wire::Put;

use super::{headers::Headers, publish::texts};
use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_array, put_count, put_key, put_table, put_value},
};

const DEATHS: &str = "x-death";
/// The exchange, the queue and the reason of the first death, and of the latest.
const FIRST: [&str; 3] = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
const LAST: [&str; 3] = ["x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"];

/// The exchange of the first death: it routed the message to the queue that dead-lettered it first.
pub fn first_exchange(properties: &Properties<'_>) -> Option<Vec<u8>> {
    match properties.headers?.get(FIRST[0])? {
        RawValue::Text(exchange) => Some(exchange.to_vec()),
        _ => None,
    }
}

/// The properties of a message as it leaves `death.queue` for its dead-letter exchange.
pub fn dead_letter(properties: &[u8], death: &Death<'_>) -> DeadLetter {
    // The session has checked them when the message arrived.
    let properties = Properties::read(properties).unwrap_or_default();
    let mut headers = Headers::of(&properties);
    let copies = copies(&properties);
    let earlier = earlier(&properties);
    let (same, others): (Vec<RawTable<'_>>, Vec<RawTable<'_>>) =
        earlier.iter().partition(|entry| is_of(**entry, death.queue, reason(death.reason)));
    let latest = match same.first() {
        Some(entry) => counted_again(*entry),
        None => entry(death, &copies, properties.expiration),
    };
    headers.set(DEATHS, |value| {
        let mut entries = Vec::new();
        put_table(&mut entries, &latest);
        others.iter().for_each(|entry| put_table(&mut entries, entry.bytes()));
        put_array(value, &entries);
    });
    let place = [death.exchange, death.queue, reason(death.reason)];
    if earlier.is_empty() {
        FIRST.into_iter().zip(place).for_each(|(key, text)| headers.set_text(key, text));
    }
    LAST.into_iter().zip(place).for_each(|(key, text)| headers.set_text(key, text));
    if death.new_key {
        headers.remove("CC");
    }
    let this = (death.queue.to_owned(), death.reason == DeathReason::Rejected);
    DeadLetter {
        properties: headers.write(&Properties { expiration: None, ..properties }),
        more_keys: if death.new_key { Vec::new() } else { copies.into_iter().map(<[u8]>::to_vec).collect() },
        persistent: properties.delivery_mode == Some(2),
        deaths: std::iter::once(this).chain(others.into_iter().filter_map(remembered)).collect(),
    }
}

/// The same properties without what [`dead_letter`] adds.
pub fn without_deaths(properties: &[u8]) -> Vec<u8> {
    let properties = Properties::read(properties).unwrap_or_default();
    let mut headers = Headers::of(&properties);
    for key in [DEATHS].iter().chain(&FIRST).chain(&LAST) {
        headers.remove(key);
    }
    headers.write(&properties)
}

/// The name of a reason in `x-death`.
const fn reason(reason: DeathReason) -> &'static str {
    match reason {
        DeathReason::Rejected => "rejected",
        DeathReason::Expired => "expired",
        DeathReason::MaxLength => "maxlen",
        DeathReason::DeliveryLimit => "delivery_limit",
    }
}

/// The further routing keys that consumers can see.
pub(super) fn copies<'a>(properties: &Properties<'a>) -> Vec<&'a [u8]> {
    match properties.headers.and_then(|headers| headers.get("CC")) {
        Some(RawValue::Array(keys)) => texts(keys).collect(),
        _ => Vec::new(),
    }
}

/// The entries of `x-death`, the latest first. An `x-death` that is not an array is ignored: some clients write such a
/// header when they publish a message again. An entry that is not a table is ignored, too.
fn earlier<'a>(properties: &Properties<'a>) -> Vec<RawTable<'a>> {
    match properties.headers.and_then(|headers| headers.get(DEATHS)) {
        Some(RawValue::Array(entries)) => entries
            .iter()
            .filter_map(|entry| match entry {
                RawValue::Table(entry) => Some(entry),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn is_of(entry: RawTable<'_>, queue: &str, reason: &str) -> bool {
    let is = |key, text: &str| matches!(entry.get(key), Some(RawValue::Text(found)) if found == text.as_bytes());
    is("queue", queue) && is("reason", reason)
}

/// The queue in an entry, and whether the message was rejected there.
fn remembered(entry: RawTable<'_>) -> Option<(String, bool)> {
    let Some(RawValue::Text(queue)) = entry.get("queue") else { return None };
    let rejected = matches!(entry.get("reason"), Some(RawValue::Text(b"rejected")));
    Some((String::from_utf8_lossy(queue).into_owned(), rejected))
}

/// The entry for a message's first death in this queue for this reason.
fn entry(death: &Death<'_>, copies: &[&[u8]], expiration: Option<&[u8]>) -> Vec<u8> {
    let mut entry = Vec::new();
    let text = |entry: &mut Vec<u8>, key: &str, text: &[u8]| {
        put_key(entry, key);
        put_value(entry, &RawValue::Text(text));
    };
    put_key(&mut entry, "count");
    put_count(&mut entry, 1);
    text(&mut entry, "reason", reason(death.reason).as_bytes());
    text(&mut entry, "queue", death.queue.as_bytes());
    put_key(&mut entry, "time");
    put_value(&mut entry, &RawValue::Timestamp(death.at.0 / 1000));
    text(&mut entry, "exchange", death.exchange.as_bytes());
    let mut keys = Vec::new();
    for key in std::iter::once(&death.routing_key).chain(copies) {
        put_value(&mut keys, &RawValue::Text(key));
    }
    put_key(&mut entry, "routing-keys");
    put_array(&mut entry, &keys);
    if let Some(expiration) = expiration {
        text(&mut entry, "original-expiration", expiration);
    }
    entry
}

/// The same entry with its count increased by one. All other fields, such as the time, stay the same.
fn counted_again(entry: RawTable<'_>) -> Vec<u8> {
    let before = match entry.get("count") {
        Some(RawValue::Int(count)) => count.max(0),
        _ => 0,
    };
    let mut counted = Vec::with_capacity(entry.bytes().len() + 16);
    put_key(&mut counted, "count");
    put_count(&mut counted, before.saturating_add(1));
    for (key, value) in entry.entries().filter(|(key, _)| *key != b"count") {
        put_key(&mut counted, key);
        counted.put(value);
    }
    counted
}
