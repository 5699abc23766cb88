//! Publishing into queues.

use std::collections::VecDeque;

use ferrymq_model::{Annotations, DeathReason, Facts, MessageKey, MessageRef, QueueId, Settled, SubscriptionId};
use hashbrown::HashMap;

use super::commit::Committed;
use super::dispatch::Offer;
use super::lanes::lane_of;
use super::shard::{Queue, Shard, Subscription};
use super::{Content, Overflow, Ports, RoutedMessage};

/// The outcome of a published message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// How many queues it reached, including those that refused it; 0 means unroutable.
    pub queues: u32,
    /// Whether any of them stores it durably, so that its confirm must wait for the journal. (AMQP-35)
    pub durable: bool,
    /// Whether any of them refused it, because it is full.
    pub refused: bool,
    /// One of these queues, if its consumers lag: see [`Shard::is_ahead`].
    pub ahead_in: Option<QueueId>,
}

impl Shard {
    /// Puts a message into its target queues, each given once; deleted targets are ignored.
    ///
    /// If a queue is empty and a subscription is ready, the message is delivered directly. A transient message for
    /// an automatically acknowledging subscription never reaches storage. A message that a full queue does not
    /// accept is refused before anything else is done with it.
    pub fn publish(
        &mut self,
        message: &MessageRef<'_>,
        facts: &Facts,
        persistent: bool,
        targets: &[QueueId],
        ports: &mut impl Ports,
    ) -> Published {
        if !message.fits() {
            return Published { queues: targets.len() as u32, refused: true, ..Published::default() };
        }
        let mut published = Published::default();
        let splits = targets.len() > 1 && self.has_schedule(targets);
        if splits {
            // A delayed message is written separately.
            ports.begin_unit();
        }
        for id in targets {
            let Some(queue) = self.queues.get_mut(id) else {
                self.delay(*id, message, facts, persistent, &mut published, ports);
                continue;
            };
            published.queues += 1;
            if queue.lags {
                published.ahead_in = Some(*id);
            }
            // AMQP-35
            if queue.refuses(facts) {
                published.refused = true;
                queue.refuse(message, facts, &mut self.waiting_dead_letters, ports);
                continue;
            }
            // AMQP-38
            let durable = queue.settings.durable && (persistent || queue.settings.persists_all);
            let Some(place) = queue.admit(&mut self.subscriptions, message, facts, durable, ports) else { continue };
            if durable {
                self.durable_places.push(place);
            } else {
                self.transient_places.push(place);
            }
        }
        // A message that was delivered directly has no place. Both lists are empty between calls.
        if !(self.durable_places.is_empty() && self.transient_places.is_empty()) {
            let mut durable_places = std::mem::take(&mut self.durable_places);
            let mut transient_places = std::mem::take(&mut self.transient_places);
            published.durable |= !durable_places.is_empty();
            ports.enqueue(message, facts, &durable_places, &transient_places);
            for place in durable_places.drain(..).chain(transient_places.drain(..)) {
                self.offer_stored(place, message, facts, ports);
            }
            (self.durable_places, self.transient_places) = (durable_places, transient_places);
        }
        if splits {
            ports.end_unit();
        }
        published
    }

    /// Like [`Shard::publish`], for a message that comes through bindings that ask to be named: in each queue that
    /// `matched` names, it has their numbers as an annotation.
    #[inline]
    pub fn publish_matched(
        &mut self,
        message: &MessageRef<'_>,
        facts: &Facts,
        persistent: bool,
        targets: &[QueueId],
        matched: &[(QueueId, u64)],
        ports: &mut impl Ports,
    ) -> Published {
        if matched.is_empty() {
            return self.publish(message, facts, persistent, targets, ports);
        }
        let (message, facts) = (*message, *facts);
        self.publish_named(&Committed { message, facts, persistent, targets, matched }, ports)
    }

    #[cold]
    fn publish_named(&mut self, one: &Committed<'_>, ports: &mut impl Ports) -> Published {
        let Committed { message, facts, persistent, targets, matched } = one;
        let (named, plain): (Vec<QueueId>, Vec<_>) =
            targets.iter().partition(|target| matched.iter().any(|(queue, _)| queue == *target));
        // It is written for each of these queues.
        ports.begin_unit();
        let mut published = if plain.is_empty() {
            Published::default()
        } else {
            self.publish(message, facts, *persistent, &plain, ports)
        };
        for target in named {
            let mut annotations = Annotations::read(message.annotations);
            let here = matched.iter().filter(|(queue, _)| *queue == target);
            annotations.bindings = here.map(|(_, number)| *number).collect();
            annotations.bindings.sort_unstable();
            annotations.bindings.dedup();
            let annotations = annotations.write();
            let message = MessageRef { annotations: &annotations, ..*message };
            let here = self.publish(&message, facts, *persistent, &[target], ports);
            published.queues += here.queues;
            published.durable |= here.durable;
            published.refused |= here.refused;
            published.ahead_in = here.ahead_in.or(published.ahead_in);
        }
        ports.end_unit();
        published
    }

