//! Tests with a whole node that the work for one object does not grow with the number of objects: with two and four
//! times as many of them, each costs as much as before. The processor time of the test's thread is measured.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ferrymq_model::{
    Arguments, Ask, BindCommand, Body, ChannelOptions, Command, ConnectionId, DeclareQueue, DeleteQueue, Destination,
    Name, Origin, Request, Span, Subscribe, Value,
};
use parking_lot::Mutex;

use crate::tests::rig::{FakeHost, Folder, Gate, Nobody, Still, carry_out, declaration, login, open, publish, request};
use crate::{Client, Node};

/// The processor time of this thread so far.
fn processor_time() -> Duration {
    // The kernel updates the count when it schedules the next thread.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

const FEW: usize = 256;
/// The maximum cost for each of four times as many objects, in per cent of the cost for each of the few.
const GROWTH_MAX: u32 = 130;
/// Other programs may displace data from the processor's caches. So the shortest time of several rounds counts for each
/// size. This is the maximum number of rounds.
const ROUNDS_MAX: usize = 200;

/// Fails if the work for each of four times as many objects costs more than 1.3 times as much. `measure(count)` returns
/// the time of the work on `count` objects.
fn check_linear(what: &str, mut measure: impl FnMut(usize) -> Duration) {
    let counts = [FEW, 2 * FEW, 4 * FEW];
    let mut least = [Duration::MAX; 3];
    for _ in 0..ROUNDS_MAX {
        for (least, count) in least.iter_mut().zip(counts) {
            let each = measure(count) * 1_000 / count as u32;
            *least = each.min(*least);
        }
        if least[2] * 100 <= least[0] * GROWTH_MAX {
            return;
        }
    }
    panic!("{what}: a thousand take {least:?}, of {counts:?}");
}

fn time(work: impl FnOnce()) -> Duration {
    let before = processor_time();
    work();
    processor_time() - before
}

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

#[test]
fn connections_come_and_go_in_linear_time() {
    let rig = Rig::new();
    check_linear("connections", |count| {
        time(|| {
            let connect = |_| rig.node.connect(Arc::new(Nobody), String::new(), true).unwrap();
            let mut clients: Vec<Client> = (0..count).map(connect).collect();
            // In another order than that of their declarations.
            while !clients.is_empty() {
                clients.swap_remove(clients.len() / 2);
            }
        })
    });
}

#[test]
fn channels_of_one_connection_come_and_go_in_linear_time() {
    let rig = Rig::new();
    let channel = |number| Origin { channel: number as u16 + 2, ..Origin::default() };
    check_linear("channels", |count| {
        let mut client = rig.connect();
        time(|| {
            carry_out(
                &mut client,
                b"",
                (0..count)
                    .map(|number| {
                        Command::Request(Request {
                            origin: channel(number),
                            ask: Ask::OpenChannel(ChannelOptions::default()),
                        })
                    })
                    .collect(),
            );
            let close = |number| Command::Request(Request { origin: channel(number), ask: Ask::CloseChannel });
            carry_out(&mut client, b"", (0..count / 2).map(close).collect());
            drop(client);
        })
    });
}

#[test]
fn consumers_on_one_connection_come_and_go_in_linear_time() {
    let rig = Rig::new();
    let mut client = rig.connect();
    carry_out(&mut client, b"", vec![declare("q", false)]);
    check_linear("consumers on one connection", |count| {
        time(|| {
            carry_out(&mut client, b"", (0..count).map(|tag| consume("q", tag)).collect());
            carry_out(&mut client, b"", (0..count).map(cancel).collect());
        })
    });
}

#[test]
fn a_connection_ends_in_linear_time_whatever_it_has() {
    let rig = Rig::new();
    check_linear("exclusive queues", |count| {
        let mut client = rig.connect();
        carry_out(&mut client, b"", (0..count).map(|number| declare(&format!("q{number}"), true)).collect());
        time(|| drop(client))
    });
    check_linear("exclusive queues with bindings and consumers", |count| {
        let mut client = rig.connect();
        for number in 0..count {
            let queue = format!("q{number}");
            let commands = vec![declare(&queue, true), bind("amq.headers", &queue, number), consume(&queue, number)];
            carry_out(&mut client, b"", commands);
        }
        time(|| drop(client))
    });
}

#[test]
fn a_message_reaches_many_connections_in_linear_time() {
    let rig = Rig::new();
    let mut publisher = rig.connect();
    check_linear("connections that a message reaches", |count| {
        let mut consumers: Vec<Client> = (0..count).map(|_| rig.connect()).collect();
        for (number, consumer) in consumers.iter_mut().enumerate() {
            let queue = format!("q{number}");
            carry_out(consumer, b"", vec![declare(&queue, true), bind("amq.fanout", &queue, 0), consume(&queue, 0)]);
        }
        let input = b"amq.fanout";
        let message = || {
            let exchange = Span { start: 0, len: input.len() as u32 };
            Command::Publish(ferrymq_model::Publish { exchange, ..publish(Body::Span(Span { start: 0, len: 0 })) })
        };
        time(|| (0..8).for_each(|_| carry_out(&mut publisher, input, vec![message()])))
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
    let (folder, host) = (Folder::new(), Arc::new(Watched::default()));
    let node = open(&folder, Arc::new(Gate::default()), host.clone());
    *host.node.lock() = Arc::downgrade(&node);
    let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    carry_out(&mut client, b"", login());
    let mut prepare_and_delete = |count: usize| {
        carry_out(&mut client, b"", vec![declare("q", false)]);
        carry_out(&mut client, b"", (0..count).map(|number| bind("amq.headers", "q", number)).collect());
        let taken = time(|| carry_out(&mut client, b"", vec![delete("q")]));
        assert!(!node.catalog.read().leads_anywhere("/", "amq.headers"));
        taken
    };
    prepare_and_delete(127);
    assert_eq!(host.lengthy.load(Ordering::Relaxed), 0);
    prepare_and_delete(300);
    assert_eq!(host.lengthy.load(Ordering::Relaxed), 1);
    check_linear("bindings of a queue", prepare_and_delete);
    drop(client);
    assert_eq!(node.catalog.read().owned_by(ConnectionId(0)).count(), 0);
}
