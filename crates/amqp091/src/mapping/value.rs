//! Field tables as values without AMQP's encoding.

use ferrymq_model::{Arguments, Value};

use crate::codec::table::{RawTable, RawValue};

/// What a field table says, without AMQP's encoding.
#[must_use]
pub fn arguments(table: RawTable<'_>) -> Arguments {
    table.iter().map(|(key, raw)| (String::from_utf8_lossy(key).into_owned(), value(raw))).collect()
}

fn value(raw: RawValue<'_>) -> Value {
    match raw {
        RawValue::Void => Value::Void,
        RawValue::Bool(bool) => Value::Bool(bool),
        RawValue::Int(number) => Value::Int(number),
        RawValue::Float(number) => Value::Float(number),
        RawValue::Decimal { scale, digits } => Value::Decimal { scale, digits },
        RawValue::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        },
        RawValue::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        RawValue::Timestamp(seconds) => Value::Timestamp(seconds),
        RawValue::Array(array) => Value::List(array.iter().map(value).collect()),
        RawValue::Table(table) => Value::Table(arguments(table)),
    }
}
