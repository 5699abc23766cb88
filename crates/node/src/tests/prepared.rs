//! Prepared transactions, also over a restart.

use std::sync::Arc;

use ferrymq_model::{
    Ask, Body, Command, Credit, Deliveries, Event, Name, Outcome, Publish, PublishExtras, Refusal, Reply, Settle,
    Settlement, Span, Subscribe, TransactionId,
};

use crate::tests::rig::{Folder, Gate, Still, carry_out, declaration, login, open, origin, publish, request};
use crate::tests::talk::{Notes, of_session};
use crate::{Client, Node};

/// A node and one client of it, with channel 1.
struct Place {
    folder: Folder,
    node: Arc<Node>,
    client: Client,
    notes: Arc<Notes>,
}

impl Place {
    fn new() -> Self {
        Self::at(Folder::new())
    }

    fn at(folder: Folder) -> Self {
        let node = open(&folder, Arc::new(Gate::default()), Arc::new(Still));
        let notes = Arc::new(Notes::default());
        let mut client = node.connect(notes.clone(), "test".to_owned(), true).unwrap();
        carry_out(&mut client, b"", login());
        let queue = ferrymq_model::DeclareQueue { durable: true, ..declaration("q") };
        carry_out(&mut client, b"", vec![request(Ask::DeclareQueue(queue))]);
        Self { folder, node, client, notes }
    }

    /// Stops the node, and starts it again.
    fn restart(self) -> Self {
        let Self { folder, node, client, .. } = self;
        drop(client);
        node.stop().unwrap();
        drop(node);
        Self::at(folder)
    }

    fn ask(&mut self, ask: Ask) -> Result<Reply, Refusal> {
        let mut events = Vec::new();
        self.client.command(
            b"",
            Command::Request(ferrymq_model::Request { origin: of_session(1, 5), ask }),
            &mut events,
        );
        loop {
            let turns = self.notes.turns();
            self.client.take_events(&mut events);
            match events.pop() {
                Some(Event::Answered { reply, .. }) => return reply,
                Some(Event::Refused { refusal, .. }) => return Err(refusal),
                Some(other) => panic!("{other:?}"),
                None => self.notes.wait_after(turns),
            }
        }
    }

    fn publish(&mut self, body: u8, transaction: Option<TransactionId>) {
        let (input, span) = ([b'q', body], |start| Span { start, len: 1 });
        let rare = transaction.map(|_| Box::new(PublishExtras { transaction, ..PublishExtras::default() }));
        let publish = Publish { routing_key: span(0), persistent: true, rare, ..publish(Body::Span(span(1))) };
        carry_out(&mut self.client, &input, vec![Command::Publish(publish)]);
    }

    /// Subscribes, and returns what is delivered at once.
    fn deliveries(&mut self, messages: u32) -> Vec<String> {
        let subscribe = Subscribe {
            queue: Name::from("q"),
            tag: Name::from("tag"),
            no_ack: false,
            exclusive: false,
            credit: Some(Credit::Pull { messages, wait_ms: 0 }),
            arguments: Default::default(),
        };
        assert!(self.ask(Ask::Subscribe(subscribe)).is_ok());
        while !self.notes.sees("lapsed") {
            let turns = self.notes.turns();
            self.client.resume();
            if !self.notes.sees("lapsed") {
                self.notes.wait_after(turns);
            }
        }
        let seen = self.notes.take();
        let is_delivery = |one: &String| one.split_once(": ").is_some_and(|(id, _)| id.parse::<u64>().is_ok());
        seen.into_iter().filter(is_delivery).collect()
    }

    fn accept(&mut self, id: u64, transaction: TransactionId) {
        let (deliveries, outcome) = (Deliveries::One(id), Outcome::Settled(Settlement::Accept));
        let settle = Settle { origin: origin(), deliveries, outcome, transaction: Some(transaction) };
        carry_out(&mut self.client, b"", vec![Command::Settle(settle)]);
    }

