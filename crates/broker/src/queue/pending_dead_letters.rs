//! Pending dead letters: messages that have expired, were rejected or exceed a limit, and have not left their queue.
//! Either storage must find them first, or no queue has accepted their dead letters yet. They are neither ready nor
//! delivered.
//!
//! With at-least-once dead-lettering, a dead letter is tried when its message's turn comes. If no target accepts
//! it, or not all do, the dead letter is *unconfirmed*. Those after it are tried all the same, until so many are
//! unconfirmed that the queue waits. Unconfirmed ones are retried, in their order, when a route may have changed or
//! when a full queue has space.
//!
//! ```text
//!   unconfirmed, tried without success │ unconfirmed, to be retried │ ranges that were never tried
//!   oldest                             └─ untried                                          newest
//! ```

use std::collections::VecDeque;

use ferrymq_model::{DeathReason, QueueId, Sequence};

use super::Ports;
use super::dead_letters::ToDeadLetter;
use super::shard::Queue;

/// How many dead letters of a queue may be unconfirmed before those after them have to wait, too: RabbitMQ's number of
/// unconfirmed ones.
const UNCONFIRMED_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct PendingDeadLetters {
    /// Those that were tried. Few queues ever have any.
    tried: Option<Box<Tried>>,
    /// In the order in which they became pending, after those that are unconfirmed.
    ranges: VecDeque<DeadLetterRange>,
    /// How many messages are in both.
    pub(super) messages: u64,
    /// The bytes of those that do not count as ready any more.
    pub(super) bytes: u64,
}

/// Messages whose dead letters were tried.
#[derive(Debug, Default)]
struct Tried {
    /// In the order in which they became pending.
    unconfirmed: VecDeque<Unconfirmed>,
    /// This many of them, the last ones, are to be tried again.
    untried: usize,
    /// They are tried again because this queue has space.
    space_in: Option<QueueId>,
}

impl Tried {
    /// The place of the first one that is to be tried again.
    fn next(&self) -> Option<usize> {
        (self.untried > 0).then(|| self.unconfirmed.len() - self.untried)
    }
}

/// Consecutive messages that are dead-lettered for the same reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeadLetterRange {
    pub(super) lane: u8,
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) reason: DeathReason,
    /// Whether their bytes still count as ready: they came back with others, and the length of each is known only
    /// when it is found.
    pub(super) counted: bool,
}

/// A message whose dead letter was tried.
#[derive(Debug)]
struct Unconfirmed {
    lane: u8,
    sequence: Sequence,
    reason: DeathReason,
    counted: bool,
    /// The queues that have accepted it.
    delivered_to: Vec<QueueId>,
}

impl DeadLetterRange {
    fn goes_on_with(self, other: Self) -> bool {
        self.last + 1 == other.first
            && (self.lane, self.reason, self.counted) == (other.lane, other.reason, other.counted)
    }
}

impl PendingDeadLetters {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn has_no_unconfirmed(&self) -> bool {
        self.unconfirmed() == 0
    }

    /// How many are unconfirmed.
    #[inline]
    fn unconfirmed(&self) -> usize {
        self.tried.as_ref().map_or(0, |tried| tried.unconfirmed.len())
    }

    /// The first unconfirmed one that is to be retried.
    #[inline]
    fn untried(&self) -> Option<&Unconfirmed> {
        let tried = self.tried.as_ref()?;
        tried.next().map(|at| &tried.unconfirmed[at])
    }

