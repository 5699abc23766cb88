//! What a session can say of deliveries, in which numbers, and in which transactions.

use std::sync::Arc;

use ferrymq_model::{
    Ask, Body, ChannelOptions, Command, Credit, Deliveries, DeliveryIds, Event, Outcome, Publish, PublishExtras,
    Refusal, Reply, Settle, Settlement, Span, Time, TransactionId,
};
use parking_lot::Mutex;

use crate::Client;
use crate::tests::rig::{FakeHost, Moving, Nobody, START, carry_out, login, origin, publish, request};
use crate::tests::talk::{Talk, of_session};

const EMPTY: [&str; 0] = [];
const ACCEPT: Outcome = Outcome::Settled(Settlement::Accept);

/// Advances the clock, and takes what has come.
fn at(talk: &mut Talk, host: &Moving, ms: u64) -> Vec<String> {
    host.0.advance_to(ms);
    talk.node.on_timer();
    talk.notes.take()
}

#[test]
fn an_accepted_delivery_can_keep_its_id() {
    let mut talk = Talk::new().with_queue();
    talk.publish(b"abcd");
    talk.subscribe(false, Some(Credit::Window(2)));
    talk.tell(Deliveries::One(1), Outcome::AcceptedIdKept);
    talk.tell(Deliveries::One(1), Outcome::AcceptedIdKept);
    assert_eq!(talk.notes.take(), EMPTY, "its id still counts");
    talk.tell(Deliveries::One(1), Outcome::Settled(Settlement::RELEASE));
    assert_eq!(talk.notes.take(), ["3: c"], "it is free, and its message does not come back");
    talk.tell(Deliveries::Range { first: 2, last: 3 }, Outcome::AcceptedIdKept);
    talk.tell(Deliveries::UpTo(3), ACCEPT);
    assert_eq!(talk.notes.take(), ["4: d"]);

    // What is accepted does not come back with its channel, and the rest does.
    talk.publish(b"e");
    talk.notes.take();
    talk.tell(Deliveries::One(4), Outcome::AcceptedIdKept);
    talk.ask(origin(), Ask::CloseChannel);
    assert_eq!(talk.ready(), 1);
    talk.end();
}

#[test]
fn a_failed_delivery_comes_back_after_its_delay() {
    let host = Arc::new(Moving::default());
    let mut talk = Talk::on(host.clone()).with_queue();
    talk.publish(b"ab");
    talk.subscribe(false, None);
    talk.notes.take();
    talk.tell(Deliveries::One(1), Outcome::Settled(Settlement::Fail { delay_ms: 500 }));
    assert_eq!(talk.notes.take(), EMPTY);
    assert_eq!(at(&mut talk, &host, 499), EMPTY);
    assert_eq!(at(&mut talk, &host, 500), ["3: a"]);
    talk.end();
}

#[test]
fn an_extended_delivery_has_more_time() {
    let host = Arc::new(Moving::default());
    let mut talk = Talk::on(host.clone()).with_queue();
    let minute = 60_000;
    talk.publish(b"ab");
    talk.subscribe(false, None);
    // The timeout is half an hour.
    talk.tell(Deliveries::One(1), Outcome::Extended { ms: 60 * minute });
    talk.tell(Deliveries::One(2), Outcome::Extended { ms: 40 * minute });
    talk.notes.take();
    assert_eq!(at(&mut talk, &host, 32 * minute), EMPTY);
    assert_eq!(at(&mut talk, &host, 39 * minute), EMPTY);
    talk.tell(Deliveries::One(2), ACCEPT);
    assert_eq!(at(&mut talk, &host, 59 * minute), EMPTY);
    assert_eq!(at(&mut talk, &host, 62 * minute), ["0 refused"]);
    talk.end();
}

