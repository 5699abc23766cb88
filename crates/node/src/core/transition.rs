//! One hold of the shard's lock: the shard's ports to storage and to mailboxes.

use std::{fmt, ops::Range, sync::Arc};

use ferrymq_broker::{
    Catalog, CatalogEvent, Content, Dead, DelayedMessage, Delivery, History, Next, Ports, RoutedMessage, SequenceRange,
    Shard, Taken,
};
use ferrymq_model::{
    CatalogEntry, Facts, MessageKey, MessageRef, Name, OwnedMessage, Position, QueueId, Sequence, Settled,
    SubscriptionId, Time,
};
use ferrymq_storage::{Backpressure, Handle, Store};

use crate::{
    connection::{
        consumer_timeouts::ConsumerTimeouts,
        mailbox::{Get, Subscription},
        peer::{Connection, subscription_id, subscription_parts},
    },
    core::{
        fitting::{Written, too_long},
        node::Node,
        pull_timers::PullTimers,
        touched::Touched,
    },
    management::trace::{Firehose, TraceMessage, TracePoint},
    routing::{dead_letters, schedules},
    session::table::Sessions,
};

/// What is under the shard's lock.
#[derive(Debug)]
pub struct Core {
    pub shard: Shard,
    /// `None` after the node has stopped.
    pub store: Option<Store>,
    /// By the slot in their ids.
    pub connections: Vec<Option<Arc<Connection>>>,
    /// Slots that had a connection and have none now; the last freed one is at the end.
    pub free_slots: Vec<usize>,
    /// When the host's timer was last set.
    pub timer: Option<Time>,
    pub consumer_timeouts: ConsumerTimeouts,
    pub pull_timers: PullTimers,
    /// The client sessions that have names.
    pub sessions: Sessions,
    /// When the node checks the ledger of memory again, if it must.
    pub ledger_due: Option<Time>,
    /// When the first login that waits because of failures is to be checked.
    pub logins_due: Option<Time>,
    /// When this position is durable, the current catalog is durable.
    pub catalog_position: Position,
}

impl Core {
    /// Splits into the shard and its ports; `None` after the node has stopped.
    pub fn begin<'a>(
        &'a mut self,
        node: &'a Node,
        catalog: CatalogLock<'a>,
        now: Time,
        deferred: &'a mut Deferred,
    ) -> Option<(&'a mut Shard, Transition<'a>)> {
        let Self { shard, store, connections, consumer_timeouts, pull_timers, catalog_position, .. } = self;
        let store = store.as_mut()?;
        let transition = Transition {
            store,
            connections,
            catalog,
            consumer_timeouts,
            pull_timers,
            catalog_position,
            catalog_changed: false,
            node,
            firehose: node.firehose.is_on().then_some(&node.firehose),
            deferred,
            now,
            units: 0,
            getting: None,
            cancelled: Vec::new(),
            found: None,
        };
        Some((shard, transition))
    }

    /// How many connections there are.
    pub fn open_connections(&self) -> usize {
        self.connections.len() - self.free_slots.len() - self.sessions.kept()
    }

    /// A slot for another connection.
    pub fn take_slot(&mut self) -> usize {
        self.free_slots.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        })
    }

    /// The connection in this slot has ended.
    pub fn free_slot(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.free_slots.push(slot);
    }

    /// When the host's timer should fire, if that has changed.
    pub fn move_timer(&mut self) -> Option<Option<Time>> {
        let (consumers, pulls) = (self.consumer_timeouts.due(), self.pull_timers.first());
        let deadlines = [self.shard.deadline(), consumers, pulls, self.sessions.first_end(), self.ledger_due];
        let due = deadlines.into_iter().chain([self.logins_due]).flatten().min();
        (std::mem::replace(&mut self.timer, due) != due).then_some(due)
    }
}

