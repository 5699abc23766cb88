//! What becomes of a message on its way through a node: its key, its annotations, the numbers of bindings.

use std::sync::Arc;

use ferrymq_model::{
    Annotations, Ask, BindCommand, BindingSpec, Body, Command, Destination, Effect, GetCommand, MessageRef, Name,
    Publish, Request, Span, Subscribe, Table, TransactionId, Value,
};
use parking_lot::Mutex;

use crate::tests::rig::{Folder, Gate, Still, carry_out, declaration, login, open, origin, publish, request};
use crate::{Client, Effects, Peer};

/// A peer that notes the length of the key of each message, and the numbers of its bindings.
#[derive(Default)]
struct Notes(Mutex<Vec<(usize, Vec<u64>)>>);

impl Notes {
    fn take(&self) -> Vec<(usize, Vec<u64>)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Peer for Notes {
    fn send(&self, effects: &Effects) {
        effects.for_each(|effect| {
            if let Effect::Deliver { message, .. } | Effect::Got { message, .. } = effect {
                self.0.lock().push((message.routing_key.len(), Annotations::read(message.annotations).bindings));
            }
        });
    }

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {}
}

fn bind(queue: &str, key: &str, number: i64) -> Command {
    let ask = Ask::Bind(BindCommand {
        destination: Destination::Queue(Name::from(queue)),
        exchange: Name::from("amq.topic"),
        key: key.as_bytes().to_vec(),
        arguments: Table(vec![(BindingSpec::NUMBER.to_owned(), Value::Int(number))]),
    });
    // Its answer would wait for the journal, and everything after it.
    Command::Request(Request { origin: origin().unanswered(true), ask })
}

/// Publishes to `amq.topic`.
fn send(client: &mut Client, key: &str) {
    let input = [b"amq.topic", key.as_bytes()].concat();
    let exchange = Span { start: 0, len: 9 };
    let routing_key = Span { start: 9, len: key.len() as u32 };
    let one = Publish { exchange, routing_key, ..publish(Body::Span(Span::default())) };
    carry_out(client, &input, vec![Command::Publish(one)]);
}

fn get(client: &mut Client, queue: &str) {
    carry_out(client, b"", vec![request(Ask::Get(GetCommand { queue: Name::from(queue), no_ack: true }))]);
}

#[test]
fn readers_get_the_numbers_of_the_bindings_that_matched() {
    let (folder, notes) = (Folder::new(), Arc::new(Notes::default()));
    let node = open(&folder, Arc::<Gate>::default(), Arc::new(Still));
    let mut client = node.connect(notes.clone(), "test".to_owned(), true).unwrap();
    let declare = |name| request(Ask::DeclareQueue(declaration(name)));
    let commands = [declare("a"), declare("b"), bind("a", "k", 3), bind("a", "#", 2), bind("b", "k", 4)];
    carry_out(&mut client, b"", [login(), commands.to_vec()].concat());
    let subscribe = Subscribe {
        queue: Name::from("a"),
        tag: Name::from("t"),
        no_ack: true,
        exclusive: false,
        credit: None,
        arguments: Table::default(),
    };
    carry_out(&mut client, b"", vec![request(Ask::Subscribe(subscribe))]);
    for commit in [false, true] {
        if commit {
            carry_out(&mut client, b"", vec![request(Ask::SelectTransactions)]);
        }
        send(&mut client, "k");
        send(&mut client, "other");
        if commit {
            let commit = Request { origin: origin().unanswered(true), ask: Ask::Commit(TransactionId::SELECTED) };
            carry_out(&mut client, b"", vec![Command::Request(commit)]);
        }
        assert_eq!(notes.take(), [(1, vec![2, 3]), (5, vec![2])], "commit: {commit}");
        get(&mut client, "b");
        assert_eq!(notes.take(), [(1, vec![4])], "commit: {commit}");
    }
    drop(client);
    node.stop().unwrap();
}

#[test]
fn a_key_is_as_long_as_a_topic_name_of_mqtt() {
    let (folder, notes) = (Folder::new(), Arc::new(Notes::default()));
    let node = open(&folder, Arc::<Gate>::default(), Arc::new(Still));
    let mut client = node.connect(notes.clone(), "test".to_owned(), true).unwrap();
    let commands = vec![request(Ask::DeclareQueue(declaration("a"))), bind("a", "#", 1)];
    carry_out(&mut client, b"", [login(), commands].concat());
    let longest = "k".repeat(MessageRef::KEY_BYTES_MAX);
    for key in ["", &longest[..256], &longest] {
        send(&mut client, key);
        get(&mut client, "a");
        assert_eq!(notes.take(), [(key.len(), vec![1])]);
    }
    // A longer one is refused, and nobody gets it.
    send(&mut client, &(longest + "k"));
    get(&mut client, "a");
    assert_eq!(notes.take(), []);
    drop(client);
    node.stop().unwrap();
}
