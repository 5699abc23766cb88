//! The values of arguments and headers, independent of a protocol's encoding.

use serde::{Deserialize, Serialize};

/// A value of an argument or a header. It has all types of AMQP field tables; no other of our protocols has more types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    Void,
    /// True or false.
    Bool(bool),
    /// A whole number of any width. The width is not stored, because two numbers are equal if their values are equal.
    Int(i64),
    /// An unsigned number that does not fit `Int`.
    Unsigned(u64),
    /// A floating-point number. Single precision is converted to double precision.
    Float(f64),
    /// A decimal: the number is `digits` divided by ten to the power of `scale`.
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// All digits as one number.
        digits: i32,
    },
    /// Text, or bytes that were sent as text.
    Text(String),
    /// Bytes.
    #[serde(with = "serde_bytes")]
    Bytes(Vec<u8>),
    /// Seconds since 1970.
    Timestamp(u64),
    /// Values in order.
    List(Vec<Value>),
    /// Values by key.
    Table(Table),
}

impl Value {
    /// The whole number, if this is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Values by key, in the order in which they arrived. If a key comes twice, the first counts.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Table(pub Vec<(String, Value)>);

impl Table {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The same entries sorted by key: two tables with equal entries become equal.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        self
    }
}

impl FromIterator<(String, Value)> for Table {
    fn from_iter<T: IntoIterator<Item = (String, Value)>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}
