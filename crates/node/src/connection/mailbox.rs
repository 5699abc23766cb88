//! The effects that wait for a connection, and the accounts of its deliveries.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_broker::{Delivery as Offer, SequenceRange, Taken};
use ferrymq_model::{
    Answer, ConnectionId, Credit, CreditOf, Deliveries, Event, Limits, MessageRef, Name, OnRefusal, Origin, Place,
    Position, QueueId, Refusal, Reply, SetCredit, Settlement, Subscribe, SubscriptionId, Time,
};
use hashbrown::HashMap;

use crate::{
    connection::{
        confirms::ChannelConfirms,
        effects::{DeliveryHeader, Effects},
        peer::subscription_id,
        transaction::{Settling, Transaction},
        unacked::{Delivery, Unacked},
    },
    login::authentication::Principal,
    routing::replies::ReplyAddress,
};

/// The effects that wait for a connection, and its deliveries. Under the connection's lock.
#[derive(Debug)]
pub struct Mailbox {
    pub effects: Effects,
    pub draining: bool,
    /// How many bytes wait for the socket, as of the last question. The thread that has written asks under this
    /// lock, so that of two writes the later answer counts: an old large number would stop deliveries for good.
    pub backlog: usize,
    /// How many bytes wait until the client opens a window, as of that question.
    pub stopped: usize,
    backlog_max: usize,
    pub unacked_max: usize,
    /// The consumer timeout of get; 0 means none.
    timeout_ms: u64,
    pub events: Vec<Event>,
    /// Answers for the session that wait for the journal, with the position up to which it must be durable. The session
    /// gets them in this order.
    pub held_answers: VecDeque<(Position, Event)>,
    /// The result of the login, after the check.
    pub login: Option<Box<Result<Principal, Refusal>>>,
    /// A table has room for four at once, so that they stand elsewhere.
    pub channels: HashMap<u16, Box<Channel>>,
    pub subscriptions: HashMap<u32, Subscription>,
    subscriptions_made: u32,
    channels_opened: u32,
    /// Channels that have published since the last look at confirms.
    pub unconfirmed: Vec<u16>,
    /// Channels with publishes that wait for the journal, without those in `unconfirmed`.
    pub awaiting_journal: Vec<u16>,
    /// The durable position at the last look at them.
    pub looked_at: Position,
    /// Subscriptions that were refused a delivery because they had no credit.
    pub waiting: Vec<u32>,
    /// Whether one of them was refused because of the connection's account.
    pub full: bool,
    /// Whether the connection is in the list of those that wait for the journal.
    pub awaiting: bool,
    /// Whether the journal has come far enough for something in here, and the owner is to send it.
    pub overdue: bool,
    /// Whether the connection has ended, and its owner waits until everything has left.
    pub ending: bool,
}

/// The deliveries of a channel, and its settings.
#[derive(Debug)]
pub struct Channel {
    /// Its number among all channels that this connection has opened.
    pub serial: u32,
    /// What a refused request does to it.
    pub on_refusal: OnRefusal,
    /// Ended by a refusal: requests are ignored until the session closes it.
    pub refused: bool,
    /// The meaning of an empty queue name.
    pub last_queue: Option<Name>,
    /// The credit of each later subscription that names none.
    pub credit: Credit,
    /// The maximum number of unsettled deliveries over all subscriptions; 0 means none.
    pub window: u32,
    /// Whether deliveries flow.
    pub active: bool,
    pub unacked: Unacked,
    /// Unsettled deliveries to subscriptions, which count for prefetch; `unacked` has those of get, too.
    pub delivered: u32,
    pub confirms: Option<ChannelConfirms>,
    /// What waits for a commit, if the channel is transactional.
    pub transaction: Option<Transaction>,
    /// The reply address of this channel, if it has asked for one.
    pub reply_address: Option<ReplyAddress>,
    /// Its subscriptions by their tags.
    tags: BTreeMap<Name, u32>,
    /// Whether it is in the list of those with publishes to confirm.
    pub unconfirmed: bool,
    /// Whether the log has said that the channel is at its limit of unsettled deliveries.
    limit_was_logged: bool,
}

