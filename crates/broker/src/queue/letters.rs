//! Dead-lettering: messages that expire, are rejected or exceed a limit are published again to other queues, or
//! dropped.
//!
//! A message that expires or exceeds the length limit is at the front when it dies. One that a consumer rejected,
//! or that came back too often, may be anywhere and need not be in memory: it is *dying* until dispatch has found
//! it, before anything else of its queue. So a queue's dead letters are made in the order of the deaths, and in
//! dispatch only.
//!
//! A dead letter is put into its queues in the unit that settles the original. It may cause further dead letters there:
//! the queue is over its limit, or the message expires at once. Dispatch handles them when it comes to those queues, so
//! this is a loop and not a recursion. Only a message that a full queue refuses becomes a dead letter in the same unit,
//! because it is in no queue any more.
//!
//! Dead letters add to what has to be written, so they wait while storage has no space, and messages that would be
//! dead-lettered wait with them: a chain of queues that dead-letter into each other is blocked like any publisher.
//!
//! At-least-once dead letters are in [`super::dying`].

use ferrymq_model::{DeathReason, Facts, QueueId, Sequence, Settled, Time};

use super::dispatch::Front;
use super::sabotage::Sabotage;
use super::shard::{Queue, ROUND_MESSAGES_MAX, Shard};
use super::{Content, Dead, Letter, Next, Ports};

/// A message that was found, and has died.
#[derive(Debug)]
pub(super) struct Doomed {
    pub(super) lane: u8,
    pub(super) sequence: Sequence,
    pub(super) facts: Facts,
    pub(super) reason: DeathReason,
    /// Whether it was dying, and is not at the front.
    pub(super) was_dying: bool,
}

impl Shard {
    /// A message is dead-lettered and leaves its queue, both or neither; without a dead letter it is dropped.
    #[cold]
    pub(super) fn bury(&mut self, id: QueueId, doomed: &Doomed, now: Time, budget: &mut usize, ports: &mut impl Ports) {
        let queue = self.queues.get_mut(&id).expect("the queue was just served");
        if queue.keeps_letters() && !doomed.was_dying && !queue.dying.takes_newcomer() {
            // No dead letter is published out of turn: which queues have it is known only for those whose turn has
            // come.
            ports.begin_unit();
            queue.doom_front(doomed, ports);
            return ports.end_unit();
        }
        let (lane, dropped) = (id.lane(doomed.lane), without_letter(doomed.reason));
        // What was settled and marked since it was found may have moved it.
        let Next::Message { handle, .. } = ports.next(lane, doomed.sequence) else {
            unreachable!("a message that was found stays in memory for the transition")
        };
        let letter = queue.letter(Content::Stored(handle), &doomed.facts, doomed.reason, now, ports);
        let served = if doomed.was_dying { queue.dying.take_served() } else { Vec::new() };
        if queue.keeps_letters() {
            return self.post_or_keep(id, doomed, letter, served, budget, ports);
        }
        queue.count_letter(letter.is_some());
        queue.lose(doomed);
        let Some(mut letter) = letter else { return ports.settle(lane, doomed.sequence, doomed.sequence, dropped) };
        // It was kept for queues that had not accepted it, under settings that have changed since.
        letter.targets.retain(|target| !served.contains(target));
        ports.begin_unit();
        let arrived = self.post(&letter, budget, ports) || !served.is_empty();
        let why = if arrived { Settled::DeadLettered } else { dropped };
        ports.settle(lane, doomed.sequence, doomed.sequence, why);
        ports.end_unit();
    }

