//! The catalog in memory equals the catalog in the journal: whatever connections change at the same time, nobody
//! sees a change that is not in the journal, and a restart recovers what was there.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use ferrymq_broker::Catalog;
use ferrymq_model::{
    Arguments, Ask, BindCommand, ChannelOptions, Command, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue,
    Destination, Event, Name, Position, Reply, Subscribe, Table, Time, Value,
};
use parking_lot::{Condvar, Mutex};

use crate::tests::rig::{FakeHost, Folder, Gate, START, Still, carry_out, declaration, login, open, request};
use crate::{Client, Effects, Node, Peer};

/// What a restart must recover, one line for each thing.
fn durable(catalog: &Catalog) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for vhost in catalog.vhosts() {
        lines.insert(format!("vhost {vhost}: {:?}", catalog.vhost_settings(vhost).unwrap()));
        let exchanges = catalog.exchanges(vhost).filter(|(_, spec)| spec.durable);
        lines.extend(exchanges.map(|(name, spec)| format!("exchange {name} in {vhost}: {spec:?}")));
        lines.extend(catalog.durable_bindings(vhost).map(|binding| format!("{binding:?}")));
    }
    lines.extend(catalog.users().map(|(name, user)| format!("user {name}: {user:?}")));
    let queues = catalog.queues().filter(|queue| queue.spec.durable);
    lines.extend(queues.map(|queue| format!("queue {:?}: {:?}", queue.id, queue.settings)));
    lines
}

fn declare_exchange(exchange: &str, kind: &str, auto_delete: bool) -> Command {
    let routes_as = ("x-delayed-type".to_owned(), Value::Text("fanout".to_owned()));
    request(Ask::DeclareExchange(DeclareExchange {
        exchange: Name::from(exchange),
        kind: Name::from(kind),
        passive: false,
        durable: true,
        auto_delete,
        internal: false,
        arguments: Table(if kind == "x-delayed-message" { vec![routes_as] } else { Vec::new() }),
    }))
}

fn delete_exchange(exchange: &str) -> Command {
    request(Ask::DeleteExchange(DeleteExchange { exchange: Name::from(exchange), if_unused: false }))
}

fn declare_queue(queue: &str, auto_delete: bool) -> Command {
    request(Ask::DeclareQueue(DeclareQueue { durable: true, auto_delete, ..declaration(queue) }))
}

fn delete_queue(queue: &str) -> Command {
    let queue = Name::from(queue);
    request(Ask::DeleteQueue(DeleteQueue { queue, if_unused: false, if_empty: false }))
}

fn consume(queue: &str) -> Command {
    request(Ask::Subscribe(Subscribe {
        queue: Name::from(queue),
        tag: Name::from("tag"),
        no_ack: true,
        exclusive: false,
        credit: None,
        arguments: Arguments::default(),
    }))
}

fn cancel() -> Command {
    request(Ask::Unsubscribe(Name::from("tag")))
}

fn binding(exchange: &str, destination: Destination) -> BindCommand {
    let (exchange, key) = (Name::from(exchange), b"k".to_vec());
    BindCommand { destination, exchange, key, arguments: Arguments::default() }
}

fn to_queue(name: &str) -> Destination {
    Destination::Queue(Name::from(name))
}

fn to_exchange(name: &str) -> Destination {
    Destination::Exchange(Name::from(name))
}

/// A peer that counts declarations and deletions.
#[derive(Default)]
struct CountingPeer {
    count: Mutex<usize>,
    changed: Condvar,
}

impl CountingPeer {
    fn count(&self) -> usize {
        *self.count.lock()
    }

    fn wait_for(&self, count: usize) {
        self.changed.wait_while(&mut self.count.lock(), |so_far| *so_far < count);
    }
}

impl Peer for CountingPeer {
    fn send(&self, effects: &Effects) {
        effects.for_each(|effect| {
            if let ferrymq_model::Effect::Reply { reply, .. } = effect
                && matches!(
                    reply,
                    Reply::ExchangeDeclared
                        | Reply::ExchangeDeleted
                        | Reply::Bound
                        | Reply::Unbound
                        | Reply::QueueDeclared { .. }
                        | Reply::QueueDeleted { .. }
                )
            {
                *self.count.lock() += 1;
                self.changed.notify_all();
            }
        });
    }

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {}
}

fn connect(node: &Arc<Node>) -> Client {
    let mut client = node.connect(Arc::new(CountingPeer::default()), "test".to_owned(), true).unwrap();
    carry_out(&mut client, b"", login());
    client
}