    /// Publishes a message that was routed within the node.
    pub(super) fn publish_one(&mut self, one: &RoutedMessage, ports: &mut impl Ports) -> Published {
        self.publish_matched(&one.message.borrowed(), &one.facts, one.persistent, &one.targets, &one.matched, ports)
    }

    /// Whether a message to these targets is stored durably, as far as that is known before it is published.
    #[must_use]
    pub fn stores(&self, targets: &[QueueId], persistent: bool) -> bool {
        targets.iter().any(|id| match (self.queues.get(id), self.schedules.get(id)) {
            (Some(queue), _) => queue.settings.durable && (persistent || queue.settings.persists_all),
            (None, Some(schedule)) => persistent && schedule.settings.durable,
            (None, None) => false,
        })
    }

    /// Offers a message that was just stored, if nothing else is ready. If it is the first one, its expiry is
    /// checked.
    fn offer_stored(&mut self, place: MessageKey, message: &MessageRef<'_>, facts: &Facts, ports: &mut impl Ports) {
        let id = place.queue.queue();
        let queue = self.queues.get_mut(&id).expect("the message was just put into it");
        if queue.ready != 1 && !queue.is_new_front(lane_of(place.queue)) {
            if queue.is_over_limit() {
                self.enqueue_for_dispatch(id);
            }
            return;
        }
        let taken = if queue.ready == 1 {
            let content = Content::Passing(message);
            queue.offer(&mut self.subscriptions, place, content, facts, false, Offer::ToAll, ports)
        } else {
            None
        };
        match taken {
            Some(turn) if turn.no_ack => {
                queue.leave(facts, true);
                ports.settle(place.queue, place.sequence, place.sequence, Settled::Accepted);
            }
            Some(_) => {
                queue.leave(facts, false);
                ports.delivered_up_to(place.queue, place.sequence);
            }
            // AMQP-63
            None if queue.settings.dead_letters.is_none() && queue.is_expired(facts, facts.arrived) => {
                queue.lose_front(DeathReason::Expired, facts);
                ports.settle(place.queue, place.sequence, place.sequence, Settled::Expired);
            }
            None => {
                queue.front_expires = queue.settings.expires(facts);
                queue.set_timer(&mut self.timers);
                if queue.is_over_limit() || queue.is_expired(facts, facts.arrived) {
                    self.enqueue_for_dispatch(id);
                }
            }
        }
    }
}

impl Queue {
    /// The memory that its ready messages take, or would take if they were in memory.
    pub(super) fn ready_memory(&self) -> u64 {
        const MESSAGE_BYTES: u64 = 64;
        self.ready * MESSAGE_BYTES + self.ready_bytes
    }

    /// Whether the message that was just put into this lane is the first of the queue.
    fn is_new_front(&mut self, lane: u8) -> bool {
        let front = self.lanes.front();
        lane > 0 && (front.number, front.ready) == (lane, 1)
    }

    /// Refuses a message, which may be dead-lettered. (AMQP-65)
    #[cold]
    fn refuse(
        &mut self,
        message: &MessageRef<'_>,
        facts: &Facts,
        dead_letters: &mut VecDeque<RoutedMessage>,
        ports: &mut impl Ports,
    ) {
        self.counters.refused += 1;
        if self.settings.overflow == Overflow::RejectPublishDeadLetter {
            let content = Content::Passing(message);
            let dead_letter = self.make_dead_letter(content, facts, DeathReason::MaxLength, facts.arrived, ports);
            self.count_dead_letter(dead_letter.is_some());
            dead_letters.extend(dead_letter);
        }
    }

    /// Accepts a message; returns the place to store it at, unless it was delivered directly.
    fn admit(
        &mut self,
        subscriptions: &mut HashMap<SubscriptionId, Subscription>,
        message: &MessageRef<'_>,
        facts: &Facts,
        durable: bool,
        ports: &mut impl Ports,
    ) -> Option<MessageKey> {
        self.counters.published += 1;
        self.expiring |= facts.expires.is_some();
        // AMQP-66
        let number = facts.priority.min(self.settings.priority_max);
        let lane = self.lanes.get_mut(number);
        if lane.ready == 0 {
            lane.drain();
        }
        if self.ready == 0 {
            let place = MessageKey { queue: self.id.lane(number), sequence: lane.next() };
            let content = Content::Passing(message);
            if !durable && self.offer(subscriptions, place, content, facts, false, Offer::ToAutoAck, ports).is_some() {
                return None;
            }
            // AMQP-63
            let is_over = self.settings.dead_letters.is_none() && self.is_expired(facts, facts.arrived);
            if is_over && self.turns.is_empty() {
                self.counters.expired += 1;
                return None;
            }
        }
        self.ready += 1;
        self.ready_bytes += u64::from(facts.body_bytes);
        Some(MessageKey { queue: self.id.lane(number), sequence: self.lanes.get_mut(number).push() })
    }
}
