//! Field tables of AMQP 0-9-1, and the content headers that contain most of them.

use ferrymq_amqp091::codec::content::{ContentHeader, Properties};
use ferrymq_amqp091::codec::table::{RawArray, RawTable, RawValue, put_value};
use ferrymq_wire::Put;

use super::{Marks, variant};

/// Reads the bytes as a table's entries and as a content header's payload.
pub fn read(input: &[u8]) -> Marks {
    let mut marks = read_header(input);
    match RawTable::check(input) {
        Ok(table) => {
            read_table(table, &mut marks);
            let again = written(table);
            let again = RawTable::check(&again).expect("a table that was written can be read");
            assert_eq!(
                format!("{:?}", keys(again)),
                format!("{:?}", keys(table)),
                "the keys are those that were written"
            );
        }
        Err(why) => drop(marks.insert(format!("table {}", variant(&why)))),
    }
    marks
}

/// Reads a content header.
pub fn read_header(payload: &[u8]) -> Marks {
    let mut marks = Marks::new();
    let header = match ContentHeader::read(payload) {
        Ok(header) => header,
        Err(why) => return Marks::from([format!("header {}", variant(&why))]),
    };
    match Properties::read(header.properties) {
        Ok(properties) => {
            let mut again = Vec::new();
            properties.write(&mut again);
            assert_eq!(again, header.properties, "properties are written with the bytes that were read");
            marks.extend(properties.headers.map(|_| "properties with headers".to_owned()));
            properties.headers.into_iter().for_each(|headers| read_table(headers, &mut marks));
            marks.insert("properties".to_owned());
        }
        Err(why) => drop(marks.insert(format!("properties {}", variant(&why)))),
    }
    marks
}

fn keys(table: RawTable<'_>) -> Vec<&[u8]> {
    table.iter().map(|(key, _)| key).collect()
}

/// The table, written again with the types that we write.
fn written(table: RawTable<'_>) -> Vec<u8> {
    let mut written = Vec::new();
    for (key, value) in table.iter() {
        written.put_u8(u8::try_from(key.len()).expect("a key has at most 255 bytes"));
        written.put(key);
        put_value(&mut written, &value);
    }
    written
}

fn read_table(table: RawTable<'_>, marks: &mut Marks) {
    for (key, value) in table.iter() {
        if let Ok(key) = std::str::from_utf8(key) {
            assert!(table.get(key).is_some(), "each key of the table is found");
        }
        read_value(value, marks);
    }
}

fn read_array(array: RawArray<'_>, marks: &mut Marks) {
    array.iter().for_each(|value| read_value(value, marks));
}

fn read_value(value: RawValue<'_>, marks: &mut Marks) {
    marks.insert(format!("value {}", variant(&value)));
    match value {
        RawValue::Table(inner) => read_table(inner, marks),
        RawValue::Array(inner) => read_array(inner, marks),
        _ => {}
    }
}