/// A host that looks at the node whenever the node reads the clock, as another connection could do at that moment.
#[derive(Default)]
struct Onlooker {
    node: Mutex<Weak<Node>>,
    seen: Mutex<(BTreeSet<String>, Position)>,
    /// How often something was visible, and how often the catalog was locked.
    looks: AtomicUsize,
    locked: AtomicUsize,
    /// What was visible and not in the journal.
    faults: Mutex<Vec<String>>,
}

impl Onlooker {
    fn look(&self) {
        let Some(node) = self.node.lock().upgrade() else { return };
        let Some(catalog) = node.catalog.try_read() else {
            self.locked.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(core) = node.core.try_lock() else { return };
        let Some(store) = core.store.as_ref() else { return };
        let (now, position) = (durable(&catalog), store.position());
        let mut seen = self.seen.lock();
        let changed: Vec<_> = now.symmetric_difference(&seen.0).collect();
        if !changed.is_empty() && position <= seen.1 {
            self.faults.lock().push(format!("{changed:#?}"));
        }
        *seen = (now, position);
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

impl FakeHost for Onlooker {
    fn now(&self) -> Time {
        self.look();
        START
    }
}

/// Each way in which the catalog changes, one after the other.
#[test]
fn no_change_can_be_seen_before_it_is_in_the_journal() {
    let (folder, onlooker) = (Folder::new(), Arc::new(Onlooker::default()));
    let node = open(&folder, Arc::default(), onlooker.clone());
    *onlooker.node.lock() = Arc::downgrade(&node);
    onlooker.look();
    let mut client = connect(&node);
    let steps = [
        declare_exchange("plain", "fanout", false),
        declare_exchange("delayed", "x-delayed-message", false),
        declare_exchange("history", "x-recent-history", false),
        declare_exchange("fleeting", "direct", true),
        declare_queue("q", false),
        declare_queue("fleeting", true),
        request(Ask::Bind(binding("plain", to_queue("q")))),
        request(Ask::Bind(binding("history", to_queue("q")))),
        request(Ask::Bind(binding("fleeting", to_queue("fleeting")))),
        request(Ask::Bind(binding("fleeting", to_exchange("delayed")))),
        request(Ask::Unbind(binding("plain", to_queue("q")))),
        request(Ask::Unbind(binding("fleeting", to_exchange("delayed")))),
        consume("fleeting"),
        // Deletes its queue too, and the exchange of the same name.
        cancel(),
        delete_queue("q"),
        delete_exchange("delayed"),
        delete_exchange("plain"),
    ];
    for step in steps {
        let (before, shown) = (onlooker.locked.load(Ordering::Relaxed), format!("{step:?}"));
        carry_out(&mut client, b"", vec![step]);
        onlooker.look();
        assert_eq!(*onlooker.faults.lock(), [""; 0], "can be seen after {shown}, and is not in the journal");
        let locked = onlooker.locked.load(Ordering::Relaxed) > before;
        assert!(locked || shown.contains("ask: Subscribe"), "nothing was seen of {shown}");
    }
    let definitions = br#"{"vhosts": [{"name": "v"}], "users": [{"name": "u", "password": "p"}],
        "permissions": [{"user": "u", "vhost": "v", "configure": "", "write": "", "read": ""}],
        "queues": [{"name": "q", "vhost": "v", "durable": true}],
        "exchanges": [{"name": "x", "vhost": "v", "type": "fanout", "durable": true}],
        "bindings": [{"source": "x", "vhost": "v", "destination": "q", "destination_type": "queue"}]}"#;
    node.import_definitions(definitions, true).unwrap();
    onlooker.look();
    assert!(onlooker.looks.load(Ordering::Relaxed) > 20, "the onlooker has looked");
    assert_eq!(*onlooker.faults.lock(), [""; 0], "can be seen, and is not in the journal");
    drop(client);
    node.stop().unwrap();
}

/// A small random number generator, so that a seed repeats what a connection does.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A change of one of a few things, whose names contain this number.
fn some_change(random: &mut Random, number: usize) -> Command {
    let exchange = &format!("{}{number}", ["x", "y", "fleeting"][random.below(3)]);
    let other = &format!("{}{number}", ["x", "y", "fleeting"][random.below(3)]);
    let queue = &format!("{}{number}", ["q", "fleeting"][random.below(2)]);
    let destination = if random.below(3) == 0 { to_exchange(other) } else { to_queue(queue) };
    match random.below(16) {
        0..=4 => declare_exchange(exchange, "direct", exchange.starts_with("fleeting")),
        5..=7 => delete_exchange(exchange),
        8..=9 => declare_queue(queue, queue.starts_with("fleeting")),
        10 => delete_queue(queue),
        11..=13 => request(Ask::Bind(binding(exchange, destination))),
        14 => request(Ask::Unbind(binding(exchange, destination))),
        _ if random.below(2) == 0 => consume(&format!("fleeting{number}")),
        _ => cancel(),
    }
}

/// Makes some changes of each number. A refused change closes the channel, which is opened again.
fn change_at_random(client: &mut Client, seed: u64, numbers: usize, start: impl Fn()) {
    let mut random = Random(seed);
    for number in 0..numbers {
        start();
        for _ in 0..6 {
            let mut events = Vec::new();
            client.command(b"", some_change(&mut random, number), &mut events);
            client.finish(b"", &mut events);
            if events.iter().any(|event| matches!(event, Event::Refused { .. })) {
                let close = request(Ask::CloseChannel);
                carry_out(client, b"", vec![close, request(Ask::OpenChannel(ChannelOptions::default()))]);
            }
        }
    }
}

/// The operating system chooses the interleaving, differently for each number. If changes are journaled in another
/// order than they were applied, some numbers show it.
#[test]
fn what_connections_change_at_the_same_time_is_the_same_after_a_restart() {
    const NUMBERS: usize = 8_000;
    let folder = Folder::new();
    let node = open(&folder, Arc::default(), Arc::new(Still));
    let mut clients = [connect(&node), connect(&node)];
    let arrived = AtomicUsize::new(0);
    let both_arrived = || {
        let last = arrived.fetch_add(1, Ordering::Relaxed) / 2 * 2 + 2;
        while arrived.load(Ordering::Relaxed) < last {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        for (client, seed) in clients.iter_mut().zip(1..) {
            scope.spawn(move || change_at_random(client, seed, NUMBERS, both_arrived));
        }
    });
    let before = durable(&node.catalog.read());
    drop(clients);
    node.stop().unwrap();
    drop(node);
    let again = open(&folder, Arc::default(), Arc::new(Still));
    let after = durable(&again.catalog.read());
    again.stop().unwrap();
    let different: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(different.is_empty(), "{} differ: {:#?}", different.len(), &different[..1]);
}

/// A connection that finds what another connection has just declared is answered when that is durable.
#[test]
fn what_is_not_durable_is_not_found_either() {
    let (folder, gate) = (Folder::new(), Arc::new(Gate::default()));
    let node = open(&folder, gate.clone(), Arc::new(Still));
    let peers = [Arc::new(CountingPeer::default()), Arc::new(CountingPeer::default())];
    let mut clients = peers.clone().map(|peer| node.connect(peer, "test".to_owned(), true).unwrap());
    clients.iter_mut().for_each(|client| carry_out(client, b"", login()));
    let setup = vec![declare_exchange("x", "direct", false), declare_queue("q", false)];
    carry_out(&mut clients[0], b"", setup);
    peers[0].wait_for(2);
    drop(clients);
    node.stop().unwrap();
    drop(node);
    // After a restart nobody has to wait for what was written before it.
    let node = open(&folder, gate.clone(), Arc::new(Still));
    let peers = [Arc::new(CountingPeer::default()), Arc::new(CountingPeer::default())];
    let mut clients = peers.clone().map(|peer| node.connect(peer, "test".to_owned(), true).unwrap());
    clients.iter_mut().for_each(|client| carry_out(client, b"", login()));
    carry_out(&mut clients[0], b"", vec![declare_exchange("x", "direct", false), declare_queue("q", false)]);
    peers[0].wait_for(2);
    let steps = [
        declare_exchange("new", "direct", false),
        declare_queue("new", false),
        request(Ask::Bind(binding("x", to_queue("q")))),
        request(Ask::Unbind(binding("x", to_queue("q")))),
        delete_exchange("new"),
        delete_queue("new"),
    ];
    for (done, step) in steps.into_iter().enumerate() {
        let before = [2 + done, done];
        gate.hold();
        for client in &mut clients {
            carry_out(client, b"", vec![step.clone()]);
        }
        gate.wait_for_a_sync();
        let answered = [peers[0].count(), peers[1].count()];
        gate.release();
        assert_eq!(answered, before, "{step:?} is answered before it is durable");
        peers.iter().zip(before).for_each(|(peer, before)| peer.wait_for(before + 1));
    }
    drop(clients);
    node.stop().unwrap();
}
