//! A message that reports an event, as RabbitMQ's event exchange writes it. All facts are in its headers.

use ferrymq_model::{Table, Time, Value};

use super::value;
use crate::codec::{content::Properties, table::RawTable};

/// The properties of the message that reports this event.
pub fn event(headers: &Table, at: Time) -> Vec<u8> {
    let said = headers.iter().map(|(key, value)| match value {
        // RabbitMQ writes each argument as text in Erlang's notation.
        Value::Table(arguments) => (key.to_owned(), Value::List(arguments.iter().map(argument).collect())),
        other => (key.to_owned(), other.clone()),
    });
    let moment = ("timestamp_in_ms".to_owned(), Value::Unsigned(at.0));
    let mut headers = Vec::new();
    value::put_entries(&mut headers, &said.chain([moment]).collect());
    let headers = RawTable::check(&headers).expect("we write well-formed headers");
    let mut written = Vec::new();
    let properties = Properties {
        headers: Some(headers),
        delivery_mode: Some(2),
        timestamp: Some(at.0 / 1000),
        ..Properties::default()
    };
    properties.write(&mut written);
    written
}

fn argument((key, value): (&str, &Value)) -> Value {
    let (kind, text) = term(value);
    Value::Text(format!("{{<<\"{key}\">>,{kind},{text}}}"))
}

/// The name of a value's type, and the value in Erlang's notation.
fn term(value: &Value) -> (&'static str, String) {
    match value {
        Value::Void => ("void", "undefined".to_owned()),
        Value::Bool(flag) => ("bool", flag.to_string()),
        Value::Int(number) if i32::try_from(*number).is_ok() => ("signedint", number.to_string()),
        Value::Int(number) => ("long", number.to_string()),
        Value::Unsigned(number) => ("long", number.to_string()),
        Value::Float(number) => ("double", format!("{number:?}")),
        Value::Decimal { scale, digits } => ("decimal", format!("{{{scale},{digits}}}")),
        Value::Text(text) => ("longstr", format!("<<\"{text}\">>")),
        Value::Bytes(bytes) => ("binary", format!("<<\"{}\">>", String::from_utf8_lossy(bytes))),
        Value::Timestamp(seconds) => ("timestamp", seconds.to_string()),
        Value::List(list) => {
            let terms: Vec<String> = list.iter().map(term).map(|(kind, text)| format!("{{{kind},{text}}}")).collect();
            ("array", format!("[{}]", terms.join(",")))
        }
        Value::Table(table) => {
            let entry = |(key, value): (&str, &Value)| {
                let (kind, text) = term(value);
                format!("{{<<\"{key}\">>,{kind},{text}}}")
            };
            ("table", format!("[{}]", table.iter().map(entry).collect::<Vec<_>>().join(",")))
        }
    }
}
