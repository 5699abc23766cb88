//! A shard: some of the node's queues under one lock, with their subscriptions and timers.
//!
//! Every method is one transition. Messages leave in [`Shard::dispatch`] only (and in [`Shard::publish`], if one is
//! delivered directly). So a transition that makes a queue's messages deliverable only enqueues the queue for dispatch,
//! and the caller decides when to release the lock between two rounds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ferrymq_model::{MessageKey, QueueCounters, QueueCounts, QueueId, QueueState, Refusal, SubscriptionId, Time};
use hashbrown::HashMap;

use super::{
    DeleteWhen, Ports, QueueSettings, Recovered, RoutedMessage, Subscriber,
    lane::Lane,
    lanes::{Lanes, lane_of},
    limits::LengthLimit,
    pending_dead_letters::{DeadLetterRange, PendingDeadLetters},
    retry::DelayedRetries,
    timers::Timers,
    turns::{Turn, Turns},
};
use crate::catalog::{give_back, queue_tombstone};
use crate::schedule::Schedule;

/// How long publishers wait for a consumer that has credit and takes nothing, in milliseconds.
const LAG_MS_MAX: u64 = 100;

/// How many messages one transition moves at most, so that the shard's lock is never held for long.
pub(super) const ROUND_MESSAGES_MAX: usize = 128;

/// A plain state machine over queues. See the [module](self).
///
/// Invariant between two transitions: a queue with pending dead letters or excess messages, or with ready messages and
/// a subscription with credit, is enqueued for dispatch, waits for storage to read, or waits for space for its dead
/// letters.
#[derive(Debug, Default)]
pub struct Shard {
    pub(super) queues: HashMap<QueueId, Box<Queue>>,
    pub(super) schedules: HashMap<QueueId, Box<Schedule>>,
    pub(super) subscriptions: HashMap<SubscriptionId, Subscription>,
    /// Queues and schedules enqueued for dispatch, each once.
    pub(super) runnable: VecDeque<QueueId>,
    /// Dead letters of refused messages, in the order in which they were refused.
    pub(super) waiting_dead_letters: VecDeque<RoutedMessage>,
    /// Queues with messages that would be dead-lettered if there were space.
    pub(super) blocked_on_storage: BTreeSet<QueueId>,
    /// Queues with unconfirmed dead letters: no target has accepted them, or not all.
    pub(super) unconfirmed_dead_letters: BTreeSet<QueueId>,
    pub(super) timers: Timers,
    /// Subscriptions that want to know when these queues have no ready message.
    pub(super) draining: BTreeMap<QueueId, Vec<SubscriptionId>>,
    /// Kept for their memory.
    pub(super) durable_places: Vec<MessageKey>,
    pub(super) transient_places: Vec<MessageKey>,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) id: QueueId,
    /// The catalog has them, too.
    pub(super) settings: Arc<QueueSettings>,
    pub(super) lanes: Lanes,
    pub(super) pending_dead_letters: PendingDeadLetters,
    /// It has a message that would be dead-lettered, and there was no space.
    pub(super) blocked_on_storage: bool,
    /// Queues with dead letters for this one, which was full.
    pub(super) awaited_by: Vec<QueueId>,
    pub(super) delayed_retries: DelayedRetries,
    pub(super) ready: u64,
    pub(super) ready_bytes: u64,
    pub(super) limit: LengthLimit,
    pub(super) unacked: u64,
    pub(super) unacked_bytes: u64,
    /// Subscriptions with credit, as far as is known, in the order in which they are served.
    pub(super) turns: Turns,
    /// Whether a subscription waits only for its socket.
    pub(super) lags: bool,
    /// Since when this is known. `None` if a subscription has taken a message since then.
    lags_since: Option<Time>,
    /// All subscriptions, by priority and in the order in which they came.
    pub(super) subscriptions: BTreeMap<(Reverse<i64>, u64), SubscriptionId>,
    /// How many there have been.
    subscribed: u64,
    /// The only subscription is exclusive.
    exclusive: bool,
    /// The single active consumer.
    pub(super) active: Option<SubscriptionId>,
    /// Storage was asked for the front message and reads it.
    pub(super) parked: bool,
    /// It is in [`Shard::runnable`].
    pub(super) is_runnable: bool,
    /// A message may have an expiration, so the front is checked even if nobody wants it.
    pub(super) expiring: bool,
    /// When the front message expires, if that is known.
    pub(super) front_expires: Option<Time>,
    /// When it was last declared, or a client got from it or subscribed to it.
    pub(super) last_used: Time,
    pub(super) timer: Option<Time>,
    pub(super) counters: QueueCounters,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) queue: QueueId,
    pub(super) turn: Turn,
    /// Its number among its queue's subscriptions, in the order in which they were made.
    number: u64,
    /// It has no credit and is not among its queue's turns.
    pub(super) waiting: bool,
    /// Its client is not connected.
    pub(super) is_paused: bool,
}

