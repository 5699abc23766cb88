//! Arguments as text in Erlang's notation, as RabbitMQ shows them in its events.

use ferrymq_model::Value;

/// An argument with the name of its type.
pub fn argument(key: &str, value: &Value) -> String {
    let (kind, text) = term(value);
    format!("{{<<\"{key}\">>,{kind},{text}}}")
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
            let entries = table.iter().map(|(key, value)| argument(key, value));
            ("table", format!("[{}]", entries.collect::<Vec<_>>().join(",")))
        }
    }
}