impl Channel {
    fn new(serial: u32, on_refusal: OnRefusal) -> Self {
        Self {
            serial,
            on_refusal,
            refused: false,
            last_queue: None,
            credit: Credit::Window(0),
            window: 0,
            active: true,
            unacked: Unacked::default(),
            delivered: 0,
            confirms: None,
            transaction: None,
            reply_address: None,
            tags: BTreeMap::new(),
            unconfirmed: false,
            limit_was_logged: false,
        }
    }
}

/// A `get`.
#[derive(Clone, Copy, Debug)]
pub struct Get {
    pub origin: Origin,
    pub queue: QueueId,
    pub no_ack: bool,
    /// The serial number of its channel. A channel that is opened later with the same number did not ask.
    pub channel_serial: u32,
}

/// A subscription's account.
#[derive(Debug)]
pub struct Subscription {
    pub tag: Name,
    pub queue: Name,
    pub channel: u16,
    pub no_ack: bool,
    /// How many deliveries it may get. Of a grant, what is left.
    pub credit: Credit,
    /// The consumer timeout; 0 means none.
    pub timeout_ms: u64,
    pub unacked: u32,
    pub waiting: bool,
}

/// What a consumer gets with a delivery.
fn delivery_header(delivery: &Offer<'_>, delivery_tag: u64) -> DeliveryHeader {
    let attempts = delivery.shows_attempts.then_some(delivery.attempts);
    DeliveryHeader { delivery_tag, redelivered: delivery.redelivered, attempts }
}

impl Mailbox {
    /// An empty one.
    pub fn new(limits: &Limits) -> Self {
        Self {
            effects: Effects::default(),
            draining: false,
            backlog: 0,
            stopped: 0,
            backlog_max: limits.outbox_bytes_max,
            unacked_max: limits.unacked_max as usize,
            timeout_ms: limits.consumer_timeout_ms,
            events: Vec::new(),
            held_answers: VecDeque::new(),
            login: None,
            channels: HashMap::new(),
            subscriptions: HashMap::new(),
            subscriptions_made: 0,
            channels_opened: 0,
            unconfirmed: Vec::new(),
            awaiting_journal: Vec::new(),
            looked_at: Position(0),
            waiting: Vec::new(),
            full: false,
            awaiting: false,
            overdue: false,
            ending: false,
        }
    }

    /// Opens a channel.
    pub fn open_channel(&mut self, number: u16, on_refusal: OnRefusal) {
        self.channels_opened += 1;
        self.channels.insert(number, Box::new(Channel::new(self.channels_opened, on_refusal)));
    }

    /// Whether the channel of a get is still open.
    pub fn still_wants(&self, get: &Get) -> bool {
        let channel = self.channels.get(&get.origin.channel);
        channel.is_some_and(|channel| channel.serial == get.channel_serial && !channel.refused)
    }

    /// Whether a refusal leaves the channel open.
    pub fn goes_on(&self, channel: u16) -> bool {
        self.channels.get(&channel).is_some_and(|channel| channel.on_refusal == OnRefusal::GoOn)
    }

    /// Answers a get that found nothing, if it is still wanted. Returns whether the session gets the answer, so that the
    /// owner must be woken.
    #[must_use]
    pub fn got_nothing(&mut self, get: &Get) -> bool {
        let wanted = self.still_wants(get);
        if wanted {
            self.reply(get.origin, None, Reply::GetEmpty);
        }
        wanted && get.origin.answer == Answer::Session
    }

    /// Adds a subscription and returns its number in the connection, which is not used again.
    pub fn subscribe(&mut self, channel: u16, wanted: &Subscribe, timeout_ms: u64) -> u32 {
        let Subscribe { tag, queue, no_ack, .. } = wanted.clone();
        let number = self.subscriptions_made;
        self.subscriptions_made += 1;
        let found = self.channels.get_mut(&channel);
        let usual = found.map_or(Credit::Window(0), |found| {
            found.tags.insert(tag.clone(), number);
            found.credit
        });
        let credit = wanted.credit.unwrap_or(usual);
        let subscription = Subscription { tag, queue, channel, no_ack, credit, timeout_ms, unacked: 0, waiting: false };
        self.subscriptions.insert(number, subscription);
        number
    }

