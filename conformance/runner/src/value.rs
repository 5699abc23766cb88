//! The values of method fields, of properties and of field tables, and their notation in a script.

use std::fmt::{self, Write as _};

/// The value of a method's field or of a property.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bit(bool),
    Number(u64),
    Text(Vec<u8>),
    Table(Table),
}

pub type Table = Vec<(String, Item)>;

/// One value of a field table, with its type octet.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Bool(bool),
    /// `b`, `s`, `I`, `l` and `L`.
    Signed(u8, i64),
    /// `B`, `u`, `i` and `T`.
    Unsigned(u8, u64),
    Float(f32),
    Double(f64),
    Decimal(u8, u32),
    /// `S` and `x`.
    Text(u8, Vec<u8>),
    Array(Vec<Item>),
    Table(Table),
    Void,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bit(bit) => write!(f, "{bit}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(bytes) => write_text(f, bytes),
            Self::Table(table) => write_table(f, table),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(bit) => write!(f, "{bit}"),
            Self::Signed(b'I', number) => write!(f, "{number}"),
            Self::Signed(tag, number) => write!(f, "{}:{number}", char::from(*tag)),
            Self::Unsigned(tag, number) => write!(f, "{}:{number}", char::from(*tag)),
            Self::Float(number) => write!(f, "f:{number}"),
            Self::Double(number) => write!(f, "d:{number}"),
            Self::Decimal(scale, number) => write!(f, "D:{scale}/{number}"),
            Self::Text(b'S', bytes) => write_text(f, bytes),
            Self::Text(tag, bytes) => {
                write!(f, "{}:", char::from(*tag))?;
                write_text(f, bytes)
            }
            Self::Array(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { " " })?;
                }
                f.write_char(']')
            }
            Self::Table(table) => write_table(f, table),
            Self::Void => f.write_str("void"),
        }
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
    f.write_char('{')?;
    for (index, (name, item)) in table.iter().enumerate() {
        write!(f, "{}{name}={item}", if index == 0 { "" } else { " " })?;
    }
    f.write_char('}')
}

/// Writes bytes in quotes. If they are many times the same byte, as in large test bodies, writes that byte and a count.
fn write_text(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const RUN_MIN: usize = 40;
    if let [first, rest @ ..] = bytes
        && bytes.len() >= RUN_MIN
        && rest.iter().all(|byte| byte == first)
    {
        return write!(f, "\"{}\"*{}", first.escape_ascii(), bytes.len());
    }
    write!(f, "\"{}\"", bytes.escape_ascii().to_string().replace("\\'", "'"))
}
