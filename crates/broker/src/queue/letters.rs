//! The end of messages in a queue: they become letters to other queues, or are dropped.
//!
//! A message whose time is over, or that is one too many, stands at the front when it dies. One that a consumer rejected,
//! or that came back too often, may stand anywhere and need not be in memory: it is *dying* until dispatch has found it,
//! before anything else of its queue. So a queue's letters are made in the order of the deaths, and in dispatch only.
//!
//! A letter is put into its queues in the unit that settles the original. What it causes there (one too many, expired at
//! once) is seen to when dispatch comes to those queues, so letters that make letters are a line and not a recursion.

use std::collections::VecDeque;

use ferrymq_model::{DeathReason, Facts, QueueId, Sequence, Settled, Time};

use hashbrown::HashMap;

use super::dispatch::Front;
use super::sabotage::Sabotage;
use super::shard::{Queue, Shard};
use super::{Content, Dead, Letter, Next, Ports};

/// Messages whose end is decided, and what they say not yet found: neither ready nor out.
#[derive(Debug, Default)]
pub(super) struct Dying {
    /// In the order of their deaths.
    stretches: VecDeque<DyingStretch>,
    /// The first of them found nobody who would get its letter: when it is tried again.
    pub(super) rests_until: Option<Time>,
}

/// How long a letter that nobody would get is kept before it is tried again, in milliseconds.
const REST_MS: u64 = 5_000;

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

/// A message that was found, and has come to its end.
#[derive(Debug)]
pub(super) struct Doomed {
    pub(super) lane: u8,
    pub(super) sequence: Sequence,
    pub(super) facts: Facts,
    pub(super) reason: DeathReason,
    /// Whether it was dying, and does not stand at the front.
    pub(super) was_dying: bool,
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
        self.stretches.is_empty()
    }

    /// Whether dispatch would find something to do.
    pub(super) fn is_restless(&self) -> bool {
        self.rests_until.is_none() && !self.is_empty()
    }

    /// Time has passed.
    pub(super) fn wake(&mut self, now: Time) {
        self.rests_until = self.rests_until.filter(|until| *until > now);
    }

    pub(super) fn push(&mut self, stretch: DyingStretch) {
        match self.stretches.back_mut() {
            Some(before) if before.goes_on_with(stretch) => before.last = stretch.last,
            _ => self.stretches.push_back(stretch),
        }
    }

    /// The one that is next, and those behind it that die alike.
    pub(super) fn first(&self) -> Option<DyingStretch> {
        self.stretches.front().copied()
    }

    pub(super) fn pop(&mut self) {
        let Some(stretch) = self.stretches.front_mut() else { return };
        if stretch.first == stretch.last {
            self.stretches.pop_front();
        } else {
            stretch.first += 1;
        }
    }

    /// Bytes that were ready are gone, those of the dying among them.
    pub(super) fn discount(&mut self) {
        self.stretches.iter_mut().for_each(|stretch| stretch.counted = false);
    }
}

impl Shard {
    /// A message becomes a letter and leaves its queue, both or neither; without a letter it is dropped.
    #[cold]
    pub(super) fn bury(&mut self, id: QueueId, doomed: &Doomed, now: Time, ports: &mut impl Ports) {
        let queue = self.queues.get_mut(&id).expect("the queue was just served");
        let (lane, dropped) = (id.lane(doomed.lane), without_letter(doomed.reason));
        // What was settled and marked since it was found may have moved it.
        let Next::Message { handle, .. } = ports.next(lane, doomed.sequence) else {
            unreachable!("a message that was found stays in memory for the transition")
        };
        let letter = queue.letter(Content::Stored(handle), &doomed.facts, doomed.reason, now, ports);
        let keeps = queue.settings.dead_letters.as_ref().is_some_and(|letters| letters.keeps);
        let arrives =
            |letter: &Letter, queues: &HashMap<_, _>| letter.targets.iter().any(|target| queues.contains_key(target));
        if keeps && !letter.as_ref().is_some_and(|letter| arrives(letter, &self.queues)) {
            let queue = self.queues.get_mut(&id).expect("it was just found");
            queue.keep(doomed, now);
            return queue.set_timer(&mut self.timers);
        }
        self.queues.get_mut(&id).expect("it was just found").lose(doomed);
        let Some(letter) = letter else { return ports.settle(lane, doomed.sequence, doomed.sequence, dropped) };
        ports.begin_unit();
        let arrived = self.post(&letter, keeps, ports);
        let why = if arrived { Settled::DeadLettered } else { dropped };
        ports.settle(lane, doomed.sequence, doomed.sequence, why);
        ports.end_unit();
    }