    /// The subscription `tag` of `channel`.
    pub fn subscription(&self, channel: u16, tag: &Name) -> Option<u32> {
        self.channels.get(&channel)?.tags.get(tag).copied()
    }

    /// Removes a subscription.
    pub fn unsubscribe(&mut self, number: u32) -> Option<Subscription> {
        let ended = self.subscriptions.remove(&number)?;
        if let Some(channel) = self.channels.get_mut(&ended.channel) {
            channel.tags.remove(&ended.tag);
        }
        Some(ended)
    }

    /// Removes a channel with its subscriptions, in the order in which they were made.
    pub fn remove_channel(&mut self, number: u16) -> Option<(Channel, Vec<(u32, Subscription)>)> {
        let mut channel = self.channels.remove(&number)?;
        let mut numbers: Vec<u32> = std::mem::take(&mut channel.tags).into_values().collect();
        numbers.sort_unstable();
        let ended = numbers.into_iter().filter_map(|number| Some((number, self.subscriptions.remove(&number)?)));
        let ended = ended.collect();
        Some((*channel, ended))
    }

    /// Gives a message to a subscription, if its own credit, its channel's and its connection's allow it: takes from
    /// all three or from none. If it is refused, the subscription waits, and `take_waiting` will return it.
    pub fn offer(&mut self, number: u32, delivery: &Offer<'_>, message: &MessageRef<'_>, now: Time) -> Taken {
        let Some(subscription) = self.subscriptions.get_mut(&number) else { return Taken::NoCredit };
        let Some(channel) = self.channels.get_mut(&subscription.channel) else { return Taken::NoCredit };
        let full = self.backlog + self.stopped + self.effects.len_bytes() >= self.backlog_max;
        let has_credit = channel.has_credit(subscription, self.unacked_max);
        if full || !has_credit {
            self.full |= full;
            if channel.unacked.len() >= self.unacked_max && !std::mem::replace(&mut channel.limit_was_logged, true) {
                let (number, max) = (subscription.channel, self.unacked_max);
                tracing::warn!(
                    "channel {number} holds unacked_max ({max}) deliveries: it gets no more until some are settled"
                );
            }
            if !subscription.waiting {
                subscription.waiting = true;
                self.waiting.push(number);
            }
            return if has_credit { Taken::Lags } else { Taken::NoCredit };
        }
        if let Credit::Grant(left) = &mut subscription.credit {
            *left -= 1;
        }
        let delivery_tag = if subscription.no_ack {
            channel.unacked.skip()
        } else {
            subscription.unacked += 1;
            channel.delivered += 1;
            let (place, body_bytes) = (delivery.from, delivery.facts.body_bytes);
            channel.unacked.push(Delivery { place, subscription: Some(number), body_bytes }, now)
        };
        self.effects.deliver(subscription.channel, &subscription.tag, delivery_header(delivery, delivery_tag), message);
        Taken::Yes
    }

    /// Refuses something outside of a request of the session, which gets the event with the next look.
    pub fn refuse_for_session(&mut self, origin: Origin, refusal: &Refusal) {
        let mut events = std::mem::take(&mut self.events);
        self.refuse(origin, refusal, &mut events);
        self.events = events;
    }

    /// Delivers a message for a get; these need no credit.
    pub fn got(&mut self, get: Get, delivery: &Offer<'_>, remaining: u64, message: &MessageRef<'_>, now: Time) {
        let Some(channel) = self.channels.get_mut(&get.origin.channel) else { return };
        let delivery_tag = if get.no_ack {
            channel.unacked.skip()
        } else {
            let (place, body_bytes) = (delivery.from, delivery.facts.body_bytes);
            channel.unacked.push(Delivery { place, subscription: None, body_bytes }, now)
        };
        self.effects.got(get.origin.channel, delivery_header(delivery, delivery_tag), remaining, message);
    }

