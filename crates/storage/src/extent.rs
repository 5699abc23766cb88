//! Extents: the ranges of a queue that were moved to runs.

use std::collections::VecDeque;

use ferrymq_model::{Intervals, Sequence};

use crate::run::RunId;

/// One queue's range in one run. Every sequence from `first` to `last` is in the run, or settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub run: RunId,
    /// How many messages are not settled.
    pub live: u32,
    pub first: Sequence,
    pub last: Sequence,
    /// The bytes of their bodies; if some are settled, an estimate from the average.
    pub bytes: u64,
}

/// A queue's extents, ascending and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extents(VecDeque<Extent>);

/// What is removed from an extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub run: RunId,
    pub messages: u32,
    pub bytes: u64,
}

impl Extents {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.0.iter()
    }

    /// Adds one; those of transient and durable messages may arrive out of order.
    pub fn insert(&mut self, extent: Extent) {
        let at = self.0.partition_point(|other| other.first < extent.first);
        self.0.insert(at, extent);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many messages all of them have.
    pub fn live(&self) -> u64 {
        self.0.iter().map(|extent| u64::from(extent.live)).sum()
    }

    /// The memory of this list.
    pub fn held_bytes(&self) -> u64 {
        (self.0.capacity() * size_of::<Extent>()) as u64
    }

    /// The run of a message, if it is in one, settled or not.
    pub fn run_of(&self, sequence: Sequence) -> Option<RunId> {
        let at = self.0.partition_point(|extent| extent.last < sequence);
        self.0.get(at).filter(|extent| extent.first <= sequence).map(|extent| extent.run)
    }

    /// What was in `sources` is in `to` now. Calls `moved` for every extent that moved, with its run and messages;
    /// extents with only settled messages between them become one.
    pub fn retarget(&mut self, sources: &[RunId], to: RunId, settled: &Intervals, mut moved: impl FnMut(RunId, u32)) {
        let mut kept: VecDeque<Extent> = VecDeque::with_capacity(self.0.len());
        for mut extent in self.0.drain(..) {
            if sources.contains(&extent.run) {
                moved(extent.run, extent.live);
                extent.run = to;
            }
            match kept.back_mut() {
                Some(before)
                    if before.run == to && extent.run == to && settled.gap_from(before.last + 1) >= extent.first =>
                {
                    before.last = extent.last;
                    before.live += extent.live;
                    before.bytes += extent.bytes;
                }
                _ => kept.push_back(extent),
            }
        }
        kept.shrink_to_fit();
        self.0 = kept;
    }

    /// The first message at or after `from` that is not in `settled`, and its run.
    pub fn first_from(&self, from: Sequence, settled: &Intervals) -> Option<(Sequence, RunId)> {
        let at = self.0.partition_point(|extent| extent.last < from);
        self.0.range(at..).find_map(|extent| {
            let sequence = settled.gap_from(extent.first.max(from));
            (sequence <= extent.last).then_some((sequence, extent.run))
        })
    }

    /// `first..=last` will be settled; `settled` has what was settled before. Calls `left` for every extent that
    /// loses messages, and removes empty ones.
    pub fn settle(&mut self, first: Sequence, last: Sequence, settled: &Intervals, mut left: impl FnMut(Left)) {
        let at = self.0.partition_point(|extent| extent.last < first);
        let mut emptied = false;
        for extent in self.0.range_mut(at..).take_while(|extent| extent.first <= last) {
            let (from, to) = (extent.first.max(first), extent.last.min(last));
            let messages = (to - from + 1) - count_within(settled, from, to);
            let messages = u32::try_from(messages).expect("a run has fewer messages than that").min(extent.live);
            if messages == 0 {
                continue;
            }
            let bytes = extent.bytes * u64::from(messages) / u64::from(extent.live);
            extent.live -= messages;
            extent.bytes -= bytes;
            emptied |= extent.live == 0;
            left(Left { run: extent.run, messages, bytes });
        }
        if emptied {
            self.0.retain(|extent| extent.live > 0);
        }
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
    }
}

/// How many of `first..=last` are in the set.
fn count_within(set: &Intervals, first: u64, last: u64) -> u64 {
    if set.is_empty() {
        return 0;
    }
    let mut count = 0;
    let mut at = first;
    while let Some(from) = set.next_from(at).filter(|from| *from <= last) {
        let end = set.gap_from(from).min(last + 1);
        count += end - from;
        at = end;
    }
    count
}
