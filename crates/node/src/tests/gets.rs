//! Gets that wait for the disk: the answers of a channel come in the order of its requests, and what waits has limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferrymq_model::{
    Ask, Body, ChannelOptions, Command, DeclareQueue, DeleteQueue, Deliveries, Event, GetCommand, Name, Origin,
    Outcome, Publish, Settlement, Span, TransactionId,
};

use crate::tests::rig::{Gate, carry_out, declaration, origin, publish, request};
use crate::tests::talk::{Talk, of_session};

/// So many messages of [`BODY_BYTES`] that the first ones have left memory.
const MESSAGES: usize = 1_500;
const BODY_BYTES: usize = 3_000;
const EMPTY: [&str; 0] = [];
const WAITING: &str = "requests that wait for their turn";

fn get(queue: &str) -> Ask {
    Ask::Get(GetCommand { queue: Name::from(queue), no_ack: true })
}

fn on_channel(channel: u16) -> Origin {
    Origin { channel, ..origin() }
}

/// Reads wait until this is dropped, at the latest when a test fails.
struct HeldReads(Arc<Gate>);

impl HeldReads {
    fn new(talk: &Talk) -> Self {
        talk.gate.hold_reads();
        Self(talk.gate.clone())
    }
}

impl Drop for HeldReads {
    fn drop(&mut self) {
        self.0.release_reads();
    }
}

/// What the peer has got. Another thread may still be sending to it.
fn answers(talk: &Talk) -> Vec<String> {
    while !talk.client.is_drained() {
        std::thread::yield_now();
    }
    talk.notes.take()
}

fn memory_of(talk: &Talk, kind: &str) -> u64 {
    talk.node.usage().memory.iter().find(|(name, _)| *name == kind).expect("it is in the report").1
}

/// A conversation in which the first messages of the durable queue `d` are on disk, which does not answer. Queue `m` is
/// in memory, with one message. Returns also the number of the message of `d` that comes next.
fn blocked() -> (Talk, usize, HeldReads) {
    let mut talk = Talk::new();
    let durable = Ask::DeclareQueue(DeclareQueue { durable: true, ..declaration("d") });
    carry_out(&mut talk.client, b"", vec![request(durable), request(Ask::DeclareQueue(declaration("m")))]);
    talk.ask(on_channel(3), Ask::OpenChannel(ChannelOptions::default()));
    for number in 0..MESSAGES {
        let mut body = format!("d{number} ").into_bytes();
        body.resize(BODY_BYTES, b'x');
        publish_to(&mut talk, 1, b"d", &body);
    }
    publish_to(&mut talk, 1, b"m", b"m0");
    talk.wait_for(&mut Vec::new(), 0, 3);
    answers(&talk);
    // What has been moved to disk leaves memory when nothing is asked for.
    while memory_of(&talk, "journal") > 1 << 20 {
        std::thread::yield_now();
    }
    // Until a get has to wait: then all before it had their messages from memory.
    let reads = HeldReads::new(&talk);
    let mut next = 0;
    while {
        talk.ask(on_channel(3), get("d"));
        !answers(&talk).is_empty()
    } {
        next += 1;
    }
    assert!(next < MESSAGES / 2, "most messages are on disk: {next}");
    // The get that waits ends with its channel.
    talk.ask(on_channel(3), Ask::CloseChannel);
    talk.ask(on_channel(3), Ask::OpenChannel(ChannelOptions::default()));
    answers(&talk);
    assert_eq!(talk.node.gets.lock().len(), 0);
    (talk, next, reads)
}

/// Publishes a persistent message.
fn publish_to(talk: &mut Talk, channel: u16, queue: &[u8; 1], body: &[u8]) {
    let (routing_key, body) = (Span { start: 0, len: 1 }, Body::Shared(body.to_vec().into()));
    let publish = Publish { routing_key, origin: on_channel(channel), persistent: true, ..publish(body) };
    carry_out(&mut talk.client, queue, vec![Command::Publish(publish)]);
}