/// New settings, with what the declaration of the queue decides. That never changes, so nearly always they are the
/// same.
fn as_declared(old: &QueueSettings, settings: Arc<QueueSettings>) -> Arc<QueueSettings> {
    let &QueueSettings { durable, persists_all, auto_delete, priority_max, single_active, .. } = old;
    let declared =
        QueueSettings { durable, persists_all, auto_delete, priority_max, single_active, ..(*settings).clone() };
    if declared == *settings { settings } else { Arc::new(declared) }
}

impl Shard {
    /// A shard without queues.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A queue was declared: creates its lanes, and opens it.
    pub fn create(&mut self, id: QueueId, settings: Arc<QueueSettings>, now: Time, ports: &mut impl Ports) {
        for lane in 0..=settings.priority_max {
            ports.create_lane(id.lane(lane), settings.durable);
        }
        self.open(id, settings, &[], now);
    }

    /// A queue whose lanes exist, with what was recovered of it.
    pub fn open(&mut self, id: QueueId, settings: impl Into<Arc<QueueSettings>>, recovered: &[Recovered], now: Time) {
        let mut queue = Box::new(Queue::new(id, settings.into(), now));
        for found in recovered {
            let lane = Lane::recovered(found, |sequence, reason| {
                // The length of each is known only when it is found.
                let range =
                    DeadLetterRange { lane: found.lane, first: sequence, last: sequence, reason, counted: true };
                queue.pending_dead_letters.push(range, 0);
            });
            queue.ready += lane.ready;
            queue.lanes.put(lane);
            queue.ready_bytes += found.body_bytes;
            queue.expiring |= found.expiring;
            queue.restore_delayed_retries(found, now);
        }
        queue.set_timer(&mut self.timers);
        let before = self.queues.insert(id, queue);
        debug_assert!(before.is_none(), "ids of queues are never reused");
        self.enqueue_for_dispatch(id);
    }

