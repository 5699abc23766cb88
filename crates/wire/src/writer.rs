//! Writes bytes for a peer: appends numbers and strings to a buffer.
#![deny(clippy::indexing_slicing)]

/// Appends values to a buffer. Numbers are big-endian.
pub trait Put {
    /// Appends bytes whose number is known when this is compiled: one check for all of them.
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]);
    /// Appends `bytes` as they are.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put_array([value]);
    }

    /// Appends 16 bits.
    #[inline]
    fn put_u16(&mut self, value: u16) {
        self.put_array(value.to_be_bytes());
    }

    /// Appends 32 bits.
    #[inline]
    fn put_u32(&mut self, value: u32) {
        self.put_array(value.to_be_bytes());
    }

    /// Appends 64 bits.
    #[inline]
    fn put_u64(&mut self, value: u64) {
        self.put_array(value.to_be_bytes());
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Space of a fixed length at the end of a buffer, filled from its beginning. A growing buffer checks its capacity and
/// stores its length for each value. For many small values, this costs more than the values.
///
/// Each method of [`Put`] panics if the space is too small.
#[derive(Debug)]
pub struct BufferSpace<'a> {
    rest: &'a mut [u8],
}

impl BufferSpace<'_> {
    /// Lets `write` append at most `bytes_max` bytes to `buffer`.
    #[inline]
    pub fn append(buffer: &mut Vec<u8>, bytes_max: usize, write: impl FnOnce(&mut BufferSpace<'_>)) {
        let start = buffer.len();
        buffer.resize(start + bytes_max, 0);
        let mut room = BufferSpace { rest: buffer.get_mut(start..).expect("just made") };
        write(&mut room);
        let unused = room.rest.len();
        buffer.truncate(start + bytes_max - unused);
    }
}

impl Put for BufferSpace<'_> {
    #[inline]
    fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        let rest = std::mem::take(&mut self.rest);
        let (place, rest) = rest.split_first_chunk_mut::<N>().expect("the caller has asked for enough space");
        *place = bytes;
        self.rest = rest;
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        let (place, rest) = rest.split_at_mut_checked(bytes.len()).expect("the caller has asked for enough space");
        place.copy_from_slice(bytes);
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::{BufferSpace, Put};

    #[test]
    fn a_room_leaves_what_is_before_it_and_nothing_unused() {
        let mut out = vec![7];
        BufferSpace::append(&mut out, 20, |out| {
            out.put_u8(1);
            out.put_u16(0x0203);
            out.put(b"abc");
            out.put_u32(4);
        });
        assert_eq!(out, [7, 1, 2, 3, b'a', b'b', b'c', 0, 0, 0, 4]);
    }
}