    /// Like [`Shard::bury`], for an at-least-once dead letter: every target with space gets it at once, and the
    /// message leaves with the last target. If there is no target, or one is full, the message is kept until
    /// something changes.
    fn post_or_keep(
        &mut self,
        id: QueueId,
        doomed: &Doomed,
        letter: Option<Letter>,
        mut served: Vec<QueueId>,
        budget: &mut usize,
        ports: &mut impl Ports,
    ) {
        let mut full = Vec::new();
        ports.begin_unit();
        let mut reached = !served.is_empty();
        if let Some(mut letter) = letter {
            letter.targets.retain(|target| self.queues.contains_key(target) || self.has_schedule(&[*target]));
            reached |= !letter.targets.is_empty();
            letter.targets.retain(|target| !served.contains(target));
            let refuses = |target: &QueueId| self.queues.get(target).is_some_and(|queue| queue.refuses(&letter.facts));
            full.extend(letter.targets.extract_if(.., |target| refuses(target)));
            if !letter.targets.is_empty() {
                self.post(&letter, budget, ports);
                served.append(&mut letter.targets);
            }
        }
        let everybody = reached && full.is_empty();
        for target in &full {
            self.queues.get_mut(target).expect("it was just asked").await_room(id);
        }
        // A queue without space for this message may have space for a shorter one.
        full.retain(|target| !self.queues[target].has_room());
        let queue = self.queues.get_mut(&id).expect("no queue goes in dispatch");
        if everybody {
            queue.count_letter(true);
            queue.lose(doomed);
            ports.settle(id.lane(doomed.lane), doomed.sequence, doomed.sequence, Settled::DeadLettered);
            if queue.dying.has_kept_none() {
                self.keeping.remove(&id);
            }
        } else {
            queue.keep(doomed, served, &full, ports);
            self.keeping.insert(id);
        }
        ports.end_unit();
    }

    /// Puts dead letters of refused messages into their queues, as long as there is space. Dead letters that one of
    /// them causes come before the others. So there are never more than a few of them for each queue on the way.
    #[cold]
    pub(super) fn post_waiting(&mut self, budget: &mut usize, ports: &mut impl Ports) {
        while *budget > 0 && !self.letters.is_empty() && ports.takes_letters() {
            *budget -= 1;
            let letter = self.letters.pop_front().expect("there is one");
            let before = self.letters.len();
            ports.begin_unit();
            self.post(&letter, budget, ports);
            ports.end_unit();
            self.letters.rotate_right(self.letters.len() - before);
        }
    }

    /// Puts a dead letter into its queues, and returns whether it got there.
    fn post(&mut self, letter: &Letter, budget: &mut usize, ports: &mut impl Ports) -> bool {
        if self.saboteur.does(Sabotage::LetterLost) {
            return true;
        }
        self.publish_letter(letter, budget, ports)
    }

    /// Publishes a message that leaves another queue or a schedule in the open unit. Returns whether a queue took it.
    /// If a full queue refuses it and dead-letters it, this is in the same unit, because the message is in no queue any
    /// more and a crash would lose it. Each of these dead letters takes one of the budget. After
    /// [`ROUND_MESSAGES_MAX`], further ones wait in memory.
    pub(super) fn publish_letter(&mut self, letter: &Letter, budget: &mut usize, ports: &mut impl Ports) -> bool {
        let (message, waiting) = (letter.message.borrowed(), self.letters.len());
        let published = self.publish(&message, &letter.facts, letter.persistent, &letter.targets, ports);
        for _ in 0..ROUND_MESSAGES_MAX {
            if self.letters.len() <= waiting {
                break;
            }
            *budget = budget.saturating_sub(1);
            let caused = self.letters.pop_back().expect("there is one more than before");
            let message = caused.message.borrowed();
            self.publish(&message, &caused.facts, caused.persistent, &caused.targets, ports);
        }
        published.queues > 0
    }

    /// Storage has space for dead letters again: the queues that waited for it are lined up. Returns which ones;
    /// dispatch must follow.
    pub fn room_again(&mut self) -> Vec<QueueId> {
        let held_up: Vec<_> = std::mem::take(&mut self.held_up).into_iter().collect();
        held_up.iter().for_each(|id| self.line_up_if_restless(*id));
        held_up
    }

