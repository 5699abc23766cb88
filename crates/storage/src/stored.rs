//! A message as it is stored: the same bytes in the journal, in the memory of transient messages and in runs, so that
//! moving one is a plain copy.
//!
//! ```text
//! 0  u8  dialect            4  u8  routing key bytes     16 u32 body bytes
//! 1  u8  flags              5  u24 property bytes        20 u64 expires, if flagged
//! 2  u8  priority           8  u64 arrived               .. the extension, if flagged
//! 3  u8  exchange bytes                                  .. exchange, routing key, properties, annotations, body
//! ```
//! The extension has 8 bytes: u32 routing key bytes, which the short field leaves out then, and u32 annotation bytes.
//! Annotations are what the server itself says of a message, in its own words and apart from the writer's bytes.
//!
//! Where the flags say that the body is elsewhere, a [`BodyPlace`] of 12 bytes stands for it.

use ferrymq_model::{BodyRef, DialectId, Facts, MessageRef, Time};

use crate::fields::{FieldWriter, Fields};

/// Length of the fields that every message has.
pub(crate) const FIXED_BYTES: usize = 20;
/// Length of a [`BodyPlace`].
const PLACE_BYTES: usize = 12;

const FLAGS_AT: usize = 1;
const EXPIRES: u8 = 1;
const BLOB_FILE: u8 = 2;
const IN_RUN: u8 = 4;
const EXTENDED: u8 = 8;
/// Length of the extension.
const EXTENSION_BYTES: usize = 8;

/// The place of a body that is not behind its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyPlace {
    /// Number of the body's file, or its position in the run.
    pub at: u64,
    /// CRC-32C of the body.
    pub crc: u32,
}

/// A message's body as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredBody<'a> {
    /// Behind the message.
    Here(&'a [u8]),
    /// In its own file.
    BlobFile(BodyPlace),
    /// In the run that the message is in, shared by several queues.
    InRun(BodyPlace),
}

/// A decoded stored message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub dialect: DialectId,
    pub exchange: &'a str,
    pub routing_key: &'a [u8],
    pub properties: &'a [u8],
    /// The server's own annotations of the message.
    pub annotations: &'a [u8],
    pub facts: Facts,
    pub body: StoredBody<'a>,
}

/// The fields that every message has.
#[derive(Clone, Copy, Debug)]
struct Fixed {
    dialect: u8,
    flags: u8,
    priority: u8,
    exchange_bytes: u8,
    key_bytes: u32,
    property_bytes: u32,
    annotation_bytes: u32,
    arrived: u64,
    body_bytes: u32,
    expires: Option<u64>,
}

impl Fixed {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (dialect, flags, priority, exchange_bytes) = (fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?);
        let word = fields.u32()?;
        let (arrived, body_bytes) = (fields.u64()?, fields.u32()?);
        let expires = if flags & EXPIRES == 0 { None } else { Some(fields.u64()?) };
        let (key_bytes, annotation_bytes) = match flags & EXTENDED {
            0 => (word & 0xff, 0),
            _ => (fields.u32()?, fields.u32()?),
        };
        let property_bytes = word >> 8;
        Some(Self {
            dialect,
            flags,
            priority,
            exchange_bytes,
            key_bytes,
            property_bytes,
            annotation_bytes,
            arrived,
            body_bytes,
            expires,
        })
    }

    /// Everything before the body.
    fn head_bytes(&self) -> usize {
        let fixed = FIXED_BYTES
            + if self.expires.is_some() { 8 } else { 0 }
            + if self.flags & EXTENDED == 0 { 0 } else { EXTENSION_BYTES };
        let parts = [self.key_bytes, self.property_bytes, self.annotation_bytes];
        parts.iter().fold(fixed + usize::from(self.exchange_bytes), |sum, part| sum.saturating_add(*part as usize))
    }

    fn total_bytes(&self) -> usize {
        let elsewhere = self.flags & (BLOB_FILE | IN_RUN) != 0;
        self.head_bytes() + if elsewhere { PLACE_BYTES } else { self.body_bytes as usize }
    }

    fn facts(&self) -> Facts {
        Facts {
            body_bytes: self.body_bytes,
            priority: self.priority,
            expires: self.expires.map(Time),
            arrived: Time(self.arrived),
        }
    }
}

/// The facts of a stored message and its whole length, from its first 36 bytes or more.
#[inline]
pub(crate) fn peek(bytes: &[u8]) -> Option<(Facts, usize)> {
    let mut fields = Fields(bytes);
    let fixed = Fixed::read(&mut fields)?;
    Some((fixed.facts(), fixed.total_bytes()))
}

