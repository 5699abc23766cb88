//! A trace message, which describes another message, as RabbitMQ's firehose writes it. Its headers contain everything
//! except the body.

use ferrymq_model::{Head, Traced};

use super::{DIALECT, head, publish::texts, rendered, value};
use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_array, put_key, put_table, put_value},
};

/// The maximum length of the headers in bytes. A message with such headers fits into a frame of the default length.
const HEADERS_BYTES_MAX: usize = 127 << 10;

/// The properties of the trace message for `traced`. If they would be too long or nested too deeply, the properties of
/// the traced message are left out. If that is not enough, its further routing keys are left out, too.
pub fn trace(traced: &Traced<'_>) -> Vec<u8> {
    if traced.message.dialect != DIALECT {
        return traced.fitted(&|headers| head::write(&Head { headers, ..Head::default() }));
    }
    // The session has checked them when the message arrived.
    let shown = rendered::whole(&traced.message);
    let properties = Properties::read(&shown).unwrap_or_default();
    let (none, all) = (Properties::default(), keys(traced, &properties));
    write(traced, &all, &properties)
        .or_else(|| write(traced, &all, &none))
        .or_else(|| write(traced, &keys(&Traced { more_keys: &[], ..traced.clone() }, &none), &none))
        .expect("one key and the names of some queues are short")
}

/// Writes the headers with these routing keys and properties; `None` if they do not fit.
fn write(traced: &Traced<'_>, keys: &[u8], properties: &Properties<'_>) -> Option<Vec<u8>> {
    let mut headers = Vec::new();
    put(&mut headers, "exchange_name", &RawValue::Text(traced.message.exchange.as_bytes()));
    put_key(&mut headers, "routing_keys");
    put_array(&mut headers, keys);
    put_key(&mut headers, "properties");
    put_table(&mut headers, &named(properties));
    put(&mut headers, "node", &RawValue::Text(traced.node.as_bytes()));
    value::put_entries(&mut headers, &traced.more);
    let headers = RawTable::check(&headers).ok().filter(|headers| headers.bytes().len() <= HEADERS_BYTES_MAX)?;
    let mut written = Vec::new();
    Properties { headers: Some(headers), ..Properties::default() }.write(&mut written);
    Some(written)
}

/// All routing keys. For a delivered message these include only the further keys that are still in its header CC.
fn keys(traced: &Traced<'_>, properties: &Properties<'_>) -> Vec<u8> {
    let mut keys = Vec::new();
    put_value(&mut keys, &RawValue::Text(traced.message.routing_key));
    if !traced.more_keys.is_empty() {
        traced.more_keys.iter().for_each(|key| put_value(&mut keys, &RawValue::Text(key)));
    } else if let Some(RawValue::Array(copies)) = properties.headers.and_then(|headers| headers.get("CC")) {
        texts(copies).for_each(|key| put_value(&mut keys, &RawValue::Text(key)));
    }
    keys
}

/// The message's properties, each under its name, in RabbitMQ's order.
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

#[cfg(test)]
mod tests {
    use ferrymq_model::{BodyRef, Dialects, MessageRef, Table, Value};

    use super::*;
    use crate::codec::table::DEPTH_MAX;

    /// Traces a message with this header and these further keys. Returns how many of its properties and how many
    /// routing keys are in the trace message.
    fn shown(header: &[u8], more_keys: &[Vec<u8>]) -> (usize, usize) {
        let headers = RawTable::check(header).unwrap();
        let mut properties = Vec::new();
        Properties { headers: Some(headers), ..Properties::default() }.write(&mut properties);
        let more = Table(vec![("user".to_owned(), Value::Text("guest".to_owned()))]);
        let message = MessageRef {
            dialect: DIALECT,
            exchange: "x",
            routing_key: b"k",
            properties: &properties,
            annotations: &[],
            body: BodyRef::Inline(&[]),
        };
        let written = trace(&Traced { message, dialects: &Dialects::default(), more_keys, node: "here", more });
        assert!(written.len() < HEADERS_BYTES_MAX + 100);
        let headers = Properties::read(&written).unwrap().headers.unwrap();
        assert_eq!(headers.get("user"), Some(RawValue::Text(b"guest")));
        let Some(RawValue::Table(properties)) = headers.get("properties") else { panic!("no table") };
        let Some(RawValue::Array(keys)) = headers.get("routing_keys") else { panic!("no list") };
        (properties.iter().count(), texts(keys).count())
    }

    /// Entries of tables that are nested `depth` levels deep.
    fn nested(depth: usize) -> Vec<u8> {
        (1..depth).fold(Vec::new(), |inner, _| {
            let mut entries = Vec::new();
            put_key(&mut entries, "t");
            put_table(&mut entries, &inner);
            entries
        })
    }

    #[test]
    fn what_nests_too_deeply_is_left_out() {
        assert_eq!(shown(&nested(3), &[]), (1, 1));
        assert_eq!(shown(&nested(DEPTH_MAX - 2), &[]), (1, 1));
        assert_eq!(shown(&nested(DEPTH_MAX - 1), &[]), (0, 1));
        assert_eq!(shown(&nested(DEPTH_MAX), &[]), (0, 1));
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let mut long = Vec::new();
        put(&mut long, "a", &RawValue::Text(&[b'a'; HEADERS_BYTES_MAX - 20]));
        let key = || vec![b'k'; 255];
        assert_eq!(shown(&long, &[key()]), (0, 2));
        let many: Vec<_> = std::iter::repeat_with(key).take(600).collect();
        assert_eq!(shown(&[], &many), (0, 1));
    }
}
