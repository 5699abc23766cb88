//! Single behaviours of a shard that the random sequences do not check, or not closely.

use ferrymq_broker::{DeleteWhen, Got, Published, QueueSettings, SequenceRange, Shard, Subscriber};
use ferrymq_model::{
    BodyRef, DialectId, Facts, MessageRef, Name, QueueId, QueueState, Settlement, SubscriptionId, Time,
};

use crate::port::{Event, Port, Written};
use crate::random::Random;

pub const QUEUE: QueueId = QueueId(256);
pub const NOW: Time = Time(1000);

/// A shard with one queue, and a port that never refuses.
pub struct Bench {
    pub shard: Shard,
    pub port: Port,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(settings("q"))
    }

    pub fn with(settings: QueueSettings) -> Self {
        let mut bench = Self { shard: Shard::new(), port: Port::new(Random::new(1), 0) };
        bench.shard.open(QUEUE, settings, &[], NOW);
        bench
    }

    fn publish(&mut self, persistent: bool) -> Published {
        self.publish_to(&[QUEUE], persistent, Facts::default())
    }

    /// A message of 8 bytes; its number is one more than the last one's.
    pub fn publish_to(&mut self, targets: &[QueueId], persistent: bool, facts: Facts) -> Published {
        let body = self.port.write(Written { persistent, ..Written::default() }).to_le_bytes();
        let message = MessageRef {
            dialect: DialectId(1),
            exchange: "",
            routing_key: b"q",
            properties: &[],
            annotations: &[],
            body: BodyRef::Inline(&body),
        };
        let facts = Facts { body_bytes: 8, arrived: NOW, ..facts };
        self.shard.publish(&message, &facts, persistent, targets, &mut self.port)
    }

    fn publish_one(&mut self, persistent: bool) {
        assert_eq!(self.publish(persistent).queues, 1);
    }

    pub fn consume(&mut self, id: u64, no_ack: bool, priority: i64) {
        let subscriber = Subscriber { id: SubscriptionId(id), no_ack, exclusive: false, priority };
        assert_eq!(self.shard.consume(QUEUE, subscriber, NOW), Ok(true));
    }

    pub fn dispatch(&mut self) -> bool {
        self.shard.dispatch(NOW, &mut self.port)
    }

    /// Subscription and message of each delivery so far.
    pub fn delivered(&mut self) -> Vec<(u64, u64)> {
        let take = |event| match event {
            Event::Delivered { subscription, given, .. } => Some((subscription, given.message)),
            _ => None,
        };
        std::mem::take(&mut self.port.events).into_iter().filter_map(take).collect()
    }

    pub fn ready(&self) -> u64 {
        self.shard.counts(QUEUE).unwrap().ready
    }
}

pub fn settings(name: &str) -> QueueSettings {
    QueueSettings { vhost: Name::from("/"), name: Name::from(name), durable: true, ..QueueSettings::default() }
}

#[test]
fn publishers_are_ahead_of_a_consumer_that_waits_for_its_socket() {
    const TWO_MESSAGES: u64 = 2 * (64 + 8);
    let mut bench = Bench::new();
    bench.consume(1, true, 0);
    let no_credit = |bench: &mut Bench, lags| {
        bench.port.credit.insert(1, 0);
        bench.port.lags = lags;
    };
    no_credit(&mut bench, true);
    assert_eq!(bench.publish(false).ahead_in, None, "nobody knew");
    assert_eq!(bench.publish(false).ahead_in, Some(QUEUE));
    assert!(!bench.shard.is_ahead(QUEUE, TWO_MESSAGES, NOW), "it is not much");
    assert!(bench.shard.is_ahead(QUEUE, TWO_MESSAGES - 1, NOW));
    assert!(bench.shard.is_ahead(QUEUE, TWO_MESSAGES - 1, NOW.after_ms(99)));
    assert!(!bench.shard.is_ahead(QUEUE, TWO_MESSAGES - 1, NOW.after_ms(100)), "it takes nothing");

    // The consumer takes two messages, and lags again.
    bench.port.credit.insert(1, 1);
    bench.shard.credit(&[SubscriptionId(1)]);
    bench.dispatch();
    assert!(!bench.shard.is_ahead(QUEUE, 0, NOW));
    no_credit(&mut bench, true);
    (0..3).for_each(|_| bench.publish_one(false));
    assert!(bench.shard.is_ahead(QUEUE, TWO_MESSAGES, NOW.after_ms(150)), "it has its time again");
    bench.shard.cancel(SubscriptionId(1), NOW, &mut bench.port);
    assert!(!bench.shard.is_ahead(QUEUE, 0, NOW.after_ms(150)), "it is gone");
}

#[test]
fn nobody_waits_for_a_consumer_without_credit() {
    let mut bench = Bench::new();
    bench.consume(1, false, 0);
    bench.port.credit.insert(1, 0);
    assert!((0..9).all(|_| bench.publish(true).ahead_in.is_none()));
    assert!(!bench.shard.is_ahead(QUEUE, 0, NOW));
}

