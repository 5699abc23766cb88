//! Delayed retry: messages that came back wait before they are ready again, so that what has failed is not tried
//! again at once.
//!
//! They are neither ready nor delivered, and keep their place. Like deliveries, they cost memory by range.

use std::collections::BTreeMap;

use ferrymq_model::{Sequence, Settled, Settlement, Time};

use super::shard::Queue;
use super::{Ports, Recovered, RetryDelay};

/// Ranges of messages, by the times until which they wait.
#[derive(Debug, Default)]
pub(super) struct DelayedRetries {
    ranges: BTreeMap<(Time, u8, Sequence), DelayedRetry>,
    pub(super) messages: u64,
}

#[derive(Debug)]
struct DelayedRetry {
    last: Sequence,
    /// The bytes of their bodies; if a range came back in parts, as if all had the same length.
    bytes: u64,
}

impl DelayedRetries {
    /// When the first of them are ready again.
    #[inline]
    pub(super) fn first(&self) -> Option<Time> {
        self.ranges.first_key_value().map(|((until, ..), _)| *until)
    }

    fn add(&mut self, until: Time, lane: u8, first: Sequence, retry: DelayedRetry) {
        self.messages += retry.last - first + 1;
        self.ranges.insert((until, lane, first), retry);
    }

    /// Removes and returns the first of them, if they are ready at `now`.
    fn pop(&mut self, now: Time) -> Option<(u8, Sequence, DelayedRetry)> {
        let key = *self.ranges.first_key_value().map(|(key, _)| key).filter(|(until, ..)| *until <= now)?;
        self.remove(key)
    }

    /// Removes and returns one of those that have any of the messages `first..=last`.
    fn pop_any_of(&mut self, number: u8, first: Sequence, last: Sequence) -> Option<(u8, Sequence, DelayedRetry)> {
        let mut ranges = self.ranges.iter();
        let found = ranges.find(|((_, lane, start), retry)| *lane == number && *start <= last && first <= retry.last);
        let key = *found?.0;
        self.remove(key)
    }

    fn remove(&mut self, key: (Time, u8, Sequence)) -> Option<(u8, Sequence, DelayedRetry)> {
        let (_, lane, first) = key;
        let retry = self.ranges.remove(&key)?;
        self.messages -= retry.last - first + 1;
        Some((lane, first, retry))
    }
}

impl RetryDelay {
    /// The delay of a message that has come back this often, in milliseconds. (AMQP-68)
    pub(super) fn ms(&self, attempts: u32) -> u64 {
        self.min_ms.saturating_mul(attempts.into()).min(self.max_ms)
    }
}

impl Queue {
    /// Until when messages wait that come back in this way for the `count`-th time, if they wait: for the queue's own
    /// delay or the one that the consumer has asked for, whichever is longer. (AMQP-68)
    pub(super) fn retry_due(&self, settlement: Settlement, now: Time) -> impl Fn(u32) -> Option<Time> + use<> {
        let (asked_ms, failed) = match settlement {
            Settlement::Release { delay_ms } => (delay_ms, false),
            Settlement::Fail { delay_ms } => (delay_ms, true),
            Settlement::Accept | Settlement::Reject => (0, false),
        };
        let retry = self.settings.retry.filter(|retry| if failed { retry.failed } else { retry.returned });
        move |count| match retry {
            Some(retry) => Some(now.after_ms(retry.ms(count).max(asked_ms))),
            None if asked_ms > 0 => Some(now.after_ms(asked_ms)),
            None => None,
        }
    }

    /// Messages that have come back wait first: ranges that are ready at the same time, each with that time. Each
    /// message has `bytes_each`.
    pub(super) fn delay_retries(&mut self, number: u8, ranges: &[(Sequence, Sequence, Time)], bytes_each: u64) {
        for (first, last, _) in ranges {
            self.lanes.get_mut(number).withdraw(*first, *last);
        }
        self.count_as_delayed(number, ranges, bytes_each);
    }

    /// Ranges that were withdrawn from their lane wait.
    fn count_as_delayed(&mut self, number: u8, ranges: &[(Sequence, Sequence, Time)], bytes_each: u64) {
        for (first, last, due) in ranges {
            let messages = last - first + 1;
            let bytes = messages * bytes_each;
            self.ready -= messages;
            self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
            self.delayed_retries.add(*due, number, *first, DelayedRetry { last: *last, bytes });
        }
    }

    /// After a restart, messages that had come back wait until they are due, but no longer than their whole delay:
    /// the clock may have been set back. If some messages of a lane were transient and are lost, it is not known
    /// which ones, and the remaining ones are ready. A time of a message that is not there says nothing.
    pub(super) fn restore_delayed_retries(&mut self, found: &Recovered, now: Time) {
        let state = &found.state;
        let sequences = state.next - state.head + state.open.len();
        if state.due.is_empty() || found.messages == 0 || found.messages != sequences {
            return;
        }
        let lane = self.lanes.get_mut(found.lane);
        let latest = self.settings.retry.map_or(Time(u64::MAX), |retry| now.after_ms(retry.max_ms));
        let mut ranges: Vec<(Sequence, Sequence, Time)> = Vec::new();
        for (sequence, due) in state.due.iter().filter(|(_, due)| *due > now) {
            if lane.withdraw(*sequence, *sequence) == 0 {
                continue;
            }
            let due = latest.min(*due);
            match ranges.last_mut() {
                Some((_, last, same)) if *last + 1 == *sequence && *same == due => *last = *sequence,
                _ => ranges.push((*sequence, *sequence, due)),
            }
        }
        self.count_as_delayed(found.lane, &ranges, found.body_bytes / found.messages);
    }

    /// Which messages of a lane wait, and until when: ascending.
    pub(super) fn delayed_retries_in(&self, number: u8) -> Vec<(Sequence, Time)> {
        let ranges = self.delayed_retries.ranges.iter().filter(|((_, lane, _), _)| *lane == number);
        let mut due: Vec<_> =
            ranges.flat_map(|((until, _, first), retry)| (*first..=retry.last).map(|one| (one, *until))).collect();
        due.sort_unstable();
        due
    }

    /// The waiting ones are purged: they count as ready until the caller has removed them.
    pub(super) fn purge_delayed_retries(&mut self, ports: &mut impl Ports) {
        let DelayedRetries { ranges, messages } = std::mem::take(&mut self.delayed_retries);
        for ((_, number, first), DelayedRetry { last, .. }) in ranges {
            self.lanes.get_mut(number).settle(first, last);
            ports.settle(self.id.lane(number), first, last, Settled::Purged);
        }
        self.ready += messages;
    }

    /// Those whose delay is over at `now` are ready again.
    pub(super) fn resume_retries(&mut self, now: Time) {
        while let Some((number, first, retry)) = self.delayed_retries.pop(now) {
            self.resume(number, first, &retry);
        }
    }

    /// Ranges that have any of the messages `first..=last` are ready, although their delay is not over.
    pub(super) fn end_delays(&mut self, number: u8, first: Sequence, last: Sequence) {
        while let Some((number, first, retry)) = self.delayed_retries.pop_any_of(number, first, last) {
            self.resume(number, first, &retry);
        }
    }

    fn resume(&mut self, number: u8, first: Sequence, &DelayedRetry { last, bytes }: &DelayedRetry) {
        self.lanes.get_mut(number).put_back(first, last);
        self.ready += last - first + 1;
        self.ready_bytes += bytes;
    }
}
