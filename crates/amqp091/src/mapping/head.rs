//! A message's head without AMQP's encoding, and back.

use std::borrow::Cow;

use ferrymq_model::{Head, Name, Table, Time, Value};

use super::{
    death::{self, ShownDeaths},
    delay::{self, DELAY},
    headers::Headers,
    publish::expiration_ms,
    value,
};
use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_array, put_value},
};

/// The head in these properties. What has a place of its own in a head is not in its headers.
pub fn read<'a>(properties: &Properties<'a>) -> Head<'a> {
    let bytes = |bytes: Option<&'a [u8]>| bytes.map(Cow::Borrowed);
    let mut headers = properties.headers.map(value::arguments).unwrap_or_default();
    let (delay_ms, delayed_ms) = (delay::delay_ms(properties), delay::delayed_ms(properties));
    let more_keys = death::copies(properties);
    let deaths = death::deaths(properties);
    let first_death = death::place(properties, death::FIRST);
    let last_death = death::place(properties, death::LAST);
    headers.0.retain(|(key, _)| match key.as_str() {
        DELAY => delay_ms.is_none() && delayed_ms.is_none(),
        "CC" => more_keys.is_empty(),
        death::DEATHS => deaths.is_empty(),
        key if death::FIRST.contains(&key) => first_death.is_none(),
        key if death::LAST.contains(&key) => last_death.is_none(),
        _ => true,
    });
    Head {
        message_id: bytes(properties.message_id),
        correlation_id: bytes(properties.correlation_id),
        reply_to: bytes(properties.reply_to),
        content_type: bytes(properties.content_type),
        content_encoding: bytes(properties.content_encoding),
        user: bytes(properties.user_id),
        app: bytes(properties.app_id),
        kind: bytes(properties.kind),
        created: properties.timestamp.map(|seconds| Time(seconds.saturating_mul(1000))),
        priority: properties.priority,
        persistent: properties.delivery_mode == Some(2),
        ttl_ms: properties.expiration.and_then(|text| expiration_ms(text).ok()),
        delay_over: delayed_ms.is_some(),
        delay_ms: delay_ms.or(delayed_ms),
        more_keys: more_keys.into_iter().map(Cow::Borrowed).collect(),
        headers,
        deaths,
        first_death,
        last_death,
    }
}

/// The properties with this head. An identifier that is longer than a short string becomes a header, as in RabbitMQ:
/// `x-message-id`, `x-correlation-id`. Other such texts are left out. `None` if its headers are nested too deeply.
pub fn write(head: &Head<'_>) -> Option<Vec<u8>> {
    let mut entries = Vec::new();
    value::put_entries(&mut entries, &short_keys(&head.headers));
    let own = RawTable::check(&entries).ok()?;
    let ttl = head.ttl_ms.map(|ms| ms.to_string());
    let properties = Properties {
        content_type: short(head.content_type.as_ref()),
        content_encoding: short(head.content_encoding.as_ref()),
        headers: Some(own).filter(|own| !own.is_empty()),
        delivery_mode: head.persistent.then_some(2),
        priority: head.priority,
        correlation_id: short(head.correlation_id.as_ref()),
        reply_to: short(head.reply_to.as_ref()),
        expiration: ttl.as_ref().map(String::as_bytes),
        message_id: short(head.message_id.as_ref()),
        timestamp: head.created.map(|time| time.0 / 1000),
        kind: short(head.kind.as_ref()),
        user_id: short(head.user.as_ref()),
        app_id: short(head.app.as_ref()),
        cluster_id: None,
    };
    let mut headers = Headers::of(&properties);
    let own_headers = headers.len();
    for (key, long) in [("x-message-id", &head.message_id), ("x-correlation-id", &head.correlation_id)] {
        if let Some(long) = long.as_deref().filter(|bytes| bytes.len() > Name::BYTES_MAX) {
            headers.set(key, |value| put_value(value, &RawValue::Text(long)));
        }
    }
    if !head.more_keys.is_empty() {
        headers.set("CC", |value| {
            let mut keys = Vec::new();
            head.more_keys.iter().for_each(|key| put_value(&mut keys, &RawValue::Text(key)));
            put_array(value, &keys);
        });
    }
    if let Some(ms) = head.delay_ms {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        headers.set(DELAY, |value| put_value(value, &RawValue::Int(if head.delay_over { -ms } else { ms })));
    }
    if !head.deaths.is_empty() {
        let (first, last) = (head.first_death.as_ref(), head.last_death.as_ref());
        death::put_deaths(&mut headers, &ShownDeaths { deaths: &head.deaths, first, last, written: None });
    }
    if headers.len() > own_headers {
        return Some(headers.write(&properties));
    }
    let mut written = Vec::new();
    properties.write(&mut written);
    Some(written)
}

/// A text that fits a short string.
fn short<'a>(text: Option<&'a Cow<'_, [u8]>>) -> Option<&'a [u8]> {
    text.map(|text| &**text).filter(|text| text.len() <= Name::BYTES_MAX)
}

/// The headers whose keys fit a short string, at all levels.
fn short_keys(table: &Table) -> Table {
    let kept = table.iter().filter(|(key, value)| key.len() <= Name::BYTES_MAX && has_short_keys(value));
    kept.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

fn has_short_keys(value: &Value) -> bool {
    match value {
        Value::Table(table) => table.iter().all(|(key, value)| key.len() <= Name::BYTES_MAX && has_short_keys(value)),
        Value::List(list) => list.iter().all(has_short_keys),
        _ => true,
    }
}
