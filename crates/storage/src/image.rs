//! A journal file's bytes in memory: written by one thread, read by several, without a lock.
//!
//! An image only grows. Bytes below `filled` never change again, so a reader may keep a reference to them while the
//! writer continues behind them. So the flush thread can write a group, and the spill thread can read an old file,
//! while the shard appends. All unsafe code of storage is in this file.

use std::alloc::{self, Layout};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The bytes, mapped directly from the operating system: it provides a page when it is first touched, and takes all
/// of them back at once. An allocator would reuse old memory and zero it first, so that an image that stays nearly
/// empty would cost as much as a full one.
///
/// Invariants: `start` points to `capacity` initialised bytes; `filled` only grows and is at most `capacity`; bytes
/// below `filled` are never written; bytes at or above it are touched by the only [`ImageWriter`] alone.
#[derive(Debug)]
pub(crate) struct Image {
    start: NonNull<u8>,
    capacity: usize,
    filled: AtomicUsize,
}

// SAFETY: the invariants above keep what readers see and what the writer writes apart; `filled` is published with
// release and read with acquire order.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

impl Image {
    fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "an image has bytes");
        // SAFETY: new memory at an address of the system's choice; nothing else can refer to it.
        let mapped =
            unsafe { mmap_anonymous(ptr::null_mut(), capacity, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        // Ends the process and prints how many bytes were missing, like all failed allocations.
        let none =
            || alloc::handle_alloc_error(Layout::array::<u8>(capacity).expect("a journal file has such a length"));
        let start = mapped.ok().and_then(|start| NonNull::new(start.cast())).unwrap_or_else(none);
        Self { start, capacity, filled: AtomicUsize::new(0) }
    }

    /// How many bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes are filled.
    pub fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// Everything that is filled, from `start`.
    #[inline]
    pub fn tail(&self, start: usize) -> &[u8] {
        self.read(start..self.filled())
    }

    /// Bytes that were written before. Asking for others is a bug.
    #[inline]
    pub fn read(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.filled.load(Ordering::Acquire), "reads what is written");
        // SAFETY: below `filled`, so initialised and never written again while this reference can live.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with the same length; nobody refers to it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.capacity) };
        debug_assert!(unmapped.is_ok(), "what was mapped can be unmapped");
    }
}

/// The only way to write to an image; each image has one.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    image: Arc<Image>,
    filled: usize,
}

impl ImageWriter {
    /// A new image.
    pub fn new(capacity: usize) -> Self {
        Self { image: Arc::new(Image::new(capacity)), filled: 0 }
    }

    /// Overwrites an old image, if nobody reads it any more. Its pages are in memory already.
    pub fn reuse(old: Arc<Image>) -> Option<Self> {
        let mut image = Arc::into_inner(old)?;
        *image.filled.get_mut() = 0;
        Some(Self { image: Arc::new(image), filled: 0 })
    }

    /// The image, for readers.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// How many bytes are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes behind the filled ones, to be written before they are published. Their content is unspecified.
    #[inline]
    pub fn reserve(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(self.filled <= range.start && range.start <= range.end, "what is published never changes");
        assert!(range.end <= self.image.capacity, "who reserves has checked that there is room");
        // SAFETY: at or above `filled`: no reader has a reference, and `&mut self` makes this the only writer.
        unsafe { slice::from_raw_parts_mut(self.image.start.as_ptr().add(range.start), range.end - range.start) }
    }

    /// Publishes everything below `filled` to readers, for good.
    #[inline]
    pub fn publish(&mut self, filled: usize) {
        assert!(filled >= self.filled && filled <= self.image.capacity, "an image only grows");
        self.filled = filled;
        self.image.filled.store(filled, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_keep_what_they_have_while_the_writer_goes_on() {
        let mut writer = ImageWriter::new(64);
        writer.reserve(0..3).copy_from_slice(b"one");
        writer.publish(3);
        let image = Arc::clone(writer.image());
        let one = image.read(0..3);
        writer.reserve(3..6).copy_from_slice(b"two");
        writer.publish(6);
        assert_eq!((one, image.read(3..6)), (&b"one"[..], &b"two"[..]));
    }

    #[test]
    #[should_panic(expected = "reads what is written")]
    fn nothing_is_read_before_it_is_published() {
        let mut writer = ImageWriter::new(64);
        writer.reserve(0..3).copy_from_slice(b"one");
        let _ = writer.image().read(0..3);
    }

    #[test]
    fn an_image_in_use_is_not_written_over() {
        let writer = ImageWriter::new(64);
        let (image, reader) = (Arc::clone(writer.image()), Arc::clone(writer.image()));
        drop(writer);
        assert!(ImageWriter::reuse(image).is_none());
        assert!(ImageWriter::reuse(reader).is_some(), "the last one");
    }
}
