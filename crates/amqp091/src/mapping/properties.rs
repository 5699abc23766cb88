//! Reads and writes a message's properties for the server.

use ferrymq_model::{DeadLetter, Death, Identity, ReleasedMessage, Table, Time, Traced};

use super::{death, delay, event, headers::Headers, trace, value::arguments};
use crate::codec::content::Properties;

/// The properties that a consumer gets for a message that came back to its queue `attempts` times.
pub fn with_attempts(properties: &[u8], attempts: u32) -> Vec<u8> {
    let properties = Properties::read(properties).unwrap_or_default();
    let mut headers = Headers::of(&properties);
    headers.set_count("x-delivery-count", attempts);
    headers.write(&properties)
}

/// The properties of class basic.
#[derive(Clone, Copy, Debug, Default)]
pub struct PropertyList;

impl ferrymq_model::Properties for PropertyList {
    fn headers(&self, properties: &[u8]) -> Table {
        Properties::read(properties).ok().and_then(|properties| properties.headers).map(arguments).unwrap_or_default()
    }

    fn identity(&self, properties: &[u8], identity: Identity) -> Option<Vec<u8>> {
        let properties = Properties::read(properties).ok()?;
        match identity {
            Identity::MessageId => properties.message_id.map(<[u8]>::to_vec),
            Identity::CorrelationId => properties.correlation_id.map(<[u8]>::to_vec),
            Identity::Timestamp => properties.timestamp.map(|seconds| seconds.to_string().into_bytes()),
        }
    }

    fn shortened(&self, properties: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        Some(death::without_deaths(properties)).filter(|properties| properties.len() <= bytes_max)
    }

    fn dead_letter(&self, properties: &[u8], death: &Death<'_>) -> DeadLetter {
        death::dead_letter(properties, death)
    }

    fn event(&self, headers: &Table, at: Time) -> Vec<u8> {
        event::event(headers, at)
    }

    fn first_exchange(&self, properties: &[u8]) -> Option<Vec<u8>> {
        death::first_exchange(&Properties::read(properties).ok()?)
    }

    fn trace(&self, traced: &Traced<'_>) -> Vec<u8> {
        trace::trace(traced)
    }

    fn with_reply_address(&self, properties: &[u8], address: &str) -> Vec<u8> {
        let Ok(read) = Properties::read(properties) else { return properties.to_vec() };
        let mut written = Vec::with_capacity(properties.len() + address.len());
        Properties { reply_to: Some(address.as_bytes()), ..read }.write(&mut written);
        written
    }

    fn delay_ms(&self, properties: &[u8]) -> Option<u64> {
        delay::delay_ms(&Properties::read(properties).ok()?)
    }

    fn is_persistent(&self, properties: &[u8]) -> bool {
        Properties::read(properties).is_ok_and(|properties| properties.delivery_mode == Some(2))
    }

    fn release_delayed(&self, properties: &[u8]) -> ReleasedMessage {
        delay::release_delayed(&Properties::read(properties).unwrap_or_default())
    }
}
