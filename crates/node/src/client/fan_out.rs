//! Messages that go to many queues: portion by portion of them, so that nobody waits for the whole.
//!
//! Where messages that follow each other go the same way, each portion gets all of them before the next one does. What they
//! touch, from the queue to the socket, is then touched once and not once for each message.

use ferrymq_broker::Published;
use ferrymq_model::{Position, Publish, QueueId};

use super::{
    Client,
    publish::{Route, facts_of, message_of},
};
use crate::transition::Aftermath;

/// Queues that are filled under one hold of the shard's lock: a batch counts deliveries, not messages.
pub(super) const HELD_TARGETS_MAX: usize = 128;

/// As [`HELD_TARGETS_MAX`], for a long message.
const PORTION_TARGETS_MAX: usize = 4_096;

/// Bytes of messages that one portion gets before the next one does: what makes a write worth while.
const TOGETHER_BYTES_MAX: usize = 16 << 10;

/// Messages of one client on their way to the same queues.
#[derive(Debug)]
pub(super) struct FanOut {
    /// Without anything of the input that they came in.
    publishes: Vec<Publish>,
    targets: Vec<QueueId>,
    /// Targets before this one have got them.
    next: usize,
    /// What became of each message so far.
    published: Vec<Published>,
    stored: Option<Position>,
    wants_confirm: bool,
}

impl FanOut {
    /// These messages, of which there is one at least, have all these targets.
    pub fn new(publishes: Vec<Publish>, targets: Vec<QueueId>, wants_confirm: bool) -> Self {
        let published = vec![Published::default(); publishes.len()];
        Self { publishes, targets, next: 0, published, stored: None, wants_confirm }
    }

    /// How many of these messages go together, by the lengths of their bodies.
    pub fn together(lengths: impl Iterator<Item = usize>) -> usize {
        let mut bytes = 0;
        let fits = |length: &usize| {
            bytes += length;
            bytes <= TOGETHER_BYTES_MAX
        };
        lengths.take_while(fits).count().max(1)
    }

    /// The next queues. Each portion is written to the journal with the message in it, so portions are larger where it is
    /// long.
    fn portion(&self) -> std::ops::Range<usize> {
        let longest = self.publishes.iter().map(|publish| message_of(publish, &[]).body.bytes().len()).max();
        let targets = (longest.unwrap_or(0) / 32).clamp(HELD_TARGETS_MAX, PORTION_TARGETS_MAX);
        self.next..self.targets.len().min(self.next + targets)
    }
}

impl Client {
    /// Goes on with messages that go to many queues, until that has taken `work_max`. Says whether it is done.
    pub(super) fn fan_out_some(&mut self, work_max: u64) -> bool {
        let Some(mut fan_out) = self.fan_out.take() else { return true };
        while fan_out.next < fan_out.targets.len() {
            if self.work.get() >= work_max {
                self.fan_out = Some(fan_out);
                return false;
            }
            self.fan_out_portion(&mut fan_out);
        }
        let FanOut { publishes, targets, published, stored, .. } = fan_out;
        let became = |published: &Published| {
            let mut route = Route::Queues(0..targets.len());
            route.became(*published);
            route
        };
        let routes: Vec<Route> = published.iter().map(became).collect();
        let aftermath = self.what_is_undrained();
        self.published(&[], &publishes, &routes, stored, aftermath);
        true
    }

    fn fan_out_portion(&mut self, fan_out: &mut FanOut) {
        let portion = fan_out.portion();
        let FanOut { publishes, targets, published, stored, wants_confirm, .. } = fan_out;
        let targets = &targets[portion.clone()];
        let (now, mut aftermath) = (self.node.now(), Aftermath::default());
        for (publish, published) in publishes.iter().zip(published) {
            let message = message_of(publish, &[]);
            let facts = facts_of(publish, &message, now);
            let here = self.node.decide(&mut aftermath, |shard, ports| {
                let here = shard.publish(&message, &facts, publish.persistent, targets, ports);
                if here.durable && *wants_confirm {
                    *stored = Some(ports.flushed_position());
                }
                here
            });
            published.queues += here.queues;
            published.refused |= here.refused;
        }
        self.worked((targets.len() * publishes.len()) as u64);
        fan_out.next = portion.end;
        self.settle_down(aftermath);
    }
}
