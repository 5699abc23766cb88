//! Segments: memory with resident messages. One is the image of a journal generation, or a chunk for transient
//! messages; both are freed as a whole, after their live messages were moved to a run.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, hash_map::Entry};

use crate::image::Image;
use crate::queue::QueueKey;

/// Number of a segment. Journal generations are their own numbers; transient chunks have the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub u32);

impl SegmentId {
    const TRANSIENT: u32 = 1 << 31;

    pub fn journal(generation: u64) -> Self {
        let number = u32::try_from(generation).ok().filter(|number| *number < Self::TRANSIENT);
        Self(number.expect("a journal is written over fewer than two thousand million times"))
    }

    pub fn transient(number: u32) -> Self {
        Self(number | Self::TRANSIENT)
    }

    #[inline]
    pub fn is_transient(self) -> bool {
        self.0 & Self::TRANSIENT != 0
    }

    #[inline]
    fn number(self) -> u32 {
        self.0 & !Self::TRANSIENT
    }
}

/// One segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub image: Arc<Image>,
    /// How many places in queues refer to it.
    pub live: u32,
    /// Queues that changed while this was the current segment; some may be deleted.
    pub touched: Vec<QueueKey>,
    /// The index of the first section in it; 0 for transient messages.
    pub first_section: u64,
    /// Bodies that are shared and not in the image, by the place of their message.
    pub bodies: HashMap<u32, Beside, foldhash::fast::FixedState>,
}

/// A body that is shared and not in the image.
#[derive(Debug)]
pub(crate) struct Beside {
    pub body: Bytes,
    /// The number of slots that refer to it. When the last one is removed, its memory is free for the next body. 0 if
    /// the body stays as long as the segment.
    pub slots: u32,
}

impl Segment {
    fn new(image: Arc<Image>, first_section: u64) -> Self {
        Self { image, live: 0, touched: Vec::new(), first_section, bodies: HashMap::default() }
    }

    /// Records that a message whose body is not in the image has left a queue. Returns the body if no other queue has
    /// the message.
    pub fn release_body(&mut self, at: u32) -> Option<Bytes> {
        let Entry::Occupied(mut entry) = self.bodies.entry(at) else { return None };
        match &mut entry.get_mut().slots {
            0 => None,
            1 => Some(entry.remove().body),
            slots => {
                *slots -= 1;
                None
            }
        }
    }

    /// The memory of the bodies that are not in the image.
    pub fn bodies_bytes(&self) -> usize {
        self.bodies.values().map(|beside| beside.body.len()).sum()
    }
}

/// The segments of one kind, in the order in which they were begun.
#[derive(Debug)]
pub(crate) struct Segments {
    first: u32,
    segments: VecDeque<Segment>,
}

impl Segments {
    /// None yet; the first one will have the number `first`.
    pub fn new(first: u32) -> Self {
        Self { first, segments: VecDeque::new() }
    }

    /// Begins the next one.
    pub fn push(&mut self, image: Arc<Image>, first_section: u64) {
        let before = self.segments.back().map_or(0, |last| last.first_section);
        debug_assert!(before <= first_section, "sections are numbered on from segment to segment");
        self.segments.push_back(Segment::new(image, first_section));
    }

    /// The one after the oldest.
    pub fn second(&self) -> Option<&Segment> {
        self.segments.get(1)
    }

    /// Number that the next one gets.
    pub fn next_number(&self) -> u32 {
        self.first + self.segments.len() as u32
    }

    /// Number of the oldest.
    pub fn first_number(&self) -> u32 {
        self.first
    }

    pub fn len(&self) -> usize {
        self.segments.len()
    }

    #[inline]
    pub fn get(&self, id: SegmentId) -> &Segment {
        &self.segments[(id.number() - self.first) as usize]
    }

    #[inline]
    pub fn get_mut(&mut self, id: SegmentId) -> &mut Segment {
        &mut self.segments[(id.number() - self.first) as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    pub fn current(&mut self) -> Option<&mut Segment> {
        self.segments.back_mut()
    }

    pub fn oldest(&mut self) -> Option<&mut Segment> {
        self.segments.front_mut()
    }

    /// Frees the oldest.
    pub fn pop(&mut self) -> Option<Segment> {
        self.first += u32::from(!self.segments.is_empty());
        self.segments.pop_front()
    }
}
