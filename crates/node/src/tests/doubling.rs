//! Tests with a whole node that the work for one object does not grow with the number of objects: with four times as
//! many of them, each costs as much as before. The instructions of the test's thread are counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use ferrymq_model::{
    Arguments, Ask, BindCommand, Body, ChannelOptions, Command, ConnectionId, DeclareQueue, DeleteQueue, Destination,
    Name, Origin, Request, Span, Subscribe, Value,
};
use ferrymq_testkit::{Callgrind, counting};
use parking_lot::Mutex;

use crate::tests::rig::{FakeHost, Folder, Gate, Nobody, Still, carry_out, declaration, login, open, publish, request};
use crate::{Client, Node};

struct Rig {
    node: Arc<Node>,
    _folder: Folder,
}

impl Rig {
    fn new() -> Self {
        let folder = Folder::new();
        Self { node: open(&folder, Arc::new(Gate::default()), Arc::new(Still)), _folder: folder }
    }

    fn connect(&self) -> Client {
        let mut client = self.node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
        carry_out(&mut client, b"", login());
        client
    }
}

fn declare(queue: &str, exclusive: bool) -> Command {
    request(Ask::DeclareQueue(DeclareQueue { exclusive, ..declaration(queue) }))
}

fn delete(queue: &str) -> Command {
    let queue = Name::from(queue);
    request(Ask::DeleteQueue(DeleteQueue { queue, if_unused: false, if_empty: false }))
}

fn consume(queue: &str, tag: usize) -> Command {
    request(Ask::Subscribe(Subscribe {
        queue: Name::from(queue),
        tag: Name::from(&*tag.to_string()),
        no_ack: true,
        exclusive: false,
        credit: None,
        arguments: Arguments::default(),
    }))
}

fn cancel(tag: usize) -> Command {
    request(Ask::Unsubscribe(Name::from(&*tag.to_string())))
}

fn bind(exchange: &str, queue: &str, number: usize) -> Command {
    request(Ask::Bind(BindCommand {
        destination: Destination::Queue(Name::from(queue)),
        exchange: Name::from(exchange),
        key: number.to_string().into_bytes(),
        arguments: ferrymq_model::Table(vec![("n".to_owned(), Value::Int(number as i64))]),
    }))
}

/// In one test, because each pays for a node and the hash of its user's password.
#[test]
fn connections_channels_and_consumers_come_and_go_in_linear_time() {
    counting(|callgrind| {
        let rig = Rig::new();
        callgrind.check_linear("connections", 105, |callgrind, count| {
            callgrind.instructions(|| {
                let connect = |_| rig.node.connect(Arc::new(Nobody), String::new(), true).unwrap();
                let mut clients: Vec<Client> = (0..count).map(connect).collect();
                // In another order than that of their declarations.
                while !clients.is_empty() {
                    clients.swap_remove(clients.len() / 2);
                }
            })
        });
        let on_channel = |number, ask| {
            let origin = Origin { channel: number as u16 + 2, ..Origin::default() };
            Command::Request(Request { origin, ask })
        };
        callgrind.check_linear("channels", 105, |callgrind, count| {
            let mut client = rig.connect();
            callgrind.instructions(|| {
                let open = |number| on_channel(number, Ask::OpenChannel(ChannelOptions::default()));
                carry_out(&mut client, b"", (0..count).map(open).collect());
                let close = |number| on_channel(number, Ask::CloseChannel);
                carry_out(&mut client, b"", (0..count / 2).map(close).collect());
                drop(client);
            })
        });
        let mut client = rig.connect();
        carry_out(&mut client, b"", vec![declare("q", false)]);
        callgrind.check_linear("consumers on one connection", 108, |callgrind, count| {
            callgrind.instructions(|| {
                carry_out(&mut client, b"", (0..count).map(|tag| consume("q", tag)).collect());
                carry_out(&mut client, b"", (0..count).map(cancel).collect());
            })
        });
    });
}

