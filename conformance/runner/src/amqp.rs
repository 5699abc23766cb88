//! Reads and writes frames, methods and content, with the tables of the specification.
//!
//! The code is simple and slow on purpose. Its value is that it is independent of the server's codec.

use crate::spec::{Field, FieldKind, Method, Spec};
use crate::value::{Item, Table, Value};

pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
pub const FRAME_METHOD: u8 = 1;
pub const FRAME_HEADER: u8 = 2;
pub const FRAME_BODY: u8 = 3;
pub const FRAME_HEARTBEAT: u8 = 8;
pub const FRAME_END: u8 = 0xCE;
/// The number of bytes of a frame that are not payload.
pub const FRAME_OVERHEAD: usize = 8;

pub const CLASS_BASIC: u16 = 60;

/// Fields by name, in the order in which they are written.
pub type Fields = Vec<(String, Value)>;

pub fn frame(kind: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a script's payload fits into a frame");
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(end);
    bytes
}

/// The payload of a method frame. `value_of` returns the value of each field.
pub fn method_payload(
    method: &Method,
    mut value_of: impl FnMut(&Field) -> Result<Value, String>,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&method.class_id.to_be_bytes());
    bytes.extend_from_slice(&method.id.to_be_bytes());
    let mut bits_in_octet = 0;
    for field in &method.fields {
        let value = value_of(field)?;
        if let Value::Bit(bit) = value {
            if bits_in_octet % 8 == 0 {
                bytes.push(0);
            }
            *bytes.last_mut().expect("pushed above") |= u8::from(bit) << (bits_in_octet % 8);
            bits_in_octet += 1;
        } else {
            bits_in_octet = 0;
            put_value(&mut bytes, field.kind, &value).map_err(|why| format!("{}: {why}", field.name))?;
        }
    }
    Ok(bytes)
}

/// The payload of a content header frame.
pub fn header_payload(body_bytes: u64, properties: &Fields) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&CLASS_BASIC.to_be_bytes());
    bytes.extend_from_slice(&0_u16.to_be_bytes());
    bytes.extend_from_slice(&body_bytes.to_be_bytes());
    let mut flags = 0_u16;
    let mut values = Vec::new();
    for (index, field) in Spec::amqp091().properties.iter().enumerate() {
        if let Some((_, value)) = properties.iter().find(|(name, _)| *name == field.name) {
            flags |= 1 << (15 - index);
            put_value(&mut values, field.kind, value).map_err(|why| format!("{}: {why}", field.name))?;
        }
    }
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&values);
    Ok(bytes)
}

/// The value of a field that a script does not name.
pub fn default_of(kind: FieldKind) -> Value {
    match kind {
        FieldKind::Bit => Value::Bit(false),
        FieldKind::Octet | FieldKind::Short | FieldKind::Long | FieldKind::LongLong => Value::Number(0),
        FieldKind::ShortText | FieldKind::LongText => Value::Text(Vec::new()),
        FieldKind::Table => Value::Table(Table::new()),
    }
}

fn put_value(bytes: &mut Vec<u8>, kind: FieldKind, value: &Value) -> Result<(), String> {
    match (kind, value) {
        (FieldKind::Octet, Value::Number(number)) => bytes.push(narrow(*number)?),
        (FieldKind::Short, Value::Number(number)) => bytes.extend(narrow::<u16>(*number)?.to_be_bytes()),
        (FieldKind::Long, Value::Number(number)) => bytes.extend(narrow::<u32>(*number)?.to_be_bytes()),
        (FieldKind::LongLong, Value::Number(number)) => bytes.extend(number.to_be_bytes()),
        (FieldKind::ShortText, Value::Text(text)) => put_short_text(bytes, text)?,
        (FieldKind::LongText, Value::Text(text)) => put_long(bytes, text),
        (FieldKind::Table, Value::Table(table)) => put_table(bytes, table)?,
        (kind, value) => return Err(format!("{value} is not a {kind:?}")),
    }
    Ok(())
}

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, String> {
    T::try_from(number).map_err(|_| format!("{number} is too large"))
}

