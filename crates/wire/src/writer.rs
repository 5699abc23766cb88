//! Writing bytes for somebody else: numbers and lengths appended to a growing buffer.
#![deny(clippy::indexing_slicing)]

/// The place of a 32-bit length that is known only once what it measures has been written.
#[derive(Debug)]
#[must_use = "a length that is left open goes out as zero"]
pub struct OpenLength {
    /// Where the length ends and what it measures begins.
    start: usize,
}

/// Appends values to a buffer of bytes. Numbers are big-endian.
pub trait Put {
    /// Appends one byte.
    fn put_u8(&mut self, value: u8);
    /// Appends 16 bits.
    fn put_u16(&mut self, value: u16);
    /// Appends 32 bits.
    fn put_u32(&mut self, value: u32);
    /// Appends 64 bits.
    fn put_u64(&mut self, value: u64);
    /// Appends `bytes` as they are.
    fn put(&mut self, bytes: &[u8]);
    /// Appends room for a 32-bit length of what is written from here until [`Put::close_length`].
    fn open_length(&mut self) -> OpenLength;
    /// Writes how many bytes came since the length was opened.
    ///
    /// # Panics
    /// Where that is 4 GiB or more, or the buffer was shortened meanwhile.
    fn close_length(&mut self, length: OpenLength);
}

impl Put for Vec<u8> {
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn open_length(&mut self) -> OpenLength {
        self.put_u32(0);
        OpenLength { start: self.len() }
    }

    #[inline]
    #[allow(clippy::needless_pass_by_value)] // By value: a length is closed once.
    fn close_length(&mut self, length: OpenLength) {
        let measured = u32::try_from(self.len() - length.start).expect("what a length measures is below 4 GiB");
        self.get_mut(length.start - 4..length.start)
            .expect("the buffer was not shortened")
            .copy_from_slice(&measured.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::Put;

    #[test]
    fn lengths_nest() {
        let mut out = vec![7];
        let outer = out.open_length();
        out.put_u16(0x0102);
        let inner = out.open_length();
        out.put(b"abc");
        out.close_length(inner);
        out.close_length(outer);
        out.put_u8(9);
        assert_eq!(out, [7, 0, 0, 0, 9, 1, 2, 0, 0, 0, 3, b'a', b'b', b'c', 9]);
    }
}
