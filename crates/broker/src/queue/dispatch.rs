//! Messages that leave a queue: to subscriptions in turn, to a get, or because they expire.

use ferrymq_model::{DeathReason, Facts, MessageKey, QueueId, Sequence, Settled, SubscriptionId, Time};
use hashbrown::HashMap;

use super::dead_letters::{ToDeadLetter, settled_without_dead_letter};
use super::lanes::lane_of;
use super::shard::{Queue, ROUND_MESSAGES_MAX, Shard, Subscription};
use super::turns::Turn;
use super::{Content, Delivery, Got, Next, Ports, Taken};

/// How many messages a queue may move before the next queue in the dispatch order has its turn.
const TURN_MESSAGES_MAX: usize = 32;

/// The front of a queue.
pub(super) enum Front {
    Message(Found),
    /// It has expired or exceeds a limit, and may be dead-lettered.
    ToDeadLetter(ToDeadLetter),
    Pending,
    Empty,
    /// The budget is used up.
    Busy,
    /// It would be dead-lettered, and there is no space for dead letters.
    BlockedOnStorage,
}

/// A message that storage has found.
pub(super) struct Found {
    place: MessageKey,
    handle: u64,
    facts: Facts,
    returned: bool,
}

impl Shard {
    /// Delivers what can be delivered, and dead-letters what has expired or exceeds a limit, queue by queue in
    /// turn, up to 128 messages. Returns whether there is more to do, so that the caller can release the lock
    /// first.
    pub fn dispatch(&mut self, now: Time, ports: &mut impl Ports) -> bool {
        let mut budget = ROUND_MESSAGES_MAX;
        if !self.waiting_dead_letters.is_empty() {
            // Half of the round is for the queues.
            let mut share = ROUND_MESSAGES_MAX / 2;
            self.publish_waiting_dead_letters(&mut share, ports);
            budget = ROUND_MESSAGES_MAX / 2 + share;
        }
        while budget > 0
            && let Some(id) = self.runnable.pop_front()
        {
            let mut share = budget.min(TURN_MESSAGES_MAX);
            let Some(mut queue) = self.queues.get_mut(&id) else {
                let before = share;
                self.serve_schedule(id, now, &mut share, ports);
                budget -= before - share;
                continue;
            };
            budget -= share;
            queue.is_runnable = false;
            while let Some(dead) = queue.serve(&mut self.subscriptions, now, &mut share, ports) {
                self.dead_letter(id, &dead, now, &mut share, ports);
                queue = self.queues.get_mut(&id).expect("no queue goes in dispatch");
            }
            queue.set_timer(&mut self.timers);
            budget += share;
            if std::mem::take(&mut queue.blocked_on_storage) {
                self.blocked_on_storage.insert(id);
            }
            if !queue.awaited_by.is_empty() {
                self.retry_dead_letters_for(id);
            }
            if share == 0 {
                self.enqueue_for_dispatch(id);
            }
            self.tell_drained(id, ports);
        }
        // Dead letters that this round has caused are posted in the next round, or when there is space for them.
        !self.runnable.is_empty() || (!self.waiting_dead_letters.is_empty() && ports.accepts_dead_letters())
    }

    /// Gives one message to [`Ports::got`], even if a subscription would have been next.
    pub fn get(&mut self, queue: QueueId, no_ack: bool, now: Time, ports: &mut impl Ports) -> Got {
        let Some(found) = self.queues.get_mut(&queue) else { return Got::Gone };
        found.last_used = now;
        let got = found.give(no_ack, now, ports);
        found.set_timer(&mut self.timers);
        if std::mem::take(&mut found.blocked_on_storage) {
            self.blocked_on_storage.insert(queue);
        }
        self.retry_dead_letters_for(queue);
        self.enqueue_for_dispatch(queue);
        self.tell_drained(queue, ports);
        got
    }
}

impl Queue {
    /// Delivers what can be delivered; stops at a message that may be dead-lettered.
    fn serve(
        &mut self,
        subscriptions: &mut HashMap<SubscriptionId, Subscription>,
        now: Time,
        budget: &mut usize,
        ports: &mut impl Ports,
    ) -> Option<ToDeadLetter> {
        let mut settled = Settling::default();
        let (mut delivered, mut dead) = (None, None);
        while *budget > 0 && self.has_work() {
            let Found { place, handle, facts, returned } = match self.front(self.is_wanted(), now, budget, ports) {
                Front::Message(found) => found,
                Front::ToDeadLetter(found) => {
                    dead = Some(found);
                    break;
                }
                Front::Pending | Front::Empty | Front::Busy | Front::BlockedOnStorage => break,
            };
            let content = Content::Stored(handle);
            let Some(turn) = self.offer(subscriptions, place, content, &facts, returned, Offer::ToAll, ports) else {
                self.front_expires = self.settings.expires(&facts);
                break;
            };
            *budget -= 1;
            self.leave(&facts, turn.no_ack);
            // AMQP-42
            if turn.no_ack {
                settled.add(place, Settled::Accepted, ports);
            } else if !returned
                && let Some(before) = delivered.replace(place)
                && before.queue != place.queue
            {
                ports.delivered_up_to(before.queue, before.sequence);
            }
        }
        settled.flush(ports);
        if let Some(MessageKey { queue, sequence }) = delivered {
            ports.delivered_up_to(queue, sequence);
        }
        dead
    }

