//! What happens when connections hold too much memory: the one that holds the most is not read, and closed after a
//! second.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use ferrymq_model::{
    Arguments, Ask, Body, Command, Deliveries, Event, Limits, Login, Name, Outcome, Publish, PublishExtras, Refusal,
    Settle, Settlement, Span, Subscribe, Time, TransactionId,
};
use ferrymq_storage::{Options, RealDisk};

use crate::connection::unacked::Delivery;
use crate::tests::rig::{FakeHost, Folder, carry_out, declaration, login, origin, publish, request};
use crate::{Backend, Client, Effects, Node, NodeSettings, Peer};

const MAX: usize = 32 << 20;

/// A clock that the test moves, and a process whose memory it sets.
#[derive(Default)]
struct Played {
    now: AtomicU64,
    /// 0: unknown.
    memory: AtomicU64,
}

impl FakeHost for Played {
    fn now(&self) -> Time {
        Time(self.now.load(Ordering::Relaxed))
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(self.memory.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

/// A socket that accepts all but `waiting` bytes, of which some are in files; others wait for a window.
#[derive(Default)]
struct Socket {
    waiting: AtomicUsize,
    in_files: AtomicUsize,
    stopped: AtomicUsize,
}

impl Peer for Socket {
    fn send(&self, _: &Effects) {}

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn in_files(&self) -> usize {
        self.in_files.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> usize {
        self.stopped.load(Ordering::Relaxed)
    }

    fn discard(&self) {
        for bytes in [&self.waiting, &self.in_files, &self.stopped] {
            bytes.store(0, Ordering::Relaxed);
        }
    }

    fn wake(&self) {}
}

struct Rig {
    node: Arc<Node>,
    host: Arc<Played>,
    _folder: Folder,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        let (folder, host) = (Folder::new(), Arc::new(Played::default()));
        let node = open(&folder.0, limits, host.clone());
        Self { node, host, _folder: folder }
    }

    fn client(&self) -> (Client, Arc<Socket>) {
        let socket = Arc::new(Socket::default());
        let mut client = self.node.connect(socket.clone(), "test".to_owned(), true).unwrap();
        carry_out(&mut client, b"", login());
        (client, socket)
    }

    /// Like [`Rig::client`], for another user.
    fn client_of(&self, user: &str) -> (Client, Arc<Socket>) {
        let (name, vhost) = (Name::from(user), Name::from("/"));
        let mut catalog = self.node.catalog.write();
        catalog.put_user(&name, &ferrymq_auth::passwords::hash(b"secret", [7; 16]), &[], &mut Vec::new());
        catalog.set_permission(&name, &vhost, [".*"; 3], &mut Vec::new()).unwrap();
        drop(catalog);
        let socket = Arc::new(Socket::default());
        let mut client = self.node.connect(socket.clone(), "test".to_owned(), true).unwrap();
        let mut commands = login();
        commands[0] = Command::Login(Login::Password { user: name, password: b"secret".to_vec() });
        carry_out(&mut client, b"", commands);
        (client, socket)
    }

    /// Advances the clock, and the host calls the node at the time that the node asked for.
    fn pass(&self, ms: u64) {
        for _ in 0..ms / 100 {
            self.host.now.fetch_add(100, Ordering::Relaxed);
            self.node.on_timer();
        }
    }
}

fn open(folder: &Path, limits: Limits, host: Arc<Played>) -> Arc<Node> {
    let settings = NodeSettings {
        directory: folder.to_owned(),
        limits,
        storage: Options { file_bytes: 256 << 10, ..Options::default() },
        fixed: Default::default(),
        dialects: Default::default(),
        backends: vec![Backend::Internal],
        events: false,
    };
    Node::open(settings, Arc::new(RealDisk), host).unwrap()
}

/// Why the connection is to end, if it is.
fn end_of(client: &mut Client) -> Option<String> {
    let mut events = Vec::new();
    client.take_events(&mut events);
    events.into_iter().find_map(|event| match event {
        Event::Close(Refusal::ResourceLimit(why)) => Some(why),
        _ => None,
    })
}

fn uploads() -> Limits {
    Limits { uploads_bytes_max: MAX, ..Limits::default() }
}

fn memory() -> Limits {
    Limits { memory_bytes_max: MAX as u64, outbox_bytes_max: MAX, ..Limits::default() }
}

/// The connections of a user count together, even if each of many holds little.
#[test]
fn of_the_user_that_holds_the_most_one_connection_is_blocked_and_closed() {
    let rig = Rig::new(uploads());
    let mut many: Vec<Client> = (0..10).map(|_| rig.client().0).collect();
    let (mut other, _) = rig.client_of("other");
    other.holds(MAX / 100 * 20, 0);
    many.iter_mut().for_each(|client| client.holds(MAX / 100 * 7, 0));
    assert!(!other.is_paused(), "there is room");
    many[3].holds(MAX / 100 * 18, 0);
    assert!(many[3].is_paused() && !other.is_paused(), "another user's connection holds more, and that user less");
    rig.pass(1_000);
    let why = many.iter_mut().map(end_of).collect::<Vec<_>>();
    assert!(why[3].as_ref().is_some_and(|why| why.contains("holds the most")), "{why:?}");
    assert_eq!((why.iter().flatten().count(), end_of(&mut other)), (1, None));
}

#[test]
fn who_holds_the_most_is_blocked_and_then_closed_and_others_go_on() {
    let rig = Rig::new(uploads());
    let ((mut holder, _), (mut other, _)) = (rig.client(), rig.client());
    holder.holds(MAX / 100 * 95, 0);
    other.holds(MAX / 100 * 4, 0);
    assert!(!holder.is_paused() && !other.is_paused(), "there is room");
    other.holds(MAX / 100 * 8, 0);
    assert!(holder.is_paused() && !other.is_paused(), "only the largest is blocked");
    other.holds(MAX / 100 * 25, 0);
    rig.pass(100);
    assert!(holder.is_paused() && other.is_paused(), "the memory is used up");
    rig.pass(800);
    assert_eq!((end_of(&mut holder), end_of(&mut other)), (None, None));
    rig.pass(200);
    let why = end_of(&mut holder).expect("the holder is closed");
    assert!(why.contains("uploads_bytes_max") && why.contains(&(MAX / 100 * 95).to_string()), "{why}");
    holder.end();
    rig.pass(100);
    assert!(!other.is_paused(), "there is room again");
    rig.pass(5_000);
    assert_eq!(end_of(&mut other), None);
}

#[test]
fn who_gives_back_in_time_stays() {
    let rig = Rig::new(uploads());
    let ((mut holder, _), (mut other, _)) = (rig.client(), rig.client());
    holder.holds(MAX / 100 * 95, 0);
    other.holds(MAX / 100 * 8, 0);
    rig.pass(500);
    assert!(holder.is_paused());
    other.holds(0, 0);
    rig.pass(200);
    assert!(!holder.is_paused());
    rig.pass(5_000);
    assert_eq!(end_of(&mut holder), None);
}

#[test]
fn who_alone_holds_more_than_the_limit_is_closed_at_once() {
    let rig = Rig::new(uploads());
    let (mut client, _) = rig.client();
    client.holds(MAX + 1, 0);
    assert!(end_of(&mut client).is_some());
}

#[test]
fn open_transactions_count_and_a_rollback_gives_back() {
    let rig = Rig::new(uploads());
    let ((mut holder, _), (mut other, _)) = (rig.client(), rig.client());
    holder.holds(MAX / 100 * 95, 0);
    let queue = declaration("q");
    carry_out(&mut other, b"", vec![request(Ask::DeclareQueue(queue)), request(Ask::SelectTransactions)]);
    let body = Body::Shared(vec![0; MAX / 100 * 8].into());
    carry_out(
        &mut other,
        b"q",
        vec![Command::Publish(Publish { routing_key: Span { start: 0, len: 1 }, ..publish(body) })],
    );
    assert!(holder.is_paused() && !other.is_paused());
    carry_out(&mut other, b"", vec![request(Ask::RollBack(TransactionId::SELECTED))]);
    rig.pass(100);
    assert!(!holder.is_paused());
}

#[test]
fn output_that_is_not_read_counts_in_the_budget() {
    let rig = Rig::new(memory());
    let ((mut holder, socket), (mut other, _)) = (rig.client(), rig.client());
    socket.waiting.store(MAX / 2, Ordering::Relaxed);
    holder.written();
    other.holds(MAX / 4, MAX / 4 + 1);
    assert_eq!(end_of(&mut holder), None);
    // The largest in total, over all kinds.
    assert!(other.is_paused());
    rig.pass(1_100);
    let why = end_of(&mut other).expect("the largest is closed");
    assert!(why.contains("memory_bytes_max") && why.contains("unread input: 8388609"), "{why}");
    other.end();
    rig.pass(5_000);
    assert_eq!(end_of(&mut holder), None);
    let ledger = rig.node.usage().memory;
    assert!(ledger.contains(&("outboxes of connections", MAX as u64 / 2)), "{ledger:?}");
    drop(holder);
    assert!(rig.node.usage().memory.contains(&("outboxes of connections", 0)));
}

/// A body in several outboxes counts in each of them, and is in memory once.
#[test]
fn what_is_there_once_closes_nobody() {
    let rig = Rig::new(memory());
    rig.host.memory.store(MAX as u64 / 2, Ordering::Relaxed);
    let (mut clients, sockets): (Vec<_>, Vec<_>) = (0..8).map(|_| rig.client()).unzip();
    for (client, socket) in clients.iter_mut().zip(&sockets) {
        socket.waiting.store(MAX / 2, Ordering::Relaxed);
        client.written();
        rig.pass(2_000);
    }
    assert!(clients.iter_mut().all(|client| end_of(client).is_none() && !client.is_paused()));
    // The process has grown, and no account has.
    rig.host.memory.store(MAX as u64 + 1, Ordering::Relaxed);
    rig.pass(3_000);
    assert!(clients.iter_mut().any(|client| end_of(client).is_some()));
}

/// Other memory may fill the budget; then connections that hold less than half of it are not the reason.
#[test]
fn what_others_take_closes_no_connection() {
    let rig = Rig::new(memory());
    let (mut client, _) = rig.client();
    rig.host.memory.store(2 * MAX as u64, Ordering::Relaxed);
    client.holds(MAX / 2, 0);
    rig.pass(5_000);
    assert!(end_of(&mut client).is_none() && !client.is_paused());
}

/// What is sent from a file takes no memory; what waits for a window does, like what waits for the socket.
#[test]
fn bytes_in_files_are_no_memory_and_effects_that_wait_for_a_window_are() {
    let rig = Rig::new(memory());
    let (mut client, socket) = rig.client();
    socket.waiting.store(3 * MAX, Ordering::Relaxed);
    socket.in_files.store(3 * MAX, Ordering::Relaxed);
    client.written();
    assert!(!client.is_paused() && end_of(&mut client).is_none());
    socket.stopped.store(3 * MAX, Ordering::Relaxed);
    client.written();
    assert!(end_of(&mut client).is_some(), "the connection holds more memory than all may");
}

/// An idle connection is never the reason, whoever is: not while those that hold much end, and not after that.
#[test]
fn an_idle_connection_is_not_closed() {
    let rig = Rig::new(memory());
    let (mut idle, _) = rig.client();
    rig.host.memory.store(4 * MAX as u64, Ordering::Relaxed);
    let (mut holders, sockets): (Vec<_>, Vec<_>) = (0..3).map(|_| rig.client()).unzip();
    for (client, socket) in holders.iter_mut().zip(&sockets) {
        socket.waiting.store(MAX / 2, Ordering::Relaxed);
        client.written();
    }
    rig.pass(10_000);
    let closed: Vec<bool> = holders.iter_mut().map(|holder| end_of(holder).is_some()).collect();
    assert_eq!(closed.iter().filter(|closed| **closed).count(), 2, "until connections hold less than a half");
    assert_eq!(
        rig.node.usage().memory.iter().find(|(kind, _)| *kind == "outboxes of connections").unwrap().1,
        MAX as u64 / 2
    );
    assert_eq!(end_of(&mut idle), None);
    // They end, while their sockets take more time. The memory of the process stays where it is.
    for (client, socket) in holders.iter_mut().zip(&sockets) {
        client.end();
        socket.waiting.store(MAX, Ordering::Relaxed);
        client.written();
    }
    idle.holds(100, 100);
    rig.pass(10_000);
    assert!(end_of(&mut idle).is_none() && !idle.is_paused());
}

/// What waits for the socket of a connection that is closed for its memory is dropped, in the mailbox, too.
#[test]
fn who_is_closed_holds_nothing_any_more() {
    let rig = Rig::new(memory());
    let (mut holder, socket) = rig.client();
    let queue = declaration("q");
    carry_out(&mut holder, b"", vec![request(Ask::DeclareQueue(queue))]);
    socket.waiting.store(2 * MAX, Ordering::Relaxed);
    holder.written();
    let ledger = rig.node.usage().memory;
    assert!(ledger.contains(&("outboxes of connections", 0)), "{ledger:?}");
    assert!(end_of(&mut holder).is_some());
    assert!(holder.connection.mailbox().is_discarding);
}

/// A kept message takes far more than its own bytes.
#[test]
fn open_transactions_count_what_they_take() {
    let rig = Rig::new(uploads());
    let (mut client, _) = rig.client();
    let commands = vec![request(Ask::DeclareQueue(declaration("q"))), request(Ask::SelectTransactions)];
    carry_out(&mut client, b"", commands);
    let kept = |rig: &Rig| rig.node.usage().memory.iter().find(|(kind, _)| *kind == "open transactions").unwrap().1;
    let routing_key = Span { start: 0, len: 1 };
    let empty = || Command::Publish(Publish { routing_key, ..publish(Body::Span(Span { start: 1, len: 0 })) });
    carry_out(&mut client, b"q", (0..100).map(|_| empty()).collect());
    let least = size_of::<Publish>() + size_of::<PublishExtras>();
    assert!(kept(&rig) >= 100 * least as u64, "{}", kept(&rig));
    carry_out(&mut client, b"", vec![request(Ask::Commit(TransactionId::SELECTED))]);
    assert_eq!(kept(&rig), 0);

    // Settlements count, too.
    let subscribe = Subscribe {
        queue: Name::from("q"),
        tag: Name::from("tag"),
        no_ack: false,
        exclusive: false,
        credit: None,
        arguments: Arguments::default(),
    };
    carry_out(&mut client, b"", vec![request(Ask::Subscribe(subscribe))]);
    let settle = |deliveries| {
        Command::Settle(Settle {
            origin: origin(),
            deliveries,
            outcome: Outcome::Settled(Settlement::Accept),
            transaction: None,
        })
    };
    carry_out(&mut client, b"", (1..=50).map(|tag| settle(Deliveries::One(tag))).collect());
    let (single, at_once) = (kept(&rig), settle(Deliveries::UpTo(100)));
    assert!(single >= 50 * size_of::<(u64, Delivery)>() as u64, "{single}");
    carry_out(&mut client, b"", vec![at_once]);
    assert!(kept(&rig) - single >= 50 * size_of::<(u64, Delivery)>() as u64, "{}", kept(&rig));
    carry_out(&mut client, b"", vec![request(Ask::RollBack(TransactionId::SELECTED))]);
    assert_eq!(kept(&rig), 0);
}
