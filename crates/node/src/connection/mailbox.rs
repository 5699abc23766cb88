//! The effects that wait for a connection, and the accounts of its deliveries.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_broker::{Delivery as Offer, SequenceRange, Taken};
use ferrymq_model::{
    Answer, ChannelOptions, Credit, Deliveries, Event, Limits, MessageKey, MessageRef, Name, OnRefusal, Origin,
    Position, QueueId, Refusal, Reply, Subscribe, Time, TransactionId,
};
use hashbrown::HashMap;

use crate::{
    connection::{
        confirms::ChannelConfirms,
        effects::{DeliveryHeader, Effects},
        transaction::Transaction,
        unacked::{Delivery, Unacked},
        waiting_gets::ChannelGet,
    },
    login::authentication::Principal,
    routing::replies::ReplyAddress,
};

/// The effects that wait for a connection, and its deliveries. Under the connection's lock.
#[derive(Debug)]
pub struct Mailbox {
    /// What belongs to the client.
    pub state: ClientState,
    /// Nothing is delivered, because the client has no connection, or gets outstanding deliveries first.
    pub is_parked: bool,
    /// The session that this connection wants has no other connection any more.
    pub is_claim_granted: bool,
    pub effects: Effects,
    pub draining: bool,
    /// How many bytes wait for the socket, as of the last question. The thread that has written asks under this
    /// lock, so that of two writes the later answer counts: an old large number would stop deliveries for good.
    pub backlog: usize,
    /// How many bytes wait until the client opens a window, as of that question.
    pub stopped: usize,
    pub backlog_max: usize,
    pub unacked_max: usize,
    /// The consumer timeout of get; 0 means none.
    timeout_ms: u64,
    pub events: Vec<Event>,
    /// Answers for the session that wait for the journal, with the position up to which it must be durable. The session
    /// gets them in this order.
    pub held_answers: VecDeque<(Position, Event)>,
    /// The result of the login, after the check.
    pub login: Option<Box<Result<Principal, Refusal>>>,
    /// The durable position at the last look at them.
    pub looked_at: Position,
    /// Whether a subscription was refused a delivery because of the connection's account.
    pub full: bool,
    /// Whether the connection is in the list of those that wait for the journal.
    pub awaiting: bool,
    /// Whether the journal has come far enough for something in here, and the owner is to send it.
    pub overdue: bool,
    /// The connection is being closed because of the memory that it holds: nothing is delivered any more.
    pub is_discarding: bool,
    /// Whether the connection has ended, and its owner waits until everything has left.
    pub ending: bool,
}

/// What belongs to the client and not to its socket: a later connection may go on with it.
#[derive(Debug, Default)]
pub struct ClientState {
    /// A table has room for four at once, so that they stand elsewhere.
    pub channels: HashMap<u16, Box<Channel>>,
    pub subscriptions: HashMap<u32, Subscription>,
    subscriptions_made: u32,
    channels_opened: u32,
    /// Channels that have published since the last look at confirms.
    pub unconfirmed: Vec<u16>,
    /// Channels with publishes that wait for the journal, without those in `unconfirmed`.
    pub awaiting_journal: Vec<u16>,
    /// Subscriptions that were refused a delivery because they had no credit.
    pub waiting: Vec<u32>,
    /// Subscriptions that have ended while the client had no connection, with their channels.
    pub cancelled: Vec<(u16, Name)>,
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
    /// Whether all its publishes and settlements wait for a commit.
    pub is_transactional: bool,
    /// Its open transactions: what waits for their commits.
    pub transactions: BTreeMap<TransactionId, Transaction>,
    /// The reply address of this channel, if it has asked for one.
    pub reply_address: Option<ReplyAddress>,
    /// Its gets that wait for the disk.
    pub gets: Vec<ChannelGet>,
    /// Its subscriptions by their tags.
    pub tags: BTreeMap<Name, u32>,
    /// Whether it is in the list of those with publishes to confirm.
    pub unconfirmed: bool,
    /// Whether the log has said that the channel is at its limit of unsettled deliveries.
    limit_was_logged: bool,
}

impl Channel {
    fn new(serial: u32, options: ChannelOptions) -> Self {
        Self {
            serial,
            on_refusal: options.on_refusal,
            refused: false,
            last_queue: None,
            credit: Credit::Window(0),
            window: 0,
            active: true,
            unacked: Unacked::new(options.delivery_ids),
            delivered: 0,
            confirms: None,
            is_transactional: false,
            transactions: BTreeMap::new(),
            reply_address: None,
            gets: Vec::new(),
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
    /// How many deliveries it may get. Of a grant or a pull, what is left.
    pub credit: Credit,
    /// When the timer of its pull ends, if it has one.
    pub pull_ends: Option<Time>,
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
            state: ClientState::default(),
            is_parked: false,
            is_claim_granted: false,
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
            looked_at: Position(0),
            full: false,
            awaiting: false,
            overdue: false,
            is_discarding: false,
            ending: false,
        }
    }

