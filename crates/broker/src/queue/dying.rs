//! Dying messages: they have expired, were rejected or exceeded a limit, and have not left their queue. Either they
//! must be found in storage first, or no queue has accepted their dead letters yet. They are neither ready nor
//! delivered.
//!
//! With at-least-once dead-lettering, a dead letter is tried when its message's turn comes. If no target accepts
//! it, or not all do, the message is *kept*. Those after it are tried all the same, until so many are kept that the
//! queue waits. Kept ones are tried again, in their order, when a route may have changed or when a full queue has
//! space.
//!
//! ```text
//!   kept, tried without success │ kept, to be tried again │ ranges that were never tried
//!   oldest death                └─ untried                                  newest death
//! ```

use std::collections::VecDeque;

use ferrymq_model::{DeathReason, QueueId, Sequence};

use super::Ports;
use super::letters::Doomed;
use super::sabotage::Sabotage;
use super::shard::Queue;

/// How many dead letters of a queue may be kept before those after them have to wait, too: RabbitMQ's number of
/// unconfirmed ones.
const KEPT_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Dying {
    /// Those that were tried. Few queues ever have any.
    tried: Option<Box<Tried>>,
    /// In the order of their deaths, after those that are kept.
    stretches: VecDeque<DyingStretch>,
    /// How many messages are in both.
    pub(super) messages: u64,
    /// The bytes of those that do not count as ready any more.
    pub(super) bytes: u64,
}

/// Messages whose dead letters were tried.
#[derive(Debug, Default)]
struct Tried {
    /// In the order of their deaths.
    kept: VecDeque<Kept>,
    /// This many of them, the last ones, are to be tried again.
    untried: usize,
    /// They are tried again because this queue has space.
    room_in: Option<QueueId>,
}

impl Tried {
    /// The place of the first one that is to be tried again.
    fn next(&self) -> Option<usize> {
        (self.untried > 0).then(|| self.kept.len() - self.untried)
    }
}

/// Consecutive messages that die for the same reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct DyingStretch {
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
struct Kept {
    lane: u8,
    sequence: Sequence,
    reason: DeathReason,
    counted: bool,
    /// The queues that have accepted it.
    served: Vec<QueueId>,
}

impl DyingStretch {
    fn goes_on_with(self, other: Self) -> bool {
        self.last + 1 == other.first
            && (self.lane, self.reason, self.counted) == (other.lane, other.reason, other.counted)
    }
}

impl Dying {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn has_kept_none(&self) -> bool {
        self.kept() == 0
    }

    /// How many are kept.
    #[inline]
    fn kept(&self) -> usize {
        self.tried.as_ref().map_or(0, |tried| tried.kept.len())
    }

    /// The first kept one that is to be tried again.
    #[inline]
    fn untried(&self) -> Option<&Kept> {
        let tried = self.tried.as_ref()?;
        tried.next().map(|at| &tried.kept[at])
    }

    /// Whether dispatch would find something to do.
    #[inline]
    pub(super) fn is_restless(&self) -> bool {
        self.messages > 0 && (self.untried().is_some() || (!self.stretches.is_empty() && self.kept() < KEPT_MAX))
    }

    /// These messages are dying from now on. `body_bytes` is the sum of their bytes, if they do not count as ready.
    pub(super) fn push(&mut self, stretch: DyingStretch, body_bytes: u64) {
        self.messages += stretch.last - stretch.first + 1;
        self.bytes += body_bytes;
        match self.stretches.back_mut() {
            Some(before) if before.goes_on_with(stretch) => before.last = stretch.last,
            _ => self.stretches.push_back(stretch),
        }
    }

    /// The next one: its lane, sequence and reason.
    pub(super) fn next(&self) -> Option<(u8, Sequence, DeathReason)> {
        if let Some(kept) = self.untried() {
            return Some((kept.lane, kept.sequence, kept.reason));
        }
        let stretch = self.stretches.front().filter(|_| self.kept() < KEPT_MAX)?;
        Some((stretch.lane, stretch.first, stretch.reason))
    }

    /// Whether a message that dies now would be the next one: otherwise it has to wait for others.
    pub(super) fn takes_newcomer(&self) -> bool {
        self.kept() < KEPT_MAX && self.next().is_none()
    }