    /// The queue's settings have changed. Messages that are excess now, or expired (counted from their arrival),
    /// leave in dispatch; the queue counts as used. The declaration stays.
    pub fn configure(&mut self, id: QueueId, settings: impl Into<Arc<QueueSettings>>, now: Time) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.settings = as_declared(&queue.settings, settings.into());
        queue.limit = LengthLimit::of(&queue.settings);
        queue.expiring |= queue.settings.message_ttl_ms.is_some();
        queue.front_expires = None;
        queue.last_used = now;
        queue.pending_dead_letters.try_again(None);
        queue.set_timer(&mut self.timers);
        self.enqueue_for_dispatch(id);
        self.retry_dead_letters_for(id);
    }

    /// Whether the queue is here.
    #[must_use]
    pub fn has(&self, queue: QueueId) -> bool {
        self.queues.contains_key(&queue)
    }

    /// The queue as it stands.
    #[must_use]
    pub fn counts(&self, queue: QueueId) -> Option<QueueCounts> {
        self.queues.get(&queue).map(|queue| QueueCounts {
            ready: queue.ready,
            delayed_retries: queue.delayed_retries.messages,
            unacked: queue.unacked,
            ready_bytes: queue.ready_bytes,
            pending_dead_letters: queue.pending_dead_letters.messages,
            unacked_bytes: queue.unacked_bytes,
            pending_dead_letter_bytes: queue.pending_dead_letters.bytes,
            subscriptions: u32::try_from(queue.subscriptions.len()).unwrap_or(u32::MAX),
            active: queue.active,
            counters: queue.counters,
        })
    }

    /// What must be stored for the lane with this id to recover it, if it was ever used.
    #[must_use]
    pub fn state(&self, lane: QueueId) -> Option<QueueState> {
        let (queue, number) = (self.queues.get(&lane.queue())?, lane_of(lane));
        let state = queue.lanes.get(number)?.state();
        Some(QueueState { due: queue.delayed_retries_in(number), ..state })
    }

    /// The queue was declared again: its expiry begins again. (AMQP-64)
    pub fn used(&mut self, queue: QueueId, now: Time) {
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.last_used = now;
            queue.set_timer(&mut self.timers);
        }
    }

    /// Subscribes to a queue; `false` if the queue was deleted meanwhile.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] if another subscription is exclusive, or if this one is exclusive and others
    /// exist, or could take over from it.
    pub fn consume(&mut self, queue: QueueId, subscriber: Subscriber, now: Time) -> Result<bool, Refusal> {
        let Some(found) = self.queues.get_mut(&queue) else { return Ok(false) };
        let alone = found.subscriptions.is_empty() && !found.settings.single_active;
        // AMQP-48
        if found.exclusive || (subscriber.exclusive && !alone) {
            return Err(Refusal::AccessRefused(format!("{} in exclusive use", found.shown())));
        }
        let turn = Turn { subscription: subscriber.id, no_ack: subscriber.no_ack, priority: subscriber.priority };
        let number = found.subscribed;
        found.subscribed += 1;
        found.exclusive = subscriber.exclusive;
        found.subscriptions.insert((Reverse(turn.priority), number), subscriber.id);
        found.activate(turn);
        found.last_used = now;
        found.set_timer(&mut self.timers);
        let subscription = Subscription { queue, turn, number, waiting: false, is_paused: false };
        self.subscriptions.insert(subscriber.id, subscription);
        self.enqueue_for_dispatch(queue);
        Ok(true)
    }

    /// Ends a subscription; its deliveries can still be settled. An auto-delete queue is deleted with its last one.
    /// (AMQP-46)
    pub fn cancel(&mut self, subscription: SubscriptionId, now: Time, ports: &mut impl Ports) {
        let Some(ended) = self.subscriptions.remove(&subscription) else { return };
        self.stop_draining(ended.queue, subscription);
        let queue = self.queues.get_mut(&ended.queue).expect("a subscription's queue is there");
        queue.subscriptions.remove(&(Reverse(ended.turn.priority), ended.number));
        queue.exclusive = false;
        (queue.lags, queue.lags_since) = (false, None);
        // With a single active consumer, no other consumer gets a turn.
        let may_have_turn = !queue.settings.single_active || queue.active == Some(subscription);
        if may_have_turn && !ended.waiting {
            queue.turns.remove(subscription);
        }
        if queue.active == Some(subscription) {
            queue.active = None;
            self.activate_next(ended.queue);
        }
        let queue = self.queues.get_mut(&ended.queue).expect("this was found just before");
        queue.last_used = now;
        // AMQP-28
        if queue.settings.auto_delete && queue.subscriptions.is_empty() {
            self.remove(ended.queue, ports);
            return;
        }
        queue.set_timer(&mut self.timers);
        // If nobody is left who wants the front message, its expiry must be found out.
        self.enqueue_for_dispatch(ended.queue);
    }

    /// The next subscription of a queue with a single active consumer becomes active. (AMQP-50)
    pub(super) fn activate_next(&mut self, queue: QueueId) {
        let Some(queue) = self.queues.get_mut(&queue) else { return };
        let mut all = queue.subscriptions.values().map(|id| &self.subscriptions[id]);
        let next = all.find(|subscription| !subscription.is_paused).map(|subscription| subscription.turn);
        if let Some(turn) = next {
            let id = queue.id;
            queue.activate(turn);
            self.enqueue_for_dispatch(id);
        }
    }

    /// Cancels all subscriptions of a queue; the queue stays, even if it is auto-delete.
    pub fn cancel_all(&mut self, queue: QueueId, ports: &mut impl Ports) {
        let Some(found) = self.queues.get_mut(&queue) else { return };
        found.turns.clear();
        (found.lags, found.lags_since) = (false, None);
        found.exclusive = false;
        found.active = None;
        for subscription in std::mem::take(&mut found.subscriptions).into_values() {
            self.subscriptions.remove(&subscription);
            ports.cancelled(subscription);
        }
        self.draining.remove(&queue);
        found.set_timer(&mut self.timers);
    }

    /// These subscriptions have credit again, in this order.
    pub fn credit(&mut self, subscriptions: &[SubscriptionId]) {
        for id in subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(id) else { continue };
            if !std::mem::take(&mut subscription.waiting) {
                continue;
            }
            let queue = self.queues.get_mut(&subscription.queue).expect("a subscription's queue is there");
            queue.turns.push(subscription.turn);
            (queue.lags, queue.lags_since) = (false, None);
            let id = queue.id;
            self.enqueue_for_dispatch(id);
        }
    }

    /// Whether publishers are ahead of this queue's consumers: a consumer waits only for its socket, and more than
    /// `bytes` are ready. False if the consumer has taken nothing for [`LAG_MS_MAX`] since the first call.
    #[must_use]
    pub fn is_ahead(&mut self, queue: QueueId, bytes: u64, now: Time) -> bool {
        let Some(queue) = self.queues.get_mut(&queue) else { return false };
        if !queue.lags || queue.ready_memory() <= bytes {
            return false;
        }
        let since = *queue.lags_since.get_or_insert(now);
        now < since.after_ms(LAG_MS_MAX)
    }

    /// Records that storage has read more messages of these queues or lanes.
    pub fn loaded(&mut self, queues: &[QueueId]) {
        for id in queues.iter().map(|id| id.queue()) {
            self.enqueue_schedule_for_dispatch(id);
            if let Some(queue) = self.queues.get_mut(&id)
                && std::mem::take(&mut queue.parked)
            {
                self.enqueue_for_dispatch(id);
            }
        }
    }

    /// Deletes a queue with its messages and subscriptions; returns how many messages were ready. (AMQP-30)
    ///
    /// # Errors
    /// [`Refusal::PreconditionFailed`] if `when` does not hold. A queue that does not exist has 0 messages.
    pub fn delete(&mut self, queue: QueueId, when: DeleteWhen, ports: &mut impl Ports) -> Result<u64, Refusal> {
        let Some(found) = self.queues.get(&queue) else { return Ok(0) };
        if when.empty && found.ready + found.delayed_retries.messages > 0 {
            return Err(Refusal::PreconditionFailed(format!("{} not empty", found.shown())));
        }
        if when.unused && !found.subscriptions.is_empty() {
            return Err(Refusal::PreconditionFailed(format!("{} in use", found.shown())));
        }
        let ready = found.ready;
        self.remove(queue, ports);
        Ok(ready)
    }

    /// The first time at which [`Shard::timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.timers.first()
    }

    /// Deletes queues that were unused for too long and enqueues for dispatch those whose front message expires, some
    /// at a time. Dispatch must follow.
    pub fn timeout(&mut self, now: Time, ports: &mut impl Ports) {
        for _ in 0..ROUND_MESSAGES_MAX {
            let Some(id) = self.timers.due(now) else { return };
            let Some(queue) = self.queues.get_mut(&id) else {
                self.enqueue_schedule_for_dispatch(id);
                continue;
            };
            if queue.unused_until().is_some_and(|end| end <= now) {
                self.remove(id, ports);
            } else {
                queue.front_expires = None;
                queue.resume_retries(now);
                queue.set_timer(&mut self.timers);
                self.enqueue_for_dispatch(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: QueueId, ports: &mut impl Ports) {
        let mut queue = self.queues.remove(&id).expect("only a queue that is there is removed");
        give_back(&mut self.queues);
        self.timers.move_to(id, &mut queue.timer, None);
        // AMQP-33
        for subscription in queue.subscriptions.values() {
            self.subscriptions.remove(subscription);
            ports.cancelled(*subscription);
        }
        if queue.settings.durable {
            ports.put(queue_tombstone(id));
        }
        ports.queue_gone(id, queue.settings.priority_max);
        self.draining.remove(&id);
        self.unconfirmed_dead_letters.remove(&id);
        for waiting in queue.awaited_by {
            self.try_again(waiting, None);
        }
    }

    /// Enqueues a queue for dispatch if dispatch would find something to do.
    pub(super) fn enqueue_for_dispatch(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        if !queue.parked && queue.has_work() {
            self.push_runnable(id);
        }
    }

    pub(super) fn push_runnable(&mut self, id: QueueId) {
        let queue = self.queues.get_mut(&id).expect("only a queue that exists is runnable");
        if !std::mem::replace(&mut queue.is_runnable, true) {
            self.runnable.push_back(id);
        }
    }
}

impl Queue {
    fn new(id: QueueId, settings: Arc<QueueSettings>, now: Time) -> Self {
        Self {
            id,
            lanes: Lanes::new(),
            pending_dead_letters: PendingDeadLetters::default(),
            blocked_on_storage: false,
            awaited_by: Vec::new(),
            delayed_retries: DelayedRetries::default(),
            ready: 0,
            ready_bytes: 0,
            lags: false,
            lags_since: None,
            limit: LengthLimit::of(&settings),
            unacked: 0,
            unacked_bytes: 0,
            turns: Turns::default(),
            subscriptions: BTreeMap::new(),
            subscribed: 0,
            exclusive: false,
            active: None,
            parked: false,
            is_runnable: false,
            expiring: settings.message_ttl_ms.is_some(),
            front_expires: None,
            last_used: now,
            timer: None,
            counters: QueueCounters::default(),
            settings,
        }
    }

    /// The queue as refusals name it.
    pub(super) fn shown(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.settings.name, self.settings.vhost)
    }

    /// A subscription may be served: at once, unless there is a single active consumer. (AMQP-50)
    fn activate(&mut self, turn: Turn) {
        if self.settings.single_active {
            if self.active.is_some() {
                return;
            }
            self.active = Some(turn.subscription);
        }
        self.turns.push(turn);
    }

    /// When the queue expires if it stays unused, if it has an expiry. (AMQP-64)
    fn unused_until(&self) -> Option<Time> {
        let unused_ms_max = self.settings.unused_ms_max.filter(|_| self.subscriptions.is_empty())?;
        Some(self.last_used.after_ms(unused_ms_max))
    }

    pub(super) fn set_timer(&mut self, timers: &mut Timers) {
        let wanted =
            [self.front_expires, self.unused_until(), self.delayed_retries.first()].into_iter().flatten().min();
        timers.move_to(self.id, &mut self.timer, wanted);
    }
}
