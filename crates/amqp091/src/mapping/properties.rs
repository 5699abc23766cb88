//! The dialect of AMQP 0-9-1: reads and writes a message's properties for the server.

use ferrymq_model::{DeathRecord, Dialect, DialectId, Head, MessageRef, Property, Table, Traced};

use super::{death, delay, head, publish::expiration_ms, rendered, trace, value::arguments};
use crate::codec::content::Properties;

/// The number of the dialect. It is stored with each message: never change it.
pub const DIALECT: DialectId = DialectId(1);

/// The properties of class basic: a content header's property flags and property list (section 4.2.6.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct PropertyList;

/// The session has checked them when the message arrived.
fn written<'a>(message: &MessageRef<'a>) -> Properties<'a> {
    Properties::read(message.properties).unwrap_or_default()
}

impl Dialect for PropertyList {
    fn id(&self) -> DialectId {
        DIALECT
    }

    fn read<'a>(&self, message: &MessageRef<'a>) -> Head<'a> {
        head::read(&written(message))
    }

    fn write(&self, head: &Head<'_>) -> Option<Vec<u8>> {
        head::write(head)
    }

    fn headers(&self, message: &MessageRef<'_>) -> Table {
        let shown = rendered::whole(message);
        Properties::read(&shown).ok().and_then(|properties| properties.headers).map(arguments).unwrap_or_default()
    }

    fn property(&self, message: &MessageRef<'_>, property: Property) -> Option<Vec<u8>> {
        let properties = written(message);
        match property {
            Property::MessageId => properties.message_id.map(<[u8]>::to_vec),
            Property::CorrelationId => properties.correlation_id.map(<[u8]>::to_vec),
            Property::Timestamp => properties.timestamp.map(|seconds| seconds.to_string().into_bytes()),
        }
    }

    fn delay_ms(&self, message: &MessageRef<'_>) -> Option<u64> {
        delay::delay_ms(&written(message))
    }

    fn ttl_ms(&self, message: &MessageRef<'_>) -> Option<u64> {
        expiration_ms(written(message).expiration?).ok()
    }

    fn is_persistent(&self, message: &MessageRef<'_>) -> bool {
        written(message).delivery_mode == Some(2)
    }

    fn more_keys(&self, message: &MessageRef<'_>) -> Vec<Vec<u8>> {
        death::copies(&written(message)).into_iter().map(<[u8]>::to_vec).collect()
    }

    fn deaths<'a>(&self, message: &MessageRef<'a>) -> Vec<DeathRecord<'a>> {
        death::deaths(&written(message))
    }

    fn trace(&self, traced: &Traced<'_>) -> Vec<u8> {
        trace::trace(traced)
    }
}
