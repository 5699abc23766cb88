//! The port between a session and the node: who gets an answer, what a refusal does, credit, and which deliveries are
//! settled.

use ferrymq_model::{
    Answer, Arguments, Ask, Body, ChannelOptions, Command, ConfirmMode, Credit, CreditOf, DeclareQueue, Deliveries,
    Event, GetCommand, Name, Origin, Outcome, Publish, PublishOutcome, Refusal, Reply, SetCredit, Settle, Settlement,
    Span, Subscribe,
};

use crate::tests::rig::{carry_out, declaration, origin, publish};
use crate::tests::talk::{Talk, of_session};

fn missing_queue() -> Ask {
    Ask::Get(GetCommand { queue: Name::from("missing"), no_ack: true })
}

#[test]
fn the_session_gets_an_answer_when_it_is_durable() {
    let mut talk = Talk::new();
    talk.gate.hold();
    let ask = Ask::DeclareQueue(DeclareQueue { durable: true, ..declaration("") });
    assert_eq!(talk.ask(of_session(1, 7), ask), [], "the declaration is not on disk");
    talk.gate.wait_for_a_sync();
    let mut events = Vec::new();
    talk.client.take_events(&mut events);
    assert_eq!(events, []);
    talk.gate.release();
    talk.wait_for(&mut events, 1, 0);
    let [Event::Answered { origin, reply: Ok(Reply::QueueDeclared { queue, .. }) }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(queue.starts_with("amq.gen-"), "the name that the server chose: {queue}");
    assert_eq!(*origin, of_session(1, 7));
    assert_eq!(talk.notes.take(), [""; 0], "the peer gets no answer");
    talk.end();
}

#[test]
fn a_refusal_ends_only_a_channel_that_wants_it() {
    let mut talk = Talk::new();
    let refused = |events: &[Event], wanted: Origin| matches!(events, [Event::Answered { origin, reply: Err(Refusal::NotFound { .. }) }] if *origin == wanted);
    for answer in [Answer::Session, Answer::Nobody] {
        let origin = Origin { answer, ..of_session(2, 1) };
        let events = talk.ask(origin, missing_queue());
        assert!(refused(&events, origin), "{events:?}");
    }
    assert_eq!(talk.notes.take(), [""; 0]);
    let of_peer = Origin { answer: Answer::Peer, ..of_session(2, 3) };
    assert_eq!(talk.ask(of_peer, missing_queue()), []);
    let purge = || Ask::PurgeQueue(Name::from("q"));
    talk.ask(of_peer, Ask::DeclareQueue(declaration("q")));
    talk.ask(of_peer, purge());
    let seen = talk.notes.take();
    assert_eq!(seen[0], "3 refused");
    assert_eq!(seen.last().unwrap(), "3 QueuePurged { messages: 0 }", "{seen:?}");

    // Channel 1 is one of AMQP 0-9-1.
    let events = talk.ask(Origin { token: 4, ..origin() }, missing_queue());
    assert!(matches!(events[..], [Event::Refused { .. }]), "{events:?}");
    assert_eq!(talk.notes.take(), ["4 refused"]);
    assert_eq!(talk.ask(origin(), purge()), []);
    assert_eq!(talk.notes.take(), [""; 0], "it ignores what comes after the refusal");
    talk.end();
}

#[test]
fn a_grant_counts_deliveries_and_a_window_what_is_unsettled() {
    for no_ack in [true, false] {
        let mut talk = Talk::new().with_queue();
        talk.subscribe(no_ack, Some(Credit::Grant(0)));
        talk.publish(b"abcdef");
        assert_eq!(talk.notes.take(), [""; 0]);
        talk.set_credit(Credit::Grant(2));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "1: a", "2: b"], "no ack: {no_ack}");
        talk.set_credit(Credit::Grant(1));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "3: c"]);
        // Of the unsettled deliveries, those of the grants count, too.
        talk.set_credit(Credit::Window(4));
        let more: &[&str] = if no_ack { &["0 CreditSet", "4: d", "5: e", "6: f"] } else { &["0 CreditSet", "4: d"] };
        assert_eq!(talk.notes.take(), more);
        talk.end();
    }
}

