//! Names of vhosts, exchanges, queues, users and consumers.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// A name that clients choose: UTF-8 of at most 255 bytes (AMQP 0-9-1 section 4.2.5.3 sets the length). Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Longer than 255 bytes.
    TooLong,
    /// Not UTF-8.
    NotText,
}

impl Name {
    /// The maximum length of a name in bytes.
    pub const BYTES_MAX: usize = 255;

    /// The name in `bytes`.
    ///
    /// # Errors
    /// If it is too long or not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(NameError::TooLong);
        }
        std::str::from_utf8(bytes).map(|text| Self(text.into())).map_err(|_| NameError::NotText)
    }

    /// The beginning of `text`, cut between two characters so that it is no longer than a name or a routing key may be.
    /// For texts that the server itself makes from names.
    #[must_use]
    pub fn cut(text: &str) -> &str {
        &text[..text.floor_char_boundary(Self::BYTES_MAX)]
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    /// A name that the code itself contains.
    ///
    /// # Panics
    /// If `text` is too long for a name.
    fn from(text: &str) -> Self {
        Self::parse(text.as_bytes()).expect("a name written in the code is short")
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_a_name_is_cut_between_two_characters() {
        assert_eq!(Name::cut("deliver.q"), "deliver.q");
        assert_eq!(Name::cut(&"a".repeat(255)).len(), 255);
        assert_eq!(Name::cut(&"a".repeat(256)).len(), 255);
        let wide = "\u{e4}".repeat(128);
        assert_eq!(Name::cut(&wide), "\u{e4}".repeat(127));
    }
}
