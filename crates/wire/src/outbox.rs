//! A connection's encoded bytes that wait for its socket.

use std::{collections::VecDeque, io::IoSlice};

use bytes::Bytes;
use ferrymq_model::FileStretch;

/// Bytes to be written, in order. Copied bytes are in one buffer; large shared buffers and stretches of files come
/// between them.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The copied bytes. Those before `written` have been written.
    bytes: Vec<u8>,
    written: usize,
    /// What was not copied, each with the position in `bytes` before which it comes. The positions ascend.
    pieces: VecDeque<(usize, Piece)>,
    shared_bytes: usize,
    file_bytes: usize,
    /// How many bytes have been written since it had nothing.
    taken: u64,
    /// Ends of frames that are not written yet, [`CUT_BYTES`] or more apart. They count like `taken`.
    cuts: VecDeque<u64>,
}

/// Of the ends of frames that are closer together than this, one is noted.
const CUT_BYTES: u64 = 64 << 10;

/// Something that is not copied. It is not empty.
#[derive(Debug)]
enum Piece {
    Shared(Bytes),
    File(FileStretch),
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
            self.pieces.push_back((self.bytes.len(), Piece::Shared(bytes)));
        }
    }

    /// Appends a stretch of a file. Its bytes are read when the socket takes them.
    pub fn send_file(&mut self, stretch: FileStretch) {
        if stretch.bytes > 0 {
            self.file_bytes += stretch.bytes;
            self.pieces.push_back((self.bytes.len(), Piece::File(stretch)));
        }
    }

    /// A frame ends here: what follows can be dropped, and something else sent instead. See [`Outbox::discard`].
    #[inline]
    pub fn end_frame(&mut self) {
        let waiting = self.len() as u64;
        if waiting < CUT_BYTES {
            return;
        }
        let end = self.taken + waiting;
        let last = self.cuts.back().copied().unwrap_or(self.taken);
        if end >= last + CUT_BYTES {
            self.cuts.push_back(end);
        }
    }

    /// Drops what waits, except a part at the front that ends with a frame: of what is being written now, the peer gets
    /// the rest. That is at most 64 KiB and a frame.
    pub fn discard(&mut self) {
        let Some(cut) = self.cuts.front() else { return };
        let mut left = usize::try_from(cut - self.taken).unwrap_or(usize::MAX);
        self.cuts.truncate(1);
        let mut from = self.written;
        let mut kept = 0;
        for (at, piece) in &mut self.pieces {
            let before = *at - from;
            if left <= before {
                break;
            }
            left -= before;
            from = *at;
            kept += 1;
            match piece {
                Piece::Shared(shared) => {
                    // A copy, so that the rest of the buffer does not stay.
                    *shared = Bytes::copy_from_slice(&shared[..shared.len().min(left)]);
                    left -= shared.len();
                }
                Piece::File(stretch) => {
                    stretch.bytes = stretch.bytes.min(left);
                    left -= stretch.bytes;
                }
            }
        }
        self.pieces.truncate(kept);
        self.bytes.truncate(from + left);
        (self.shared_bytes, self.file_bytes) = (0, 0);
        for (_, piece) in &self.pieces {
            match piece {
                Piece::Shared(shared) => self.shared_bytes += shared.len(),
                Piece::File(stretch) => self.file_bytes += stretch.bytes,
            }
        }
        self.recycle();
        self.bytes.shrink_to_fit();
    }

    /// The number of bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written + self.shared_bytes + self.file_bytes
    }

    /// How many of these bytes are in files, and take no memory.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stretch of a file that comes next; `None` if bytes in memory do, or if nothing waits.
    #[must_use]
    pub fn file(&self) -> Option<&FileStretch> {
        match self.pieces.front() {
            Some((at, Piece::File(stretch))) if *at == self.written => Some(stretch),
            _ => None,
        }
    }

    /// The first bytes that wait, up to a stretch of a file, as slices for a gathered write; returns how many slices
    /// were set.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        let mut from = self.written;
        let mut put = |slice: &'a [u8]| {
            if !slice.is_empty() && count < slices.len() {
                slices[count] = IoSlice::new(slice);
                count += 1;
            }
        };
        for (at, piece) in &self.pieces {
            put(&self.bytes[from..*at]);
            match piece {
                Piece::Shared(shared) => put(shared),
                Piece::File(_) => return count,
            }
            from = *at;
        }
        put(&self.bytes[from..]);
        count
    }

    /// Removes `count` bytes, which have been written.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.len(), "not more is written than waits");
        self.taken += count as u64;
        while self.cuts.front().is_some_and(|cut| *cut < self.taken) {
            self.cuts.pop_front();
        }
        while let Some((at, piece)) = self.pieces.front_mut() {
            let before = (*at - self.written).min(count);
            self.written += before;
            count -= before;
            if count == 0 {
                return self.recycle();
            }
            let (taken, is_over) = match piece {
                Piece::Shared(shared) => {
                    let taken = shared.len().min(count);
                    self.shared_bytes -= taken;
                    bytes::Buf::advance(shared, taken);
                    (taken, shared.is_empty())
                }
                Piece::File(stretch) => {
                    let taken = stretch.bytes.min(count);
                    self.file_bytes -= taken;
                    stretch.bytes -= taken;
                    stretch.position += taken as u64;
                    (taken, stretch.bytes == 0)
                }
            };
            count -= taken;
            if !is_over {
                return;
            }
            self.pieces.pop_front();
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
            for (at, _) in &mut self.pieces {
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
    use std::{io, sync::Arc};

    use ferrymq_model::SentFile;

    use super::*;

    /// A file in which each byte is the lowest octet of its position.
    #[derive(Debug)]
    struct Positions;

    impl SentFile for Positions {
        fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
            (position..).zip(into).for_each(|(position, byte)| *byte = position as u8);
            Ok(())
        }
    }

    /// The bytes that come next: of the slices, or of a file.
    fn next(outbox: &Outbox, at_most: usize) -> Vec<u8> {
        if let Some(stretch) = outbox.file() {
            assert_eq!(outbox.slices(&mut [IoSlice::new(&[]); 3]), 0, "what comes next is in the file");
            let mut bytes = vec![0; stretch.bytes.min(at_most)];
            stretch.file.read_at(stretch.position, &mut bytes).unwrap();
            return bytes;
        }
        let mut slices = [IoSlice::new(&[]); 3];
        let count = outbox.slices(&mut slices);
        let mut taken: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        taken.truncate(at_most);
        taken
    }

    /// The bytes leave in the order in which they were added, for every number of bytes that is written at a time.
    #[test]
    fn any_partial_writes_keep_order() {
        for step in 1..60 {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            let mut in_files = 0;
            for round in 0_u8..40 {
                let copied = vec![round; usize::from(round % 4)];
                let shared = vec![100 + round; usize::from(round % 3) * 5];
                let from_file: Vec<u8> = (200..200 + (round % 5) * 11).collect();
                expected.extend_from_slice(&copied);
                outbox.bytes().extend_from_slice(&copied);
                // Each kind follows each other kind, and itself.
                let stretch = FileStretch { file: Arc::new(Positions), position: 200, bytes: from_file.len() };
                if round % 2 == 0 {
                    expected.extend_from_slice(&[&shared[..], &from_file].concat());
                    outbox.share(Bytes::from(shared));
                    outbox.send_file(stretch);
                } else {
                    expected.extend_from_slice(&[&from_file[..], &shared].concat());
                    outbox.send_file(stretch);
                    outbox.share(Bytes::from(shared));
                }
                in_files += from_file.len();
            }
            assert_eq!((outbox.len(), outbox.file_bytes()), (expected.len(), in_files));
            let mut written = Vec::new();
            while !outbox.is_empty() {
                let taken = next(&outbox, step);
                assert!(!taken.is_empty(), "something waits, and comes next");
                outbox.advance(taken.len());
                written.extend_from_slice(&taken);
                assert_eq!(outbox.len(), expected.len() - written.len());
            }
            assert_eq!(written, expected, "{step} bytes at a time");
            assert_eq!(outbox.file_bytes(), 0);
        }
    }

    /// Whatever is written already, what is left of a discarded outbox ends with a frame, and is little. What follows is
    /// not discarded.
    #[test]
    fn a_discarded_outbox_ends_with_a_frame() {
        const FRAME_BYTES: usize = 100_000;
        for written in (0..900_000).step_by(33_333) {
            let mut outbox = Outbox::default();
            for frame in 0..10_u8 {
                outbox.bytes().extend_from_slice(&[frame; 10]);
                let rest = FRAME_BYTES - 20;
                if frame % 3 == 0 {
                    outbox.bytes().extend_from_slice(&vec![frame; rest]);
                } else {
                    outbox.share(Bytes::from(vec![frame; rest]));
                }
                outbox.bytes().extend_from_slice(&[frame; 10]);
                outbox.end_frame();
            }
            outbox.advance(written);
            outbox.discard();
            let left = outbox.len();
            assert_eq!((written + left) % FRAME_BYTES, 0, "{written} bytes are written");
            assert!(left <= 64 * 1_024 + FRAME_BYTES, "{left} bytes are left of {written}");
            outbox.bytes().extend_from_slice(b"end");
            let mut bytes = Vec::new();
            while !outbox.is_empty() {
                let taken = next(&outbox, 7_777);
                outbox.advance(taken.len());
                bytes.extend_from_slice(&taken);
            }
            assert!((written..).zip(&bytes[..left]).all(|(at, byte)| usize::from(*byte) == at / FRAME_BYTES));
            assert_eq!(bytes[left..], *b"end");
        }
    }

    /// A socket may take more at once than one piece: the bytes of a slice and of the files around it.
    #[test]
    fn an_advance_goes_over_pieces() {
        let mut outbox = Outbox::default();
        outbox.send_file(FileStretch { file: Arc::new(Positions), position: 7, bytes: 10 });
        outbox.bytes().extend_from_slice(b"copied");
        outbox.share(Bytes::from_static(b"shared"));
        outbox.send_file(FileStretch { file: Arc::new(Positions), position: 20, bytes: 10 });
        outbox.advance(10 + 6 + 6 + 3);
        let stretch = outbox.file().expect("the rest of the second stretch");
        assert_eq!((stretch.position, stretch.bytes), (23, 7));
        assert_eq!((outbox.len(), outbox.file_bytes()), (7, 7));
    }
}