/// What is left to do after the shard's lock is released.
#[derive(Debug, Default)]
pub struct Deferred {
    /// Connections whose mailboxes have something to send.
    pub touched: Touched,
    /// Queues that were deleted: the catalog has to remove them.
    pub gone: Vec<QueueId>,
    /// Queues that the catalog has removed: gets that wait for them find nothing.
    pub forgotten: Vec<QueueId>,
    /// If a deletion has left bindings, [`Catalog::gone`] before and after it: the catalog must remove them.
    pub unbinding: Option<Range<u64>>,
    /// Whether there is more to deliver.
    pub more: bool,
    /// Changes of the catalog of which others are told, each with the user who has asked for it.
    pub events: Vec<(Option<Name>, Vec<CatalogEvent>)>,
    /// Subscriptions that the server has ended.
    pub ended: Vec<(Arc<Connection>, Subscription)>,
    /// The trace messages of this transition.
    pub trace_messages: Vec<TraceMessage>,
    /// Messages that were taken for gets whose channels have ended meanwhile.
    pub unclaimed: Vec<SequenceRange>,
}

/// The catalog, which is locked before the shard: a dead letter is routed in the transition that makes it.
#[derive(Debug)]
pub enum CatalogLock<'a> {
    Read(&'a Catalog),
    Write(&'a mut Catalog),
}

impl CatalogLock<'_> {
    fn get(&self) -> &Catalog {
        match self {
            Self::Read(catalog) => catalog,
            Self::Write(catalog) => catalog,
        }
    }
}

/// The ports of one transition.
pub struct Transition<'a> {
    store: &'a mut Store,
    connections: &'a [Option<Arc<Connection>>],
    catalog: CatalogLock<'a>,
    consumer_timeouts: &'a mut ConsumerTimeouts,
    pull_timers: &'a mut PullTimers,
    catalog_position: &'a mut Position,
    /// Whether the unit that is being written has changes of the catalog.
    catalog_changed: bool,
    /// Work that needs no lock.
    pub node: &'a Node,
    /// If something is traced.
    firehose: Option<&'a Firehose>,
    pub deferred: &'a mut Deferred,
    pub now: Time,
    /// How many units of the journal were begun and not ended.
    units: u32,
    getting: Option<(Arc<Connection>, Get)>,
    /// Subscriptions that have ended and were not told yet.
    cancelled: Vec<SubscriptionId>,
    /// The message that was found last; the shard's handle for it is its sequence.
    found: Option<(Sequence, Handle)>,
}

impl fmt::Debug for Transition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transition").field("deferred", &self.deferred).finish_non_exhaustive()
    }
}

