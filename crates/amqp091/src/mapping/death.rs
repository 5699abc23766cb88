//! The headers that RabbitMQ adds to a dead letter. Consumers can see from which queues it came.
//!
//! `x-death` is an array with one entry for each queue and reason, the latest death first. An entry has the number of
//! its deaths. The first and the latest death also have headers of their own. A client may publish a message that
//! already has an `x-death`. Then the entries that can be read are its first deaths, and an entry keeps all its fields.

use std::borrow::Cow;

use ferrymq_model::{DeathPlace, DeathReason, DeathRecord, Time};
use ferrymq_wire::Put;

use super::{
    headers::Headers,
    publish::{expiration_ms, texts},
};
use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_array, put_count, put_key, put_table, put_value},
};

pub(super) const DEATHS: &str = "x-death";
/// The exchange, the queue and the reason of the first death, and of the latest.
pub(super) const FIRST: [&str; 3] = ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"];
pub(super) const LAST: [&str; 3] = ["x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"];

/// The deaths to be shown in a message's headers.
#[derive(Clone, Copy, Debug)]
pub struct ShownDeaths<'a> {
    /// All deaths, the latest first.
    pub deaths: &'a [DeathRecord<'a>],
    /// The first one, if the server recorded it.
    pub first: Option<&'a DeathPlace<'a>>,
    /// The latest one.
    pub last: Option<&'a DeathPlace<'a>>,
    /// The properties that the publisher wrote, if they are of AMQP 0-9-1.
    pub written: Option<&'a Properties<'a>>,
}

/// Writes the deaths into the headers. (AMQP-58)
pub fn put_deaths(headers: &mut Headers<'_>, shown: &ShownDeaths<'_>) {
    let earlier = shown.written.map(earlier).unwrap_or_default();
    let expiration = shown.written.and_then(|properties| properties.expiration);
    headers.set(DEATHS, |value| {
        let mut entries = Vec::new();
        for death in shown.deaths {
            let written = death.written.and_then(|place| earlier.get(place as usize));
            match written {
                Some(entry) if count_in(*entry) == death.count => put_table(&mut entries, entry.bytes()),
                Some(entry) => put_table(&mut entries, &counted(*entry, death.count)),
                None => put_table(&mut entries, &entry(death, expiration)),
            }
        }
        put_array(value, &entries);
    });
    for (keys, place) in [(FIRST, shown.first), (LAST, shown.last)] {
        let Some(place) = place else { continue };
        headers.set_text(keys[0], &place.exchange);
        headers.set_text(keys[1], &place.queue);
        place.reason.into_iter().for_each(|why| headers.set_text(keys[2], reason(why)));
    }
}

/// Removes all headers of deaths.
pub fn remove_deaths(headers: &mut Headers<'_>) {
    for key in [DEATHS].iter().chain(&FIRST).chain(&LAST) {
        headers.remove(key);
    }
}

/// The deaths in a publisher's headers, the latest first.
pub fn deaths<'a>(properties: &Properties<'a>) -> Vec<DeathRecord<'a>> {
    (0..).zip(earlier(properties)).map(|(place, entry)| record(entry, place)).collect()
}

/// The place of the first or the latest death in a publisher's headers.
pub fn place<'a>(properties: &Properties<'a>, keys: [&str; 3]) -> Option<DeathPlace<'a>> {
    let text = |key| match properties.headers?.get(key)? {
        RawValue::Text(text) => Some(String::from_utf8_lossy(text)),
        _ => None,
    };
    let [exchange, queue, why] = keys.map(text);
    if exchange.is_none() && queue.is_none() {
        return None;
    }
    let reason = why.and_then(|name| reason_named(name.as_bytes()));
    Some(DeathPlace { exchange: exchange.unwrap_or_default(), queue: queue.unwrap_or_default(), reason })
}

/// The further routing keys that consumers can see.
pub fn copies<'a>(properties: &Properties<'a>) -> Vec<&'a [u8]> {
    match properties.headers.and_then(|headers| headers.get("CC")) {
        Some(RawValue::Array(keys)) => texts(keys).collect(),
        _ => Vec::new(),
    }
}