#[test]
fn what_would_not_fit_storage_is_refused_before_anything_is_done_with_it() {
    let mut bench = Bench::new();
    let (long, properties) = ("n".repeat(256), vec![0; MessageRef::HEAD_BYTES_MAX + 1]);
    let key = vec![b'k'; MessageRef::KEY_BYTES_MAX + 1];
    let fits = MessageRef {
        dialect: DialectId(1),
        exchange: &long[1..],
        routing_key: &key[1..],
        properties: &[],
        annotations: &[],
        body: BodyRef::Inline(&[]),
    };
    assert!(fits.fits());
    let short = MessageRef { routing_key: b"k", ..fits };
    let (half, rest) = properties[2..].split_at(properties.len() / 2);
    assert!(MessageRef { properties: half, annotations: rest, ..short }.fits());
    for message in [
        MessageRef { exchange: &long, ..fits },
        MessageRef { routing_key: &key, ..fits },
        MessageRef { properties: &properties[1..], ..short },
        MessageRef { annotations: &properties[1..], ..short },
        MessageRef { properties: half, annotations: &properties[..rest.len() + 1], ..short },
    ] {
        let published = bench.shard.publish(&message, &Facts::default(), true, &[QUEUE], &mut bench.port);
        assert_eq!(published, Published { queues: 1, refused: true, ..Published::default() });
    }
    assert_eq!(bench.shard.counts(QUEUE).unwrap().ready, 0);
    bench.publish_one(true);
    assert_eq!(bench.shard.counts(QUEUE).unwrap().ready, 1);
}

#[test]
fn subscriptions_take_turns() {
    let mut bench = Bench::new();
    (1..=6).for_each(|_| bench.publish_one(true));
    (1..=3).for_each(|id| bench.consume(id, false, 0));
    assert!(!bench.dispatch());
    assert_eq!(bench.delivered(), [(1, 1), (2, 2), (3, 3), (1, 4), (2, 5), (3, 6)]);
    // Messages that arrive while nothing waits are delivered in turns too.
    bench.publish(true);
    bench.publish(false);
    assert_eq!(bench.delivered(), [(1, 7), (2, 8)]);
}

#[test]
fn a_higher_priority_is_served_while_it_has_credit() {
    let mut bench = Bench::new();
    bench.consume(1, false, 0);
    bench.consume(2, false, 5);
    bench.consume(3, false, 5);
    bench.port.credit.extend([(2, 2), (3, 1)]);
    (1..=5).for_each(|_| bench.publish_one(true));
    assert_eq!(bench.delivered(), [(2, 1), (3, 2), (2, 3), (1, 4), (1, 5)]);
    bench.port.credit.insert(3, 1);
    bench.shard.credit(&[SubscriptionId(3)]);
    bench.publish(true);
    assert_eq!(bench.delivered(), [(3, 6)]);
}

#[test]
fn a_transient_message_for_an_auto_ack_subscription_never_reaches_storage() {
    let mut bench = Bench::new();
    bench.consume(1, true, 0);
    assert_eq!(bench.publish(false), Published { queues: 1, ..Published::default() });
    assert!(bench.port.states.is_empty(), "storage heard nothing");
    assert_eq!(bench.publish(true), Published { queues: 1, durable: true, ..Published::default() });
    assert_eq!(bench.port.states[&QUEUE], QueueState { next: 2, head: 2, ..QueueState::new() });
    assert_eq!(bench.delivered(), [(1, 1), (1, 2)]);
    let counts = bench.shard.counts(QUEUE).unwrap();
    assert_eq!((counts.ready, counts.unacked, counts.counters.delivered_no_ack), (0, 0, 2));
}

#[test]
fn a_round_of_dispatch_is_bounded() {
    let mut bench = Bench::new();
    (0..300).for_each(|_| bench.publish_one(true));
    bench.consume(1, false, 0);
    assert!(bench.dispatch(), "there is more to do");
    assert_eq!(bench.delivered().len(), 128);
    assert!(bench.dispatch());
    assert!(!bench.dispatch());
    assert_eq!((bench.delivered().len(), bench.ready()), (172, 0));
}

#[test]
fn nothing_is_kept_for_messages_that_wait() {
    let mut bench = Bench::new();
    (0..10_000).for_each(|_| bench.publish_one(true));
    let state = bench.shard.state(QUEUE).unwrap();
    assert_eq!(state, QueueState { next: 10_001, head: 1, ..QueueState::new() });
}

#[test]
fn recovered_numbers_may_have_lost_their_messages() {
    let mut bench = Bench::new();
    // Every other message is transient; the first four are delivered, and 1 and 2 are accepted.
    (0..8).for_each(|number| bench.publish_one(number % 2 == 0));
    bench.consume(1, false, 0);
    bench.port.credit.insert(1, 4);
    bench.dispatch();
    let first_two = SequenceRange { queue: QUEUE, first: 1, last: 2, body_bytes: 16 };
    bench.shard.settle(&[first_two], Settlement::Accept, NOW, &mut bench.port);
    let state = bench.shard.state(QUEUE).unwrap();
    assert_eq!(state.open.iter().collect::<Vec<_>>(), [(3, 4)]);
    assert_eq!(state, bench.port.states[&QUEUE], "storage kept the same numbers");

    bench.port.restart(|_| true);
    bench.port.events.clear();
    bench.shard = Shard::new();
    let recovered = bench.port.recovered(QUEUE, state);
    assert_eq!(recovered.messages, 3);
    bench.shard.open(QUEUE, settings("q"), &[recovered], NOW);
    bench.consume(2, false, 0);
    assert!(!bench.dispatch());
    let redelivered = |event: &Event| match event {
        Event::Delivered { given, .. } => (given.message, given.redelivered),
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.port.events.iter().map(redelivered).collect::<Vec<_>>(), [(3, true), (5, false), (7, false)]);
    assert_eq!(bench.ready(), 0);
}