    /// Opens a channel.
    pub fn open_channel(&mut self, number: u16, options: ChannelOptions) {
        self.state.channels_opened += 1;
        self.state.channels.insert(number, Box::new(Channel::new(self.state.channels_opened, options)));
    }

    /// Drops the effects, and delivers nothing from now on.
    pub fn discard(&mut self) {
        self.is_discarding = true;
        self.effects = Effects::default();
    }

    /// Whether the channel of a get is still open.
    pub fn still_wants(&self, get: &Get) -> bool {
        let channel = self.state.channels.get(&get.origin.channel).filter(|_| !self.is_discarding);
        channel.is_some_and(|channel| channel.serial == get.channel_serial && !channel.refused)
    }

    /// Whether a refusal leaves the channel open.
    pub fn goes_on(&self, channel: u16) -> bool {
        self.state.channels.get(&channel).is_some_and(|channel| channel.on_refusal == OnRefusal::GoOn)
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
        let number = self.state.subscriptions_made;
        self.state.subscriptions_made += 1;
        let found = self.state.channels.get_mut(&channel);
        let usual = found.map_or(Credit::Window(0), |found| {
            found.tags.insert(tag.clone(), number);
            found.credit
        });
        let credit = wanted.credit.unwrap_or(usual);
        let (unacked, waiting, pull_ends) = (0, false, None);
        let subscription =
            Subscription { tag, queue, channel, no_ack, credit, pull_ends, timeout_ms, unacked, waiting };
        self.state.subscriptions.insert(number, subscription);
        number
    }

    /// The subscription `tag` of `channel`.
    pub fn subscription(&self, channel: u16, tag: &Name) -> Option<u32> {
        self.state.channels.get(&channel)?.tags.get(tag).copied()
    }

    /// Removes a subscription.
    pub fn unsubscribe(&mut self, number: u32) -> Option<Subscription> {
        let ended = self.state.subscriptions.remove(&number)?;
        if let Some(channel) = self.state.channels.get_mut(&ended.channel) {
            channel.tags.remove(&ended.tag);
        }
        Some(ended)
    }

    /// Removes a channel with its subscriptions, in the order in which they were made.
    pub fn remove_channel(&mut self, number: u16) -> Option<(Channel, Vec<(u32, Subscription)>)> {
        let mut channel = self.state.channels.remove(&number)?;
        let mut numbers: Vec<u32> = std::mem::take(&mut channel.tags).into_values().collect();
        numbers.sort_unstable();
        let ended = numbers.into_iter().filter_map(|number| Some((number, self.state.subscriptions.remove(&number)?)));
        let ended = ended.collect();
        Some((*channel, ended))
    }

    /// Gives a message to a subscription, if its own credit, its channel's and its connection's allow it: takes from
    /// all three or from none. If it is refused, the subscription waits, and `take_waiting` will return it.
    pub fn offer(&mut self, number: u32, delivery: &Offer<'_>, message: &MessageRef<'_>, now: Time) -> Taken {
        let Some(subscription) = self.state.subscriptions.get_mut(&number) else { return Taken::NoCredit };
        let Some(channel) = self.state.channels.get_mut(&subscription.channel) else { return Taken::NoCredit };
        let full = self.backlog + self.stopped + self.effects.memory_bytes() >= self.backlog_max;
        let has_credit = !self.is_parked && !self.is_discarding && channel.has_credit(subscription, self.unacked_max);
        if full || !has_credit {
            self.full |= full;
            if channel.unacked.len() >= self.unacked_max && !std::mem::replace(&mut channel.limit_was_logged, true) {
                let (number, max) = (subscription.channel, self.unacked_max);
                tracing::warn!(
                    "channel {number} holds unacked_max ({max}) deliveries: it gets no more until some are settled"
                );
            }
            self.wait_for_credit(number);
            return if has_credit { Taken::Lags } else { Taken::NoCredit };
        }
        let has_pulled = subscription.spend();
        // AMQP-42
        let delivery_tag = if subscription.no_ack {
            channel.unacked.skip()
        } else {
            subscription.unacked += 1;
            channel.delivered += 1;
            let (place, body_bytes) = (delivery.from, delivery.facts.body_bytes);
            channel.unacked.push(Delivery { place, subscription: Some(number), body_bytes, is_accepted: false }, now)
        };
        self.effects.deliver(subscription.channel, &subscription.tag, delivery_header(delivery, delivery_tag), message);
        if has_pulled {
            self.effects.credit_lapsed(subscription.channel, subscription.tag.clone(), 0);
        }
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
        let Some(channel) = self.state.channels.get_mut(&get.origin.channel) else { return };
        let delivery_tag = if get.no_ack {
            channel.unacked.skip()
        } else {
            let (place, body_bytes) = (delivery.from, delivery.facts.body_bytes);
            channel.unacked.push(Delivery { place, subscription: None, body_bytes, is_accepted: false }, now)
        };
        self.effects.got(get.origin.channel, delivery_header(delivery, delivery_tag), remaining, message);
    }

