//! Messages that came back and rest before they are ready again, so that what has failed is not tried again at once.
//!
//! They are neither ready nor out, and keep their place. Like what is out they cost memory, in stretches.

use std::collections::BTreeMap;

use ferrymq_model::{Sequence, Settled, Settlement, Time};

use super::shard::Queue;
use super::{Ports, Recovered, RetryDelay};

/// Stretches of messages, by the times until which they rest.
#[derive(Debug, Default)]
pub(super) struct Resting {
    stretches: BTreeMap<(Time, u8, Sequence), Rest>,
    pub(super) messages: u64,
}

#[derive(Debug)]
struct Rest {
    last: Sequence,
    /// Their bodies' bytes; where a stretch came back in parts, as if they were all of one length.
    bytes: u64,
}

impl Resting {
    /// When the first of them are ready again.
    #[inline]
    pub(super) fn first(&self) -> Option<Time> {
        self.stretches.first_key_value().map(|((until, ..), _)| *until)
    }

    fn add(&mut self, until: Time, lane: u8, first: Sequence, rest: Rest) {
        self.messages += rest.last - first + 1;
        self.stretches.insert((until, lane, first), rest);
    }

    /// Takes the first of them out, if they have rested until `now`.
    fn pop(&mut self, now: Time) -> Option<(u8, Sequence, Rest)> {
        let entry = self.stretches.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, lane, first), rest) = entry.remove_entry();
        self.messages -= rest.last - first + 1;
        Some((lane, first, rest))
    }
}

impl RetryDelay {
    /// How long a message rests that has now come back so often, in milliseconds.
    pub(super) fn ms(&self, attempts: u32) -> u64 {
        self.min_ms.saturating_mul(attempts.into()).min(self.max_ms)
    }
}

impl Queue {
    /// How messages rest that come back so.
    pub(super) fn retry_delay(&self, settlement: Settlement) -> Option<RetryDelay> {
        self.settings.retry.filter(|retry| match settlement {
            Settlement::Fail => retry.failed,
            _ => retry.returned,
        })
    }

    /// Messages that have come back rest first: stretches of those that are due at the same time, each with that. All messages
    /// that came back with them have `bytes_each`.
    pub(super) fn lay_down(&mut self, number: u8, stretches: &[(Sequence, Sequence, Time)], bytes_each: u64) {
        for (first, last, due) in stretches {
            let messages = last - first + 1;
            let bytes = messages * bytes_each;
            self.lanes.get_mut(number).withdraw(*first, *last);
            self.ready -= messages;
            self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
            self.resting.add(*due, number, *first, Rest { last: *last, bytes });
        }
    }

    /// After a restart, those that had come back rest until they are due, but no longer than they could have from the start: the
    /// clock may have been set back. Where some of a lane were transient and are gone, which ones is not known, and what is left
    /// is ready.
    pub(super) fn lay_down_again(&mut self, found: &Recovered, now: Time) {
        let state = &found.state;
        if state.due.is_empty() || found.messages != state.next - state.head + state.open.len() {
            return;
        }
        let latest = self.settings.retry.map_or(Time(u64::MAX), |retry| now.after_ms(retry.max_ms));
        let mut stretches: Vec<(Sequence, Sequence, Time)> = Vec::new();
        for (sequence, due) in state.due.iter().filter(|(_, due)| *due > now) {
            let due = latest.min(*due);
            match stretches.last_mut() {
                Some((_, last, same)) if *last + 1 == *sequence && *same == due => *last = *sequence,
                _ => stretches.push((*sequence, *sequence, due)),
            }
        }
        self.lay_down(found.lane, &stretches, found.body_bytes / found.messages);
    }

    /// Which messages of a lane rest, and until when: ascending.
    pub(super) fn resting_in(&self, number: u8) -> Vec<(Sequence, Time)> {
        let stretches = self.resting.stretches.iter().filter(|((_, lane, _), _)| *lane == number);
        let mut due: Vec<_> =
            stretches.flat_map(|((until, _, first), rest)| (*first..=rest.last).map(|one| (one, *until))).collect();
        due.sort_unstable();
        due
    }

    /// Those that rest are purged: they count as ready until the caller has taken them off.
    pub(super) fn purge_resting(&mut self, ports: &mut impl Ports) {
        let Resting { stretches, messages } = std::mem::take(&mut self.resting);
        for ((_, number, first), Rest { last, .. }) in stretches {
            self.lanes.get_mut(number).settle(first, last);
            ports.settle(self.id.lane(number), first, last, Settled::Purged);
        }
        self.ready += messages;
    }

    /// Those that have rested until `now` are ready again.
    pub(super) fn get_up(&mut self, now: Time) {
        while let Some((number, first, Rest { last, bytes })) = self.resting.pop(now) {
            self.lanes.get_mut(number).put_back(first, last);
            self.ready += last - first + 1;
            self.ready_bytes += bytes;
        }
    }
}