#[test]
fn a_connection_ends_in_linear_time_whatever_it_has() {
    counting(|callgrind| {
        let rig = Rig::new();
        callgrind.check_linear("exclusive queues", 105, |callgrind, count| {
            let mut client = rig.connect();
            carry_out(&mut client, b"", (0..count).map(|number| declare(&format!("q{number}"), true)).collect());
            callgrind.instructions(|| drop(client))
        });
        callgrind.check_linear("exclusive queues with bindings and consumers", 105, |callgrind, count| {
            let mut client = rig.connect();
            for number in 0..count {
                let queue = format!("q{number}");
                let commands =
                    vec![declare(&queue, true), bind("amq.headers", &queue, number), consume(&queue, number)];
                carry_out(&mut client, b"", commands);
            }
            callgrind.instructions(|| drop(client))
        });
    });
}

#[test]
fn a_message_reaches_many_connections_in_linear_time() {
    let input = b"amq.fanout";
    let message = || {
        let exchange = Span { start: 0, len: input.len() as u32 };
        Command::Publish(ferrymq_model::Publish { exchange, ..publish(Body::Span(Span { start: 0, len: 0 })) })
    };
    counting(|callgrind| {
        let rig = Rig::new();
        let mut publisher = rig.connect();
        callgrind.check_linear("connections that a message reaches", 105, |callgrind, count| {
            let mut consumers: Vec<Client> = (0..count).map(|_| rig.connect()).collect();
            for (number, consumer) in consumers.iter_mut().enumerate() {
                let queue = format!("q{number}");
                let commands = vec![declare(&queue, true), bind("amq.fanout", &queue, 0), consume(&queue, 0)];
                carry_out(consumer, b"", commands);
            }
            callgrind.instructions(|| (0..8).for_each(|_| carry_out(&mut publisher, input, vec![message()])))
        });
    });
}

/// A host that checks before each part of long work whether the catalog can be read.
#[derive(Default)]
struct Watched {
    node: Mutex<Weak<Node>>,
    lengthy: AtomicUsize,
}

impl FakeHost for Watched {
    fn lengthy(&self, work: &mut dyn FnMut()) {
        self.lengthy.fetch_add(1, Ordering::Relaxed);
        let node = self.node.lock().upgrade().unwrap();
        assert!(!node.catalog.is_locked(), "others can use the catalog");
        assert!(node.catalog.read().queues().next().is_none(), "the queue has gone by then");
        work();
    }
}

/// A queue is deleted at once and its bindings in portions, between which other clients can use the catalog. The next
/// command of the same connection finds none of the bindings.
#[test]
fn a_queue_goes_in_linear_time_and_portions_however_often_it_is_bound() {
    counting(|callgrind| {
        let (folder, host) = (Folder::new(), Arc::new(Watched::default()));
        let node = open(&folder, Arc::new(Gate::default()), host.clone());
        *host.node.lock() = Arc::downgrade(&node);
        let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
        carry_out(&mut client, b"", login());
        let mut prepare_and_delete = |callgrind: &mut Callgrind, count: usize| {
            carry_out(&mut client, b"", vec![declare("q", false)]);
            carry_out(&mut client, b"", (0..count).map(|number| bind("amq.headers", "q", number)).collect());
            let counted = callgrind.instructions(|| carry_out(&mut client, b"", vec![delete("q")]));
            assert!(!node.catalog.read().leads_anywhere("/", "amq.headers"));
            counted
        };
        prepare_and_delete(callgrind, 127);
        assert_eq!(host.lengthy.load(Ordering::Relaxed), 0);
        prepare_and_delete(callgrind, 300);
        assert_eq!(host.lengthy.load(Ordering::Relaxed), 1);
        callgrind.check_linear("bindings of a queue", 105, prepare_and_delete);
        drop(client);
        assert_eq!(node.catalog.read().owned_by(ConnectionId(0)).count(), 0);
    });
}
