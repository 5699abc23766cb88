//! A message that shows another one on the firehose, as RabbitMQ writes it: everything but the body stands in its headers.

use ferrymq_model::Traced;

use super::{publish::texts, value};
use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_array, put_key, put_table, put_value},
};

/// The properties of the message that shows this one.
pub fn trace(traced: &Traced<'_>) -> Vec<u8> {
    // They were checked when the message came in.
    let properties = Properties::read(traced.properties).unwrap_or_default();
    let mut headers = Vec::new();
    put(&mut headers, "exchange_name", &RawValue::Text(traced.exchange.as_bytes()));
    put_key(&mut headers, "routing_keys");
    put_array(&mut headers, &keys(traced, &properties));
    put_key(&mut headers, "properties");
    put_table(&mut headers, &named(&properties));
    put(&mut headers, "node", &RawValue::Text(traced.node.as_bytes()));
    value::put_entries(&mut headers, &traced.more);
    let headers = RawTable::check(&headers).expect("what is written here is well formed");
    let mut written = Vec::new();
    Properties { headers: Some(headers), ..Properties::default() }.write(&mut written);
    written
}

/// All routing keys: of a message that is delivered, those that its header CC still tells.
fn keys(traced: &Traced<'_>, properties: &Properties<'_>) -> Vec<u8> {
    let mut keys = Vec::new();
    put_value(&mut keys, &RawValue::Text(traced.routing_key));
    if !traced.more_keys.is_empty() {
        traced.more_keys.iter().for_each(|key| put_value(&mut keys, &RawValue::Text(key)));
    } else if let Some(RawValue::Array(copies)) = properties.headers.and_then(|headers| headers.get("CC")) {
        texts(copies).for_each(|key| put_value(&mut keys, &RawValue::Text(key)));
    }
    keys
}

/// The properties that there are, each under its name, in the order in which RabbitMQ writes them.
fn named<'a>(properties: &Properties<'a>) -> Vec<u8> {
    let text = |text: Option<&'a [u8]>| text.map(RawValue::Text);
    let number = |number: Option<u8>| number.map(|number| RawValue::Int(number.into()));
    let seconds = |seconds: u64| RawValue::Int(i64::try_from(seconds).unwrap_or(i64::MAX));
    let all = [
        ("cluster_id", text(properties.cluster_id)),
        ("app_id", text(properties.app_id)),
        ("user_id", text(properties.user_id)),
        ("type", text(properties.kind)),
        ("timestamp", properties.timestamp.map(seconds)),
        ("message_id", text(properties.message_id)),
        ("expiration", text(properties.expiration)),
        ("reply_to", text(properties.reply_to)),
        ("correlation_id", text(properties.correlation_id)),
        ("priority", number(properties.priority)),
        ("delivery_mode", number(properties.delivery_mode)),
        ("headers", properties.headers.map(RawValue::Table)),
        ("content_encoding", text(properties.content_encoding)),
        ("content_type", text(properties.content_type)),
    ];
    let mut entries = Vec::new();
    for (name, value) in all {
        value.into_iter().for_each(|value| put(&mut entries, name, &value));
    }
    entries
}

fn put(entries: &mut Vec<u8>, key: &str, value: &RawValue<'_>) {
    put_key(entries, key);
    put_value(entries, value);
}