/// AMQP 0-9-1, section 4.7: the answers of a channel come in the order of its requests.
#[test]
fn requests_of_a_channel_wait_for_its_get() {
    let (mut talk, next, reads) = blocked();
    let token = |token| Origin { token, ..origin() };
    let passive = || Ask::DeclareQueue(DeclareQueue { passive: true, ..declaration("m") });
    talk.ask(token(1), get("d"));
    talk.ask(token(2), get("m"));
    talk.ask(token(3), passive());
    talk.ask(token(4), get("d"));
    talk.ask(token(5), Ask::Unsubscribe(Name::from("tag")));
    assert_eq!(answers(&talk), EMPTY, "the first answer waits for the disk");
    // Other channels go on.
    talk.ask(Origin { token: 6, ..on_channel(3) }, passive());
    let seen = answers(&talk);
    assert!(seen.len() == 1 && seen[0].starts_with("6 QueueDeclared"), "{seen:?}");
    drop(reads);
    talk.wait_for(&mut Vec::new(), 0, 5);
    let seen = answers(&talk);
    assert_eq!(seen[..2], [format!("got d{next}"), "got m0".to_owned()]);
    assert!(seen[2].starts_with("3 QueueDeclared"), "{seen:?}");
    assert_eq!(seen[3], format!("got d{}", next + 1));
    assert!(seen[4].starts_with("5 Unsubscribed"), "{seen:?}");
    talk.end();
}

/// Answers to gets need no credit, so a client that does not read could make the server hold any number of them.
#[test]
fn gets_of_a_client_that_does_not_read_wait() {
    let (mut talk, next, reads) = blocked();
    talk.notes.waiting.store(1 << 30, Ordering::Relaxed);
    (0..4).for_each(|_| _ = talk.ask(origin(), get("d")));
    talk.client.written();
    drop(reads);
    talk.wait_for(&mut Vec::new(), 0, 1);
    assert_eq!(answers(&talk), [format!("got d{next}")], "it was asked for before the socket was full");
    talk.client.take_events(&mut Vec::new());
    assert_eq!(answers(&talk), EMPTY);
    assert!(!talk.client.has_ready_commands(), "the owner need not look again and again");
    talk.notes.waiting.store(0, Ordering::Relaxed);
    let turns = talk.notes.turns();
    talk.client.written();
    assert_ne!(talk.notes.turns(), turns, "the owner is notified");
    talk.wait_for(&mut Vec::new(), 0, 3);
    assert_eq!(answers(&talk), [1, 2, 3].map(|more| format!("got d{}", next + more)));
    talk.end();
}

/// A settlement may mean the message of the get, and a publish belongs to the transaction that is open in its turn.
#[test]
fn publishes_and_settlements_of_a_channel_wait_for_its_get() {
    let (mut talk, next, reads) = blocked();
    carry_out(&mut talk.client, b"", vec![request(Ask::SelectTransactions)]);
    answers(&talk);
    let acknowledged = Ask::Get(GetCommand { queue: Name::from("d"), no_ack: false });
    talk.ask(origin(), acknowledged);
    publish_to(&mut talk, 1, b"m", b"m1");
    talk.tell(Deliveries::One(1), Outcome::Settled(Settlement::Accept));
    talk.ask(origin(), Ask::Commit(TransactionId::SELECTED));
    publish_to(&mut talk, 1, b"m", b"m2");
    talk.ask(origin(), Ask::RollBack(TransactionId::SELECTED));
    assert_eq!(answers(&talk), EMPTY);
    drop(reads);
    let mut events = Vec::new();
    talk.wait_for(&mut events, 0, 3);
    assert_eq!(answers(&talk), [format!("got d{next}"), "0 TxCommitted".to_owned(), "0 TxRolledBack".to_owned()]);
    assert_eq!(events, [], "the settlement was of a message that the channel had");
    talk.ask(on_channel(3), get("m"));
    talk.ask(on_channel(3), get("m"));
    talk.ask(on_channel(3), get("m"));
    assert_eq!(answers(&talk), ["got m0", "got m1", "0 GetEmpty"], "the second one was rolled back");
    talk.end();
}

#[test]
fn requests_whose_answers_the_session_gets_pass() {
    let (mut talk, _, reads) = blocked();
    talk.ask(on_channel(2), get("d"));
    let passive = Ask::DeclareQueue(DeclareQueue { passive: true, ..declaration("m") });
    let events = talk.ask(of_session(2, 7), passive);
    assert!(matches!(events[..], [Event::Answered { origin, reply: Ok(_) }] if origin.token == 7), "{events:?}");
    drop(reads);
    talk.end();
}

