//! Dead-lettering: messages that expire, are rejected or exceed a limit are published again to other queues, or
//! dropped.
//!
//! A message that expires or exceeds the length limit is at the front of its queue. One that a consumer rejected, or
//! that exceeds the delivery limit, may be anywhere and need not be in memory: it is a *pending dead letter* until
//! dispatch finds it, before anything else of its queue. So a queue's dead letters are made in the order in which the
//! messages expire, are rejected or exceed a limit, and in dispatch only.
//!
//! A dead letter is put into its queues in the unit that settles the original. It may cause further dead letters there:
//! the queue is over its limit, or the message expires at once. Dispatch handles them when it comes to those queues, so
//! this is a loop and not a recursion. Only a message that a full queue refuses becomes a dead letter in the same unit,
//! because it is in no queue any more.
//!
//! Dead letters add to what has to be written, so they wait while storage has no space, and messages that would be
//! dead-lettered wait with them: a chain of queues that dead-letter into each other is blocked like any publisher.
//!
//! At-least-once dead letters are in [`super::pending_dead_letters`].

use ferrymq_model::{DeathReason, Facts, QueueId, Sequence, Settled, Time};

use super::dispatch::Front;
use super::shard::{Queue, ROUND_MESSAGES_MAX, Shard};
use super::{Content, Dead, Next, Ports, RoutedMessage};

/// A message that was found, and leaves its queue: it is dead-lettered, or dropped if there is no target.
#[derive(Debug)]
pub(super) struct ToDeadLetter {
    pub(super) lane: u8,
    pub(super) sequence: Sequence,
    pub(super) facts: Facts,
    pub(super) reason: DeathReason,
    /// Whether it was a pending dead letter, and is not at the front.
    pub(super) was_pending: bool,
}

impl Shard {
    /// A message is dead-lettered and leaves its queue, both or neither; without a dead letter it is dropped.
    #[cold]
    pub(super) fn dead_letter(
        &mut self,
        id: QueueId,
        dead: &ToDeadLetter,
        now: Time,
        budget: &mut usize,
        ports: &mut impl Ports,
    ) {
        let queue = self.queues.get_mut(&id).expect("the queue has just had its turn");
        if queue.is_at_least_once() && !dead.was_pending && !queue.pending_dead_letters.accepts_newcomer() {
            // No dead letter is published out of turn: which queues have it is known only for those whose turn has
            // come.
            ports.begin_unit();
            queue.move_front_to_pending(dead, ports);
            return ports.end_unit();
        }
        let (lane, dropped) = (id.lane(dead.lane), settled_without_dead_letter(dead.reason));
        // What was settled and marked since it was found may have moved it.
        let Next::Message { handle, .. } = ports.next(lane, dead.sequence) else {
            unreachable!("a message that was found stays in memory for the transition")
        };
        let dead_letter = queue.make_dead_letter(Content::Stored(handle), &dead.facts, dead.reason, now, ports);
        let delivered_to = if dead.was_pending { queue.pending_dead_letters.take_delivered_to() } else { Vec::new() };
        if queue.is_at_least_once() {
            return self.publish_at_least_once(id, dead, dead_letter, delivered_to, budget, ports);
        }
        queue.count_dead_letter(dead_letter.is_some());
        queue.lose(dead);
        let Some(mut dead_letter) = dead_letter else {
            return ports.settle(lane, dead.sequence, dead.sequence, dropped);
        };
        // It was unconfirmed for queues that had not accepted it, under settings that have changed since.
        dead_letter.targets.retain(|target| !delivered_to.contains(target));
        ports.begin_unit();
        let arrived = self.publish_dead_letter(&dead_letter, budget, ports) || !delivered_to.is_empty();
        let why = if arrived { Settled::DeadLettered } else { dropped };
        ports.settle(lane, dead.sequence, dead.sequence, why);
        ports.end_unit();
    }

