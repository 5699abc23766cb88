//! What the house reads in a message's properties, and what it writes there.

use ferrymq_model::{DeadLetter, Death, Table};

use super::value::arguments;
use crate::codec::content::Properties;

/// Reads AMQP's properties for routing.
#[derive(Clone, Copy, Debug, Default)]
pub struct PropertyList;

impl ferrymq_model::Properties for PropertyList {
    fn headers(&self, properties: &[u8]) -> Table {
        Properties::read(properties).ok().and_then(|properties| properties.headers).map(arguments).unwrap_or_default()
    }

    fn dead_letter(&self, properties: &[u8], _: &Death<'_>) -> DeadLetter {
        DeadLetter { properties: properties.to_vec(), ..DeadLetter::default() }
    }

    fn with_reply_address(&self, properties: &[u8], address: &str) -> Vec<u8> {
        let Ok(read) = Properties::read(properties) else { return properties.to_vec() };
        let mut written = Vec::with_capacity(properties.len() + address.len());
        Properties { reply_to: Some(address.as_bytes()), ..read }.write(&mut written);
        written
    }
}