fn put_short_text(bytes: &mut Vec<u8>, text: &[u8]) -> Result<(), String> {
    bytes.push(u8::try_from(text.len()).map_err(|_| "a short string has at most 255 octets")?);
    bytes.extend_from_slice(text);
    Ok(())
}

fn put_long(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(text.len()).expect("a script's text fits").to_be_bytes());
    bytes.extend_from_slice(text);
}

fn put_table(bytes: &mut Vec<u8>, table: &Table) -> Result<(), String> {
    let mut body = Vec::new();
    for (name, item) in table {
        put_short_text(&mut body, name.as_bytes())?;
        put_item(&mut body, item)?;
    }
    put_long(bytes, &body);
    Ok(())
}

fn put_item(bytes: &mut Vec<u8>, item: &Item) -> Result<(), String> {
    match item {
        Item::Bool(bit) => bytes.extend([b't', u8::from(*bit)]),
        // The upper octets contain only the sign, so the lower octets are the number at any width.
        Item::Signed(tag, number) => {
            bytes.push(*tag);
            bytes.extend_from_slice(&number.to_be_bytes()[8 - width(*tag)..]);
        }
        Item::Unsigned(tag, number) => {
            bytes.push(*tag);
            bytes.extend_from_slice(&number.to_be_bytes()[8 - width(*tag)..]);
        }
        Item::Float(number) => {
            bytes.push(b'f');
            bytes.extend(number.to_be_bytes());
        }
        Item::Double(number) => {
            bytes.push(b'd');
            bytes.extend(number.to_be_bytes());
        }
        Item::Decimal(scale, number) => {
            bytes.extend([b'D', *scale]);
            bytes.extend(number.to_be_bytes());
        }
        Item::Text(tag, text) => {
            bytes.push(*tag);
            put_long(bytes, text);
        }
        Item::Array(items) => {
            let mut body = Vec::new();
            items.iter().try_for_each(|item| put_item(&mut body, item))?;
            bytes.push(b'A');
            put_long(bytes, &body);
        }
        Item::Table(table) => {
            bytes.push(b'F');
            put_table(bytes, table)?;
        }
        Item::Void => bytes.push(b'V'),
    }
    Ok(())
}

/// The number of octets of a number in a table.
fn width(tag: u8) -> usize {
    match tag {
        b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' => 4,
        _ => 8,
    }
}

