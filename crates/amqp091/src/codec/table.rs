//! Field tables and arrays (section 4.2.5.5, with the types as RabbitMQ reads them). They are checked once, and parsed
//! when they are needed.

use ferrymq_wire::{Put, Reader};

use super::{Malformed, field};

/// How deep tables and arrays may be nested. The check is recursive, so this also limits the stack.
pub const DEPTH_MAX: usize = 64;

/// The entries of a field table as they arrived, without the table's length.
///
/// Invariant: all entries on all levels are well formed, because only [`RawTable::check`] makes a table from bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RawTable<'a> {
    entries: &'a [u8],
}

/// The values of a field array as they arrived, without the array's length. Well formed like a [`RawTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RawArray<'a> {
    values: &'a [u8],
}

/// A field value, borrowed. It does not have the width of a number; the table has the exact bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RawValue<'a> {
    /// `V`
    Void,
    /// `t`
    Bool(bool),
    /// `b B s u I i l L`. RabbitMQ reads `L` as signed, too.
    Int(i64),
    /// `f d`
    Float(f64),
    /// `D`
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// All digits as one number.
        digits: i32,
    },
    /// `S`, which is used for text but may contain any bytes.
    Text(&'a [u8]),
    /// `x`
    Bytes(&'a [u8]),
    /// `T`, in seconds.
    Timestamp(u64),
    /// `A`
    Array(RawArray<'a>),
    /// `F`
    Table(RawTable<'a>),
}

impl<'a> RawTable<'a> {
    /// Checks these entries of a table.
    ///
    /// # Errors
    /// If an entry on any level is malformed, or the nesting is deeper than [`DEPTH_MAX`].
    pub fn check(entries: &'a [u8]) -> Result<Self, Malformed> {
        check(entries, true, 1)?;
        Ok(Self { entries })
    }

    /// The entries as they arrived.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.entries
    }

    /// Whether it has no entries.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], RawValue<'a>)> {
        let mut reader = Reader::new(self.entries);
        std::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let key = field::short_bytes(&mut reader).ok()?;
            Some((key, value(&mut reader).ok()?))
        })
    }

    /// Keys and values, in order. The values are the bytes that arrived, beginning with the type octet.
    pub fn entries(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut reader = Reader::new(self.entries);
        std::iter::from_fn(move || {
            let key = field::short_bytes(&mut reader).ok()?;
            let rest = reader.rest();
            value(&mut reader).ok()?;
            Some((key, rest.get(..rest.len() - reader.len())?))
        })
    }

    /// The first value under `key`.
    #[must_use]
    pub fn get(self, key: &str) -> Option<RawValue<'a>> {
        self.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    }
}

impl<'a> RawArray<'a> {
    /// The values, in order.
    pub fn iter(self) -> impl Iterator<Item = RawValue<'a>> {
        let mut reader = Reader::new(self.values);
        std::iter::from_fn(move || if reader.is_empty() { None } else { value(&mut reader).ok() })
    }
}

/// Checks entries (with keys) or values (without keys) at nesting level `depth`.
fn check(bytes: &[u8], keys: bool, depth: usize) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed::TableDepth);
    }
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        if keys {
            field::short_bytes(&mut reader).map_err(|_| Malformed::TableLength)?;
        }
        match value(&mut reader) {
            Ok(RawValue::Table(inner)) => check(inner.entries, true, depth + 1)?,
            Ok(RawValue::Array(inner)) => check(inner.values, false, depth + 1)?,
            Ok(_) => {}
            Err(Malformed::Truncated) => return Err(Malformed::TableLength),
            Err(malformed) => return Err(malformed),
        }
    }
    Ok(())
}

/// Reads one value with its type octet. The content of a table or an array is not parsed. (AMQP-1)
fn value<'a>(reader: &mut Reader<'a>) -> Result<RawValue<'a>, Malformed> {
    Ok(match reader.u8()? {
        b'S' => RawValue::Text(field::long_bytes(reader)?),
        b'I' => RawValue::Int(reader.i32()?.into()),
        b't' => RawValue::Bool(reader.u8()? != 0),
        b'F' => RawValue::Table(RawTable { entries: field::long_bytes(reader)? }),
        b'A' => RawValue::Array(RawArray { values: field::long_bytes(reader)? }),
        b'l' | b'L' => RawValue::Int(reader.i64()?),
        b'T' => RawValue::Timestamp(reader.u64()?),
        b'V' => RawValue::Void,
        b'd' => RawValue::Float(reader.f64()?),
        b'f' => RawValue::Float(reader.f32()?.into()),
        b'b' => RawValue::Int(reader.i8()?.into()),
        b'B' => RawValue::Int(reader.u8()?.into()),
        b's' => RawValue::Int(reader.i16()?.into()),
        b'u' => RawValue::Int(reader.u16()?.into()),
        b'i' => RawValue::Int(reader.u32()?.into()),
        b'D' => RawValue::Decimal { scale: reader.u8()?, digits: reader.i32()? },
        b'x' => RawValue::Bytes(field::long_bytes(reader)?),
        unknown => return Err(Malformed::FieldType(unknown)),
    })
}

/// Appends an entry's key.
///
/// # Panics
/// If the key has more than 255 bytes.
pub fn put_key(out: &mut Vec<u8>, key: impl AsRef<[u8]>) {
    field::put_short(out, key.as_ref());
}

/// Appends a number in 64 bits, even if it is small. RabbitMQ writes counts in this way.
pub fn put_count(out: &mut Vec<u8>, count: i64) {
    out.put_u8(b'l');
    out.put(&count.to_be_bytes());
}

/// Appends a table as a value. Its entries must be well formed.
pub fn put_table(out: &mut Vec<u8>, entries: &[u8]) {
    put_long(out, b'F', entries);
}

/// Appends an array as a value. Its values must be well formed.
pub fn put_array(out: &mut Vec<u8>, values: &[u8]) {
    put_long(out, b'A', values);
}

/// Appends a value with its type octet, in the shortest of the types that RabbitMQ itself writes.
pub fn put_value(out: &mut Vec<u8>, value: &RawValue<'_>) {
    match *value {
        RawValue::Void => out.put_u8(b'V'),
        RawValue::Bool(bool) => out.put(&[b't', bool.into()]),
        RawValue::Int(number) => put_int(out, number),
        RawValue::Float(number) => {
            out.put_u8(b'd');
            out.put(&number.to_be_bytes());
        }
        RawValue::Decimal { scale, digits } => {
            out.put(&[b'D', scale]);
            out.put(&digits.to_be_bytes());
        }
        RawValue::Text(bytes) => put_long(out, b'S', bytes),
        RawValue::Bytes(bytes) => put_long(out, b'x', bytes),
        RawValue::Timestamp(seconds) => {
            out.put_u8(b'T');
            out.put_u64(seconds);
        }
        RawValue::Array(array) => put_array(out, array.values),
        RawValue::Table(table) => put_table(out, table.entries),
    }
}

fn put_int(out: &mut Vec<u8>, number: i64) {
    if let Ok(narrow) = i32::try_from(number) {
        out.put_u8(b'I');
        out.put(&narrow.to_be_bytes());
    } else {
        put_count(out, number);
    }
}

fn put_long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    field::put_long(out, bytes);
}