impl Transition<'_> {
    /// Tells the subscriptions that ended in this transition, after everything else that it sends to their
    /// connections: a client that deletes a queue expects the answer first.
    pub fn report_cancelled(&mut self) {
        for subscription in std::mem::take(&mut self.cancelled) {
            let (slot, number) = subscription_parts(subscription);
            let Some(Some(connection)) = self.connections.get(slot) else { continue };
            let mut mailbox = connection.mailbox();
            if let Some(ended) = mailbox.unsubscribe(number) {
                self.pull_timers.set(subscription, ended.pull_ends, None);
                if mailbox.is_parked {
                    mailbox.state.cancelled.push((ended.channel, ended.tag.clone()));
                } else {
                    mailbox.effects.cancelled(ended.channel, ended.tag.clone());
                }
                drop(mailbox);
                self.deferred.ended.push((connection.clone(), ended));
                self.deferred.touch(connection);
            }
        }
    }

    /// The position that makes durable what was decided so far and what somebody waits for.
    pub fn flushed_position(&self) -> Position {
        self.store.request_flush();
        self.store.position()
    }

    /// The time of this transition.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Receives what storage has read. Returns for which queues.
    pub fn install_loaded(&mut self) -> Vec<QueueId> {
        self.store.install_loaded()
    }

    /// Changes of the catalog go to the journal, in a unit.
    pub fn write_changes(&mut self, changes: &[CatalogEntry]) {
        debug_assert!(self.units > 0, "changes of the catalog hold together");
        for entry in changes {
            self.store.put(entry);
            self.catalog_changed = true;
        }
    }

    /// The position that makes the current catalog durable. Somebody waits for it.
    pub fn catalog_position(&self) -> Position {
        if *self.catalog_position > self.store.durable_position() {
            self.store.request_flush();
        }
        *self.catalog_position
    }

    /// The catalog, for a change.
    ///
    /// # Panics
    /// If it is locked only for reading.
    pub fn catalog(&mut self) -> &mut Catalog {
        match &mut self.catalog {
            CatalogLock::Write(catalog) => catalog,
            CatalogLock::Read(_) => unreachable!("whoever changes the catalog has locked it for that"),
        }
    }

    /// Removes from the catalog the queues that this transition has deleted.
    pub fn forget_gone(&mut self) {
        for queue in std::mem::take(&mut self.deferred.gone) {
            self.catalog().forget_queue(queue);
            self.deferred.forgotten.push(queue);
        }
    }

    /// See [`Catalog::gone`].
    pub fn gone(&mut self) -> u64 {
        self.catalog().gone()
    }

    /// Whether bindings are left that this must remove.
    pub fn is_unbinding(&self) -> bool {
        self.deferred.unbinding.is_some()
    }

    /// Removes bindings of the queues and exchanges that were deleted since `before`, and of those that this already
    /// had to remove: one portion under the catalog's lock. Other clients remove the bindings of their own later
    /// deletions.
    pub fn unbind_some(&mut self, before: u64, changes: &mut Vec<CatalogEntry>) {
        let after = self.catalog().gone();
        let own = match self.deferred.unbinding.take() {
            Some(own) if after == before => own,
            Some(own) => own.start..after,
            None => before..after,
        };
        if self.catalog().is_unbinding(&own) {
            self.catalog().unbind_some(changes);
            let is_left = self.catalog().is_unbinding(&own);
            self.deferred.unbinding = is_left.then_some(own);
        }
    }

    /// The message that `next` found just before.
    pub fn stored(&self, handle: u64) -> MessageRef<'_> {
        let (sequence, found) = self.found.expect("a stored message was found before it is delivered");
        debug_assert_eq!(sequence, handle, "the message found last is delivered first");
        self.store.message(found)
    }

    /// Traces a delivery.
    fn trace_delivered(&mut self, connection: &Connection, channel: u16, delivery: &Delivery<'_>) {
        let (Some(firehose), Some(identity)) = (self.firehose, connection.identity.get()) else { return };
        let Some(queue) = self.catalog.get().queue_by_id(delivery.from.queue.queue()) else { return };
        let message = match delivery.content {
            Content::Passing(message) => *message,
            Content::Stored(handle) => self.stored(handle),
        };
        let point = TracePoint::Delivered(&queue.settings.name, delivery.redelivered);
        let trace_message = firehose.trace_message(identity, channel, &message, &[], &point, &self.node.dialects);
        self.deferred.trace_messages.extend(trace_message);
    }

    /// The connection's mailbox has something to send.
    pub fn touch(&mut self, connection: &Arc<Connection>) {
        self.deferred.touch(connection);
    }

    /// The consumer timeout of a subscription.
    pub fn watch_for(&mut self, timeout_ms: u64) {
        self.consumer_timeouts.watch_for(timeout_ms, self.now);
    }

    /// What is left of a subscription's pull lapses at this time, or `end` is `None`: it has no timer any more.
    pub fn set_pull_timer(&mut self, connection: &Connection, number: u32, end: Option<Time>) {
        let mut mailbox = connection.mailbox();
        let Some(subscription) = mailbox.state.subscriptions.get_mut(&number) else { return };
        let before = std::mem::replace(&mut subscription.pull_ends, end);
        self.pull_timers.set(subscription_id(connection.id(), number), before, end);
    }

    /// A subscription with such a timer has ended.
    pub fn forget_pull_timer(&mut self, connection: &Connection, number: u32, end: Option<Time>) {
        self.pull_timers.set(subscription_id(connection.id(), number), end, None);
    }

    /// What the shard finds for a get goes to this channel.
    pub fn getting(&mut self, connection: &Arc<Connection>, get: Get) {
        self.getting = Some((connection.clone(), get));
    }
}

