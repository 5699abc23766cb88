//! What operators are told of a client, kept for each connection.

use ferrymq_model::{ClientFacts, Table};

/// The maximum length of what a client says of itself, in bytes as they are kept. Of a longer text nothing is kept.
const PROPERTIES_BYTES_MAX: usize = 4_096;

/// The facts in little memory: there may be 100,000 connections, and nobody looks at most of them.
#[derive(Clone, Debug)]
pub struct KeptFacts {
    /// Without the properties.
    facts: ClientFacts,
    /// The properties, in MessagePack.
    properties: Box<[u8]>,
}

impl KeptFacts {
    /// Keeps these.
    pub fn of(mut facts: ClientFacts) -> Self {
        let properties = rmp_serde::to_vec(&std::mem::take(&mut facts.properties)).unwrap_or_default();
        let properties = if properties.len() <= PROPERTIES_BYTES_MAX { properties.into() } else { Box::default() };
        Self { facts, properties }
    }

    /// The facts that are kept.
    pub fn facts(&self) -> ClientFacts {
        let properties: Table = rmp_serde::from_slice(&self.properties).unwrap_or_default();
        ClientFacts { properties, ..self.facts.clone() }
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_model::Value;

    use super::*;

    #[test]
    fn what_is_kept_is_the_same_unless_it_is_too_long() {
        let with = |text: &str| {
            let properties = Table(vec![("product".to_owned(), Value::Text(text.to_owned()))]);
            ClientFacts { protocol: "p", properties, channels_max: 7, ..ClientFacts::default() }
        };
        assert_eq!(KeptFacts::of(with("pika")).facts(), with("pika"));
        let long = with(&"x".repeat(5_000));
        assert_eq!(KeptFacts::of(long.clone()).facts(), ClientFacts { properties: Table::default(), ..long });
    }
}