#[test]
fn a_shorter_time_counts_too() {
    let host = Arc::new(Moving::default());
    let mut talk = Talk::on(host.clone()).with_queue();
    talk.publish(b"a");
    talk.subscribe(false, None);
    talk.notes.take();
    talk.tell(Deliveries::One(1), Outcome::Extended { ms: 1_000 });
    assert_eq!(at(&mut talk, &host, 1_000), EMPTY);
    assert_eq!(at(&mut talk, &host, 1_200), ["0 refused"]);
    talk.end();
}

#[test]
fn delivery_ids_begin_again_and_pass_over_those_in_use() {
    let mut talk = Talk::new().with_queue();
    talk.ask(origin(), Ask::CloseChannel);
    let options = ChannelOptions { delivery_ids: DeliveryIds::U16, ..ChannelOptions::default() };
    talk.ask(origin(), Ask::OpenChannel(options));
    talk.subscribe(false, Some(Credit::Window(4)));
    let next = |talk: &mut Talk| {
        talk.publish(b"x");
        let seen = talk.notes.take();
        let [one] = &seen[..] else { panic!("{seen:?}") };
        one.strip_suffix(": x").unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(next(&mut talk), 1);
    assert_eq!(next(&mut talk), 2);
    for id in 3..=65_535 {
        assert_eq!(next(&mut talk), id);
        talk.tell(Deliveries::One(id), ACCEPT);
    }
    assert_eq!(next(&mut talk), 3, "1 and 2 are in use");
    talk.tell(Deliveries::One(2), ACCEPT);
    assert_eq!(next(&mut talk), 4);
    talk.tell(Deliveries::Range { first: 65_530, last: 3 }, ACCEPT);
    assert_eq!(next(&mut talk), 5, "1 is unsettled, which the range over the end does not say");
    let mut events = Vec::new();
    let unknown = Settle { origin: origin(), deliveries: Deliveries::One(3), outcome: ACCEPT, transaction: None };
    talk.client.command(b"", Command::Settle(unknown), &mut events);
    assert!(matches!(events[..], [Event::Refused { refusal: Refusal::PreconditionFailed(_), .. }]), "{events:?}");
    talk.end();
}

/// Publishes in a transaction of channel 2; returns the refusal.
fn publish_in(talk: &mut Talk, transaction: u32, body: u8) -> Vec<Event> {
    let rare = PublishExtras { transaction: Some(TransactionId(transaction)), ..PublishExtras::default() };
    let span = |start| Span { start, len: 1 };
    let publish = Publish {
        origin: of_session(2, 9),
        routing_key: span(0),
        rare: Some(Box::new(rare)),
        ..publish(Body::Span(span(1)))
    };
    let (input, mut events) = ([b'q', body], Vec::new());
    talk.client.command(&input, Command::Publish(publish), &mut events);
    talk.client.finish(&input, &mut events);
    events
}

#[test]
fn transactions_of_a_channel_are_independent() {
    let mut talk = Talk::new().with_queue();
    talk.subscribe(true, None);
    let [one, two] = [TransactionId(1), TransactionId(2)];
    for id in [one, two] {
        let begun = talk.ask(of_session(2, id.0), Ask::Begin(id));
        assert_eq!(begun, [Event::Answered { origin: of_session(2, id.0), reply: Ok(Reply::TxBegun) }]);
    }
    let again = talk.ask(of_session(2, 7), Ask::Begin(two));
    assert!(matches!(again[..], [Event::Answered { reply: Err(Refusal::PreconditionFailed(_)), .. }]), "{again:?}");
    for (id, body) in [(1, b'a'), (2, b'b'), (1, b'c'), (2, b'd')] {
        assert_eq!(publish_in(&mut talk, id, body), []);
    }
    let unknown = publish_in(&mut talk, 3, b'x');
    assert!(matches!(unknown[..], [Event::Answered { reply: Err(Refusal::PreconditionFailed(_)), .. }]), "{unknown:?}");
    talk.publish(b"z");
    assert_eq!(talk.notes.take(), ["1: z"], "what is in no transaction waits for none");
    let committed = talk.ask(of_session(2, 5), Ask::Commit(two));
    talk.wait_for(&mut committed.clone(), 1, 2);
    assert_eq!(talk.notes.take(), ["2: b", "3: d"]);
    let ended = talk.ask(of_session(2, 6), Ask::RollBack(two));
    assert!(matches!(ended[..], [Event::Answered { reply: Err(Refusal::PreconditionFailed(_)), .. }]), "{ended:?}");
    talk.ask(of_session(2, 6), Ask::RollBack(one));
    assert_eq!(talk.ready(), 0);
    assert_eq!(talk.notes.take(), EMPTY);
    talk.end();
}

#[test]
fn settlements_wait_for_the_commit_of_their_transaction() {
    let mut talk = Talk::new().with_queue();
    talk.publish(b"abc");
    talk.subscribe(false, Some(Credit::Window(3)));
    let settle_in = |talk: &mut Talk, transaction, id, settlement| {
        let (deliveries, outcome) = (Deliveries::One(id), Outcome::Settled(settlement));
        let transaction = Some(TransactionId(transaction));
        carry_out(
            &mut talk.client,
            b"",
            vec![Command::Settle(Settle { origin: origin(), deliveries, outcome, transaction })],
        );
    };
    for id in [1, 2] {
        carry_out(&mut talk.client, b"", vec![request(Ask::Begin(TransactionId(id)))]);
    }
    settle_in(&mut talk, 1, 1, Settlement::Accept);
    settle_in(&mut talk, 2, 2, Settlement::RELEASE);
    talk.tell(Deliveries::One(3), Outcome::Settled(Settlement::RELEASE));
    talk.notes.take();
    carry_out(&mut talk.client, b"", vec![request(Ask::RollBack(TransactionId(1)))]);
    talk.tell(Deliveries::One(1), Outcome::Settled(Settlement::RELEASE));
    assert_eq!(talk.notes.take(), ["0 TxRolledBack", "5: a"], "it was unsettled again");
    carry_out(&mut talk.client, b"", vec![request(Ask::Commit(TransactionId(2)))]);
    talk.wait_for(&mut Vec::new(), 0, 2);
    let mut seen = talk.notes.take();
    seen.sort();
    assert_eq!(seen, ["0 TxCommitted", "6: b"]);
    talk.end();
}

/// A host on which another client publishes when a decision begins, before it has the shard's lock.
#[derive(Default)]
struct Between {
    next: Mutex<Option<Client>>,
    done: Mutex<Option<Client>>,
}

impl FakeHost for Between {
    fn now(&self) -> Time {
        let next = self.next.lock().take();
        if let Some(mut other) = next {
            publish_b(&mut other);
            *self.done.lock() = Some(other);
        }
        START
    }
}

fn publish_b(client: &mut Client) {
    let (routing_key, body) = (Span { start: 0, len: 1 }, Body::Span(Span { start: 1, len: 1 }));
    carry_out(client, b"qb", vec![Command::Publish(Publish { routing_key, ..publish(body) })]);
}

/// AMQP 0-9-1, `basic.recover`: all unacknowledged messages. What the client has before the answer is one of them.
#[test]
fn what_is_delivered_before_the_answer_to_recover_is_requeued() {
    let host = Arc::new(Between::default());
    let mut talk = Talk::on(host.clone()).with_queue();
    talk.publish(b"a");
    talk.subscribe_and_see(false, Some(Credit::Window(10)));
    let mut other = talk.node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    carry_out(&mut other, b"", login());
    talk.notes.take();
    *host.next.lock() = Some(other);
    talk.ask(origin(), Ask::Recover);
    assert_eq!(talk.notes.take(), ["2: b", "0 Recovered", "3: a", "4: b"]);
    let other = host.done.lock().take();
    drop(other);
    talk.end();
}
