//! Content headers (section 4.2.6.1): the length of the body, and the message's properties, which stay as they arrived.

use ferrymq_wire::{Put, Reader};

use super::{
    Malformed, field,
    methods::{BasicPublish, WireMethod},
    table::RawTable,
};

/// A content header, borrowed from its frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the properties. Only class basic has properties.
    pub class: u16,
    /// The length of the body that follows, in bytes.
    pub body_bytes: u64,
    /// The property flags and the property list, not parsed yet.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// The length of a header without properties, in bytes.
    pub const BYTES_MIN: usize = 12;

    /// Reads the payload of a header frame.
    ///
    /// # Errors
    /// If the payload is too short, or if the weight, which is reserved, is not zero.
    #[inline]
    pub fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let class = reader.u16()?;
        let weight = reader.u16()?;
        let body_bytes = reader.u64()?;
        if weight != 0 {
            return Err(Malformed::Weight(weight));
        }
        Ok(Self { class, body_bytes, properties: reader.rest() })
    }

    /// Appends the payload of a header frame.
    #[inline]
    pub fn write(&self, out: &mut impl Put) {
        // The weight after the class is 0.
        out.put_u32(u32::from(self.class) << 16);
        out.put_u64(self.body_bytes);
        out.put(self.properties);
    }

    /// How many bytes [`ContentHeader::write`] appends.
    #[inline]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        Self::BYTES_MIN + self.properties.len()
    }
}

/// Reads a method frame's payload if it is a publish. This is the most frequent method, so it has a faster path.
#[inline]
#[must_use]
pub fn publish(payload: &[u8]) -> Option<Result<BasicPublish<'_>, Malformed>> {
    const ID: [u8; 4] = [0, BasicPublish::ID.0 as u8, 0, BasicPublish::ID.1 as u8];
    let mut reader = Reader::new(payload.strip_prefix(&ID)?);
    Some(BasicPublish::read(&mut reader).and_then(|publish| field::end(&reader).map(|()| publish)))
}

/// The properties of class basic, parsed and borrowed. Short strings need not be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    /// MIME type of the body.
    pub content_type: Option<&'a [u8]>,
    /// MIME encoding of the body.
    pub content_encoding: Option<&'a [u8]>,
    /// The application's own headers.
    pub headers: Option<RawTable<'a>>,
    /// 2 is persistent, anything else transient.
    pub delivery_mode: Option<u8>,
    /// The priority. A higher priority is delivered first.
    pub priority: Option<u8>,
    /// The identifier of a request and its replies.
    pub correlation_id: Option<&'a [u8]>,
    /// The address for replies.
    pub reply_to: Option<&'a [u8]>,
    /// Time to live in milliseconds, as digits.
    pub expiration: Option<&'a [u8]>,
    /// The application's identifier of the message.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The type that the application gives to the message.
    pub kind: Option<&'a [u8]>,
    /// The user who published the message.
    pub user_id: Option<&'a [u8]>,
    /// The application that published the message.
    pub app_id: Option<&'a [u8]>,
    /// Reserved.
    pub cluster_id: Option<&'a [u8]>,
}

/// The two flags without a property: the continuation flag, which no class needs, and an unused flag.
const FLAGS_UNUSED: u16 = 0b11;

impl<'a> Properties<'a> {
    /// Reads the property flags and the property list in `bytes`. (AMQP-1)
    ///
    /// # Errors
    /// If they do not fill `bytes` exactly, the headers are malformed, or a flag belongs to no property.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read_inline(bytes)
    }

    /// Like [`Properties::read`], but inlined into its caller. So properties that the caller ignores cost nearly
    /// nothing.
    #[inline(always)]
    pub(crate) fn read_inline(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u16()?;
        let mut properties = Self::default();
        if flags == 0 {
            return field::end(&reader).map(|()| properties);
        }
        if flags & FLAGS_UNUSED != 0 {
            return Err(Malformed::PropertyFlags(flags & FLAGS_UNUSED));
        }
        let r = &mut reader;
        properties.content_type = present(flags, 15, || field::short_bytes(r))?;
        properties.content_encoding = present(flags, 14, || field::short_bytes(r))?;
        properties.headers = present(flags, 13, || field::table(r))?;
        properties.delivery_mode = present(flags, 12, || Ok(r.u8()?))?;
        properties.priority = present(flags, 11, || Ok(r.u8()?))?;
        properties.correlation_id = present(flags, 10, || field::short_bytes(r))?;
        properties.reply_to = present(flags, 9, || field::short_bytes(r))?;
        properties.expiration = present(flags, 8, || field::short_bytes(r))?;
        properties.message_id = present(flags, 7, || field::short_bytes(r))?;
        properties.timestamp = present(flags, 6, || Ok(r.u64()?))?;
        properties.kind = present(flags, 5, || field::short_bytes(r))?;
        properties.user_id = present(flags, 4, || field::short_bytes(r))?;
        properties.app_id = present(flags, 3, || field::short_bytes(r))?;
        properties.cluster_id = present(flags, 2, || field::short_bytes(r))?;
        field::end(&reader).map(|()| properties)
    }

    /// Appends the property flags and the property list.
    ///
    /// # Panics
    /// If a short string has more than 255 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u16(self.flags());
        put_short(out, self.content_type);
        put_short(out, self.content_encoding);
        self.headers.into_iter().for_each(|headers| field::put_long(out, headers.bytes()));
        self.delivery_mode.into_iter().for_each(|mode| out.put_u8(mode));
        self.priority.into_iter().for_each(|priority| out.put_u8(priority));
        put_short(out, self.correlation_id);
        put_short(out, self.reply_to);
        put_short(out, self.expiration);
        put_short(out, self.message_id);
        self.timestamp.into_iter().for_each(|seconds| out.put_u64(seconds));
        put_short(out, self.kind);
        put_short(out, self.user_id);
        put_short(out, self.app_id);
        put_short(out, self.cluster_id);
    }

    fn flags(&self) -> u16 {
        let present = [
            self.content_type.is_some(),
            self.content_encoding.is_some(),
            self.headers.is_some(),
            self.delivery_mode.is_some(),
            self.priority.is_some(),
            self.correlation_id.is_some(),
            self.reply_to.is_some(),
            self.expiration.is_some(),
            self.message_id.is_some(),
            self.timestamp.is_some(),
            self.kind.is_some(),
            self.user_id.is_some(),
            self.app_id.is_some(),
            self.cluster_id.is_some(),
        ];
        (0..).zip(present).fold(0, |flags, (place, present)| flags | u16::from(present) << (15 - place))
    }
}

fn put_short(out: &mut Vec<u8>, property: Option<&[u8]>) {
    property.into_iter().for_each(|bytes| field::put_short(out, bytes));
}

/// The property of `flag`, if the flag is set.
#[inline]
fn present<T>(flags: u16, flag: u16, read: impl FnOnce() -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
    if flags & (1 << flag) == 0 { Ok(None) } else { read().map(Some) }
}