    /// Like [`Shard::dead_letter`], for an at-least-once dead letter: every target with space gets it at once, and the
    /// message leaves with the last target. If there is no target, or one is full, the dead letter is
    /// unconfirmed, and waits until something changes. (AMQP-62)
    fn publish_at_least_once(
        &mut self,
        id: QueueId,
        dead: &ToDeadLetter,
        dead_letter: Option<RoutedMessage>,
        mut delivered_to: Vec<QueueId>,
        budget: &mut usize,
        ports: &mut impl Ports,
    ) {
        let mut full = Vec::new();
        ports.begin_unit();
        let mut reached = !delivered_to.is_empty();
        if let Some(mut dead_letter) = dead_letter {
            dead_letter.targets.retain(|target| self.queues.contains_key(target) || self.has_schedule(&[*target]));
            reached |= !dead_letter.targets.is_empty();
            dead_letter.targets.retain(|target| !delivered_to.contains(target));
            let refuses =
                |target: &QueueId| self.queues.get(target).is_some_and(|queue| queue.refuses(&dead_letter.facts));
            full.extend(dead_letter.targets.extract_if(.., |target| refuses(target)));
            if !dead_letter.targets.is_empty() {
                self.publish_dead_letter(&dead_letter, budget, ports);
                delivered_to.append(&mut dead_letter.targets);
            }
        }
        let everybody = reached && full.is_empty();
        for target in &full {
            self.queues.get_mut(target).expect("it was just asked").await_space(id);
        }
        // A queue without space for this message may have space for a shorter one.
        full.retain(|target| !self.queues[target].has_space());
        let queue = self.queues.get_mut(&id).expect("no queue goes in dispatch");
        if everybody {
            queue.count_dead_letter(true);
            queue.lose(dead);
            ports.settle(id.lane(dead.lane), dead.sequence, dead.sequence, Settled::DeadLettered);
            if queue.pending_dead_letters.has_no_unconfirmed() {
                self.unconfirmed_dead_letters.remove(&id);
            }
        } else {
            queue.keep_unconfirmed(dead, delivered_to, &full, ports);
            self.unconfirmed_dead_letters.insert(id);
        }
        ports.end_unit();
    }

    /// Puts dead letters of refused messages into their queues, as long as there is space. Dead letters that one of
    /// them causes come before the others. So there are never more than a few of them for each queue on the way.
    #[cold]
    pub(super) fn publish_waiting_dead_letters(&mut self, budget: &mut usize, ports: &mut impl Ports) {
        while *budget > 0 && !self.waiting_dead_letters.is_empty() && ports.accepts_dead_letters() {
            *budget -= 1;
            let dead_letter = self.waiting_dead_letters.pop_front().expect("there is one");
            let before = self.waiting_dead_letters.len();
            ports.begin_unit();
            self.publish_dead_letter(&dead_letter, budget, ports);
            ports.end_unit();
            self.waiting_dead_letters.rotate_right(self.waiting_dead_letters.len() - before);
        }
    }

    /// Puts a dead letter into its queues, and returns whether it got there.
    fn publish_dead_letter(&mut self, dead_letter: &RoutedMessage, budget: &mut usize, ports: &mut impl Ports) -> bool {
        self.publish_routed(dead_letter, budget, ports)
    }

    /// Publishes a message that leaves another queue or a schedule in the open unit. Returns whether a queue took it.
    /// If a full queue refuses it and dead-letters it, this is in the same unit, because the message is in no queue any
    /// more and a crash would lose it. Each of these dead letters takes one of the budget. After
    /// [`ROUND_MESSAGES_MAX`], further ones wait in memory.
    pub(super) fn publish_routed(
        &mut self,
        dead_letter: &RoutedMessage,
        budget: &mut usize,
        ports: &mut impl Ports,
    ) -> bool {
        let waiting = self.waiting_dead_letters.len();
        let published = self.publish_one(dead_letter, ports);
        for _ in 0..ROUND_MESSAGES_MAX {
            if self.waiting_dead_letters.len() <= waiting {
                break;
            }
            *budget = budget.saturating_sub(1);
            let caused = self.waiting_dead_letters.pop_back().expect("there is one more than before");
            self.publish_one(&caused, ports);
        }
        published.queues > 0
    }

    /// Storage has space for dead letters again: the queues that waited for it are enqueued for dispatch. Returns which
    /// ones; dispatch must follow.
    pub fn storage_unblocked(&mut self) -> Vec<QueueId> {
        let blocked_on_storage: Vec<_> = std::mem::take(&mut self.blocked_on_storage).into_iter().collect();
        blocked_on_storage.iter().for_each(|id| self.enqueue_for_dispatch(*id));
        blocked_on_storage
    }

    /// Whether dead letters of refused messages wait in memory.
    #[must_use]
    pub fn has_waiting_dead_letters(&self) -> bool {
        !self.waiting_dead_letters.is_empty()
    }

    /// Whether anything waits for [`Shard::storage_unblocked`].
    #[must_use]
    pub fn is_blocked_on_storage(&self) -> bool {
        !(self.blocked_on_storage.is_empty() && self.waiting_dead_letters.is_empty())
    }

    /// Routes of dead letters may have changed: unconfirmed ones are retried.
    pub fn routes_changed(&mut self) {
        for id in std::mem::take(&mut self.unconfirmed_dead_letters) {
            self.try_again(id, None);
        }
    }

