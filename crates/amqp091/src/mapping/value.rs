//! Translates field tables into values without AMQP's encoding, and back.

use ferrymq_model::{Arguments, Table, Value};

use crate::codec::table::{RawTable, RawValue, put_array, put_count, put_key, put_table, put_value};

/// The content of a field table, without AMQP's encoding.
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

/// Appends the entries of a table in the encoding of field tables. Its keys must have at most 255 bytes.
pub fn put_entries(entries: &mut Vec<u8>, table: &Table) {
    for (key, value) in table.iter() {
        put_key(entries, key);
        put(entries, value);
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Void => put_value(out, &RawValue::Void),
        Value::Bool(bool) => put_value(out, &RawValue::Bool(*bool)),
        Value::Int(number) => put_value(out, &RawValue::Int(*number)),
        Value::Unsigned(number) => put_count(out, i64::try_from(*number).unwrap_or(i64::MAX)),
        Value::Float(number) => put_value(out, &RawValue::Float(*number)),
        Value::Decimal { scale, digits } => put_value(out, &RawValue::Decimal { scale: *scale, digits: *digits }),
        Value::Text(text) => put_value(out, &RawValue::Text(text.as_bytes())),
        Value::Bytes(bytes) => put_value(out, &RawValue::Bytes(bytes)),
        Value::Timestamp(seconds) => put_value(out, &RawValue::Timestamp(*seconds)),
        Value::List(list) => {
            let mut values = Vec::new();
            list.iter().for_each(|value| put(&mut values, value));
            put_array(out, &values);
        }
        Value::Table(table) => {
            let mut entries = Vec::new();
            put_entries(&mut entries, table);
            put_table(out, &entries);
        }
    }
}