    fn give(&mut self, no_ack: bool, now: Time, ports: &mut impl Ports) -> Got {
        let mut budget = ROUND_MESSAGES_MAX;
        let Found { place, handle, facts, returned } = match self.front(true, now, &mut budget, ports) {
            Front::Message(found) => found,
            Front::Pending => return Got::Pending,
            // Dispatch dead-letters it first.
            Front::ToDeadLetter(_) | Front::Busy => return Got::Busy,
            Front::BlockedOnStorage => return Got::Pending,
            Front::Empty => {
                self.counters.got_empty += 1;
                return Got::Empty;
            }
        };
        let mut delivery = self.delivery(place, Content::Stored(handle), &facts, returned, no_ack);
        // What is not sent is not settled.
        let no_ack = no_ack && ports.fits(&delivery);
        delivery.settled = no_ack;
        self.leave(&facts, no_ack);
        if self.expiring && self.ready > 0 {
            // As in RabbitMQ, a message that expires as soon as it is at the front does not count as remaining;
            // except if it is dead-lettered, which dispatch does.
            self.front(true, now, &mut budget, ports);
            let Next::Message { handle, .. } = ports.next(place.queue, place.sequence) else {
                unreachable!("a message that was found stays in memory for the transition")
            };
            delivery.content = Content::Stored(handle);
        }
        // AMQP-32
        ports.got(&delivery, self.ready);
        self.counters.redelivered += u64::from(returned);
        if no_ack {
            self.counters.got_no_ack += 1;
            ports.settle(place.queue, place.sequence, place.sequence, Settled::Accepted);
        } else {
            self.counters.got += 1;
            if !returned {
                ports.delivered_up_to(place.queue, place.sequence);
            }
        }
        Got::Message
    }

    /// Finds the front message, and drops expired ones before it. If these may be dead-lettered, it finds the first
    /// of them. It does not look for messages that nobody wants and that exceed no limit.
    fn front(&mut self, wanted: bool, now: Time, budget: &mut usize, ports: &mut impl Ports) -> Front {
        if !self.pending_dead_letters.is_empty()
            && let Some(front) = self.first_pending_dead_letter(budget, ports)
        {
            return front;
        }
        self.front_expires = None;
        let mut dropped = Settling::default();
        let front = loop {
            if self.ready == 0 || !(wanted || self.is_over_limit()) {
                break Front::Empty;
            }
            if *budget == 0 {
                break Front::Busy;
            }
            let lane = self.lanes.front();
            let (number, (from, returned)) = (lane.number, lane.front());
            let id = self.id.lane(number);
            match ports.next(id, from) {
                Next::Pending => {
                    self.parked = true;
                    break Front::Pending;
                }
                Next::End if lane.is_drained() => {
                    debug_assert!(false, "storage holds fewer messages of lane {number} than it said");
                    self.ready -= std::mem::take(&mut lane.ready);
                }
                Next::End => lane.missing_before(Sequence::MAX),
                Next::Message { sequence, .. } if sequence != from => lane.missing_before(sequence),
                Next::Message { sequence, handle, facts } => match self.death_reason(&facts, now) {
                    // The message that storage has found is valid until the next call only.
                    None if dropped.flush(ports) => {}
                    None => {
                        return Front::Message(Found {
                            place: MessageKey { queue: id, sequence },
                            handle,
                            facts,
                            returned,
                        });
                    }
                    Some(reason) => {
                        if self.settings.dead_letters.is_some() && self.is_blocked_on_storage(ports) {
                            break Front::BlockedOnStorage;
                        }
                        *budget -= 1;
                        if self.settings.dead_letters.is_some() {
                            let was_pending = false;
                            break Front::ToDeadLetter(ToDeadLetter {
                                lane: number,
                                sequence,
                                facts,
                                reason,
                                was_pending,
                            });
                        }
                        self.lose_front(reason, &facts);
                        dropped.add(MessageKey { queue: id, sequence }, settled_without_dead_letter(reason), ports);
                    }
                },
            }
        };
        dropped.flush(ports);
        front
    }