impl Deferred {
    /// Whether there is only a little to send, to which the rest of an input may add.
    pub fn can_wait(&self) -> bool {
        let Self { touched, gone, forgotten, unbinding, more, events, trace_messages, ended, unclaimed } = self;
        let nothing_else = gone.is_empty()
            && forgotten.is_empty()
            && unbinding.is_none()
            && events.is_empty()
            && trace_messages.is_empty()
            && ended.is_empty()
            && unclaimed.is_empty();
        !more && nothing_else && !touched.iter().any(|connection| connection.worth_a_write())
    }

    /// The connection's mailbox has something to send.
    pub fn touch(&mut self, connection: &Arc<Connection>) {
        self.touched.add(connection);
    }
}

impl Ports for Transition<'_> {
    fn enqueue(&mut self, message: &MessageRef<'_>, facts: &Facts, durable: &[MessageKey], transient: &[MessageKey]) {
        self.store.enqueue(message, facts, durable, transient);
    }

    fn next(&mut self, queue: QueueId, from: Sequence) -> Next {
        match self.store.next(queue, from) {
            ferrymq_storage::Next::Message { sequence, handle, facts } => {
                self.found = Some((sequence, handle));
                Next::Message { sequence, handle: sequence, facts }
            }
            ferrymq_storage::Next::Pending => Next::Pending,
            ferrymq_storage::Next::End => Next::End,
        }
    }

    fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled) {
        self.store.settle(queue, first, last, why);
    }

    fn delivered_up_to(&mut self, queue: QueueId, sequence: Sequence) {
        self.store.delivered_up_to(queue, sequence);
    }

    fn attempts(&mut self, queue: QueueId, first: Sequence, last: Sequence, attempts: u32, due: Option<Time>) {
        for sequence in first..=last {
            self.store.attempts(queue, sequence, attempts, due.unwrap_or_default());
        }
    }

    fn accepts_dead_letters(&mut self) -> bool {
        self.store.backpressure() == Backpressure::Open
    }

    fn put(&mut self, entry: CatalogEntry) {
        self.write_changes(&[entry]);
    }

    fn deliver(&mut self, to: SubscriptionId, delivery: &Delivery<'_>) -> Taken {
        let (slot, number) = subscription_parts(to);
        let Some(Some(connection)) = self.connections.get(slot) else { return Taken::NoCredit };
        let stored;
        let message = match delivery.content {
            Content::Passing(message) => message,
            Content::Stored(handle) => {
                stored = self.stored(handle);
                &stored
            }
        };
        let (taken, written) = if message.needed_bytes() <= connection.properties_bytes_max() {
            let taken = connection.mailbox().offer(number, delivery, message, self.now);
            (taken, if taken == Taken::Yes { Written::Message } else { Written::Nothing })
        } else {
            self.offer_long(connection, number, delivery, message)
        };
        if written == Written::Nothing {
            return taken;
        }
        if self.firehose.is_some() && written == Written::Message {
            let channel = connection.mailbox().state.subscriptions.get(&number).map_or(0, |one| one.channel);
            self.trace_delivered(connection, channel, delivery);
        }
        self.deferred.touch(connection);
        taken
    }

    fn fits(&mut self, delivery: &Delivery<'_>) -> bool {
        let Some((connection, get)) = &self.getting else { return true };
        if !connection.mailbox().still_wants(get) {
            return false;
        }
        let message = match delivery.content {
            Content::Passing(message) => *message,
            Content::Stored(handle) => self.stored(handle),
        };
        message.needed_bytes() <= connection.properties_bytes_max()
    }

    fn got(&mut self, delivery: &Delivery<'_>, remaining: u64) {
        let (connection, get) = self.getting.clone().expect("only a get gives a message that was asked for");
        let message = match delivery.content {
            Content::Passing(message) => *message,
            Content::Stored(handle) => self.stored(handle),
        };
        let fits = message.needed_bytes() <= connection.properties_bytes_max();
        let MessageKey { queue, sequence } = delivery.from;
        let body_bytes = delivery.facts.body_bytes.into();
        let unclaimed = SequenceRange { queue, first: sequence, last: sequence, body_bytes };
        let mut mailbox = connection.mailbox();
        if !mailbox.still_wants(&get) {
            drop(mailbox);
            // What is settled when it is sent is gone, like every such message on its way to a channel that ends.
            if !delivery.settled {
                self.deferred.unclaimed.push(unclaimed);
            }
            return;
        }
        if fits {
            mailbox.got(get, delivery, remaining, &message, self.now);
            drop(mailbox);
            if self.firehose.is_some() {
                self.trace_delivered(&connection, get.origin.channel, delivery);
            }
        } else {
            let (refusal, goes_on) = (too_long(&message, &connection), mailbox.goes_on(get.origin.channel));
            if !goes_on {
                mailbox.keep_unsent(get.origin.channel, None, delivery, self.now);
            }
            mailbox.refuse_for_session(get.origin, &refusal);
            drop(mailbox);
            if goes_on {
                self.deferred.unclaimed.push(unclaimed);
            }
            connection.wake();
        }
        self.deferred.touch(&connection);
    }

    fn drained(&mut self, subscription: SubscriptionId) {
        let (slot, number) = subscription_parts(subscription);
        let Some(Some(connection)) = self.connections.get(slot) else { return };
        let lapses = connection.mailbox().drained(number);
        if lapses {
            self.deferred.touch(connection);
        }
    }

    fn cancelled(&mut self, subscription: SubscriptionId) {
        self.cancelled.push(subscription);
    }

    fn queue_gone(&mut self, queue: QueueId, priority_max: u8) {
        for lane in 0..=priority_max {
            self.store.delete_queue(queue.lane(lane));
        }
        self.deferred.gone.push(queue);
    }

    fn dead_letter(&mut self, dead: &Dead<'_>) -> Option<RoutedMessage> {
        let message = match dead.content {
            Content::Passing(message) => *message,
            Content::Stored(handle) => self.stored(handle),
        };
        let keeper = |history: &History, kept| self.node.keep_stored(history, kept, self.store);
        dead_letters::dead_letter(self.catalog.get(), &self.node.dialects, dead, &message, self.node.wall(), &keeper)
    }

    fn create_lane(&mut self, lane: QueueId, durable: bool) {
        self.store.create_queue(lane, durable);
    }

    fn delay_ms(&self, message: &MessageRef<'_>) -> u64 {
        self.node.dialects.delay_ms(message).unwrap_or(0)
    }

    fn copy(&mut self, handle: u64) -> (OwnedMessage, bool) {
        let message = self.stored(handle);
        (message.owned(), self.node.dialects.is_persistent(&message))
    }

    fn release_delayed(&mut self, delayed: &DelayedMessage<'_>) -> Option<RoutedMessage> {
        let message = self.stored(delayed.handle);
        let keeper = |history: &History, kept| self.node.keep_stored(history, kept, self.store);
        schedules::release_delayed(self.catalog.get(), &self.node.dialects, delayed, &message, &keeper)
    }

    fn begin_unit(&mut self) {
        if self.units == 0 {
            self.store.begin_unit();
        }
        self.units += 1;
    }

    fn end_unit(&mut self) {
        self.units -= 1;
        if self.units == 0 {
            self.store.end_unit();
            if std::mem::take(&mut self.catalog_changed) {
                *self.catalog_position = self.store.position();
            }
        }
    }
}