    /// A transaction that settles the first message of `ab` and publishes `c` is prepared as `xid`.
    fn prepare(&mut self) {
        let one = TransactionId(1);
        self.publish(b'a', None);
        self.publish(b'b', None);
        assert_eq!(self.deliveries(1), ["1: a"]);
        assert_eq!(self.ask(Ask::Begin(one)), Ok(Reply::TxBegun));
        self.publish(b'c', Some(one));
        self.accept(1, one);
        assert_eq!(self.ask(Ask::Prepare { transaction: one, name: b"xid".to_vec() }), Ok(Reply::TxPrepared));
        let again = self.ask(Ask::Commit(one));
        assert!(matches!(again, Err(Refusal::PreconditionFailed(_))), "{again:?}");
        self.ask(Ask::CloseChannel).unwrap();
        carry_out(&mut self.client, b"", vec![request(Ask::OpenChannel(Default::default()))]);
    }
}

fn named() -> Reply {
    Reply::Prepared(vec![b"xid".to_vec()])
}

#[test]
fn a_prepared_transaction_is_decided_later() {
    for restarts in [false, true] {
        for commits in [true, false] {
            let mut place = Place::new();
            place.prepare();
            if restarts {
                place = place.restart();
            }
            assert_eq!(place.ask(Ask::ListPrepared), Ok(named()));
            let (ask, reply) = if commits {
                (Ask::CommitPrepared(b"xid".to_vec()), Reply::TxCommitted)
            } else {
                (Ask::RollBackPrepared(b"xid".to_vec()), Reply::TxRolledBack)
            };
            assert_eq!(place.ask(ask.clone()), Ok(reply), "restarts: {restarts}");
            assert_eq!(place.ask(Ask::ListPrepared), Ok(Reply::Prepared(vec![])));
            let left: &[&str] = if commits { &["1: b", "2: c"] } else { &["1: a", "2: b"] };
            assert_eq!(place.deliveries(9), left, "restarts: {restarts}, commits: {commits}");

            // What was decided stays decided.
            let mut place = place.restart();
            assert_eq!(place.ask(Ask::ListPrepared), Ok(Reply::Prepared(vec![])));
            assert_eq!(place.deliveries(9), left);
            assert!(matches!(place.ask(ask), Err(Refusal::PreconditionFailed(_))));
            drop(place.client);
            place.node.stop().unwrap();
        }
    }
}

#[test]
fn what_a_prepared_transaction_settles_is_not_ready() {
    let mut place = Place::new();
    place.prepare();
    assert_eq!(place.deliveries(9), ["1: b"]);
    let mut place = place.restart();
    assert_eq!(place.deliveries(9), ["1: b"], "it came back, and what is prepared did not");
    // Its queue can be purged and deleted meanwhile.
    place.ask(Ask::CloseChannel).unwrap();
    carry_out(&mut place.client, b"", vec![request(Ask::OpenChannel(Default::default()))]);
    let delete = ferrymq_model::DeleteQueue { queue: Name::from("q"), if_unused: false, if_empty: false };
    place.ask(Ask::PurgeQueue(Name::from("q"))).unwrap();
    place.ask(Ask::DeleteQueue(delete)).unwrap();
    assert_eq!(place.ask(Ask::CommitPrepared(b"xid".to_vec())), Ok(Reply::TxCommitted));
    drop(place.client);
    place.node.stop().unwrap();
}

#[test]
fn names_are_unique() {
    let mut place = Place::new();
    place.prepare();
    let two = TransactionId(2);
    place.ask(Ask::Begin(two)).unwrap();
    let again = place.ask(Ask::Prepare { transaction: two, name: b"xid".to_vec() });
    assert!(matches!(again, Err(Refusal::PreconditionFailed(_))), "{again:?}");
    drop(place.client);
    place.node.stop().unwrap();
}