    /// Why the front message leaves the queue without a consumer, if it does. (AMQP-39, AMQP-56, AMQP-63)
    #[inline]
    fn death_reason(&self, facts: &Facts, now: Time) -> Option<DeathReason> {
        if self.is_over_limit() {
            return Some(DeathReason::MaxLength);
        }
        self.is_expired(facts, now).then_some(DeathReason::Expired)
    }

    /// Offers the front message to the subscriptions in turn; returns who accepted it. It has not left yet: see
    /// [`Queue::leave`].
    #[expect(clippy::too_many_arguments, reason = "the parts of a delivery, as they come from two places")]
    pub(super) fn offer(
        &mut self,
        subscriptions: &mut HashMap<SubscriptionId, Subscription>,
        place: MessageKey,
        content: Content<'_>,
        facts: &Facts,
        returned: bool,
        whom: Offer,
        ports: &mut impl Ports,
    ) -> Option<Turn> {
        while let Some(turn) = self.turns.front() {
            if whom == Offer::ToAutoAck && !turn.no_ack {
                return None;
            }
            let delivery = self.delivery(place, content, facts, returned, turn.no_ack);
            let taken = ports.deliver(turn.subscription, &delivery);
            if taken == Taken::Yes {
                self.counters.redelivered += u64::from(returned);
                if turn.no_ack {
                    self.counters.delivered_no_ack += 1;
                } else {
                    self.counters.delivered += 1;
                }
                self.turns.rotate();
                return Some(turn);
            }
            self.turns.pop();
            self.lags |= taken == Taken::Lags;
            subscriptions.get_mut(&turn.subscription).expect("a turn belongs to a subscription").waiting = true;
        }
        None
    }

    #[inline]
    fn delivery<'a>(
        &self,
        from: MessageKey,
        content: Content<'a>,
        facts: &'a Facts,
        returned: bool,
        settled: bool,
    ) -> Delivery<'a> {
        let lane = if returned { self.lanes.get(lane_of(from.queue)) } else { None };
        let attempts = lane.map_or(0, |lane| lane.attempts.of(from.sequence));
        let shows_attempts = self.settings.shows_attempts;
        // AMQP-44
        Delivery { from, content, facts, redelivered: returned, attempts, shows_attempts, settled }
    }

    /// The front message has left for a consumer.
    #[inline]
    pub(super) fn leave(&mut self, facts: &Facts, settled: bool) {
        let lane = self.lanes.front();
        let (sequence, _) = lane.front();
        lane.take_front();
        if settled {
            lane.settle(sequence, sequence);
        }
        self.front_expires = None;
        self.unready(facts);
        if !settled {
            self.unacked += 1;
            self.unacked_bytes += u64::from(facts.body_bytes);
        }
    }

    /// One message less is ready. The bytes were estimated if the queue was recovered with some of a run's messages
    /// settled; they are exact again after the queue was empty.
    #[inline]
    pub(super) fn unready(&mut self, facts: &Facts) {
        self.ready -= 1;
        self.unready_bytes(facts);
    }

    #[inline]
    pub(super) fn unready_bytes(&mut self, facts: &Facts) {
        let rest = self.ready_bytes.saturating_sub(u64::from(facts.body_bytes));
        self.ready_bytes = if self.ready == 0 && self.pending_dead_letters.is_empty() { 0 } else { rest };
    }

    #[inline]
    pub(super) fn is_expired(&self, facts: &Facts, now: Time) -> bool {
        self.expiring && self.settings.expires(facts).is_some_and(|time| time <= now)
    }

    /// Whether a subscription would accept the front message, or it may expire.
    #[inline]
    fn is_wanted(&self) -> bool {
        self.expiring || !self.turns.is_empty()
    }

    /// Whether dispatch would find something to do.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.pending_dead_letters.has_work() || (self.ready > 0 && (self.is_wanted() || self.is_over_limit()))
    }
}

/// The receivers to which a message may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    ToAll,
    /// Only while automatically acknowledging subscriptions are next.
    ToAutoAck,
}

/// Collects settled messages into runs, so that storage is called once for each run.
#[derive(Default)]
pub(crate) struct Settling {
    run: Option<(MessageKey, Sequence, Settled)>,
}

impl Settling {
    pub(crate) fn add(&mut self, place: MessageKey, why: Settled, ports: &mut impl Ports) {
        match &mut self.run {
            Some((first, last, same)) if *last + 1 == place.sequence && first.queue == place.queue && *same == why => {
                *last = place.sequence;
            }
            _ => {
                self.flush(ports);
                self.run = Some((place, place.sequence, why));
            }
        }
    }

    /// Returns whether there were any.
    pub(crate) fn flush(&mut self, ports: &mut impl Ports) -> bool {
        let Some((first, last, why)) = self.run.take() else { return false };
        ports.settle(first.queue, first.sequence, last, why);
        true
    }
}