    /// Whether dead letters of refused messages wait in memory.
    #[must_use]
    pub fn has_waiting_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// Whether anything waits for [`Shard::room_again`].
    #[must_use]
    pub fn is_held_up(&self) -> bool {
        !(self.held_up.is_empty() && self.letters.is_empty())
    }

    /// Routes of dead letters may have changed: kept ones are tried again.
    pub fn routes_changed(&mut self) {
        for id in std::mem::take(&mut self.keeping) {
            self.try_again(id, None);
        }
    }

    /// Whether any dead letter is kept, so that [`Shard::routes_changed`] would do something.
    #[must_use]
    pub fn keeps_letters(&self) -> bool {
        !self.keeping.is_empty()
    }

    /// A queue may have more space than before: dead letters that wait for that are tried again.
    #[inline]
    pub(super) fn tell_room(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if !queue.awaited_by.is_empty() && queue.has_room() && !queue.saboteur.does(Sabotage::RoomForgotten) {
            for waiting in std::mem::take(&mut queue.awaited_by) {
                self.try_again(waiting, Some(id));
            }
        }
    }

    pub(super) fn try_again(&mut self, id: QueueId, room_in: Option<QueueId>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.dying.try_again(room_in);
        self.line_up_if_restless(id);
    }
}

impl Queue {
    /// The dead letter of a message, if the queue has dead-lettering and there is a target.
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
        ports.dead_letter(&Dead { queue: &self.settings, content, facts, reason, at })
    }

    /// A message has left that might be dead-lettered.
    #[cold]
    pub(super) fn count_letter(&mut self, became_one: bool) {
        if became_one {
            self.counters.dead_lettered += 1;
        } else if self.settings.dead_letters.is_some() {
            self.counters.letters_unroutable += 1;
        }
    }

    /// Whether dead-lettering is at-least-once.
    #[inline]
    pub(super) fn keeps_letters(&self) -> bool {
        self.settings.dead_letters.as_ref().is_some_and(|letters| letters.keeps)
    }

    /// Whether a message of any length would be accepted.
    fn has_room(&self) -> bool {
        !self.refuses(&Facts { body_bytes: 1, ..Facts::default() })
    }

    /// Another queue has a dead letter for this one, which is full.
    fn await_room(&mut self, waiting: QueueId) {
        if !self.awaited_by.contains(&waiting) {
            self.awaited_by.push(waiting);
        }
    }

    /// Whether there is no space for dead letters; then the queue waits for that.
    #[cold]
    pub(super) fn is_held_up(&mut self, ports: &mut impl Ports) -> bool {
        self.held_up = !ports.takes_letters();
        self.held_up
    }

    /// If messages are dying: the first of them, or why there is none yet.
    #[cold]
    pub(super) fn first_dying(&mut self, budget: &mut usize, ports: &mut impl Ports) -> Option<Front> {
        loop {
            let (lane, wanted, reason) = self.dying.next()?;
            if *budget == 0 {
                return Some(Front::Busy);
            }
            if self.settings.dead_letters.is_some() && self.is_held_up(ports) {
                // Consumers continue meanwhile.
                return None;
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
                    self.dying.pop(0);
                    self.lanes.get_mut(lane).settle(wanted, wanted);
                }
            }
        }
    }

    /// A message that was found has died, and is neither ready nor dying any more.
    fn lose(&mut self, doomed: &Doomed) {
        if !doomed.was_dying {
            return self.lose_front(doomed.reason, &doomed.facts);
        }
        let counted = self.dying.pop(doomed.facts.body_bytes.into());
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

    /// The front message has died.
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

/// How messages are settled that are not dead-lettered.
pub(super) fn without_letter(reason: DeathReason) -> Settled {
    match reason {
        DeathReason::Rejected => Settled::Rejected,
        DeathReason::Expired => Settled::Expired,
        DeathReason::MaxLength | DeathReason::DeliveryLimit => Settled::Dropped,
    }
}
