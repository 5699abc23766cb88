//! Values of arguments and headers as JSON, and back.

use ferrymq_model::{Table, Value as Argument};
use serde_json::{Map, Number, Value, json};

/// A table as an object.
pub fn of_table(table: &Table) -> Value {
    Value::Object(table.iter().map(|(key, value)| (key.to_owned(), of_value(value))).collect())
}

/// A value. Bytes are shown as text.
pub fn of_value(value: &Argument) -> Value {
    match value {
        Argument::Void => Value::Null,
        Argument::Bool(bool) => json!(bool),
        Argument::Int(number) => json!(number),
        Argument::Unsigned(number) | Argument::Timestamp(number) => json!(number),
        Argument::Float(number) => json!(number),
        Argument::Decimal { scale, digits } => json!(f64::from(*digits) / 10f64.powi(i32::from(*scale))),
        Argument::Text(text) => json!(text),
        Argument::Bytes(bytes) => json!(String::from_utf8_lossy(bytes)),
        Argument::List(values) => Value::Array(values.iter().map(of_value).collect()),
        Argument::Table(table) => of_table(table),
    }
}

/// An object as a table.
pub fn to_table(object: &Map<String, Value>) -> Table {
    object.iter().map(|(key, value)| (key.clone(), to_value(value))).collect()
}

fn to_value(value: &Value) -> Argument {
    match value {
        Value::Null => Argument::Void,
        Value::Bool(bool) => Argument::Bool(*bool),
        Value::Number(number) => to_number(number),
        Value::String(text) => Argument::Text(text.clone()),
        Value::Array(values) => Argument::List(values.iter().map(to_value).collect()),
        Value::Object(object) => Argument::Table(to_table(object)),
    }
}

fn to_number(number: &Number) -> Argument {
    if let Some(whole) = number.as_i64() {
        Argument::Int(whole)
    } else if let Some(whole) = number.as_u64() {
        Argument::Unsigned(whole)
    } else {
        Argument::Float(number.as_f64().unwrap_or(f64::NAN))
    }
}