    /// Removes deliveries from the channel's account, and their cost from their subscriptions'. False: one of them is
    /// not unsettled.
    pub fn settle(&mut self, channel: u16, which: Deliveries, taken: &mut Vec<SequenceRange>) -> bool {
        let ClientState { channels, subscriptions, .. } = &mut self.state;
        let Some(channel) = channels.get_mut(&channel) else { return false };
        let delivered = &mut channel.delivered;
        channel.unacked.settle(which, |_, delivery| {
            add_to(taken, &delivery);
            give_back(delivered, subscriptions, &delivery);
        })
    }

    /// Removes the deliveries of gets, whose answers end with the connection.
    pub fn settle_gets(&mut self, channel: u16, taken: &mut Vec<SequenceRange>) {
        let Some(found) = self.state.channels.get_mut(&channel) else { return };
        let gets: Vec<u64> = found.unacked.of_gets().collect();
        for id in gets {
            self.settle(channel, Deliveries::One(id), taken);
        }
    }

    /// Accepts messages whose ids stay in use. False: one of them is not unsettled.
    pub fn accept_and_keep(&mut self, channel: u16, which: Deliveries, taken: &mut Vec<SequenceRange>) -> bool {
        let Some(channel) = self.state.channels.get_mut(&channel) else { return false };
        channel.unacked.accept_and_keep(which, |delivery| add_to(taken, &delivery))
    }

    /// The consumer timeouts of these deliveries end at this time. False: one of them is not unsettled.
    pub fn extend(&mut self, channel: u16, which: Deliveries, end: Time) -> bool {
        self.state.channels.get_mut(&channel).is_some_and(|channel| channel.unacked.extend(which, end))
    }

    /// Refuses the channels that hold a delivery for longer than its timeout. Returns whether there are any. (AMQP-52)
    pub fn end_overdue_channels(&mut self, now: Time) -> bool {
        if self.is_parked {
            return false;
        }
        let mut over = Vec::new();
        for (number, channel) in &self.state.channels {
            let timeout_ms = |delivery: &Delivery| {
                let subscription = delivery.subscription.and_then(|number| self.state.subscriptions.get(&number));
                subscription.map_or(self.timeout_ms, |subscription| subscription.timeout_ms)
            };
            if !channel.refused
                && let Some(timeout_ms) = channel.unacked.overdue(now, timeout_ms)
            {
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
            if let Some(found) = self.state.channels.get_mut(channel) {
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
    /// for its socket. (AMQP-54)
    pub fn deliver_reply(&mut self, channel: u16, message: &MessageRef<'_>) -> bool {
        if self.is_flooded() {
            return false;
        }
        let Some(found) = self.state.channels.get_mut(&channel) else { return false };
        let Some(reply_address) = &found.reply_address else { return false };
        let header = DeliveryHeader { delivery_tag: found.unacked.skip(), redelivered: false, attempts: None };
        self.effects.deliver(channel, &reply_address.tag, header, message);
        true
    }
}

/// A delivery is settled: its cost returns to its channel and its subscription.
pub fn give_back(delivered: &mut u32, subscriptions: &mut HashMap<u32, Subscription>, delivery: &Delivery) {
    if let Some(number) = delivery.subscription {
        *delivered -= 1;
        if let Some(subscription) = subscriptions.get_mut(&number) {
            subscription.unacked -= 1;
        }
    }
}

/// Adds a delivery to a list of ranges, extending the last range if it follows. One that is accepted already is not in
/// its queue any more.
pub fn add_to(ranges: &mut Vec<SequenceRange>, delivery: &Delivery) {
    if delivery.is_accepted {
        return;
    }
    let MessageKey { queue, sequence } = delivery.place;
    let body_bytes = u64::from(delivery.body_bytes);
    match ranges.last_mut() {
        Some(last) if last.queue == queue && last.last + 1 == sequence => {
            last.last = sequence;
            last.body_bytes += body_bytes;
        }
        _ => ranges.push(SequenceRange { queue, first: sequence, last: sequence, body_bytes }),
    }
}