/// What a channel sent before its end has its effect, and nobody gets an answer that could be taken for another one.
#[test]
fn the_end_of_a_channel_does_not_wait_for_its_get() {
    let (mut talk, _, reads) = blocked();
    talk.ask(origin(), get("d"));
    talk.ask(origin(), Ask::DeclareQueue(declaration("late")));
    publish_to(&mut talk, 1, b"m", b"m1");
    talk.ask(origin(), get("m"));
    talk.ask(Origin { token: 9, ..origin() }, Ask::CloseChannel);
    assert_eq!(answers(&talk), ["9 ChannelClosed"]);
    assert_eq!(talk.node.gets.lock().len(), 0);
    let passive = |queue| Ask::DeclareQueue(DeclareQueue { passive: true, ..declaration(queue) });
    talk.ask(on_channel(3), passive("late"));
    talk.ask(on_channel(3), get("m"));
    talk.ask(on_channel(3), get("m"));
    let seen = answers(&talk);
    assert!(seen[0].starts_with("0 QueueDeclared"), "{seen:?}");
    assert_eq!(seen[1..], ["got m0", "got m1"]);

    talk.ask(on_channel(3), get("d"));
    talk.ask(on_channel(3), Ask::DeclareQueue(declaration("later")));
    let events = talk.ask(Origin { channel: 0, ..origin() }, Ask::CloseConnection);
    assert_eq!(events, [Event::ConnectionClosed]);
    assert!(talk.node.catalog.read().has_queue("/", "later"));
    assert_eq!(talk.node.gets.lock().len(), 0);
    drop(reads);
    talk.end();
}

/// A queue that is deleted or purged has nothing for those who wait.
#[test]
fn gets_of_a_queue_that_goes_are_answered() {
    for ask in [
        Ask::PurgeQueue(Name::from("d")),
        Ask::DeleteQueue(DeleteQueue { queue: Name::from("d"), if_unused: false, if_empty: false }),
    ] {
        let (mut talk, _, reads) = blocked();
        talk.ask(origin(), get("d"));
        talk.ask(origin(), get("m"));
        talk.ask(of_session(2, 1), ask);
        talk.wait_for(&mut Vec::new(), 0, 2);
        assert_eq!(answers(&talk), ["0 GetEmpty", "got m0"]);
        drop(reads);
        talk.end();
    }
}

/// A connection is not read while much of it waits, and what waits counts as its memory.
#[test]
fn what_waits_for_gets_has_limits() {
    let (mut talk, next, reads) = blocked();
    talk.ask(origin(), get("d"));
    for _ in 0..127 {
        talk.ask(origin(), get("d"));
    }
    assert!(!talk.client.is_paused());
    talk.ask(origin(), get("d"));
    assert!(talk.client.is_paused(), "128 requests wait");
    assert_eq!(talk.node.gets.lock().len(), 1, "for one get");
    talk.client.holds(0, 0);
    assert!(memory_of(&talk, WAITING) > 128 * 64);
    drop(reads);
    talk.wait_for(&mut Vec::new(), 0, 129);
    let expected: Vec<String> = (next..next + 129).map(|number| format!("got d{number}")).collect();
    assert_eq!(answers(&talk), expected);
    assert!(!talk.client.is_paused());

    // A long message is enough.
    let reads = HeldReads::new(&talk);
    while {
        talk.ask(origin(), get("d"));
        !answers(&talk).is_empty()
    } {}
    publish_to(&mut talk, 1, b"m", &[b'x'; 70_000]);
    assert!(talk.client.is_paused());
    drop(reads);
    talk.end();
}

/// Also where a session may have any number of gets under way.
#[test]
fn gets_of_a_session_have_a_limit() {
    let (mut talk, _, reads) = blocked();
    for token in 0..300 {
        talk.ask(of_session(2, token), get("d"));
    }
    assert_eq!(talk.node.gets.lock().len(), 64);
    assert!(talk.client.is_paused());
    drop(reads);
    let mut events = Vec::new();
    talk.wait_for(&mut events, 0, 300);
    assert!(answers(&talk).iter().all(|seen| seen.starts_with("got d")));
    assert!(!talk.client.is_paused());
    talk.end();
}