    /// Sets credit. False: the channel or the subscription is unknown.
    pub fn set_credit(&mut self, channel: u16, set: &SetCredit) -> bool {
        let Some(found) = self.channels.get_mut(&channel) else { return false };
        match (&set.of, set.credit) {
            (CreditOf::Channel, Credit::Window(window)) => found.window = window,
            (CreditOf::Channel, Credit::Grant(_)) => return false,
            (CreditOf::LaterSubscriptions, credit) => found.credit = credit,
            (CreditOf::Subscription(tag), credit) => {
                let number = found.tags.get(tag);
                let Some(subscription) = number.and_then(|number| self.subscriptions.get_mut(number)) else {
                    return false;
                };
                subscription.credit = credit;
            }
        }
        true
    }

    /// Removes deliveries from the channel's account, and their cost from their subscriptions'. False: one of them is
    /// not unsettled.
    pub fn settle(&mut self, channel: u16, which: Deliveries, taken: &mut Vec<SequenceRange>) -> bool {
        let Self { channels, subscriptions, .. } = self;
        let Some(channel) = channels.get_mut(&channel) else { return false };
        let delivered = &mut channel.delivered;
        channel.unacked.settle(which, |_, delivery| {
            add_to(taken, &delivery);
            give_back(delivered, subscriptions, &delivery);
        })
    }

    /// Removes deliveries from the channel's list until its transaction is committed. False: one of them is not
    /// unsettled.
    pub fn set_aside(&mut self, channel: u16, which: Deliveries, settlement: Settlement) -> bool {
        let Some(channel) = self.channels.get_mut(&channel) else { return false };
        let Some(transaction) = &mut channel.transaction else { return false };
        let mut deliveries = Vec::new();
        let known = channel.unacked.settle(which, |tag, delivery| deliveries.push((tag, delivery)));
        if !deliveries.is_empty() {
            transaction.settlements.push(Settling { settlement, deliveries });
        }
        known
    }

    /// The settlements of a transaction are committed: returns their credit, and what is to be decided.
    pub fn committed(&mut self, channel: u16, settlements: Vec<Settling>) -> Vec<(Settlement, Vec<SequenceRange>)> {
        let Self { channels, subscriptions, .. } = self;
        let Some(channel) = channels.get_mut(&channel) else { return Vec::new() };
        let mut decided = Vec::with_capacity(settlements.len());
        for Settling { settlement, deliveries } in settlements {
            let mut ranges = Vec::new();
            for (_, delivery) in &deliveries {
                add_to(&mut ranges, delivery);
                give_back(&mut channel.delivered, subscriptions, delivery);
            }
            decided.push((settlement, ranges));
        }
        decided
    }

    /// The transaction of a channel is rolled back: its settled deliveries are unsettled again. Returns the bytes
    /// of its publishes.
    pub fn roll_back(&mut self, channel: u16) -> usize {
        let Some(channel) = self.channels.get_mut(&channel) else { return 0 };
        let Some(transaction) = channel.transaction.as_mut().map(std::mem::take) else { return 0 };
        for (tag, delivery) in transaction.settlements.into_iter().flat_map(|settling| settling.deliveries) {
            channel.unacked.put_back(tag, delivery);
        }
        transaction.bytes
    }

    /// Refuses the channels that hold a delivery for longer than the timeout. Returns whether there are any. As in
    /// RabbitMQ, only the oldest delivery of a channel counts.
    pub fn end_overdue_channels(&mut self, now: Time) -> bool {
        let mut over = Vec::new();
        for (number, channel) in &self.channels {
            let Some((since, delivery)) = channel.unacked.oldest() else { continue };
            let subscription = delivery.subscription.and_then(|number| self.subscriptions.get(&number));
            let timeout_ms = subscription.map_or(self.timeout_ms, |subscription| subscription.timeout_ms);
            if timeout_ms > 0 && !channel.refused && now.since_ms(since) > timeout_ms {
                over.push((*number, timeout_ms));
            }
        }
        // The order of the table is another one in each process.
        over.sort_unstable();
        for (channel, timeout_ms) in &over {
            let text = format!(
                "delivery acknowledgement on channel {channel} timed out. Timeout value used: {timeout_ms} ms. This \
                 timeout value can be configured, see consumers doc guide to learn more"
            );
            if let Some(found) = self.channels.get_mut(channel) {
                // In every protocol: nothing else gives the delivery back.
                found.on_refusal = OnRefusal::CloseChannel;
            }
            self.refuse_for_session(
                Origin { channel: *channel, ..Origin::default() },
                &Refusal::PreconditionFailed(text),
            );
        }
        !over.is_empty()
    }