#[test]
fn a_range_of_deliveries_is_settled_whatever_is_left_of_it() {
    let mut talk = Talk::new().with_queue();
    talk.publish(b"abcdef");
    talk.subscribe(false, Some(Credit::Grant(5)));
    talk.settle(Deliveries::Range { first: 2, last: 3 });
    talk.settle(Deliveries::Range { first: 1, last: 3 });
    talk.settle(Deliveries::Range { first: 1, last: 3 });
    talk.set_credit(Credit::Grant(10));
    assert_eq!(talk.notes.take(), ["0 CreditSet", "6: a", "7: b", "8: c", "9: f"]);
    let none = Settle {
        origin: origin(),
        deliveries: Deliveries::One(1),
        outcome: Outcome::Settled(Settlement::Accept),
        transaction: None,
    };
    let mut events = Vec::new();
    talk.client.command(b"", Command::Settle(none), &mut events);
    assert!(matches!(events[..], [Event::Refused { refusal: Refusal::PreconditionFailed(_), .. }]), "{events:?}");
    talk.end();
}

#[test]
fn a_message_that_does_not_fit_ends_its_channel_and_stays() {
    for no_ack in [true, false] {
        let mut talk = Talk::new().with_queue();
        talk.publish(b"a");
        talk.publish_long();
        talk.publish(b"bc");
        talk.subscribe(no_ack, Some(Credit::Grant(0)));
        let of = CreditOf::Subscription(Name::from("tag"));
        let events = talk.ask(origin(), Ask::SetCredit(SetCredit { of, credit: Credit::Grant(10) }));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "1: a", "0 refused"], "no ack: {no_ack}");
        assert!(talk.reopen(&events).contains("5000 bytes"));
        let left = if no_ack { 3 } else { 4 };
        assert_eq!(talk.ready(), left, "nothing behind it is lost (no ack: {no_ack})");

        if !no_ack {
            let get = Ask::Get(GetCommand { queue: Name::from("q"), no_ack: true });
            talk.ask(origin(), get);
            assert_eq!(talk.notes.take(), ["got a"]);
        }
        let get = Ask::Get(GetCommand { queue: Name::from("q"), no_ack });
        let events = talk.ask(Origin { token: 9, ..origin() }, get);
        assert_eq!(talk.notes.take(), ["9 refused"]);
        talk.reopen(&events);
        assert_eq!(talk.ready(), 3);
        talk.end();
    }
}

#[test]
fn a_message_that_does_not_fit_waits_for_credit_like_any_other() {
    let mut talk = Talk::new().with_queue();
    talk.publish(b"a");
    talk.publish_long();
    talk.subscribe(false, Some(Credit::Window(1)));
    let settle = Settle {
        origin: origin(),
        deliveries: Deliveries::One(1),
        outcome: Outcome::Settled(Settlement::Accept),
        transaction: None,
    };
    let mut events = Vec::new();
    talk.client.command(b"", Command::Settle(settle), &mut events);
    talk.client.finish(b"", &mut events);
    talk.client.take_events(&mut events);
    assert_eq!(talk.notes.take(), ["0 refused"]);
    talk.reopen(&events);
    talk.end();
}

#[test]
fn a_channel_that_goes_on_keeps_its_subscription_and_the_message_stays() {
    let mut talk = Talk::new().with_queue();
    talk.publish_long();
    let subscribe = Subscribe {
        queue: Name::from("q"),
        tag: Name::from("tag"),
        no_ack: false,
        exclusive: false,
        credit: Some(Credit::Grant(5)),
        arguments: Arguments::default(),
    };
    let is_refusal =
        |events: &[Event]| matches!(events.last(), Some(Event::Answered { reply: Err(Refusal::TooLarge(_)), .. }));
    let events = talk.ask(of_session(2, 1), Ask::Subscribe(subscribe));
    assert!(is_refusal(&events), "{events:?}");
    assert_eq!(talk.ready(), 1);
    let get = Ask::Get(GetCommand { queue: Name::from("q"), no_ack: false });
    let events = talk.ask(of_session(2, 2), get);
    assert!(is_refusal(&events), "{events:?}");
    assert_eq!(talk.ready(), 1);
    talk.ask(of_session(2, 3), Ask::PurgeQueue(Name::from("q")));
    talk.publish(b"a");
    let of = CreditOf::Subscription(Name::from("tag"));
    talk.ask(of_session(2, 4), Ask::SetCredit(SetCredit { of, credit: Credit::Grant(1) }));
    assert_eq!(talk.notes.take(), ["1: a"]);
    talk.end();
}

