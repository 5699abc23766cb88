//! The times of the messages in the open lane, if they are few enough to be held in memory.

use std::collections::BTreeSet;

use ferrymq_model::{Sequence, Time};

/// How many messages a lane may have to be processed from memory; those of a larger one move to finer lanes.
pub(super) const DUE_TIMES_MAX: u64 = 4096;

/// The messages of one lane, in the order in which they are due.
#[derive(Debug)]
pub(super) struct DueTimes {
    pub(super) lane: u8,
    times: BTreeSet<(Time, Sequence)>,
    /// Where to continue looking; all messages before it are known.
    read_to: Sequence,
}

impl DueTimes {
    /// Of a lane whose first message is at `from` or after it.
    pub(super) fn new(lane: u8, from: Sequence) -> Self {
        Self { lane, times: BTreeSet::new(), read_to: from }
    }

    /// Where to look for the next message, until all of a lane with the next sequence `next` are known.
    pub(super) fn unread(&self, next: Sequence) -> Option<Sequence> {
        (self.read_to < next).then_some(self.read_to)
    }

    /// A message was found, and all before it are known.
    pub(super) fn read(&mut self, due: Time, sequence: Sequence) {
        self.times.insert((due, sequence));
        self.read_to = sequence + 1;
    }

    /// There is nothing more before this one.
    pub(super) fn read_all(&mut self, next: Sequence) {
        self.read_to = next;
    }

    pub(super) fn first(&self) -> Option<(Time, Sequence)> {
        self.times.first().copied()
    }

    pub(super) fn pop(&mut self) {
        self.times.pop_first();
    }
}