    /// Puts letters of messages that were not taken in into their queues.
    #[cold]
    pub(super) fn post_waiting(&mut self, budget: &mut usize, ports: &mut impl Ports) {
        while *budget > 0
            && let Some(letter) = self.letters.pop_front()
        {
            *budget -= 1;
            self.post(&letter, false, ports);
        }
    }

    /// Puts a letter into its queues, those that are full too where it `must` arrive, and says whether it got there.
    fn post(&mut self, letter: &Letter, must: bool, ports: &mut impl Ports) -> bool {
        if self.saboteur.does(Sabotage::LetterLost) {
            return true;
        }
        let message = letter.message.borrowed();
        self.put_in(&message, &letter.facts, letter.persistent, &letter.targets, must, ports).queues > 0
    }
}

impl Queue {
    /// The letter that a message becomes, where the queue has dead-lettering and somebody would get it.
    #[cold]
    pub(super) fn letter(
        &mut self,
        content: Content<'_>,
        facts: &Facts,
        reason: DeathReason,
        at: Time,
        ports: &mut impl Ports,
    ) -> Option<Letter> {
        self.settings.dead_letters.as_ref()?;
        let letter = ports.dead_letter(&Dead { queue: &self.settings, content, facts, reason, at });
        let counter =
            if letter.is_some() { &mut self.counters.dead_lettered } else { &mut self.counters.letters_unroutable };
        *counter += 1;
        letter
    }

    /// Where messages are dying: the first of them, or why there is none yet.
    #[cold]
    pub(super) fn first_dying(&mut self, budget: &mut usize, ports: &mut impl Ports) -> Option<Front> {
        if self.dying.rests_until.is_some() {
            return None;
        }
        loop {
            let DyingStretch { lane, first: wanted, reason, .. } = self.dying.first()?;
            if *budget == 0 {
                return Some(Front::Busy);
            }
            match ports.next(self.id.lane(lane), wanted) {
                Next::Pending => {
                    self.parked = true;
                    return Some(Front::Pending);
                }
                Next::Message { sequence, facts, .. } if sequence == wanted => {
                    *budget -= 1;
                    return Some(Front::Doomed(Doomed { lane, sequence, facts, reason, was_dying: true }));
                }
                Next::Message { .. } | Next::End => {
                    debug_assert!(false, "{}: storage lost a message that was out", self.shown());
                    self.dying.pop();
                    self.lanes.get_mut(lane).settle(wanted, wanted);
                }
            }
        }
    }

    /// A message that was found has come to its end, and is neither ready nor dying any more.
    fn lose(&mut self, doomed: &Doomed) {
        if !doomed.was_dying {
            return self.lose_front(doomed.reason, &doomed.facts);
        }
        let counted = self.dying.first().is_some_and(|stretch| stretch.counted);
        self.dying.pop();
        self.lanes.get_mut(doomed.lane).settle(doomed.sequence, doomed.sequence);
        if counted {
            self.unready_bytes(&doomed.facts);
        }
        match doomed.reason {
            DeathReason::Rejected => {}
            DeathReason::Expired => self.counters.expired += 1,
            DeathReason::MaxLength | DeathReason::DeliveryLimit => self.counters.dropped += 1,
        }
    }

    /// A message that was found has come to its end, and nobody would get its letter: it is tried again later.
    fn keep(&mut self, doomed: &Doomed, now: Time) {
        self.dying.rests_until = Some(now.after_ms(REST_MS));
        if !doomed.was_dying {
            self.lanes.front().take_front();
            self.front_expires = None;
            self.unready(&doomed.facts);
            let (lane, first, reason) = (doomed.lane, doomed.sequence, doomed.reason);
            self.dying.push(DyingStretch { lane, first, last: first, reason, counted: false });
        }
    }

    /// The front message has come to its end.
    pub(super) fn lose_front(&mut self, reason: DeathReason, facts: &Facts) {
        let lane = self.lanes.front();
        let (sequence, _) = lane.front();
        lane.take_front();
        lane.settle(sequence, sequence);
        self.unready(facts);
        match reason {
            DeathReason::MaxLength => self.counters.dropped += 1,
            _ => self.counters.expired += 1,
        }
    }
}

/// How messages are settled that go nowhere else.
pub(super) fn without_letter(reason: DeathReason) -> Settled {
    match reason {
        DeathReason::Rejected => Settled::Rejected,
        DeathReason::Expired => Settled::Expired,
        DeathReason::MaxLength | DeathReason::DeliveryLimit => Settled::Dropped,
    }
}
