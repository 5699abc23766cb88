//! A message's headers, to be changed and written again.

use std::{borrow::Cow, collections::BTreeMap};

use ferrymq_wire::Put;

use crate::codec::{
    content::Properties,
    table::{RawTable, RawValue, put_count, put_key, put_value},
};

/// Headers by key. A value is kept as it arrived, type octet first, so that an unchanged header stays the same octet for
/// octet. They are written in sorted order, as RabbitMQ sorts headers when it adds one. If a key comes twice, the first
/// counts.
#[derive(Debug, Default)]
pub struct Headers<'a> {
    values: BTreeMap<Cow<'a, [u8]>, Cow<'a, [u8]>>,
}

impl<'a> Headers<'a> {
    /// The headers of these properties.
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
        let headers = RawTable::check(&entries).expect("well-formed headers stay so, each on its own");
        let mut written = Vec::with_capacity(entries.len() + 64);
        Properties { headers: Some(headers), ..*properties }.write(&mut written);
        written
    }
}
