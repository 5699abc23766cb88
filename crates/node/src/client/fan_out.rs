//! Messages that go to many queues: in portions of queues, so that nobody waits for all of them.
//!
//! If consecutive messages have the same targets, each portion gets all of these messages before the next portion.
//! Then everything from the queue to the socket is touched once for several messages, and not once for each of
//! them.

use ferrymq_broker::Published;
use ferrymq_model::{Position, Publish, QueueId};

use super::{
    Client,
    message::{facts_of, message_of},
    publish::Route,
};
use crate::core::transition::Deferred;

/// The number of queues that are filled during one hold of the shard's lock: a batch counts deliveries, not
/// messages.
pub(super) const HELD_TARGETS_MAX: usize = 128;

/// Like [`HELD_TARGETS_MAX`], for a long message.
const PORTION_TARGETS_MAX: usize = 4_096;

/// How many bytes of messages one portion gets before the next portion: enough for an efficient write.
const TOGETHER_BYTES_MAX: usize = 16 << 10;

/// Messages of one client on their way to the same queues.
#[derive(Debug)]
pub(super) struct FanOut {
    /// They own their data; they need nothing of the input any more.
    publishes: Vec<Publish>,
    targets: Vec<QueueId>,
    /// The number of targets that have got the messages.
    next: usize,
    /// The outcome of each message so far.
    published: Vec<Published>,
    stored: Option<Position>,
    wants_confirm: bool,
}

impl FanOut {
    /// These messages, at least one, all have these targets.
    pub fn new(publishes: Vec<Publish>, targets: Vec<QueueId>, wants_confirm: bool) -> Self {
        let published = vec![Published::default(); publishes.len()];
        Self { publishes, targets, next: 0, published, stored: None, wants_confirm }
    }

    /// How many of these messages are sent together, by the lengths of their bodies.
    pub fn together(lengths: impl Iterator<Item = usize>) -> usize {
        let mut bytes = 0;
        let fits = |length: &usize| {
            bytes += length;
            bytes <= TOGETHER_BYTES_MAX
        };
        lengths.take_while(fits).count().max(1)
    }

    /// The next queues. Each portion is written to the journal with the message, so portions are larger for a long
    /// message.
    fn portion(&self) -> std::ops::Range<usize> {
        let longest = self.publishes.iter().map(|publish| message_of(publish, &[]).body.bytes().len()).max();
        let targets = (longest.unwrap_or(0) / 32).clamp(HELD_TARGETS_MAX, PORTION_TARGETS_MAX);
        self.next..self.targets.len().min(self.next + targets)
    }
}

impl Client {
    /// Continues with messages that go to many queues, for at most `work_max`. Returns whether it is done.
    pub(super) fn fan_out_some(&mut self, work_max: u64) -> bool {
        let Some(mut fan_out) = self.fan_out.take() else { return true };
        while fan_out.next < fan_out.targets.len() {
            if self.work.get() >= work_max {
                self.fan_out = Some(fan_out);
                return false;
            }
            self.fan_out_portion(&mut fan_out);
        }
        let FanOut { publishes, targets, published, stored, .. } = *fan_out;
        let became = |published: &Published| {
            let mut route = Route::Queues(0..targets.len());
            route.became(*published);
            route
        };
        let routes: Vec<Route> = published.iter().map(became).collect();
        let deferred = self.what_is_undrained();
        self.published(&[], &publishes, &routes, stored, deferred);
        true
    }

    fn fan_out_portion(&mut self, fan_out: &mut FanOut) {
        let portion = fan_out.portion();
        let FanOut { publishes, targets, published, stored, wants_confirm, .. } = fan_out;
        let targets = &targets[portion.clone()];
        let (now, mut deferred) = (self.node.now(), Deferred::default());
        for (publish, published) in publishes.iter().zip(published) {
            let message = message_of(publish, &[]);
            let facts = facts_of(publish, &message, now);
            let here = self.node.decide(&mut deferred, |shard, ports| {
                let here =
                    shard.publish_matched(&message, &facts, publish.persistent, targets, publish.matched(), ports);
                if here.durable && *wants_confirm {
                    *stored = Some(ports.flushed_position());
                }
                here
            });
            published.queues += here.queues;
            published.refused |= here.refused;
            self.pacing.published(here.ahead_in);
        }
        self.worked((targets.len() * publishes.len()) as u64);
        fan_out.next = portion.end;
        self.run_deferred(deferred);
    }
}