/// The name of a reason in `x-death`. (AMQP-56)
const fn reason(reason: DeathReason) -> &'static str {
    match reason {
        DeathReason::Rejected => "rejected",
        DeathReason::Expired => "expired",
        DeathReason::MaxLength => "maxlen",
        DeathReason::DeliveryLimit => "delivery_limit",
    }
}

fn reason_named(name: &[u8]) -> Option<DeathReason> {
    let all = [DeathReason::Rejected, DeathReason::Expired, DeathReason::MaxLength, DeathReason::DeliveryLimit];
    all.into_iter().find(|why| reason(*why).as_bytes() == name)
}

/// The entries of `x-death`, the latest first. An `x-death` that is not an array is ignored: some clients write such a
/// header when they publish a message again. An entry that is not a table is ignored, too. (AMQP-58)
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

/// An entry that a publisher wrote, as far as it can be read. If a field comes twice, the first one counts.
fn record(entry: RawTable<'_>, place: u32) -> DeathRecord<'_> {
    let mut record = DeathRecord { count: count_in(entry), written: Some(place), ..DeathRecord::default() };
    let text = |key| match entry.get(key) {
        Some(RawValue::Text(text)) => text,
        _ => &[],
    };
    (record.queue, record.exchange) =
        (String::from_utf8_lossy(text("queue")), String::from_utf8_lossy(text("exchange")));
    record.reason = reason_named(text("reason"));
    record.ttl_ms = expiration_ms(text("original-expiration")).ok();
    if let Some(RawValue::Timestamp(seconds)) = entry.get("time") {
        record.at = Time(seconds.saturating_mul(1000));
    }
    if let Some(RawValue::Array(keys)) = entry.get("routing-keys") {
        record.routing_keys = texts(keys).collect();
    }
    record
}

/// The entry for a message's deaths in a queue for a reason. Its expiration is written as the publisher wrote it.
/// (AMQP-58)
fn entry(death: &DeathRecord<'_>, expiration: Option<&[u8]>) -> Vec<u8> {
    let mut entry = Vec::new();
    let text = |entry: &mut Vec<u8>, key: &str, text: &[u8]| {
        put_key(entry, key);
        put_value(entry, &RawValue::Text(text));
    };
    put_key(&mut entry, "count");
    put_count(&mut entry, i64::try_from(death.count).unwrap_or(i64::MAX));
    death.reason.into_iter().for_each(|why| text(&mut entry, "reason", reason(why).as_bytes()));
    text(&mut entry, "queue", death.queue.as_bytes());
    put_key(&mut entry, "time");
    put_value(&mut entry, &RawValue::Timestamp(death.at.0 / 1000));
    text(&mut entry, "exchange", death.exchange.as_bytes());
    let mut keys = Vec::new();
    death.routing_keys.iter().for_each(|key| put_value(&mut keys, &RawValue::Text(key)));
    put_key(&mut entry, "routing-keys");
    put_array(&mut entry, &keys);
    if let Some(ms) = death.ttl_ms {
        let written = expiration.filter(|text| expiration_ms(text) == Ok(ms)).map(Cow::Borrowed);
        let shown = written.unwrap_or_else(|| ms.to_string().into_bytes().into());
        text(&mut entry, "original-expiration", &shown);
    }
    entry
}

fn count_in(entry: RawTable<'_>) -> u64 {
    match entry.get("count") {
        Some(RawValue::Int(count)) => u64::try_from(count).unwrap_or(0),
        _ => 0,
    }
}

/// The same entry with another count. All other fields, such as the time, stay the same.
fn counted(entry: RawTable<'_>, count: u64) -> Vec<u8> {
    let mut counted = Vec::with_capacity(entry.bytes().len() + 16);
    put_key(&mut counted, "count");
    put_count(&mut counted, i64::try_from(count).unwrap_or(i64::MAX));
    for (key, value) in entry.entries().filter(|(key, _)| *key != b"count") {
        put_key(&mut counted, key);
        counted.put(value);
    }
    counted
}
