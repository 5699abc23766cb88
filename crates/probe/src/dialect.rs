//! The probe's encoding of properties: `NAME=VALUE` with commas between them. `id`, `reply` and `ttl` are the head's own;
//! all others are headers. A reader also sees `died=QUEUE:REASON` for each death, the latest first.

use std::borrow::Cow;

use ferrymq_model::{Dialect, DialectId, Head, MessageRef, Table, Value};

/// The number of the dialect. No server has it.
pub const DIALECT: DialectId = DialectId(250);

/// Reads and writes it.
#[derive(Debug)]
pub struct Pairs;

fn pairs(properties: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    std::str::from_utf8(properties).unwrap_or_default().split(',').filter_map(|pair| pair.split_once('='))
}

impl Dialect for Pairs {
    fn id(&self) -> DialectId {
        DIALECT
    }

    fn read<'a>(&self, message: &MessageRef<'a>) -> Head<'a> {
        let mut head = Head { persistent: true, ..Head::default() };
        for (name, value) in pairs(message.properties) {
            match name {
                "id" => head.message_id = Some(Cow::Borrowed(value.as_bytes())),
                "reply" => head.reply_to = Some(Cow::Borrowed(value.as_bytes())),
                "ttl" => head.ttl_ms = value.parse().ok(),
                _ => head.headers.0.push((name.to_owned(), Value::Text(value.to_owned()))),
            }
        }
        head
    }

    fn write(&self, head: &Head<'_>) -> Option<Vec<u8>> {
        let text =
            |bytes: &Option<Cow<'_, [u8]>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let own = [
            ("id", text(&head.message_id)),
            ("reply", text(&head.reply_to)),
            ("ttl", head.ttl_ms.map(|ms| ms.to_string())),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let headers = head.headers.0.iter().map(|(name, value)| match value {
            Value::Text(text) => format!("{name}={text}"),
            other => format!("{name}={other:?}"),
        });
        let deaths = head.deaths.iter().map(|death| match death.reason {
            Some(reason) => format!("died={}:{reason:?}", death.queue),
            None => format!("died={}", death.queue),
        });
        Some(own.chain(headers).chain(deaths).collect::<Vec<_>>().join(",").into_bytes())
    }

    fn headers(&self, message: &MessageRef<'_>) -> Table {
        self.read(message).headers
    }
}
