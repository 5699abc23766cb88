//! Changes a message's headers.

use std::{borrow::Cow, collections::BTreeMap};

use ferrymq_wire::Put;

use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_count, put_key, put_value},
};

/// Headers by key. A value has the bytes that arrived, beginning with the type octet, so an unchanged header is written
/// with the same bytes. The headers are written in sorted order, because RabbitMQ sorts them when it adds a header. If
/// a key comes twice, the first one counts.
#[derive(Debug, Default)]
pub struct Headers<'a> {
    values: BTreeMap<Cow<'a, [u8]>, Cow<'a, [u8]>>,
}

impl<'a> Headers<'a> {
    /// The headers in these properties.
    pub fn of(properties: &Properties<'a>) -> Self {
        let mut headers = Self::default();
        for (key, value) in properties.headers.into_iter().flat_map(RawTable::entries) {
            headers.values.entry(Cow::Borrowed(key)).or_insert(Cow::Borrowed(value));
        }
        headers
    }

    /// Adds or replaces a header; `write` appends its value with the type octet.
    pub fn set(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        self.values.insert(Cow::Borrowed(key.as_bytes()), Cow::Owned(value));
    }

    /// Adds or replaces a text header.
    pub fn set_text(&mut self, key: &'static str, text: &str) {
        self.set(key, |value| put_value(value, &RawValue::Text(text.as_bytes())));
    }

    /// Adds or replaces a header with a count.
    pub fn set_count(&mut self, key: &'static str, count: u32) {
        self.set(key, |value| put_count(value, count.into()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Removes a header, if it exists.
    pub fn remove(&mut self, key: &str) {
        self.values.remove(key.as_bytes());
    }

    /// The same properties with these headers.
    pub fn write(&self, properties: &Properties<'_>) -> Vec<u8> {
        let mut entries = Vec::new();
        for (key, value) in &self.values {
            put_key(&mut entries, key);
            entries.put(value);
        }
        let headers = RawTable::check(&entries).expect("each header is well formed");
        let mut written = Vec::with_capacity(entries.len() + 64);
        Properties { headers: Some(headers), ..*properties }.write(&mut written);
        written
    }
}
