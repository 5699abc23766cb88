//! What is known of one queue: where its messages are and which of them are settled.
//!
//! Sequences count up by one, so the resident messages are a ring of small slots, found by subtraction. What is settled
//! is a prefix plus intervals; both stay small, because what is settled out of order is bounded by what is out.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_model::{Intervals, QueueId, QueueState, Sequence};

use crate::journal::Mark;
use crate::segment::SegmentId;

/// Where a queue stands in the table of queues; used again when the queue is gone.
pub(crate) type QueueKey = u32;

/// Where a resident message is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub segment: SegmentId,
    /// Where the stored message begins in the segment's image.
    pub at: u32,
    pub body_bytes: u32,
    pub beside: bool,
}

impl Slot {
    /// Nothing is here any more, or ever was.
    const GONE: Self = Self { segment: SegmentId(0), at: 0, body_bytes: 0, beside: false };

    #[inline]
    pub fn is_gone(&self) -> bool {
        self.segment == Self::GONE.segment
    }
}

/// One queue.
///
/// Invariants: `low <= next`; everything below `low` is settled; `done` is above `low` and does not touch it; slots stand
/// for the sequences from `base` to `next`, and a slot is gone exactly if its message is settled, was moved to a run or
/// never was; the first slot is not gone.
#[derive(Debug)]
pub(crate) struct Queue {
    pub id: QueueId,
    pub durable: bool,
    /// The sequence of the next message.
    pub next: Sequence,
    /// The first sequence that was never delivered.
    pub head: Sequence,
    /// Everything below is settled.
    low: Sequence,
    /// Settled above that.
    done: Intervals,
    pub attempts: BTreeMap<Sequence, u32>,
    base: Sequence,
    slots: VecDeque<Slot>,
    /// How many messages are in it.
    pub messages: u64,
    /// How many bytes their bodies have.
    pub bytes: u64,
    pub settled_in: Mark,
    pub delivered_in: Mark,
    /// The last journal generation that lists this queue as touched.
    pub touched_in: u32,
}

impl Queue {
    pub fn new(id: QueueId, durable: bool) -> Self {
        Self {
            id,
            durable,
            next: 1,
            head: 1,
            low: 1,
            done: Intervals::new(),
            attempts: BTreeMap::new(),
            base: 1,
            slots: VecDeque::new(),
            messages: 0,
            bytes: 0,
            settled_in: Mark::default(),
            delivered_in: Mark::default(),
            touched_in: 0,
        }
    }

    /// Adds the message with sequence `next`.
    #[inline]
    pub fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
        self.next += 1;
        self.messages += 1;
        self.bytes += u64::from(slot.body_bytes);
    }

    /// Adds a message that replay found. Sequences left out belonged to messages that did not survive; one that is
    /// settled, or was added before, is not added.
    pub fn restore(&mut self, sequence: Sequence, slot: Slot) -> bool {
        if sequence < self.next {
            return false;
        }
        if self.slots.is_empty() {
            self.skip_to(sequence);
        } else {
            self.slots.resize(self.slots.len() + (sequence - self.next) as usize, Slot::GONE);
        }
        self.next = sequence;
        self.push(slot);
        true
    }

    fn skip_to(&mut self, sequence: Sequence) {
        if sequence > self.next {
            self.settle_numbers(self.next, sequence - 1);
        }
        self.base = sequence;
    }

    #[inline]
    pub fn slot(&self, sequence: Sequence) -> Option<&Slot> {
        let index = sequence.checked_sub(self.base)?;
        self.slots.get(index as usize).filter(|slot| !slot.is_gone())
    }

    #[inline]
    pub fn slot_mut(&mut self, sequence: Sequence) -> Option<&mut Slot> {
        let index = sequence.checked_sub(self.base)?;
        self.slots.get_mut(index as usize).filter(|slot| !slot.is_gone())
    }

    /// The first resident message at or behind `from`.
    #[inline]
    pub fn resident_from(&self, from: Sequence) -> Option<(Sequence, &Slot)> {
        let skipped = from.max(self.base) - self.base;
        let slots = self.slots.range((skipped as usize).min(self.slots.len())..);
        let (index, slot) = slots.enumerate().find(|(_, slot)| !slot.is_gone())?;
        Some((self.base + skipped + index as u64, slot))
    }

    /// Takes the messages `first..=last` out; `gone` is called for every resident one.
    #[inline]
    pub fn settle(&mut self, first: Sequence, last: Sequence, mut gone: impl FnMut(&Slot)) {
        let (first, last) = (first.max(self.low), last.min(self.next - 1));
        if first > last {
            return;
        }
        self.settle_numbers(first, last);
        if last >= self.base {
            let from = first.max(self.base) - self.base;
            for slot in self.slots.range_mut(from as usize..=(last - self.base) as usize) {
                if !slot.is_gone() {
                    self.messages -= 1;
                    self.bytes -= u64::from(slot.body_bytes);
                    gone(slot);
                    *slot = Slot::GONE;
                }
            }
            self.trim();
        }
        if !self.attempts.is_empty() {
            self.attempts.retain(|sequence, _| !(first..=last).contains(sequence));
        }
    }

    #[inline]
    fn settle_numbers(&mut self, first: Sequence, last: Sequence) {
        if first == self.low {
            self.low = last + 1;
            if !self.done.is_empty() {
                self.advance_low();
            }
        } else {
            self.done.insert(first, last);
        }
    }

    fn advance_low(&mut self) {
        self.done.remove(0, self.low - 1);
        while self.done.first() == Some(self.low) {
            let (_, last) = self.done.iter().next().expect("it has a first");
            self.done.remove(self.low, last);
            self.low = last + 1;
        }
    }

    fn trim(&mut self) {
        while self.slots.front().is_some_and(Slot::is_gone) {
            self.slots.pop_front();
            self.base += 1;
        }
        // A queue that was long once gives its memory back.
        if self.slots.capacity() > 1024 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// What the broker needs to go on with this queue.
    pub fn state(&self) -> QueueState {
        let head = self.head.max(self.low);
        let mut open = Intervals::new();
        let delivered = self.slots.iter().zip(self.base..head);
        for (_, sequence) in delivered.filter(|(slot, _)| !slot.is_gone()) {
            open.insert(sequence, sequence);
        }
        let attempts = self.attempts.iter().map(|(sequence, attempts)| (*sequence, *attempts)).collect();
        QueueState { next: self.next, head, open, attempts }
    }
}
