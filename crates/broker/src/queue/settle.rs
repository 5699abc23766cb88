//! Delivered messages are settled or come back; waiting messages are purged.

use ferrymq_model::{DeathReason, QueueId, Settled, Settlement, Time};

use super::lanes::lane_of;
use super::pending_dead_letters::DeadLetterRange;
use super::shard::{Queue, Shard};
use super::{Ports, SequenceRange};

impl Shard {
    /// Settles deliveries, or returns them to their places: for a consumer, or for a channel that ends. Those of
    /// deleted queues are ignored.
    pub fn settle(&mut self, ranges: &[SequenceRange], settlement: Settlement, now: Time, ports: &mut impl Ports) {
        for range in ranges {
            let Some(queue) = self.queues.get_mut(&range.queue.queue()) else { continue };
            queue.settle(*range, settlement, now, ports);
            if queue.delayed_retries.messages > 0 {
                queue.set_timer(&mut self.timers);
            }
            if settlement != Settlement::Accept {
                self.enqueue_for_dispatch(range.queue.queue());
            }
        }
    }

    /// Drops a queue's ready messages, those that wait for a delayed retry, and at-least-once dead letters that no
    /// target has accepted; returns how many there were. (AMQP-31)
    pub fn purge(&mut self, queue: QueueId, ports: &mut impl Ports) -> u64 {
        let Some(queue) = self.queues.get_mut(&queue) else { return 0 };
        let id = queue.id;
        queue.lanes.purge(|lane, first, last| ports.settle(id.lane(lane), first, last, Settled::Purged));
        queue.purge_delayed_retries(ports);
        let mut messages = std::mem::take(&mut queue.ready);
        queue.ready_bytes = 0;
        queue.pending_dead_letters.discount();
        if queue.is_at_least_once() {
            messages += queue.pending_dead_letters.messages;
            let Queue { lanes, pending_dead_letters, .. } = &mut **queue;
            pending_dead_letters.purge(|lane, first, last| {
                lanes.get_mut(lane).settle(first, last);
                ports.settle(id.lane(lane), first, last, Settled::Purged);
            });
            self.unconfirmed_dead_letters.remove(&id);
        }
        queue.counters.purged += messages;
        queue.front_expires = None;
        // What was being read is gone, and may never be readable.
        queue.parked = false;
        queue.set_timer(&mut self.timers);
        self.retry_dead_letters_for(id);
        self.tell_drained(id, ports);
        messages
    }
}

impl Queue {
    fn settle(&mut self, range: SequenceRange, settlement: Settlement, now: Time, ports: &mut impl Ports) {
        let SequenceRange { queue, first, last, body_bytes } = range;
        let number = lane_of(queue);
        let lane = self.lanes.get_mut(number);
        debug_assert!(lane.is_out(first, last), "{first}..={last} of lane {number} is not out");
        let messages = last - first + 1;
        self.unacked -= messages;
        self.unacked_bytes -= body_bytes;
        match settlement {
            Settlement::Accept => {
                lane.settle(first, last);
                self.counters.accepted += messages;
                ports.settle(queue, first, last, Settled::Accepted);
            }
            // AMQP-44, AMQP-56
            Settlement::Reject => {
                self.counters.rejected += messages;
                if self.settings.dead_letters.is_some() {
                    let reason = DeathReason::Rejected;
                    let range = DeadLetterRange { lane: number, first, last, reason, counted: false };
                    self.add_pending_dead_letters(range, body_bytes, ports);
                } else {
                    lane.settle(first, last);
                    ports.settle(queue, first, last, Settled::Rejected);
                }
            }
            // AMQP-44
            Settlement::Release { .. } | Settlement::Fail { .. } => {
                let attempts_max = self.settings.attempts_max.unwrap_or(u32::MAX);
                let due_after = self.retry_due(settlement, now);
                let lane = self.lanes.get_mut(number);
                let (mut over_limit, mut to_retry) = (Vec::new(), Vec::new());
                lane.release(first, last, |first, last, count| {
                    let due = if count <= attempts_max { due_after(count) } else { None };
                    ports.attempts(queue, first, last, count, due);
                    // AMQP-67
                    if count > attempts_max {
                        over_limit.push((first, last));
                    }
                    to_retry.extend(due.map(|due| (first, last, due)));
                });
                self.counters.released += messages;
                self.ready += messages;
                self.ready_bytes += body_bytes;
                self.front_expires = None;
                self.delay_retries(number, &to_retry, body_bytes / messages);
                for (first, last) in over_limit {
                    self.lanes.get_mut(number).withdraw(first, last);
                    self.ready -= last - first + 1;
                    let reason = DeathReason::DeliveryLimit;
                    let range = DeadLetterRange { lane: number, first, last, reason, counted: true };
                    self.add_pending_dead_letters(range, 0, ports);
                }
            }
        }
    }
}