    /// Whether dispatch would find something to do.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.messages > 0
            && (self.untried().is_some() || (!self.ranges.is_empty() && self.unconfirmed() < UNCONFIRMED_MAX))
    }

    /// These messages are pending dead letters from now on. `body_bytes` is the sum of their bytes, if they do not
    /// count as ready.
    pub(super) fn push(&mut self, range: DeadLetterRange, body_bytes: u64) {
        self.messages += range.last - range.first + 1;
        self.bytes += body_bytes;
        match self.ranges.back_mut() {
            Some(before) if before.goes_on_with(range) => before.last = range.last,
            _ => self.ranges.push_back(range),
        }
    }

    /// The next one: its lane, sequence and reason.
    pub(super) fn next(&self) -> Option<(u8, Sequence, DeathReason)> {
        if let Some(unconfirmed) = self.untried() {
            return Some((unconfirmed.lane, unconfirmed.sequence, unconfirmed.reason));
        }
        let range = self.ranges.front().filter(|_| self.unconfirmed() < UNCONFIRMED_MAX)?;
        Some((range.lane, range.first, range.reason))
    }

    /// Whether a message that became pending now would be the next one: otherwise it has to wait for others.
    pub(super) fn accepts_newcomer(&self) -> bool {
        self.unconfirmed() < UNCONFIRMED_MAX && self.next().is_none()
    }

    /// The queues that have its dead letter already.
    pub(super) fn take_delivered_to(&mut self) -> Vec<QueueId> {
        let Some(tried) = &mut self.tried else { return Vec::new() };
        tried.next().map(|at| std::mem::take(&mut tried.unconfirmed[at].delivered_to)).unwrap_or_default()
    }

    /// The next one has left the queue, with this many bytes; returns whether they still counted as ready.
    pub(super) fn pop(&mut self, body_bytes: u64) -> bool {
        let counted = self.take_next().is_some_and(|(.., counted)| counted);
        self.messages -= 1;
        if !counted {
            self.bytes = if self.messages == 0 { 0 } else { self.bytes.saturating_sub(body_bytes) };
        }
        counted
    }

    /// The next one was tried without success, because these queues were full or there was no target.
    fn mark_unconfirmed(&mut self, delivered_to: Vec<QueueId>, full: &[QueueId]) {
        if let Some(tried) = &mut self.tried
            && let Some(at) = tried.next()
        {
            tried.unconfirmed[at].delivered_to = delivered_to;
            tried.untried -= 1;
            if tried.space_in.is_some_and(|queue| full.contains(&queue)) {
                // The space was used, and there is none left.
                tried.untried = 0;
            }
        } else if let Some((lane, sequence, reason, counted)) = self.take_next() {
            let tried = self.tried.get_or_insert_default();
            tried.unconfirmed.push_back(Unconfirmed { lane, sequence, reason, counted, delivered_to });
        }
    }

    fn take_next(&mut self) -> Option<(u8, Sequence, DeathReason, bool)> {
        if let Some(tried) = &mut self.tried
            && let Some(at) = tried.next()
        {
            let unconfirmed = tried.unconfirmed.remove(at)?;
            tried.untried -= 1;
            return Some((unconfirmed.lane, unconfirmed.sequence, unconfirmed.reason, unconfirmed.counted));
        }
        let range = self.ranges.front_mut()?;
        let DeadLetterRange { lane, first, reason, counted, .. } = *range;
        if range.first == range.last {
            self.ranges.pop_front();
        } else {
            range.first += 1;
        }
        Some((lane, first, reason, counted))
    }

    /// Those that are unconfirmed may be accepted now: all of them, or because a queue has space.
    pub(super) fn try_again(&mut self, space_in: Option<QueueId>) {
        let Some(tried) = &mut self.tried else { return };
        // If both have happened, all of them are tried.
        tried.space_in = if tried.untried == 0 { space_in } else { None };
        tried.untried = tried.unconfirmed.len();
    }

    /// All of them leave; calls `each` with every run of them.
    pub(super) fn purge(&mut self, mut tell: impl FnMut(u8, Sequence, Sequence)) {
        for unconfirmed in self.tried.iter().flat_map(|tried| &tried.unconfirmed) {
            tell(unconfirmed.lane, unconfirmed.sequence, unconfirmed.sequence);
        }
        for range in &self.ranges {
            tell(range.lane, range.first, range.last);
        }
        *self = Self::default();
    }

    /// Ready bytes are removed, including those of pending dead letters.
    pub(super) fn discount(&mut self) {
        self.ranges.iter_mut().for_each(|range| range.counted = false);
        self.tried
            .iter_mut()
            .flat_map(|tried| &mut tried.unconfirmed)
            .for_each(|unconfirmed| unconfirmed.counted = false);
    }
}

impl Queue {
    /// Messages are pending dead letters from now on, and also after a restart if dead-lettering is at-least-once.
    pub(super) fn add_pending_dead_letters(&mut self, range: DeadLetterRange, body_bytes: u64, ports: &mut impl Ports) {
        self.pending_dead_letters.push(range, body_bytes);
        if self.is_at_least_once() {
            let DeadLetterRange { lane, first, last, reason, .. } = range;
            let mark = reason.as_attempts();
            self.lanes.get_mut(lane).attempts.set_all(first, last, mark);
            ports.attempts(self.id.lane(lane), first, last, mark, None);
        }
    }

    /// The front message becomes a pending dead letter: it does not leave, and is not ready any more.
    pub(super) fn move_front_to_pending(&mut self, dead: &ToDeadLetter, ports: &mut impl Ports) {
        let ToDeadLetter { lane: number, sequence, reason, .. } = *dead;
        let lane = self.lanes.front();
        let (_, returned) = lane.front();
        lane.take_front();
        self.front_expires = None;
        self.unready(&dead.facts);
        if !returned {
            ports.delivered_up_to(self.id.lane(number), sequence);
        }
        let range = DeadLetterRange { lane: number, first: sequence, last: sequence, reason, counted: false };
        self.add_pending_dead_letters(range, dead.facts.body_bytes.into(), ports);
    }

    /// Not all targets have accepted the dead letter of a message that was found: it stays in its queue.
    pub(super) fn keep_unconfirmed(
        &mut self,
        dead: &ToDeadLetter,
        delivered_to: Vec<QueueId>,
        full: &[QueueId],
        ports: &mut impl Ports,
    ) {
        if !dead.was_pending {
            self.move_front_to_pending(dead, ports);
        }
        debug_assert_eq!(
            self.pending_dead_letters.next(),
            Some((dead.lane, dead.sequence, dead.reason)),
            "{}: a dead letter was tried whose turn had not come",
            self.shown()
        );
        self.pending_dead_letters.mark_unconfirmed(delivered_to, full);
    }
}
