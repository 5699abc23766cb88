//! Writes a group as whole blocks in aligned memory, so that it can go from memory to the disk without the page
//! cache ([`Open::Blocks`](crate::disk::Open::Blocks)).
//!
//! Long parts that have the same alignment in memory and in the file are written from where they are. This is nearly
//! all of an image, because its offsets are the offsets of its file. The other parts are first copied together.

use std::io::{self, IoSlice};
use std::mem;
use std::ops::Range;

use crate::disk::{BLOCK_BYTES as BLOCK, DiskFile};

/// How many bytes are copied together before they are written.
const COPIED_BYTES: usize = 1 << 20;

/// The memory in which parts are copied together to blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    memory: Vec<u8>,
    /// The first aligned position in `memory`.
    begin: usize,
}

/// A part of the next write.
#[derive(Debug)]
enum Piece<'a> {
    /// In the memory for blocks.
    Copied(Range<usize>),
    /// Whole blocks that are not copied.
    InPlace(&'a [u8]),
}

/// The next write.
#[derive(Debug)]
struct Batch<'a> {
    position: u64,
    pieces: Vec<Piece<'a>>,
    /// The copied bytes of all pieces.
    copied: usize,
    /// The bytes of all pieces.
    bytes: usize,
}

impl Blocks {
    pub fn new() -> Self {
        let memory = vec![0; COPIED_BYTES + BLOCK];
        let begin = memory.as_ptr().align_offset(BLOCK);
        Self { memory, begin }
    }

    /// Writes all parts one after the other at `position`, which must be the beginning of a block. Fills the last block
    /// with zeros. After an error, any of the bytes may have been written.
    pub fn write(&mut self, file: &dyn DiskFile, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        debug_assert!(position.is_multiple_of(BLOCK as u64), "groups begin with a block");
        let mut batch = Batch { position, pieces: Vec::with_capacity(4), copied: 0, bytes: 0 };
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let in_block = batch.bytes % BLOCK;
                let (some, in_place) = match whole_blocks(rest) {
                    whole if in_block == 0 && whole > 0 => (whole, true),
                    _ if in_block == 0 => (rest.len().min(COPIED_BYTES - batch.copied), false),
                    _ => (rest.len().min(BLOCK - in_block), false),
                };
                let (now, later) = rest.split_at(some);
                if in_place {
                    batch.add_in_place(now);
                } else {
                    self.copy(&mut batch, now);
                }
                rest = later;
                if batch.copied == COPIED_BYTES {
                    self.issue(file, &mut batch)?;
                }
            }
        }
        let padding = batch.bytes.next_multiple_of(BLOCK) - batch.bytes;
        self.copy(&mut batch, &[0; BLOCK][..padding]);
        self.issue(file, &mut batch)
    }

    fn copy(&mut self, batch: &mut Batch<'_>, bytes: &[u8]) {
        let to = batch.copied..batch.copied + bytes.len();
        self.memory[self.begin..][to.clone()].copy_from_slice(bytes);
        batch.copied = to.end;
        batch.bytes += bytes.len();
        match batch.pieces.last_mut() {
            Some(Piece::Copied(last)) => last.end = to.end,
            _ => batch.pieces.push(Piece::Copied(to)),
        }
    }

    fn issue(&self, file: &dyn DiskFile, batch: &mut Batch<'_>) -> io::Result<()> {
        let copied = &self.memory[self.begin..];
        let slices = mem::take(&mut batch.pieces).into_iter().map(|piece| match piece {
            Piece::Copied(range) => IoSlice::new(&copied[range]),
            Piece::InPlace(bytes) => IoSlice::new(bytes),
        });
        file.write_at(batch.position, &slices.collect::<Vec<_>>())?;
        *batch = Batch { position: batch.position + batch.bytes as u64, pieces: Vec::new(), copied: 0, bytes: 0 };
        Ok(())
    }
}

impl<'a> Batch<'a> {
    fn add_in_place(&mut self, bytes: &'a [u8]) {
        self.pieces.push(Piece::InPlace(bytes));
        self.bytes += bytes.len();
    }
}

/// How many bytes at the beginning are whole blocks in aligned memory.
fn whole_blocks(bytes: &[u8]) -> usize {
    if bytes.as_ptr().align_offset(BLOCK) == 0 { bytes.len() / BLOCK * BLOCK } else { 0 }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Stores the bytes that are written, and checks that they are whole blocks.
    #[derive(Debug, Default)]
    struct Kept {
        bytes: Mutex<Vec<u8>>,
        writes: Mutex<usize>,
    }

    impl DiskFile for Kept {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().len() as u64)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
            let mut bytes = self.bytes.lock();
            assert_eq!(position, bytes.len() as u64, "one after the other");
            for part in parts {
                assert_eq!((part.as_ptr().align_offset(BLOCK), part.len() % BLOCK), (0, 0));
                bytes.extend_from_slice(part);
            }
            *self.writes.lock() += 1;
            Ok(())
        }

        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Bytes that differ from block to block. They begin `apart` bytes after the beginning of a block.
    fn aligned(apart: usize, bytes: usize) -> (Vec<u8>, Range<usize>) {
        let mut memory: Vec<u8> = (0..bytes + 2 * BLOCK).map(|n| (n % 251) as u8).collect();
        let begin = memory.as_ptr().align_offset(BLOCK) + apart;
        memory[begin..].iter_mut().enumerate().for_each(|(n, byte)| *byte = (n / 7) as u8);
        (memory, begin..begin + bytes)
    }

    #[test]
    fn parts_of_any_length_and_place_become_whole_blocks() {
        let lengths =
            [0, 1, 100, BLOCK - 1, BLOCK, 3 * BLOCK + 5, COPIED_BYTES - 1, COPIED_BYTES, 2 * COPIED_BYTES + 9];
        let mut blocks = Blocks::new();
        for first in lengths {
            for second in lengths {
                for apart in [0, 1, first % BLOCK] {
                    let (one, in_one) = aligned(0, first);
                    let (two, in_two) = aligned(apart, second);
                    let parts = [&[9; 128][..], &one[in_one], &two[in_two], &[7; 33]];
                    let file = Kept::default();
                    blocks.write(&file, 0, &parts).unwrap();
                    let mut expected = parts.concat();
                    expected.resize(expected.len().next_multiple_of(BLOCK), 0);
                    assert!(*file.bytes.lock() == expected, "{first} and {second} bytes, {apart} apart");
                }
            }
        }
    }

    #[test]
    fn an_image_is_written_from_where_it_is() {
        let (image, range) = aligned(128, 8 * COPIED_BYTES - 128);
        let file = Kept::default();
        Blocks::new().write(&file, 0, &[&[9; 128], &image[range], b"merged"]).unwrap();
        assert_eq!(*file.writes.lock(), 1, "what is copied fits");
    }
}
