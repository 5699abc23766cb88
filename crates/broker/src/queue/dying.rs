//! Messages of a queue whose end is decided, and that have not left: what they say has to be found first, or nobody has
//! taken their letters yet. They are neither ready nor out.
//!
//! Letters that must not be lost are tried when the turn of their message comes. One that nobody would get, or not
//! everybody, is *kept*, and those behind it are tried all the same, until so many are kept that the queue waits. They are
//! tried again, in their order, when a route may have changed or when a queue that was full has room.
//!
//! ```text
//!   kept, tried in vain │ kept, to be tried again │ stretches that were never tried
//!   oldest death        └─ untried                                   newest death
//! ```

use std::collections::VecDeque;

use ferrymq_model::{DeathReason, QueueId, Sequence};

use super::Ports;
use super::letters::Doomed;
use super::sabotage::Sabotage;
use super::shard::Queue;

/// How many letters of a queue may be kept before those behind them have to wait, too: what RabbitMQ has under way.
const KEPT_MAX: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Dying {
    /// In the order of their deaths, as far as they were tried.
    kept: VecDeque<Kept>,
    /// So many of them, the last ones, are to be tried again.
    untried: usize,
    /// They are, because there is room in this queue.
    room_in: Option<QueueId>,
    /// In the order of their deaths, behind those that are kept.
    stretches: VecDeque<DyingStretch>,
    /// How many messages are in both.
    pub(super) messages: u64,
    /// Bytes of those that do not count as ready any more.
    pub(super) bytes: u64,
}

/// Consecutive messages that die alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct DyingStretch {
    pub(super) lane: u8,
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) reason: DeathReason,
    /// Whether their bytes still count as ready: they came back with others, and how many each has is known only when it
    /// is found.
    pub(super) counted: bool,
}

/// A message whose letter was tried.
#[derive(Debug)]
struct Kept {
    lane: u8,
    sequence: Sequence,
    reason: DeathReason,
    counted: bool,
    /// Queues that have got it.
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
        self.kept.is_empty()
    }

    /// Whether dispatch would find something to do.
    #[inline]
    pub(super) fn is_restless(&self) -> bool {
        self.messages > 0 && (self.untried > 0 || (!self.stretches.is_empty() && self.kept.len() < KEPT_MAX))
    }

    /// These messages are dying from now on. `body_bytes` are all their bytes, if they do not count as ready.
    pub(super) fn push(&mut self, stretch: DyingStretch, body_bytes: u64) {
        self.messages += stretch.last - stretch.first + 1;
        self.bytes += body_bytes;
        match self.stretches.back_mut() {
            Some(before) if before.goes_on_with(stretch) => before.last = stretch.last,
            _ => self.stretches.push_back(stretch),
        }
    }

    /// The one that is next: its lane, sequence and reason.
    pub(super) fn next(&self) -> Option<(u8, Sequence, DeathReason)> {
        if self.untried > 0 {
            let kept = &self.kept[self.kept.len() - self.untried];
            return Some((kept.lane, kept.sequence, kept.reason));
        }
        let stretch = self.stretches.front().filter(|_| self.kept.len() < KEPT_MAX)?;
        Some((stretch.lane, stretch.first, stretch.reason))
    }

    /// Whether a message that dies now is next: otherwise it has to wait behind others.
    pub(super) fn takes_newcomer(&self) -> bool {
        self.kept.len() < KEPT_MAX && self.next().is_none()
    }

    /// The queues that have its letter already.
    pub(super) fn take_served(&mut self) -> Vec<QueueId> {
        if self.untried == 0 {
            return Vec::new();
        }
        let at = self.kept.len() - self.untried;
        std::mem::take(&mut self.kept[at].served)
    }

    /// The one that is next has left the queue, with so many bytes; says whether they still counted as ready.
    pub(super) fn pop(&mut self, body_bytes: u64) -> bool {
        let counted = self.take_next().is_some_and(|(.., counted)| counted);
        self.messages -= 1;
        if !counted {
            self.bytes = if self.messages == 0 { 0 } else { self.bytes.saturating_sub(body_bytes) };
        }
        counted
    }

    /// The one that is next was tried in vain, because these queues were full or there was none.
    fn keep_next(&mut self, served: Vec<QueueId>, full: &[QueueId]) {
        if self.untried > 0 {
            let at = self.kept.len() - self.untried;
            self.kept[at].served = served;
            self.untried -= 1;
            if self.room_in.is_some_and(|queue| full.contains(&queue)) {
                // There was room in it, and there is no more.
                self.untried = 0;
            }
        } else if let Some((lane, sequence, reason, counted)) = self.take_next() {
            self.kept.push_back(Kept { lane, sequence, reason, counted, served });
        }
    }

    fn take_next(&mut self) -> Option<(u8, Sequence, DeathReason, bool)> {
        if self.untried > 0 {
            let kept = self.kept.remove(self.kept.len() - self.untried)?;
            self.untried -= 1;
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

    /// Those that are kept may be taken now: all of them, or because there is room in a queue.
    pub(super) fn try_again(&mut self, room_in: Option<QueueId>) {
        // Where both have happened, all of them are tried.
        self.room_in = if self.untried == 0 { room_in } else { None };
        self.untried = self.kept.len();
    }

    /// All of them leave; tells each run of them.
    pub(super) fn purge(&mut self, mut tell: impl FnMut(u8, Sequence, Sequence)) {
        for kept in &self.kept {
            tell(kept.lane, kept.sequence, kept.sequence);
        }
        for stretch in &self.stretches {
            tell(stretch.lane, stretch.first, stretch.last);
        }
        *self = Self::default();
    }

    /// Bytes that were ready are gone, those of the dying among them.
    pub(super) fn discount(&mut self) {
        self.stretches.iter_mut().for_each(|stretch| stretch.counted = false);
        self.kept.iter_mut().for_each(|kept| kept.counted = false);
    }
}

impl Queue {
    /// Messages are dying from now on, and stay so over a restart where their letters must not be lost.
    pub(super) fn doom_stretch(&mut self, stretch: DyingStretch, body_bytes: u64, ports: &mut impl Ports) {
        self.dying.push(stretch, body_bytes);
        if self.keeps_letters() && !self.saboteur.does(Sabotage::KeptForgotten) {
            let DyingStretch { lane, first, last, reason, .. } = stretch;
            let mark = reason.as_attempts();
            self.lanes.get_mut(lane).attempts.set_all(first, last, mark);
            ports.attempts(self.id.lane(lane), first, last, mark, None);
        }
    }

    /// The message at the front has come to its end, and neither leaves nor is ready any more.
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

    /// A message that was found has come to its end, and not everybody who should get its letter has it: it stays.
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