#[test]
fn attempts_count_how_often_a_message_came_back() {
    let mut bench = Bench::new();
    bench.publish(true);
    bench.consume(1, false, 0);
    for attempts in 0..3 {
        bench.dispatch();
        let Some(Event::Delivered { given, place, .. }) = bench.port.events.pop() else { panic!("a delivery") };
        assert_eq!((given.attempts, given.redelivered), (attempts, attempts > 0));
        let range = SequenceRange { queue: QUEUE, first: place.sequence, last: place.sequence, body_bytes: 8 };
        bench.shard.settle(&[range], Settlement::RELEASE, NOW, &mut bench.port);
    }
    assert_eq!(bench.shard.state(QUEUE).unwrap().attempts, [(1, 3)]);
    assert_eq!(bench.port.states[&QUEUE].attempts, [(1, 3)]);
}

#[test]
fn a_queue_that_is_gone_swallows_what_comes_late() {
    let mut bench = Bench::new();
    bench.consume(1, false, 0);
    bench.publish(true);
    assert_eq!(bench.shard.delete(QUEUE, DeleteWhen::default(), &mut bench.port), Ok(0));
    bench.delivered();
    let late = SequenceRange { queue: QUEUE, first: 1, last: 1, body_bytes: 8 };
    bench.shard.settle(&[late], Settlement::RELEASE, NOW, &mut bench.port);
    bench.shard.cancel(SubscriptionId(1), NOW, &mut bench.port);
    bench.shard.credit(&[SubscriptionId(1)]);
    bench.shard.loaded(&[QUEUE]);
    assert_eq!(bench.publish(true), Published::default(), "unroutable");
    assert!(!bench.dispatch());
    assert!(bench.port.events.is_empty(), "{:?}", bench.port.events);
}

/// Which subscriptions were told that nothing is ready, and how many messages were delivered before that.
fn drained(bench: &mut Bench) -> Vec<(u64, usize)> {
    let (mut delivered, mut drained) = (0, Vec::new());
    for event in std::mem::take(&mut bench.port.events) {
        match event {
            Event::Delivered { .. } => delivered += 1,
            Event::Drained { subscription } => drained.push((subscription, delivered)),
            _ => {}
        }
    }
    drained
}

#[test]
fn a_drained_subscription_gets_what_is_ready_and_then_the_news() {
    let mut bench = Bench::new();
    (0..200).for_each(|_| bench.publish_one(true));
    bench.consume(1, false, 0);
    bench.shard.drain(SubscriptionId(1), &mut bench.port);
    bench.shard.drain(SubscriptionId(1), &mut bench.port);
    while bench.dispatch() {}
    assert_eq!(drained(&mut bench), [(1, 200)], "once, after all of it, although it is unsettled");
    bench.dispatch();
    bench.publish_one(true);
    bench.dispatch();
    assert_eq!(drained(&mut bench), [], "it is over");

    bench.shard.drain(SubscriptionId(1), &mut bench.port);
    bench.dispatch();
    assert_eq!(drained(&mut bench), [(1, 0)], "nothing is ready");
}

#[test]
fn a_subscription_without_credit_is_drained_when_others_have_emptied_the_queue() {
    let mut bench = Bench::new();
    bench.consume(1, false, 0);
    bench.port.credit.insert(1, 0);
    (0..3).for_each(|_| bench.publish_one(false));
    bench.shard.drain(SubscriptionId(1), &mut bench.port);
    bench.dispatch();
    assert_eq!(drained(&mut bench), []);
    for _ in 0..2 {
        assert_eq!(bench.shard.get(QUEUE, true, NOW, &mut bench.port), Got::Message);
        assert_eq!(drained(&mut bench), []);
    }
    assert_eq!(bench.shard.get(QUEUE, true, NOW, &mut bench.port), Got::Message);
    assert_eq!(drained(&mut bench), [(1, 0)]);

    bench.publish_one(false);
    bench.shard.drain(SubscriptionId(1), &mut bench.port);
    bench.shard.purge(QUEUE, &mut bench.port);
    assert_eq!(drained(&mut bench), [(1, 0)], "the queue was purged");

    bench.publish_one(false);
    bench.shard.drain(SubscriptionId(1), &mut bench.port);
    bench.shard.cancel(SubscriptionId(1), NOW, &mut bench.port);
    bench.shard.purge(QUEUE, &mut bench.port);
    assert_eq!(drained(&mut bench), [], "the subscription has ended");
}
