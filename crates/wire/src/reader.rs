//! Reads the bytes of a peer. Each step checks how many bytes are left, and none can panic.
#![deny(clippy::indexing_slicing)]

/// The error for an input that ends within a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// A cursor over borrowed bytes. Numbers are big-endian, unless a name says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// If fewer bytes are left than the number has.
        #[inline]
        pub fn $name(&mut self) -> Result<$type, Truncated> {
            self.array().map(<$type>::from_be_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A cursor at the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that are not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// How many bytes are not read yet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether all bytes are read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes, borrowed.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    numbers! {
        /// The next byte.
        u8: u8;
        /// The next byte, signed.
        i8: i8;
        /// The next 16 bits.
        u16: u16;
        /// The next 16 bits, signed.
        i16: i16;
        /// The next 32 bits.
        u32: u32;
        /// The next 32 bits, signed.
        i32: i32;
        /// The next 64 bits.
        u64: u64;
        /// The next 64 bits, signed.
        i64: i64;
        /// The next 32 bits as a floating-point number.
        f32: f32;
        /// The next 64 bits as a floating-point number.
        f64: f64;
    }
}

#[cfg(test)]
mod tests {
    use super::{Reader, Truncated};

    #[test]
    fn reads_what_is_there_and_no_more() {
        let mut reader = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 0xff, 9, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.i8(), Ok(-1));
        assert_eq!(reader.u32(), Err(Truncated));
        assert_eq!(reader.rest(), [9, 9], "a failed read does not move the cursor");
        assert_eq!(reader.bytes(usize::MAX), Err(Truncated));
        assert_eq!(reader.bytes(2), Ok(&[9, 9][..]));
        assert!(reader.is_empty());
        assert_eq!(reader.bytes(0), Ok(&[][..]));
    }
}