    /// The queues that have its dead letter already.
    pub(super) fn take_served(&mut self) -> Vec<QueueId> {
        let Some(tried) = &mut self.tried else { return Vec::new() };
        tried.next().map(|at| std::mem::take(&mut tried.kept[at].served)).unwrap_or_default()
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
    fn keep_next(&mut self, served: Vec<QueueId>, full: &[QueueId]) {
        if let Some(tried) = &mut self.tried
            && let Some(at) = tried.next()
        {
            tried.kept[at].served = served;
            tried.untried -= 1;
            if tried.room_in.is_some_and(|queue| full.contains(&queue)) {
                // The space was used, and there is none left.
                tried.untried = 0;
            }
        } else if let Some((lane, sequence, reason, counted)) = self.take_next() {
            let tried = self.tried.get_or_insert_default();
            tried.kept.push_back(Kept { lane, sequence, reason, counted, served });
        }
    }

    fn take_next(&mut self) -> Option<(u8, Sequence, DeathReason, bool)> {
        if let Some(tried) = &mut self.tried
            && let Some(at) = tried.next()
        {
            let kept = tried.kept.remove(at)?;
            tried.untried -= 1;
            return Some((kept.lane, kept.sequence, kept.reason, kept.counted));
        }
        let stretch = self.stretches.front_mut()?;
        let DyingStretch { lane, first, reason, counted, .. } = *stretch;
        if stretch.first == stretch.last {
            self.stretches.pop_front();
        } else {
            stretch.first += 1;
        }
        Some((lane, first, reason, counted))
    }

    /// Those that are kept may be accepted now: all of them, or because a queue has space.
    pub(super) fn try_again(&mut self, room_in: Option<QueueId>) {
        let Some(tried) = &mut self.tried else { return };
        // If both have happened, all of them are tried.
        tried.room_in = if tried.untried == 0 { room_in } else { None };
        tried.untried = tried.kept.len();
    }

    /// All of them leave; calls `each` with every run of them.
    pub(super) fn purge(&mut self, mut tell: impl FnMut(u8, Sequence, Sequence)) {
        for kept in self.tried.iter().flat_map(|tried| &tried.kept) {
            tell(kept.lane, kept.sequence, kept.sequence);
        }
        for stretch in &self.stretches {
            tell(stretch.lane, stretch.first, stretch.last);
        }
        *self = Self::default();
    }

    /// Ready bytes are removed, including those of dying messages.
    pub(super) fn discount(&mut self) {
        self.stretches.iter_mut().for_each(|stretch| stretch.counted = false);
        self.tried.iter_mut().flat_map(|tried| &mut tried.kept).for_each(|kept| kept.counted = false);
    }
}

impl Queue {
    /// Messages are dying from now on, and also after a restart if dead-lettering is at-least-once.
    pub(super) fn doom_stretch(&mut self, stretch: DyingStretch, body_bytes: u64, ports: &mut impl Ports) {
        self.dying.push(stretch, body_bytes);
        if self.keeps_letters() && !self.saboteur.does(Sabotage::KeptForgotten) {
            let DyingStretch { lane, first, last, reason, .. } = stretch;
            let mark = reason.as_attempts();
            self.lanes.get_mut(lane).attempts.set_all(first, last, mark);
            ports.attempts(self.id.lane(lane), first, last, mark, None);
        }
    }

    /// The front message is dying: it does not leave, and is not ready any more.
    pub(super) fn doom_front(&mut self, doomed: &Doomed, ports: &mut impl Ports) {
        let Doomed { lane: number, sequence, reason, .. } = *doomed;
        let lane = self.lanes.front();
        let (_, returned) = lane.front();
        lane.take_front();
        self.front_expires = None;
        self.unready(&doomed.facts);
        if !returned {
            ports.delivered_up_to(self.id.lane(number), sequence);
        }
        let stretch = DyingStretch { lane: number, first: sequence, last: sequence, reason, counted: false };
        self.doom_stretch(stretch, doomed.facts.body_bytes.into(), ports);
    }

    /// A message that was found has died, and not all targets have its dead letter: it stays.
    pub(super) fn keep(&mut self, doomed: &Doomed, served: Vec<QueueId>, full: &[QueueId], ports: &mut impl Ports) {
        if !doomed.was_dying {
            self.doom_front(doomed, ports);
        }
        debug_assert_eq!(
            self.dying.next(),
            Some((doomed.lane, doomed.sequence, doomed.reason)),
            "{}: a letter was tried whose turn had not come",
            self.shown()
        );
        self.dying.keep_next(served, full);
    }
}