#[test]
fn a_reply_that_does_not_fit_is_not_sent() {
    let mut talk = Talk::new();
    let (tag, prefix) = (Name::from("replies"), Name::from("q"));
    talk.ask(origin(), Ask::SubscribeReplies { tag, prefix });
    let address = format!("q{}", ferrymq_broker::random_text(7));
    talk.notes.take();
    let mut input = address.clone().into_bytes();
    let routing_key = Span { start: 0, len: input.len() as u32 };
    input.resize(6_000, b'x');
    for (len, seen) in [(5_000, vec![]), (50, vec!["1: x".to_owned()])] {
        let body = Body::Span(Span { start: 5_999, len: 1 });
        let publish = Publish { routing_key, properties: Span { start: 100, len }, ..publish(body) };
        carry_out(&mut talk.client, &input, vec![Command::Publish(publish)]);
        assert_eq!(talk.notes.take(), seen, "{len} bytes of properties");
    }
    talk.end();
}

/// Requests that were read together with what ends the connection.
#[test]
fn a_connection_that_has_ended_carries_out_nothing_more() {
    let mut talk = Talk::new();
    talk.ask(origin().unanswered(true), Ask::CloseConnection);
    for ask in [Ask::OpenChannel(ChannelOptions::default()), Ask::DeclareQueue(declaration("late"))] {
        assert_eq!(talk.ask(Origin { channel: 3, ..origin() }, ask), []);
    }
    assert_eq!(talk.notes.take(), [""; 0]);
    let usage = talk.node.usage();
    assert!(usage.users.iter().all(|(_, usage)| usage.channels == 0), "{usage:?}");
    talk.end();
}

#[test]
fn each_publish_has_its_own_answer_when_it_is_safe() {
    let mut talk = Talk::new();
    talk.ask(of_session(2, 0), Ask::SelectConfirms(ConfirmMode::Each));
    let declare = Ask::DeclareQueue(DeclareQueue { durable: true, ..declaration("q") });
    let mut events = talk.ask(of_session(2, 0), declare);
    talk.wait_for(&mut events, 1, 0);
    events.clear();
    talk.notes.take();
    talk.gate.hold();
    // To no exchange, to no queue, to the queue; and one that nobody wants to hear of.
    for (answer, token, exchange, key) in [
        (Answer::Session, 1, 1, 1),
        (Answer::Session, 2, 0, 0),
        (Answer::Session, 3, 0, 1),
        (Answer::Nobody, 4, 0, 1),
        (Answer::Peer, 5, 0, 1),
    ] {
        let origin = Origin { channel: 2, answer, token };
        let (exchange, routing_key) = (Span { start: 0, len: exchange }, Span { start: 0, len: key });
        let persistent = token > 2;
        let publish = Publish { origin, exchange, routing_key, persistent, ..publish(Body::Span(routing_key)) };
        talk.client.command(b"q", Command::Publish(publish), &mut events);
        talk.client.finish(b"q", &mut events);
    }
    talk.client.take_events(&mut events);
    let [
        Event::Answered { origin: first, reply: Err(Refusal::NotFound { .. }) },
        Event::Answered { origin: second, reply: Ok(Reply::Published(PublishOutcome::Unroutable)) },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((first.token, second.token), (1, 2));
    assert_eq!(talk.notes.take(), [""; 0], "nothing else is safe");
    talk.gate.wait_for_a_sync();
    talk.gate.release();
    events.clear();
    talk.wait_for(&mut events, 1, 1);
    let accepted = Ok(Reply::Published(PublishOutcome::Accepted));
    assert_eq!(events, [Event::Answered { origin: of_session(2, 3), reply: accepted }]);
    assert_eq!(talk.notes.take(), ["5 Published(Accepted)"]);
    talk.end();
}
