//! Memory for long bodies, which is used again. The allocator would return the memory of each body to the operating
//! system, and the system would have to find, zero and map it again for the next body.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The memory of a body while the body arrives. When the finished body is dropped, on any thread, its memory is kept
/// for another body.
#[derive(Debug)]
pub struct BodyBuffer(Vec<u8>);

/// Spare memory is kept in classes by length. Each doubling of the length has four classes, so a body gets at most a
/// quarter more memory than it needs.
const CLASSES: usize = 40;
/// Memory that is shorter than this is not kept, because the allocator needs no system call for it.
const BYTES_MIN: usize = 1 << 11;
/// Memory that is longer than this is not kept. It is not allocated at once either: the buffer grows as the bytes
/// arrive.
const BYTES_MAX: usize = BYTES_MIN << (CLASSES / 4);
/// The maximum of spare memory, in bytes: one write of the journal may free this much at once.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// The lock is held to take or to return one buffer. It is never held while memory is copied or freed.
static SPARE: Mutex<Spare> = Mutex::new(Spare::EMPTY);

struct Spare {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
    /// The minimum of spare memory since the last [`BodyBuffer::give_back_unused`], in bytes.
    unused_bytes: usize,
}

impl BodyBuffer {
    /// An empty buffer with space for `bytes` bytes. For more than 2 MiB the buffer starts smaller and grows.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let bytes = bytes.min(BYTES_MAX);
        let Some(class) = class_for(bytes) else { return Self(Vec::with_capacity(bytes)) };
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).take(class);
        Self(spare.unwrap_or_else(|| Vec::with_capacity(class_bytes(class))))
    }

    /// Returns spare memory to the system that was not used since the last call.
    pub fn give_back_unused() {
        let surplus = SPARE.lock().unwrap_or_else(PoisonError::into_inner).take_unused();
        drop(surplus);
    }

    /// A copy of a body.
    #[must_use]
    pub fn copy(body: &[u8]) -> Bytes {
        let mut buffer = Self::with_room(body.len());
        buffer.append(body);
        buffer.share()
    }

    /// A body of `bytes` bytes, which `fill` writes.
    ///
    /// # Errors
    /// The errors of `fill`.
    pub fn filled<E>(bytes: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Bytes, E> {
        let mut buffer = Self::with_room(bytes);
        buffer.0.resize(bytes, 0);
        fill(&mut buffer.0)?;
        Ok(buffer.share())
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Ends the buffer and returns the complete body.
    #[must_use]
    pub fn share(mut self) -> Bytes {
        if self.0.capacity() > BYTES_MAX {
            // The buffer grew by doubling. The body may wait long and is counted by its length.
            self.0.shrink_to_fit();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for BodyBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        memory.clear();
        let Some(class) = class_of(memory.capacity()) else { return };
        let surplus = SPARE.lock().unwrap_or_else(PoisonError::into_inner).put(class, memory);
        drop(surplus);
    }
}

impl Spare {
    const EMPTY: Self = Self { classes: [const { Vec::new() }; CLASSES], bytes: 0, unused_bytes: 0 };

    fn take(&mut self, class: usize) -> Option<Vec<u8>> {
        let memory = self.classes[class].pop()?;
        self.bytes -= memory.capacity();
        self.unused_bytes = self.unused_bytes.min(self.bytes);
        Some(memory)
    }

    fn take_unused(&mut self) -> Vec<Vec<u8>> {
        let (mut surplus, kept) = (Vec::new(), self.bytes - self.unused_bytes);
        for class in 0..CLASSES {
            while self.bytes > kept {
                match self.take(class) {
                    Some(memory) => surplus.push(memory),
                    None => break,
                }
            }
            if self.classes[class].is_empty() {
                self.classes[class] = Vec::new();
            }
        }
        self.unused_bytes = self.bytes;
        surplus
    }

    /// Keeps `memory`, and returns what is over the limit. Buffers of other classes go first, because bodies of their
    /// length may not come again.
    fn put(&mut self, class: usize, memory: Vec<u8>) -> Vec<Vec<u8>> {
        let (mut surplus, bytes) = (Vec::new(), memory.capacity());
        while self.bytes + bytes > SPARE_BYTES_MAX {
            let Some(other) = (0..CLASSES).find(|other| *other != class && !self.classes[*other].is_empty()) else {
                surplus.push(memory);
                return surplus;
            };
            surplus.extend(self.take(other));
        }
        self.bytes += bytes;
        self.classes[class].push(memory);
        surplus
    }
}

/// The class whose memory has space for `bytes` bytes.
fn class_for(bytes: usize) -> Option<usize> {
    if bytes <= BYTES_MIN || bytes > BYTES_MAX {
        return None;
    }
    let doubling = (bytes - 1).ilog2();
    let quarter = (bytes - 1) >> (doubling - 2) & 3;
    Some((doubling - BYTES_MIN.ilog2()) as usize * 4 + quarter)
}

/// The length of this class's memory, in bytes.
fn class_bytes(class: usize) -> usize {
    (BYTES_MIN << (class / 4)) / 4 * (class % 4 + 5)
}

/// The class of memory with this capacity.
fn class_of(capacity: usize) -> Option<usize> {
    class_for(capacity).filter(|class| class_bytes(*class) == capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_at_most_a_quarter_too_long() {
        for bytes in (BYTES_MIN + 1..20_000).chain([65_536, 131_072, 1_000_000, BYTES_MAX - 1, BYTES_MAX]) {
            let class = class_for(bytes).unwrap();
            assert!(class < CLASSES && class_bytes(class) >= bytes, "{bytes}");
            assert!(class_bytes(class) <= bytes + bytes / 4 + 1, "{bytes}");
            assert_eq!(class_of(class_bytes(class)), Some(class));
        }
        assert_eq!([class_for(BYTES_MIN), class_for(BYTES_MAX + 1)], [None, None]);
    }

    #[test]
    fn memory_is_used_again_and_what_is_kept_is_bounded() {
        let mut spare = Spare::EMPTY;
        for class in 0..CLASSES {
            for _ in 0..SPARE_BYTES_MAX / class_bytes(class) + 2 {
                spare.put(class, Vec::with_capacity(class_bytes(class)));
                let kept: usize = spare.classes.iter().flatten().map(Vec::capacity).sum();
                assert_eq!(kept, spare.bytes);
                assert!(kept <= SPARE_BYTES_MAX);
            }
            assert!(spare.take(class).is_some(), "memory of the length that was used last is kept");
        }
    }

    #[test]
    fn what_was_not_used_for_a_while_is_given_back() {
        let mut spare = Spare::EMPTY;
        let class = class_for(64 << 10).unwrap();
        for _ in 0..10 {
            spare.put(class, Vec::with_capacity(class_bytes(class)));
        }
        assert_eq!(spare.take_unused().len(), 0, "it came since the last call");
        // Three at a time are in use.
        for _ in 0..5 {
            let taken: Vec<_> = (0..3).map(|_| spare.take(class).unwrap()).collect();
            for memory in taken {
                assert!(spare.put(class, memory).is_empty());
            }
        }
        assert_eq!(spare.take_unused().len(), 7);
        assert_eq!(spare.bytes, 3 * class_bytes(class));
        assert_eq!(spare.take_unused().len(), 3);
        assert_eq!((spare.bytes, spare.take_unused().len()), (0, 0));
    }

    #[test]
    fn a_body_is_what_was_appended() {
        for bytes in [0, 1, BYTES_MIN + 1, 100_000, BYTES_MAX + 1] {
            let body: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let mut buffer = BodyBuffer::with_room(bytes);
            body.chunks(999).for_each(|chunk| buffer.append(chunk));
            let shared = buffer.share();
            assert_eq!(shared, body);
            let part = shared.slice(bytes / 2..);
            drop(shared);
            let filled = BodyBuffer::filled(bytes, |into| {
                into.copy_from_slice(&body);
                Ok::<(), ()>(())
            });
            assert_eq!(filled.unwrap(), body);
            // Memory that is still in use is not given to another body.
            let other = BodyBuffer::copy(&vec![0xff; bytes]);
            assert_eq!(part, body[bytes / 2..]);
            drop(other);
        }
    }
}