/// Reads a payload from its beginning. A read fails if the server sent too few bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("the server's frame ends too soon")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A big-endian number of `octets` octets.
    pub fn number(&mut self, octets: usize) -> Result<u64, String> {
        Ok(self.take(octets)?.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("this many were taken"))
    }

    fn text(&mut self, length_octets: usize) -> Result<&'a [u8], String> {
        let length = self.number(length_octets)?;
        self.take(usize::try_from(length).expect("a length of 32 bits fits"))
    }

    /// The fields of a method. Neighbouring bits, which share an octet, become fields of their own.
    pub fn fields(&mut self, fields: &[Field]) -> Result<Fields, String> {
        let (mut bits, mut bits_left) = (0_u64, 0);
        let mut values = Fields::new();
        for field in fields {
            let value = if field.kind == FieldKind::Bit {
                if bits_left == 0 {
                    (bits, bits_left) = (self.number(1)?, 8);
                }
                let bit = bits & 1 == 1;
                (bits, bits_left) = (bits >> 1, bits_left - 1);
                Value::Bit(bit)
            } else {
                bits_left = 0;
                self.value(field.kind)?
            };
            if !field.reserved {
                values.push((field.name.clone(), value));
            }
        }
        Ok(values)
    }

    /// The rest of a content header after its class, weight and body size: the flags, then their properties.
    pub fn properties(&mut self) -> Result<Fields, String> {
        let flags = self.number(2)?;
        let mut values = Fields::new();
        for (index, field) in Spec::amqp091().properties.iter().enumerate() {
            if flags >> (15 - index) & 1 == 1 {
                values.push((field.name.clone(), self.value(field.kind)?));
            }
        }
        Ok(values)
    }

    fn value(&mut self, kind: FieldKind) -> Result<Value, String> {
        Ok(match kind {
            FieldKind::Bit => Value::Bit(self.number(1)? != 0),
            FieldKind::Octet => Value::Number(self.number(1)?),
            FieldKind::Short => Value::Number(self.number(2)?),
            FieldKind::Long => Value::Number(self.number(4)?),
            FieldKind::LongLong => Value::Number(self.number(8)?),
            FieldKind::ShortText => Value::Text(self.text(1)?.to_vec()),
            FieldKind::LongText => Value::Text(self.text(4)?.to_vec()),
            FieldKind::Table => Value::Table(self.table()?),
        })
    }

    fn table(&mut self) -> Result<Table, String> {
        let mut body = Self::new(self.text(4)?);
        let mut table = Table::new();
        while !body.is_empty() {
            let name = String::from_utf8_lossy(body.text(1)?).into_owned();
            table.push((name, body.item()?));
        }
        Ok(table)
    }

    fn item(&mut self) -> Result<Item, String> {
        let [tag] = self.array()?;
        Ok(match tag {
            b't' => Item::Bool(self.number(1)? != 0),
            b'b' => Item::Signed(tag, i8::from_be_bytes(self.array()?).into()),
            b's' => Item::Signed(tag, i16::from_be_bytes(self.array()?).into()),
            b'I' => Item::Signed(tag, i32::from_be_bytes(self.array()?).into()),
            b'l' | b'L' => Item::Signed(tag, i64::from_be_bytes(self.array()?)),
            b'B' | b'u' | b'i' | b'T' => Item::Unsigned(tag, self.number(width(tag))?),
            b'f' => Item::Float(f32::from_be_bytes(self.array()?)),
            b'd' => Item::Double(f64::from_be_bytes(self.array()?)),
            b'D' => {
                let [scale] = self.array()?;
                Item::Decimal(scale, u32::from_be_bytes(self.array()?))
            }
            b'S' | b'x' => Item::Text(tag, self.text(4)?.to_vec()),
            b'A' => {
                let mut body = Self::new(self.text(4)?);
                let mut items = Vec::new();
                while !body.is_empty() {
                    items.push(body.item()?);
                }
                Item::Array(items)
            }
            b'F' => Item::Table(self.table()?),
            b'V' => Item::Void,
            other => return Err(format!("the server sent a table value of type {:?}", char::from(other))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, values: &[(&str, Value)]) -> Vec<u8> {
        let method = Spec::amqp091().method(method).unwrap();
        let value_of = |field: &Field| {
            let given = values.iter().find(|(name, _)| *name == field.name);
            Ok(given.map_or_else(|| default_of(field.kind), |(_, value)| value.clone()))
        };
        let bytes = method_payload(method, value_of).unwrap();
        let fields = Reader::new(&bytes[4..]).fields(&method.fields).unwrap();
        for (name, value) in values {
            assert!(fields.contains(&((*name).to_owned(), value.clone())), "{name} in {fields:?}");
        }
        bytes
    }

    #[test]
    fn bits_share_an_octet_and_a_table_follows() {
        let bytes = check(
            "queue.declare",
            &[
                ("queue", Value::Text(b"q".to_vec())),
                ("durable", Value::Bit(true)),
                ("auto-delete", Value::Bit(true)),
                ("arguments", Value::Table(vec![("x".to_owned(), Item::Signed(b's', -2))])),
            ],
        );
        assert_eq!(bytes, b"\0\x32\0\x0a\0\0\x01q\x0a\0\0\0\x05\x01xs\xff\xfe");
    }

    #[test]
    fn properties_follow_their_flags() {
        let properties =
            vec![("delivery-mode".to_owned(), Value::Number(2)), ("message-id".to_owned(), Value::Text(b"m".to_vec()))];
        let bytes = header_payload(5, &properties).unwrap();
        assert_eq!(bytes, b"\0\x3c\0\0\0\0\0\0\0\0\0\x05\x10\x80\x02\x01m");
        assert_eq!(Reader::new(&bytes[12..]).properties().unwrap(), properties);
    }

    #[test]
    fn a_frame_that_ends_too_soon_is_an_error() {
        let method = Spec::amqp091().method("queue.declare-ok").unwrap();
        assert!(Reader::new(b"\x05ab").fields(&method.fields).is_err());
    }
}
