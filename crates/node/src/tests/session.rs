//! Client sessions that outlive their connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferrymq_model::{
    Arguments, Ask, Attach, Body, ChannelOptions, Command, Credit, DeclareQueue, DeleteQueue, Deliveries, Event, Login,
    Name, Origin, Outcome, Publish, Refusal, Reply, Request, Settle, Settlement, Span, Subscribe, Table, Value,
};

use crate::tests::rig::{Folder, Gate, Moving, carry_out, declaration, open, origin, publish, request};
use crate::tests::talk::{Notes, of_session};
use crate::{Client, Node};

const EMPTY: [&str; 0] = [];
const ACCEPT: Outcome = Outcome::Settled(Settlement::Accept);

/// A node whose clock the test sets.
struct Place {
    node: Arc<Node>,
    host: Arc<Moving>,
    _folder: Folder,
}

impl Place {
    fn new() -> Self {
        let (folder, host) = (Folder::new(), Arc::new(Moving::default()));
        Self { node: open(&folder, Arc::new(Gate::default()), host.clone()), host, _folder: folder }
    }

    /// A client of this user, whose password is the name, with an open vhost.
    fn visit_as(&self, user: &str) -> Visit {
        let notes = Arc::new(Notes::default());
        let mut client = self.node.connect(notes.clone(), "test".to_owned(), true).unwrap();
        let login = Login::Password { user: Name::from(user), password: user.as_bytes().to_vec() };
        let mut events = Vec::new();
        client.command(b"", Command::Login(login), &mut events);
        client.take_events(&mut events);
        assert_eq!(events, [Event::LoggedIn]);
        let open = request(Ask::OpenVhost { vhost: Name::from("/"), properties_bytes_max: 4_096, client: None });
        carry_out(&mut client, b"", vec![open]);
        notes.take();
        Visit { client, notes }
    }

    fn visit(&self) -> Visit {
        self.visit_as("guest")
    }

    /// Leaves a session behind that has queue `q`, and gets these messages from it.
    fn keep(&self, bodies: &[u8]) {
        let mut one = self.visit();
        one.attach(false, 1_000);
        one.subscribe(declaration("q"), Credit::Window(9));
        one.publish(bodies);
    }

    fn at(&self, ms: u64) {
        self.host.0.advance_to(ms);
        self.node.on_timer();
    }
}

struct Visit {
    client: Client,
    notes: Arc<Notes>,
}

impl Visit {
    fn ask(&mut self, origin: Origin, ask: Ask) -> Vec<Event> {
        let mut events = Vec::new();
        self.client.command(b"", Command::Request(Request { origin, ask }), &mut events);
        self.client.finish(b"", &mut events);
        events
    }

    /// Attaches session `s`. Returns whether it was there, and which ids are kept; `None` if it is to wait.
    fn attach(&mut self, is_fresh: bool, keep_ms: u64) -> Option<(bool, Vec<(u16, u64)>)> {
        let events = self.ask(of_session(0, 1), Ask::Attach(Attach { session: Name::from("s"), is_fresh, keep_ms }));
        assert_eq!(self.notes.take(), EMPTY, "the answer comes first");
        self.client.resume();
        attached(&events)
    }

    /// What has come since the last look.
    fn look(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.client.take_events(&mut events);
        self.client.resume();
        events
    }

    /// Opens channel 1, declares queue `q`, and subscribes to it.
    fn subscribe(&mut self, queue: DeclareQueue, credit: Credit) {
        let (name, tag, arguments) = (queue.queue.clone(), Name::from("tag"), Arguments::default());
        let credit = Some(credit);
        let subscribe = Subscribe { queue: name, tag, no_ack: false, exclusive: false, credit, arguments };
        let open = Ask::OpenChannel(ChannelOptions::default());
        let asks = [open, Ask::DeclareQueue(queue), Ask::Subscribe(subscribe)];
        carry_out(&mut self.client, b"", asks.map(request).into());
        self.notes.take();
    }

    fn publish(&mut self, bodies: &[u8]) {
        for body in bodies {
            let (input, span) = ([b'q', *body], |start| Span { start, len: 1 });
            let publish = Publish { routing_key: span(0), ..publish(Body::Span(span(1))) };
            carry_out(&mut self.client, &input, vec![Command::Publish(publish)]);
        }
    }

    fn tell(&mut self, deliveries: Deliveries, outcome: Outcome) {
        let settle = Settle { origin: origin(), deliveries, outcome, transaction: None };
        carry_out(&mut self.client, b"", vec![Command::Settle(settle)]);
    }

    /// How many messages are ready in `q`, and how many consumers it has; `None` if it is not there.
    fn counts(&mut self) -> Option<(u64, u32)> {
        self.ask(Origin { channel: 9, ..origin() }, Ask::OpenChannel(ChannelOptions::default()));
        let passive = Ask::DeclareQueue(DeclareQueue { passive: true, ..declaration("q") });
        let events = self.ask(of_session(9, 2), passive);
        self.ask(Origin { channel: 9, ..origin() }, Ask::CloseChannel);
        self.notes.take();
        match &events[..] {
            [Event::Answered { reply: Ok(Reply::QueueDeclared { messages, consumers, .. }), .. }] => {
                Some((*messages, *consumers))
            }
            _ => None,
        }
    }
}

