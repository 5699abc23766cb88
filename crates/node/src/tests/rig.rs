//! What tests of a whole node share: a folder, a clock that stands still, and a disk whose syncs can be blocked.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ferrymq_model::{
    Arguments, Ask, Body, Command, DeclareQueue, DialectId, Event, Limits, Login, Name, OnRefusal, Origin, Publish,
    Request, Span, Time,
};
use ferrymq_storage::{Disk, DiskFile, DiskLock, Open, Options, RealDisk};
use parking_lot::{Condvar, Mutex};

use crate::{Backend, Client, Effects, Host, Node, NodeSettings, Peer};

pub fn open(folder: &Folder, gate: Arc<Gate>, host: Arc<dyn Host>) -> Arc<Node> {
    let settings = NodeSettings {
        directory: folder.0.clone(),
        limits: Limits::default(),
        storage: Options { file_bytes: 256 << 10, ..Options::default() },
        fixed: Default::default(),
        dialects: Default::default(),
        backends: vec![Backend::Internal],
        events: true,
    };
    Node::open(settings, Arc::new(GatedDisk(gate)), host).unwrap()
}

pub fn origin() -> Origin {
    Origin { channel: 1, ..Origin::default() }
}

/// A request on channel 1, whose answer the peer gets.
pub fn request(ask: Ask) -> Command {
    Command::Request(Request { origin: origin(), ask })
}

/// Carries out commands, none of which may be refused.
pub fn carry_out(client: &mut Client, input: &[u8], commands: Vec<Command>) {
    let mut events = Vec::new();
    for command in commands {
        client.command(input, command, &mut events);
    }
    client.finish(input, &mut events);
    assert!(!events.iter().any(|event| matches!(event, Event::Refused { .. })), "{events:?}");
}

/// What opens a connection and its channel 1.
pub fn login() -> Vec<Command> {
    let login = Login::Password { user: Name::from("guest"), password: b"guest".to_vec() };
    let open_vhost = request(Ask::OpenVhost { vhost: Name::from("/"), properties_bytes_max: 4_096 });
    vec![Command::Login(login), open_vhost, request(Ask::OpenChannel(OnRefusal::CloseChannel))]
}

/// When the clock of a fake host begins.
pub const START: Time = Time(1_700_000_000_000);

/// What differs in a test's host from one whose clock stands still, and which does everything at once.
pub trait FakeHost: Send + Sync {
    fn now(&self) -> Time {
        START
    }

    fn wall(&self) -> Time {
        self.now()
    }

    fn nanoseconds(&self) -> u64 {
        0
    }

    fn lengthy(&self, work: &mut dyn FnMut()) {
        work();
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}

impl<T: FakeHost> Host for T {
    fn now(&self) -> Time {
        FakeHost::now(self)
    }

    fn nanoseconds(&self) -> u64 {
        FakeHost::nanoseconds(self)
    }

    fn wall(&self) -> Time {
        FakeHost::wall(self)
    }

    fn random(&self) -> u128 {
        7
    }

    fn set_timer(&self, _: Option<Time>) {}

    fn lengthy(&self, work: &mut dyn FnMut()) {
        FakeHost::lengthy(self, work);
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        FakeHost::compute(self, work);
    }

    fn memory_bytes(&self) -> Option<u64> {
        FakeHost::memory_bytes(self)
    }

    fn fault(&self, reason: String) {
        panic!("{reason}");
    }
}

/// A host whose clock stands still.
pub struct Still;

impl FakeHost for Still {}

/// A host whose clock the test sets, in milliseconds.
#[derive(Default)]
pub struct Moving(pub AtomicU64);

impl FakeHost for Moving {
    fn now(&self) -> Time {
        START.after_ms(self.0.load(Ordering::Relaxed))
    }
}

/// The declaration of a queue without any flag or argument.
pub fn declaration(name: &str) -> DeclareQueue {
    DeclareQueue {
        queue: Name::from(name),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::default(),
    }
}

/// A peer that accepts everything and ignores it.
pub struct Nobody;

impl Peer for Nobody {
    fn send(&self, _: &Effects) {}

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {}
}

/// A transient publish to the default exchange, on channel 1; its names are empty.
pub fn publish(body: Body) -> Publish {
    let empty = Span { start: 0, len: 0 };
    Publish {
        origin: origin(),
        dialect: DialectId(1),
        exchange: empty,
        routing_key: empty,
        properties: empty,
        body,
        mandatory: false,
        persistent: false,
        priority: None,
        expiration_ms: None,
        rare: None,
    }
}

/// Blocks syncs while it is closed.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    /// How many syncs wait.
    waiting: u32,
}

impl Gate {
    pub fn hold(&self) {
        self.state.lock().held = true;
    }

    pub fn release(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    pub fn wait_for_a_sync(&self) {
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

/// A folder that is removed at the end of the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("ferrymq-node-{}-{number}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If a folder cannot be removed, the system cleans it up later.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
