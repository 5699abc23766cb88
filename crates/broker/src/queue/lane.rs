//! A first-in-first-out sequence of messages, as numbers: which wait, which are delivered, which are settled.

use ferrymq_model::{DeathReason, Intervals, QueueState, Sequence};

use super::Recovered;
use super::attempts::Attempts;

/// One lane of a queue. Its memory does not grow with waiting messages, only with those that are or were delivered.
///
/// ```text
///   settled │ delivered: open, returned or settled │ never delivered │ not yet given
///           floor                                  head              next
/// ```
/// Invariants: `floor <= head <= next`; `done` and `returned` are in `floor..head` and disjoint; `floor` is not in
/// `done`. What is in `floor..head` and in neither is delivered to a consumer, or a pending dead letter. Sequences that
/// have no message any more (transient ones after a restart) count as settled as soon as they are found missing.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The priority of its messages.
    pub(super) number: u8,
    /// How many messages are ready. The sequences may say more: some may be missing.
    pub(super) ready: u64,
    /// Everything below is settled.
    floor: Sequence,
    /// The first that was never delivered.
    head: Sequence,
    /// The sequence of the next message.
    next: Sequence,
    /// Settled at or above `floor`: out of order.
    done: Intervals,
    /// Messages that came back, and wait before `head`.
    returned: Intervals,
    pub(crate) attempts: Attempts,
}

impl Lane {
    pub(crate) fn new(number: u8) -> Self {
        Self {
            number,
            ready: 0,
            floor: 1,
            head: 1,
            next: 1,
            done: Intervals::new(),
            returned: Intervals::new(),
            attempts: Attempts::default(),
        }
    }

    /// After a restart nothing is delivered: unsettled messages have come back, except pending dead letters. Calls
    /// `tell_pending` for these. Attempts of messages that are not there say nothing.
    pub(crate) fn recovered(found: &Recovered, mut tell_pending: impl FnMut(Sequence, DeathReason)) -> Self {
        let state = &found.state;
        let floor = state.open.first().unwrap_or(state.head);
        let mut done = Intervals::new();
        if floor < state.head {
            done.insert(floor, state.head - 1);
        }
        for (first, last) in state.open.iter() {
            done.remove(first, last);
        }
        let mut attempts = Attempts::default();
        let (mut returned, mut ready) = (state.open.clone(), found.messages);
        for (sequence, count) in state.attempts.iter().filter(|(sequence, _)| state.open.contains(*sequence)) {
            attempts.set(*sequence, *count);
            if let Some(reason) = DeathReason::from_attempts(*count)
                && returned.remove(*sequence, *sequence) > 0
            {
                // If transient messages are lost, there may be fewer messages than sequences.
                ready = u64::saturating_sub(ready, 1);
                tell_pending(*sequence, reason);
            }
        }
        let number = found.lane;
        Self { number, ready, floor, head: state.head, next: state.next, done, returned, attempts }
    }

    pub(crate) fn state(&self) -> QueueState {
        let mut open = Intervals::new();
        if self.floor < self.head {
            open.insert(self.floor, self.head - 1);
        }
        for (first, last) in self.done.iter() {
            open.remove(first, last);
        }
        QueueState { next: self.next, head: self.head, open, attempts: self.attempts.iter().collect(), due: Vec::new() }
    }

    /// The sequence that the next message will get.
    #[inline]
    pub(crate) fn next(&self) -> Sequence {
        self.next
    }

    /// Takes the sequence for a new message, which is ready.
    #[inline]
    pub(crate) fn push(&mut self) -> Sequence {
        self.ready += 1;
        let sequence = self.next;
        self.next += 1;
        sequence
    }

    /// Where to look for the first ready message, and whether it has come back. There may be none: see
    /// [`Self::missing_before`].
    #[inline]
    pub(crate) fn front(&self) -> (Sequence, bool) {
        match self.returned.first() {
            Some(sequence) => (sequence, true),
            None => (self.head, false),
        }
    }

    /// Whether nothing is left at the front to look for.
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.returned.is_empty() && self.head == self.next
    }

    /// Nothing is ready: what still counts as ready is missing.
    #[inline]
    pub(crate) fn drain(&mut self) {
        if !self.is_drained() {
            self.drain_missing();
        }
    }

    #[cold]
    fn drain_missing(&mut self) {
        self.purge(|_, _| ());
    }

    /// There is no message at the front; the next one is `found`.
    pub(crate) fn missing_before(&mut self, found: Sequence) {
        let (front, returned) = self.front();
        if returned {
            let last = (found - 1).min(self.returned.iter().next().map_or(front, |(_, last)| last));
            self.returned.remove(front, last);
            self.settle(front, last);
        } else {
            let last = (found - 1).min(self.next - 1);
            self.head = last + 1;
            self.settle(front, last);
        }
    }

    /// The front is not ready any more.
    #[inline]
    pub(crate) fn take_front(&mut self) {
        self.ready -= 1;
        if self.returned.pop_first().is_none() {
            self.head += 1;
        }
    }

    /// Messages that are delivered, or were just taken, are settled.
    #[inline]
    pub(crate) fn settle(&mut self, first: Sequence, last: Sequence) {
        if first == self.floor {
            self.floor = last + 1;
            let above = self.done.iter().next();
            if let Some((start, end)) = above
                && start == self.floor
            {
                self.done.remove(start, end);
                self.floor = end + 1;
            }
        } else {
            self.done.insert(first, last);
        }
        self.attempts.remove(first, last);
    }

    /// Delivered messages come back.
    pub(crate) fn release(&mut self, first: Sequence, last: Sequence, tell: impl FnMut(Sequence, Sequence, u32)) {
        self.ready += last - first + 1;
        self.returned.insert(first, last);
        self.attempts.add(first, last, tell);
    }

    /// Messages that came back before, and were not ready meanwhile, are ready.
    pub(crate) fn put_back(&mut self, first: Sequence, last: Sequence) {
        self.ready += last - first + 1;
        self.returned.insert(first, last);
    }

    /// Messages that came back are not ready after all. Returns how many of them there are.
    pub(crate) fn withdraw(&mut self, first: Sequence, last: Sequence) -> u64 {
        let withdrawn = self.returned.remove(first, last);
        self.ready -= withdrawn;
        withdrawn
    }

    /// Messages that came back are delivered to somebody who settles them later. Returns those that did come back.
    pub(crate) fn hold(&mut self, first: Sequence, last: Sequence) -> Vec<(Sequence, Sequence)> {
        let within = self.returned.iter().map(|(start, end)| (start.max(first), end.min(last)));
        let held: Vec<_> = within.filter(|(start, end)| start <= end).collect();
        for (start, end) in &held {
            self.ready -= self.returned.remove(*start, *end);
        }
        held
    }

    /// All ready messages leave; calls `each` with every run.
    pub(crate) fn purge(&mut self, mut tell: impl FnMut(Sequence, Sequence)) {
        self.ready = 0;
        for (first, last) in std::mem::take(&mut self.returned).iter() {
            self.settle(first, last);
            tell(first, last);
        }
        if self.head < self.next {
            let (first, last) = (self.head, self.next - 1);
            self.head = self.next;
            self.settle(first, last);
            tell(first, last);
        }
    }

    /// Whether all of `first..=last` is delivered to consumers.
    pub(crate) fn is_out(&self, first: Sequence, last: Sequence) -> bool {
        let within = |set: &Intervals| set.next_from(first).is_some_and(|found| found <= last);
        self.floor <= first && first <= last && last < self.head && !within(&self.done) && !within(&self.returned)
    }
}