    /// Gives a reply to a channel that has a reply address. False: the channel has none any more, or too much waits
    /// for its socket.
    pub fn deliver_reply(&mut self, channel: u16, message: &MessageRef<'_>) -> bool {
        if self.is_flooded() {
            return false;
        }
        let Some(found) = self.channels.get_mut(&channel) else { return false };
        let Some(reply_address) = &found.reply_address else { return false };
        let header = DeliveryHeader { delivery_tag: found.unacked.skip(), redelivered: false, attempts: None };
        self.effects.deliver(channel, &reply_address.tag, header, message);
        true
    }

    /// Whether subscriptions that waited for the connection's account could continue.
    pub fn is_refilled(&self) -> bool {
        self.full && self.has_room()
    }

    /// Whether far more waits for the socket than deliveries alone could cause: returns, confirms and replies,
    /// which need no credit. What waits for a window does not count: the client is read, so that it can open it.
    pub fn is_flooded(&self) -> bool {
        self.backlog + self.effects.len_bytes() >= 4 * self.backlog_max
    }

    fn has_room(&self) -> bool {
        self.backlog + self.stopped + self.effects.len_bytes() < self.backlog_max / 2
    }

    /// The subscriptions that wait for credit, in the order in which they began to wait. Empty while the
    /// connection's account is the reason and has not recovered.
    pub fn take_waiting(&mut self, connection: ConnectionId) -> Vec<SubscriptionId> {
        if self.waiting.is_empty() || (self.full && !self.has_room()) {
            return Vec::new();
        }
        self.full = false;
        let waiting = std::mem::take(&mut self.waiting);
        for number in &waiting {
            if let Some(subscription) = self.subscriptions.get_mut(number) {
                subscription.waiting = false;
            }
        }
        waiting.into_iter().map(|number| subscription_id(connection, number)).collect()
    }
}

impl Channel {
    pub fn has_credit(&self, subscription: &Subscription, unacked_max: usize) -> bool {
        if !self.active || self.refused {
            return false;
        }
        let (has_grant, window) = match subscription.credit {
            Credit::Grant(left) => (left > 0, 0),
            Credit::Window(window) => (true, window),
        };
        has_grant
            && (subscription.no_ack
                || (within(subscription.unacked, window)
                    && within(self.delivered, self.window)
                    && self.unacked.len() < unacked_max))
    }
}

/// A delivery is settled: its cost returns to its channel and its subscription.
fn give_back(delivered: &mut u32, subscriptions: &mut HashMap<u32, Subscription>, delivery: &Delivery) {
    if let Some(number) = delivery.subscription {
        *delivered -= 1;
        if let Some(subscription) = subscriptions.get_mut(&number) {
            subscription.unacked -= 1;
        }
    }
}

/// Adds a delivery to a list of ranges, extending the last range if it follows.
fn add_to(ranges: &mut Vec<SequenceRange>, delivery: &Delivery) {
    let Place { queue, sequence } = delivery.place;
    let body_bytes = u64::from(delivery.body_bytes);
    match ranges.last_mut() {
        Some(last) if last.queue == queue && last.last + 1 == sequence => {
            last.last = sequence;
            last.body_bytes += body_bytes;
        }
        _ => ranges.push(SequenceRange { queue, first: sequence, last: sequence, body_bytes }),
    }
}

fn within(unacked: u32, limit: u32) -> bool {
    limit == 0 || unacked < limit
}