fn attached(events: &[Event]) -> Option<(bool, Vec<(u16, u64)>)> {
    match events {
        [] => None,
        [Event::Answered { reply: Ok(Reply::Attached { was_there, kept_ids }), .. }] => {
            Some((*was_there, kept_ids.clone()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_goes_on_with_its_next_connection() {
    let place = Place::new();
    let mut one = place.visit();
    assert_eq!(one.attach(false, 10_000), Some((false, vec![])));
    one.subscribe(declaration("q"), Credit::Window(3));
    one.publish(b"abcde");
    assert_eq!(one.notes.take(), ["1: a", "2: b", "3: c"]);
    one.tell(Deliveries::One(1), Outcome::AcceptedIdKept);
    drop(one.client);

    let mut other = place.visit();
    assert_eq!(other.counts(), Some((2, 1)), "its subscription stays, and its deliveries are not ready");
    other.ask(origin(), Ask::OpenChannel(ChannelOptions::default()));
    other.publish(b"f");
    place.at(9_999);

    let mut two = place.visit();
    assert_eq!(two.attach(false, 10_000), Some((true, vec![(1, 1)])));
    assert_eq!(two.notes.take(), ["2: b", "3: c"], "once more, and nothing new: its window is full");
    two.tell(Deliveries::One(1), ACCEPT);
    assert_eq!(two.notes.take(), ["4: d"]);
    two.tell(Deliveries::UpTo(4), ACCEPT);
    assert_eq!(two.notes.take(), ["5: e", "6: f"]);
    drop(two.client);
    drop(other.client);
    place.node.stop().unwrap();
}

#[test]
fn a_session_ends_with_its_time() {
    let place = Place::new();
    let mut other = place.visit();
    let mut one = place.visit();
    one.attach(false, 1_000);
    one.subscribe(DeclareQueue { exclusive: true, ..declaration("own") }, Credit::Window(9));
    one.ask(origin(), Ask::DeclareQueue(declaration("q")));
    let more = Subscribe {
        queue: Name::from("q"),
        tag: Name::from("more"),
        no_ack: false,
        exclusive: false,
        credit: Some(Credit::Window(9)),
        arguments: Arguments::default(),
    };
    one.ask(origin(), Ask::Subscribe(more));
    one.publish(b"ab");
    drop(one.client);
    place.at(999);
    assert_eq!(other.counts(), Some((0, 1)));
    place.at(1_000);
    assert_eq!(other.counts(), Some((2, 0)), "what it held is ready again");
    let mut two = place.visit();
    assert_eq!(two.attach(false, 1_000), Some((false, vec![])));
    two.subscribe(DeclareQueue { exclusive: true, ..declaration("own") }, Credit::Window(9));

    // Kept for no time, it ends with its connection.
    assert_eq!(two.ask(of_session(0, 4), Ask::KeepSession { ms: 0 }).len(), 1);
    drop(two.client);
    let mut three = place.visit();
    assert_eq!(three.attach(false, 0), Some((false, vec![])));
    drop(three.client);
    drop(other.client);
    place.node.stop().unwrap();
}

#[test]
fn a_fresh_session_ends_the_old_one() {
    let place = Place::new();
    place.keep(b"ab");
    let mut two = place.visit();
    assert_eq!(two.attach(true, 1_000), Some((false, vec![])));
    assert_eq!(two.counts(), Some((2, 0)));
    drop(two.client);
    place.node.stop().unwrap();
}

#[test]
fn a_connection_takes_over_when_the_other_one_has_ended() {
    let place = Place::new();
    let mut visits: Vec<Visit> = (0..3).map(|_| place.visit()).collect();
    assert_eq!(visits[0].attach(false, 1_000), Some((false, vec![])));
    visits[0].subscribe(declaration("q"), Credit::Window(9));
    visits[0].publish(b"a");
    assert_eq!(visits[1].attach(false, 1_000), None);
    assert_eq!(visits[2].attach(false, 1_000), None);
    let taken_over = [Event::Close(Refusal::TakenOver)];
    assert_eq!(visits[0].look(), taken_over);
    assert_eq!(visits[1].look(), taken_over, "a later one wants it");
    visits[0].publish(b"b");
    drop(visits.remove(0).client);
    assert_eq!(visits[0].look(), []);
    let answer = visits[1].look();
    assert_eq!(attached(&answer), Some((true, vec![])));
    assert_eq!(visits[1].notes.take(), ["1: a", "2: b"]);
    drop(visits.remove(0).client);
    visits[0].publish(b"c");
    assert_eq!(visits[0].notes.take(), ["3: c"], "who did not get it takes nothing away");
    drop(visits);
    place.node.stop().unwrap();
}

#[test]
fn who_gives_up_does_not_get_the_session() {
    let place = Place::new();
    let (mut one, mut two) = (place.visit(), place.visit());
    one.attach(false, 1_000);
    one.subscribe(declaration("q"), Credit::Window(9));
    assert_eq!(two.attach(false, 1_000), None);
    drop(two.client);
    drop(one.client);
    let mut three = place.visit();
    assert_eq!(three.attach(false, 1_000), Some((true, vec![])));
    three.publish(b"a");
    assert_eq!(three.notes.take(), ["1: a"]);
    drop(three.client);
    place.node.stop().unwrap();
}

#[test]
fn a_session_belongs_to_its_user() {
    let place = Place::new();
    let of = |name| format!(r#"{{"name": "{name}", "password": "{name}", "tags": ""}}"#);
    let all = r#""vhost": "/", "configure": ".*", "write": ".*", "read": ".*""#;
    let may = |name| format!(r#"{{"user": "{name}", {all}}}"#);
    let [users, permissions] = [[of("guest"), of("other")], [may("guest"), may("other")]].map(|both| both.join(","));
    let definitions = format!(r#"{{"users": [{users}], "permissions": [{permissions}]}}"#);
    place.node.import_definitions(definitions.as_bytes(), true).unwrap();
    let (mut one, mut other) = (place.visit(), place.visit_as("other"));
    one.attach(false, 1_000);
    let attach = || Ask::Attach(Attach { session: Name::from("s"), is_fresh: true, keep_ms: 0 });
    let is_refused =
        |events: &[Event]| matches!(events, [Event::Answered { reply: Err(Refusal::AccessRefused(_)), .. }]);
    let events = other.ask(of_session(0, 1), attach());
    assert!(is_refused(&events), "{events:?}");
    assert_eq!(one.look(), []);
    drop(one.client);
    let events = other.ask(of_session(0, 1), attach());
    assert!(is_refused(&events), "it is kept: {events:?}");
    drop(other.client);
    place.node.stop().unwrap();
}

#[test]
fn another_consumer_becomes_active_while_a_session_has_no_connection() {
    let place = Place::new();
    let single = Table::from_iter([("x-single-active-consumer".to_owned(), Value::Bool(true))]);
    let queue = || DeclareQueue { arguments: single.clone(), ..declaration("q") };
    let (mut one, mut two) = (place.visit(), place.visit());
    one.attach(false, 1_000);
    one.subscribe(queue(), Credit::Window(1));
    two.subscribe(queue(), Credit::Window(1));
    two.publish(b"a");
    assert_eq!((one.notes.take(), two.notes.take()), (vec!["1: a".to_owned()], vec![]));
    drop(one.client);
    two.publish(b"b");
    assert_eq!(two.notes.take(), ["1: b"]);
    let mut three = place.visit();
    three.attach(false, 1_000);
    assert_eq!(three.notes.take(), ["1: a"]);
    three.tell(Deliveries::One(1), ACCEPT);
    two.publish(b"c");
    assert_eq!(three.notes.take(), EMPTY, "the other one is active");
    drop(two.client);
    assert_eq!(three.notes.take(), ["2: b"]);
    drop(three.client);
    place.node.stop().unwrap();
}

#[test]
fn outstanding_deliveries_wait_for_the_socket_and_for_what_the_client_says_meanwhile() {
    let place = Place::new();
    place.keep(b"abcd");

    let mut two = place.visit();
    two.notes.waiting.store(1 << 30, Ordering::Relaxed);
    two.client.written();
    assert_eq!(two.attach(false, 1_000), Some((true, vec![])));
    assert_eq!(two.notes.take(), EMPTY, "too much waits for the socket");
    two.tell(Deliveries::One(1), Outcome::Settled(Settlement::RELEASE));
    two.tell(Deliveries::One(3), ACCEPT);
    assert_eq!(two.notes.take(), EMPTY);
    two.notes.waiting.store(0, Ordering::Relaxed);
    two.client.written();
    assert_eq!(two.notes.take(), ["2: b", "4: d", "5: a"], "what was settled is not outstanding");
    drop(two.client);
    place.node.stop().unwrap();
}

#[test]
fn a_client_that_comes_back_is_told_which_subscriptions_have_ended() {
    let place = Place::new();
    let mut other = place.visit();
    place.keep(b"a");
    other.ask(origin(), Ask::OpenChannel(ChannelOptions::default()));
    let delete = DeleteQueue { queue: Name::from("q"), if_unused: false, if_empty: false };
    assert_eq!(other.ask(origin(), Ask::DeleteQueue(delete)), []);
    let mut two = place.visit();
    assert_eq!(two.attach(false, 1_000), Some((true, vec![])));
    assert_eq!(two.notes.take(), ["cancelled tag"], "and its message is gone");
    drop((two.client, other.client));
    place.node.stop().unwrap();
}
