//! What tests of a whole node share: hosts and peers, of the parts that other tests have, too, and short functions for
//! commands.

use std::sync::Arc;

use ferrymq_model::{
    Arguments, Ask, Body, ChannelOptions, Command, DeclareQueue, DialectId, Event, Limits, Login, Name, Origin,
    Publish, Request, Span, Time,
};
use ferrymq_storage::Options;
use ferrymq_testkit::{Clock, GatedDisk};
pub use ferrymq_testkit::{Folder, Gate, START};

use crate::{Backend, Client, Effects, Host, Node, NodeSettings, Peer};

pub fn open(folder: &Folder, gate: Arc<Gate>, host: Arc<dyn Host>) -> Arc<Node> {
    let settings = NodeSettings {
        directory: folder.0.clone(),
        limits: Limits::default(),
        storage: Options { file_bytes: 256 << 10, read_bytes_max: 1 << 20, rest_ms: 50, ..Options::default() },
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
    let open_vhost = request(Ask::OpenVhost { vhost: Name::from("/"), properties_bytes_max: 4_096, client: None });
    vec![Command::Login(login), open_vhost, request(Ask::OpenChannel(ChannelOptions::default()))]
}

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

/// A host whose clock the test moves.
#[derive(Default)]
pub struct Moving(pub Clock);

impl FakeHost for Moving {
    fn now(&self) -> Time {
        self.0.now()
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
