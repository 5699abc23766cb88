//! What the node asks the crate of a protocol about messages in its encoding.

use crate::{DeadLetter, Death, Table, Time};

/// Reads and rewrites a message's properties for the node. Each protocol's crate implements it; `node` has one
/// implementation for each dialect. The session has checked the properties when the message arrived.
pub trait Properties: Send + Sync {
    /// The message's headers, with their values decoded.
    fn headers(&self, properties: &[u8]) -> Table;

    /// The property of this name, if the message has it.
    fn identity(&self, properties: &[u8], identity: Identity) -> Option<Vec<u8>>;

    /// The same properties without what [`Properties::dead_letter`] has added, if they then have at most this length.
    fn shortened(&self, properties: &[u8], bytes_max: usize) -> Option<Vec<u8>>;

    /// The properties of the message as it leaves `death.queue` for its dead-letter exchange.
    fn dead_letter(&self, properties: &[u8], death: &Death<'_>) -> DeadLetter;

    /// The properties of a message that reports an event.
    fn event(&self, headers: &Table, at: Time) -> Vec<u8>;

    /// The exchange of a dead letter's first death, from the message's own headers.
    fn first_exchange(&self, properties: &[u8]) -> Option<Vec<u8>>;

    /// The properties of a trace message, which describes another message. If they would be too long for a client, or
    /// nested too deeply, some of them are left out.
    fn trace(&self, traced: &Traced<'_>) -> Vec<u8>;

    /// The same properties with the address for replies.
    fn with_reply_address(&self, properties: &[u8], address: &str) -> Vec<u8>;

    /// The delay in milliseconds before the message is routed; never 0.
    fn delay_ms(&self, properties: &[u8]) -> Option<u64>;

    /// Whether durable queues write the message to disk.
    fn is_persistent(&self, properties: &[u8]) -> bool;

    /// The message after its delay.
    fn release_delayed(&self, properties: &[u8]) -> ReleasedMessage;
}

/// A message after its delay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleasedMessage {
    /// The properties, without a delay.
    pub properties: Vec<u8>,
    /// Further routing keys.
    pub more_keys: Vec<Vec<u8>>,
    /// Its time to live in a queue, in milliseconds.
    pub expiration_ms: Option<u64>,
}

/// A message as tracing describes it, without its body.
#[derive(Clone, Debug)]
pub struct Traced<'a> {
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a [u8],
    /// Further routing keys that are not in its properties.
    pub more_keys: &'a [Vec<u8>],
    /// Its properties.
    pub properties: &'a [u8],
    /// The node that traced it.
    pub node: &'a str,
    /// Facts about the event, such as whether the message was redelivered.
    pub more: Table,
}

/// A property that identifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The application's identifier of the message.
    MessageId,
    /// The identifier of the request and its replies.
    CorrelationId,
    /// When the application created it: seconds since 1970, as digits.
    Timestamp,
}