    /// Whether any dead letter is unconfirmed, so that [`Shard::routes_changed`] would do something.
    #[must_use]
    pub fn has_unconfirmed_dead_letters(&self) -> bool {
        !self.unconfirmed_dead_letters.is_empty()
    }

    /// A queue may have more space than before: dead letters that wait for that are tried again.
    #[inline]
    pub(super) fn retry_dead_letters_for(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        if !queue.awaited_by.is_empty() && queue.has_space() {
            for waiting in std::mem::take(&mut queue.awaited_by) {
                self.try_again(waiting, Some(id));
            }
        }
    }

    pub(super) fn try_again(&mut self, id: QueueId, space_in: Option<QueueId>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.pending_dead_letters.try_again(space_in);
        self.enqueue_for_dispatch(id);
    }
}

impl Queue {
    /// The dead letter of a message, if the queue has dead-lettering and there is a target.
    #[cold]
    pub(super) fn make_dead_letter(
        &mut self,
        content: Content<'_>,
        facts: &Facts,
        reason: DeathReason,
        at: Time,
        ports: &mut impl Ports,
    ) -> Option<RoutedMessage> {
        self.settings.dead_letters.as_ref()?;
        ports.dead_letter(&Dead { queue: &self.settings, content, facts, reason, at })
    }

    /// A message has left that might be dead-lettered.
    #[cold]
    pub(super) fn count_dead_letter(&mut self, became_one: bool) {
        if became_one {
            self.counters.dead_lettered += 1;
        } else if self.settings.dead_letters.is_some() {
            self.counters.dead_letters_unroutable += 1;
        }
    }

    /// Whether dead-lettering is at-least-once.
    #[inline]
    pub(super) fn is_at_least_once(&self) -> bool {
        self.settings.dead_letters.as_ref().is_some_and(|dead_letters| dead_letters.at_least_once)
    }

    /// Whether a message of any length would be accepted.
    fn has_space(&self) -> bool {
        !self.refuses(&Facts { body_bytes: 1, ..Facts::default() })
    }

    /// Another queue has a dead letter for this one, which is full.
    fn await_space(&mut self, waiting: QueueId) {
        if !self.awaited_by.contains(&waiting) {
            self.awaited_by.push(waiting);
        }
    }

    /// Whether there is no space for dead letters; then the queue waits for that.
    #[cold]
    pub(super) fn is_blocked_on_storage(&mut self, ports: &mut impl Ports) -> bool {
        self.blocked_on_storage = !ports.accepts_dead_letters();
        self.blocked_on_storage
    }

    /// If there are pending dead letters: the first of them, or why it is not found yet.
    #[cold]
    pub(super) fn first_pending_dead_letter(&mut self, budget: &mut usize, ports: &mut impl Ports) -> Option<Front> {
        loop {
            let (lane, wanted, reason) = self.pending_dead_letters.next()?;
            if *budget == 0 {
                return Some(Front::Busy);
            }
            if self.settings.dead_letters.is_some() && self.is_blocked_on_storage(ports) {
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
                    return Some(Front::ToDeadLetter(ToDeadLetter {
                        lane,
                        sequence,
                        facts,
                        reason,
                        was_pending: true,
                    }));
                }
                Next::Message { .. } | Next::End => {
                    debug_assert!(false, "{}: storage lost a message that was out", self.shown());
                    self.pending_dead_letters.pop(0);
                    self.lanes.get_mut(lane).settle(wanted, wanted);
                }
            }
        }
    }

    /// A message leaves its queue, and is neither ready nor a pending dead letter any more.
    fn lose(&mut self, dead: &ToDeadLetter) {
        if !dead.was_pending {
            return self.lose_front(dead.reason, &dead.facts);
        }
        let counted = self.pending_dead_letters.pop(dead.facts.body_bytes.into());
        self.lanes.get_mut(dead.lane).settle(dead.sequence, dead.sequence);
        if counted {
            self.unready_bytes(&dead.facts);
        }
        match dead.reason {
            DeathReason::Rejected => {}
            DeathReason::Expired => self.counters.expired += 1,
            DeathReason::MaxLength | DeathReason::DeliveryLimit => self.counters.dropped += 1,
        }
    }

    /// The front message has expired or exceeds the length limit, and leaves.
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
pub(super) fn settled_without_dead_letter(reason: DeathReason) -> Settled {
    match reason {
        DeathReason::Rejected => Settled::Rejected,
        DeathReason::Expired => Settled::Expired,
        DeathReason::MaxLength | DeathReason::DeliveryLimit => Settled::Dropped,
    }
}
