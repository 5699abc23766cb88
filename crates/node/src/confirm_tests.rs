//! A confirm waits for the sync that covers it: a disk whose syncs can be held back shows it. The same test notices a
//! node that does not wait, which is the sabotage "confirm before sync". And what such a client does is counted.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ferrymq_model::{
    Arguments, Body, Command, DeclareQueue, Dialect, Effect, Event, GetCommand, Limits, Login, Name, Origin, Position,
    Publish, Reply, Settle, Settlement, Span, Time, Usage,
};
use ferrymq_storage::{Disk, DiskFile, DiskLock, Open, Options, RealDisk};
use parking_lot::{Condvar, Mutex};

use crate::{Backend, Client, Effects, Host, Node, NodeSettings, Peer};

#[test]
fn no_confirm_before_its_sync() {
    assert!(!confirmed_before_sync(|_| {}));
}

#[test]
fn a_sabotaged_node_that_confirms_before_the_sync_is_noticed() {
    // Nothing has been synced, and the node believes that everything has.
    assert!(confirmed_before_sync(|node| node.durable.set(Position(u64::MAX))));
}

#[test]
fn what_a_client_does_is_counted_for_its_vhost_and_its_user() {
    let folder = Folder::new();
    let seen = Arc::new(Seen::default());
    let node = open(&folder, Arc::default());
    let mut client = node.connect(seen.clone(), "test".to_owned(), true).unwrap();
    declare(&mut client);
    publish(&mut client);
    seen.wait(|what| what.confirmed);
    let get = GetCommand { origin: origin(), queue: Name::from("q"), no_ack: false };
    carry_out(&mut client, b"", vec![Command::Get(get)]);
    seen.wait(|what| what.got);
    let settlement = Settlement::Accept;
    let settle = Settle { origin: origin(), delivery_tag: 1, multiple: false, settlement };
    carry_out(&mut client, b"", vec![Command::Settle(settle)]);

    let done =
        Usage { published: 1, published_bytes: 1, delivered: 1, delivered_bytes: 1, acked: 1, ..Usage::default() };
    let open = Usage { connections: 1, channels: 1, ..done };
    let report = node.usage();
    assert_eq!(report.vhosts, [(Name::from("/"), open)]);
    assert_eq!(report.users, [(Name::from("guest"), open)]);
    assert!(report.memory.iter().any(|(owner, bytes)| *owner == "journal" && *bytes > 0), "{:?}", report.memory);
    drop(client);
    assert_eq!(node.usage().users, [(Name::from("guest"), done)]);
    node.stop().unwrap();
}

/// Publishes a persistent message and looks, while its sync is held back, whether it is confirmed already.
fn confirmed_before_sync(sabotage: impl FnOnce(&Node)) -> bool {
    let folder = Folder::new();
    let (gate, seen) = (Arc::new(Gate::default()), Arc::new(Seen::default()));
    let node = open(&folder, gate.clone());
    let mut client = node.connect(seen.clone(), "test".to_owned(), true).unwrap();
    declare(&mut client);
    seen.wait(|what| what.declared);

    sabotage(&node);
    gate.hold();
    publish(&mut client);
    gate.wait_for_a_sync();
    let too_early = seen.what.lock().confirmed;
    gate.release();
    seen.wait(|what| what.confirmed);
    drop(client);
    node.stop().unwrap();
    too_early
}

fn open(folder: &Folder, gate: Arc<Gate>) -> Arc<Node> {
    let settings = NodeSettings {
        directory: folder.0.clone(),
        limits: Limits::default(),
        storage: Options { file_bytes: 256 << 10, ..Options::default() },
        properties: Default::default(),
        backends: vec![Backend::Internal],
        events: false,
    };
    Node::open(settings, Arc::new(GatedDisk(gate)), Arc::new(Still)).unwrap()
}

fn origin() -> Origin {
    Origin { channel: 1, method: 0 }
}

fn carry_out(client: &mut Client, input: &[u8], commands: Vec<Command>) {
    let mut events = Vec::new();
    for command in commands {
        client.command(input, command, &mut events);
    }
    client.finish(input, &mut events);
    assert!(!events.iter().any(|event| matches!(event, Event::Refused { .. })), "{events:?}");
}

fn declare(client: &mut Client) {
    let login = Login::Password { user: Name::from("guest"), password: b"guest".to_vec() };
    let queue = DeclareQueue {
        origin: origin(),
        queue: Name::from("q"),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: Arguments::default(),
    };
    let commands = vec![
        Command::Login(login),
        Command::OpenVhost { origin: Origin::default(), vhost: Name::from("/") },
        Command::OpenChannel(origin()),
        Command::ConfirmSelect { origin: origin(), no_wait: false },
        Command::DeclareQueue(queue),
    ];
    carry_out(client, b"", commands);
}

fn publish(client: &mut Client) {
    let input = b"q";
    let empty = Span { start: 0, len: 0 };
    let publish = Publish {
        origin: origin(),
        dialect: Dialect::Amqp091,
        exchange: empty,
        routing_key: Span { start: 0, len: 1 },
        properties: empty,
        body: Body::Span(Span { start: 0, len: 1 }),
        mandatory: false,
        persistent: true,
        priority: None,
        expiration_ms: None,
        rare: None,
    };
    carry_out(client, input, vec![Command::Publish(publish)]);
}

/// What has come to the connection.
#[derive(Default)]
struct Seen {
    what: Mutex<What>,
    changed: Condvar,
}

#[derive(Default)]
struct What {
    declared: bool,
    confirmed: bool,
    got: bool,
}

impl Seen {
    fn wait(&self, until: impl Fn(&What) -> bool) {
        self.changed.wait_while(&mut self.what.lock(), |what| !until(what));
    }
}

impl Peer for Seen {
    fn send(&self, effects: &Effects) {
        let mut what = self.what.lock();
        effects.for_each(|effect| match effect {
            Effect::Reply { reply: Reply::QueueDeclared { .. }, .. } => what.declared = true,
            Effect::Confirm { .. } => what.confirmed = true,
            Effect::Got { .. } => what.got = true,
            _ => {}
        });
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {}
}

/// A host whose clock stands still.
struct Still;

impl Host for Still {
    fn now(&self) -> Time {
        Time(1_700_000_000_000)
    }

    fn random(&self) -> u128 {
        7
    }

    fn alarm(&self, _: Option<Time>) {}

    fn fault(&self, reason: String) {
        panic!("{reason}");
    }
}

/// Holds syncs back while it is closed.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    /// Syncs that wait.
    waiting: u32,
}

impl Gate {
    fn hold(&self) {
        self.state.lock().held = true;
    }

    fn release(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    fn wait_for_a_sync(&self) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.waiting == 0);
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.held);
        state.waiting -= 1;
    }
}

/// The real disk, with the gate before every sync of a file.
#[derive(Debug)]
struct GatedDisk(Arc<Gate>);

#[derive(Debug)]
struct GatedFile(Box<dyn DiskFile>, Arc<Gate>);

impl Disk for GatedDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.create_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(folder)
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(RealDisk.open(path, how)?, self.0.clone())))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        RealDisk.sync_folder(folder)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(position, parts)
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(position, into)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("ferrymq-confirm-{}-{number}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
