//! A message: the producer's bytes, and the few facts that the server needs to handle it.

use std::{any::Any, fmt, sync::Arc};

use bytes::Bytes;

use crate::{Annotations, DialectId, Name, Time};

/// A message's body: bytes to copy, or a buffer to share.
#[derive(Clone, Copy, Debug)]
pub enum BodyRef<'a> {
    /// A short body: a copy is cheaper than a reference.
    Inline(&'a [u8]),
    /// A body longer than [`crate::Limits::copy_bytes_max`]: it is shared, and never copied under a lock.
    Shared(&'a Bytes),
    /// A shared body that is already in a file of its own.
    Filed(&'a FiledBody),
}

/// A long body that storage has put into a file of its own.
#[derive(Clone)]
pub struct FiledBody {
    /// The body itself.
    pub bytes: Bytes,
    /// The file's number.
    pub number: u64,
    /// CRC-32C of the body.
    pub crc: u32,
    /// Keeps the file while no stored message names it. When the last clone is dropped and no stored message names the
    /// file, the file is removed. `None` if a stored message names the file.
    pub claim: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for FiledBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FiledBody")
            .field("number", &self.number)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl BodyRef<'_> {
    /// The bytes of the body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Filed(filed) => &filed.bytes,
        }
    }

    /// The buffer, if the body is in one that can be shared.
    #[must_use]
    pub fn shared(&self) -> Option<&Bytes> {
        match self {
            Self::Inline(_) => None,
            Self::Shared(bytes) => Some(bytes),
            Self::Filed(filed) => Some(&filed.bytes),
        }
    }
}

/// A message, borrowed from where it is: a read buffer, the journal's memory, or a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct MessageRef<'a> {
    /// The protocol whose encoding `properties` has.
    pub dialect: DialectId,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: &'a str,
    /// The routing key it was published with, at most [`MessageRef::KEY_BYTES_MAX`]; not always text.
    pub routing_key: &'a [u8],
    /// Its properties, as they arrived.
    pub properties: &'a [u8],
    /// What the server says of the message: see [`Annotations`]. Empty for most messages.
    pub annotations: &'a [u8],
    /// Its body.
    pub body: BodyRef<'a>,
}

impl MessageRef<'_> {
    /// The properties of a stored message are shorter than this.
    pub const PROPERTIES_BYTES: usize = 1 << 24;

    /// What a stored message may have besides its body, in bytes: with a body that has no file of its own, and with its
    /// queues, it fits the smallest file of the journal. The properties of a publish have at most [`crate::Limits::properties_bytes_max`], and deaths at most
    /// [`Annotations::DEATHS_BYTES_MAX`].
    pub const HEAD_BYTES_MAX: usize = 160 << 10;

    /// The longest routing key in bytes: a topic name of MQTT has at most as many.
    pub const KEY_BYTES_MAX: usize = 65_535;

    /// Whether its parts are short enough to be stored. The messages of clients have been checked on arrival. The body
    /// has its own limit.
    #[must_use]
    pub const fn fits(&self) -> bool {
        self.exchange.len() <= Name::BYTES_MAX
            && self.routing_key.len() <= Self::KEY_BYTES_MAX
            && self.routing_key.len() + self.properties.len() + self.annotations.len() <= Self::HEAD_BYTES_MAX
    }

    /// How many bytes the properties have with the annotations that no reader can do without. The protocol's encoder
    /// leaves out all others where they do not fit.
    #[must_use]
    pub fn needed_bytes(&self) -> usize {
        let added = if self.annotations.is_empty() { 0 } else { Annotations::needed_bytes(self.annotations) };
        self.properties.len() + added
    }

    /// A copy of the message that owns its parts.
    ///
    /// # Panics
    /// If the name of its exchange is too long.
    #[must_use]
    pub fn owned(&self) -> OwnedMessage {
        OwnedMessage {
            dialect: self.dialect,
            exchange: Name::from(self.exchange),
            routing_key: self.routing_key.into(),
            properties: self.properties.to_vec(),
            annotations: self.annotations.into(),
            body: self.body.into(),
        }
    }
}

/// A message that owns its parts: a message that the server itself makes, or one that has to wait.
#[derive(Clone, Debug)]
pub struct OwnedMessage {
    /// See [`MessageRef`].
    pub dialect: DialectId,
    /// See [`MessageRef`].
    pub exchange: Name,
    /// See [`MessageRef`].
    pub routing_key: Box<[u8]>,
    /// See [`MessageRef`].
    pub properties: Vec<u8>,
    /// See [`MessageRef`].
    pub annotations: Box<[u8]>,
    /// See [`MessageRef`].
    pub body: OwnedBody,
}

/// The body of an [`OwnedMessage`].
#[derive(Clone, Debug)]
pub enum OwnedBody {
    /// At most [`crate::Limits::copy_bytes_max`] long.
    Inline(Box<[u8]>),
    /// In a shared buffer.
    Shared(Bytes),
    /// In a shared buffer, and in a file of its own.
    Filed(Box<FiledBody>),
}

impl OwnedMessage {
    /// The message, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> MessageRef<'_> {
        MessageRef {
            dialect: self.dialect,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            properties: &self.properties,
            annotations: &self.annotations,
            body: match &self.body {
                OwnedBody::Inline(bytes) => BodyRef::Inline(bytes),
                OwnedBody::Shared(bytes) => BodyRef::Shared(bytes),
                OwnedBody::Filed(filed) => BodyRef::Filed(filed),
            },
        }
    }
}

impl From<BodyRef<'_>> for OwnedBody {
    fn from(body: BodyRef<'_>) -> Self {
        match body {
            BodyRef::Inline(bytes) => Self::Inline(bytes.into()),
            BodyRef::Shared(bytes) => Self::Shared(bytes.clone()),
            BodyRef::Filed(filed) => Self::Filed(Box::new(filed.clone())),
        }
    }
}

/// Facts that are stored with a message and decide how it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    /// Length of the body in bytes.
    pub body_bytes: u32,
    /// The priority. A queue with priorities delivers the highest first.
    pub priority: u8,
    /// When it expires, if it has a time to live.
    pub expires: Option<Time>,
    /// When it arrived.
    pub arrived: Time,
}
