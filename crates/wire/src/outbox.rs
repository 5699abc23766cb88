//! A connection's encoded bytes that wait for its socket.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;

/// Bytes to be written, in order. Copied bytes are in one buffer; large shared buffers come between them.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The copied bytes. Those before `written` have been written.
    bytes: Vec<u8>,
    written: usize,
    /// The shared buffers, each with the position in `bytes` before which it comes. The positions ascend.
    shared: VecDeque<(usize, Bytes)>,
    shared_bytes: usize,
}

impl Outbox {
    /// The buffer to which copied bytes are appended.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a buffer without copying it.
    pub fn share(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.shared_bytes += bytes.len();
            self.shared.push_back((self.bytes.len(), bytes));
        }
    }

    /// The number of bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written + self.shared_bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first bytes that wait, as slices for a gathered write; returns how many slices were set.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut from = self.written;
        let mut put = |slice: &'a [u8]| {
            if !slice.is_empty() && count < slices.len() {
                slices[count] = IoSlice::new(slice);
                count += 1;
            }
        };
        for (at, shared) in &self.shared {
            put(&self.bytes[from..*at]);
            put(shared);
            from = *at;
        }
        put(&self.bytes[from..]);
        count
    }

    /// Removes `count` bytes, which have been written.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len(), "not more is written than waits");
        while let Some((at, shared)) = self.shared.front_mut() {
            let before = (*at - self.written).min(count);
            self.written += before;
            count -= before;
            if count == 0 {
                return self.recycle();
            }
            let taken = shared.len().min(count);
            self.shared_bytes -= taken;
            count -= taken;
            if taken < shared.len() {
                bytes::Buf::advance(shared, taken);
                return;
            }
            self.shared.pop_front();
        }
        self.written += count;
        self.recycle();
    }

    /// Empties the buffer when everything is written. When most of it is written, moves the rest to the front.
    fn recycle(&mut self) {
        const MOVED_BYTES: usize = 64 << 10;
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= MOVED_BYTES && self.written * 2 >= self.bytes.len() {
            self.bytes.drain(..self.written);
            for (at, _) in &mut self.shared {
                *at -= self.written;
            }
            self.written = 0;
        }
    }

    /// Gives memory to an empty outbox. An idle outbox has no memory of its own.
    pub fn lend(&mut self, mut memory: Vec<u8>) {
        if self.is_empty() && self.bytes.capacity() < memory.capacity() {
            memory.clear();
            self.bytes = memory;
        }
    }

    /// Takes the memory of an empty outbox. `None` while bytes wait.
    pub fn take_memory(&mut self) -> Option<Vec<u8>> {
        self.is_empty().then(|| std::mem::take(self).bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes leave in the order in which they were added, for every number of bytes that is written at a time.
    #[test]
    fn any_partial_writes_keep_order() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for round in 0_u8..20 {
                let copied = vec![round; usize::from(round % 4)];
                let shared = vec![100 + round; usize::from(round % 3) * 5];
                expected.extend_from_slice(&copied);
                expected.extend_from_slice(&shared);
                outbox.bytes().extend_from_slice(&copied);
                outbox.share(Bytes::from(shared));
            }
            let mut written = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = outbox.slices(&mut slices);
                let mut taken: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                taken.truncate(step);
                written.extend_from_slice(&taken);
                let taken = taken.len();
                outbox.advance(taken);
            }
            assert_eq!(written, expected, "{step} bytes at a time");
        }
    }
}