impl<'a> Stored<'a> {
    /// Reads a stored message from the front of `bytes`; `None` if it is not one.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        Self::read_with(bytes, |fields, body_bytes| fields.bytes(body_bytes))
    }

    /// Like [`Stored::read`], for a message whose body is kept separately and not behind its head.
    pub fn read_head(bytes: &'a [u8]) -> Option<Self> {
        Self::read_with(bytes, |_, _| Some(&[]))
    }

    fn read_with(bytes: &'a [u8], body: impl FnOnce(&mut Fields<'a>, usize) -> Option<&'a [u8]>) -> Option<Self> {
        let mut fields = Fields(bytes);
        let fixed = Fixed::read(&mut fields)?;
        let exchange = std::str::from_utf8(fields.bytes(fixed.exchange_bytes.into())?).ok()?;
        let routing_key = fields.bytes(fixed.key_bytes as usize)?;
        let properties = fields.bytes(fixed.property_bytes as usize)?;
        let annotations = fields.bytes(fixed.annotation_bytes as usize)?;
        let body = match fixed.flags & (BLOB_FILE | IN_RUN) {
            0 => StoredBody::Here(body(&mut fields, fixed.body_bytes as usize)?),
            flag => {
                let place = BodyPlace { at: fields.u64()?, crc: fields.u32()? };
                if flag == BLOB_FILE { StoredBody::BlobFile(place) } else { StoredBody::InRun(place) }
            }
        };
        let dialect = DialectId(fixed.dialect);
        Some(Self { dialect, exchange, routing_key, properties, annotations, facts: fixed.facts(), body })
    }

    /// The message, with its body from any place.
    pub fn with_body(self, body: BodyRef<'a>) -> MessageRef<'a> {
        MessageRef {
            dialect: self.dialect,
            exchange: self.exchange,
            routing_key: self.routing_key,
            properties: self.properties,
            annotations: self.annotations,
            body,
        }
    }
}

/// The length of a message before its body.
pub(crate) fn head_bytes(message: &MessageRef<'_>, facts: &Facts) -> usize {
    let expires = if facts.expires.is_some() { 8 } else { 0 };
    let extension = if is_extended(message) { EXTENSION_BYTES } else { 0 };
    let names = message.exchange.len() + message.routing_key.len();
    FIXED_BYTES + expires + extension + names + message.properties.len() + message.annotations.len()
}

/// Whether a message needs the extension: its routing key is long, or it has annotations.
fn is_extended(message: &MessageRef<'_>) -> bool {
    message.routing_key.len() > usize::from(u8::MAX) || !message.annotations.is_empty()
}

/// How many bytes are behind the head: the body, or its place.
pub(crate) fn tail_bytes(facts: &Facts, blob_file: bool) -> usize {
    if blob_file { PLACE_BYTES } else { facts.body_bytes as usize }
}

/// Writes everything before the body.
#[inline]
pub(crate) fn write_head(out: &mut FieldWriter<'_>, message: &MessageRef<'_>, facts: &Facts, blob_file: bool) {
    let extended = is_extended(message);
    let flags = if facts.expires.is_some() { EXPIRES } else { 0 }
        | if blob_file { BLOB_FILE } else { 0 }
        | if extended { EXTENDED } else { 0 };
    let exchange_bytes = u8::try_from(message.exchange.len()).expect("what does not fit is refused");
    let key_bytes = u32::from(u16::try_from(message.routing_key.len()).expect("what does not fit is refused"));
    let short_key_bytes = if extended { 0 } else { key_bytes };
    let property_bytes = u32::try_from(message.properties.len()).expect("what does not fit is refused");
    let long = message.properties.len().max(message.annotations.len());
    assert!(long < MessageRef::PROPERTIES_BYTES, "what does not fit is refused");
    let mut fixed = [0; FIXED_BYTES];
    fixed[..4].copy_from_slice(&[message.dialect.0, flags, facts.priority, exchange_bytes]);
    fixed[4..8].copy_from_slice(&(short_key_bytes | property_bytes << 8).to_le_bytes());
    fixed[8..16].copy_from_slice(&facts.arrived.0.to_le_bytes());
    fixed[16..].copy_from_slice(&facts.body_bytes.to_le_bytes());
    out.array(fixed);
    if let Some(expires) = facts.expires {
        out.u64(expires.0);
    }
    if extended {
        out.u32(key_bytes);
        out.u32(message.annotations.len() as u32);
    }
    out.put(message.exchange.as_bytes());
    out.put(message.routing_key);
    out.put(message.properties);
    out.put(message.annotations);
}

/// Writes the place of a body, in place of the body.
pub(crate) fn write_place(out: &mut FieldWriter<'_>, place: BodyPlace) {
    out.u64(place.at);
    out.u32(place.crc);
}

/// Appends a stored message to a run's block, with its body's place in place of the body if one is given; returns
/// its facts.
pub(crate) fn copy_to_run(stored: &[u8], place: Option<BodyPlace>, out: &mut Vec<u8>) -> Facts {
    let mut fields = Fields(stored);
    let fixed = Fixed::read(&mut fields).expect("what stands in memory was written whole");
    let (facts, _) = peek(stored).expect("what stands in memory was written whole");
    let Some(place) = place else {
        out.extend_from_slice(&stored[..fixed.total_bytes()]);
        return facts;
    };
    let begin = out.len();
    out.extend_from_slice(&stored[..fixed.head_bytes()]);
    out[begin + FLAGS_AT] = fixed.flags | IN_RUN;
    let mut bytes = [0; PLACE_BYTES];
    write_place(&mut FieldWriter::new(&mut bytes), place);
    out.extend_from_slice(&bytes);
    facts
}
