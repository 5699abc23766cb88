//! Conversations of any protocol against session and node in memory: without a socket, and with a clock that moves when a
//! script says so.
//!
//! Storage is the real one, in its own folder, because a confirm needs the flush. Its thread is the only other one
//! here; the conversation waits for it when it waits for an answer.

use std::{sync::Arc, time::Duration};

use ferrymq_conformance::{Arrival, ConnectionId, Target};
use ferrymq_model::{Dialect, Dialects, Effect, Limits, Time};
use ferrymq_node::{Backend, Effects, FixedStorage, Host, Node, NodeSettings, Peer, StoppedEffects};
use ferrymq_server::{
    connection_log::ConnectionLog,
    pump::{Encoding, Pump},
};
use ferrymq_storage::{Options, RealDisk};
use ferrymq_testkit::{Clock, Folder};
use ferrymq_wire::{Encoded, Encoder, Moment, Outbox, Session};
use parking_lot::{Condvar, Mutex};

/// The users, vhosts and policies that the scripts need.
pub const DEFINITIONS: &[u8] = include_bytes!("../../../../conformance/amqp/definitions.json");

/// No answer takes so long. It limits failures, not successes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with a clock that stands still, and its connections.
pub struct Memory {
    /// Clients read and answer before the server looks at what others have caused.
    pub answers_first: bool,
    node: Arc<Node>,
    host: Arc<Process>,
    /// Notified when something has arrived for any connection.
    bell: Arc<Bell>,
    /// Begins a session.
    new_session: Box<dyn Fn() -> Box<dyn Session>>,
    dialects: Dialects,
    connections: Vec<Option<InMemory>>,
    folder: Folder,
}

/// One connection, from the server's side.
struct InMemory {
    pump: Pump,
    peer: Arc<Buffer>,
    /// Bytes of an incomplete frame.
    unread: Vec<u8>,
}

impl Memory {
    /// A node that has imported the definitions, and connections that begin with these sessions.
    pub fn new(
        dialects: &[&'static dyn Dialect],
        definitions: &[u8],
        sessions: impl FnOnce(&Limits) -> Box<dyn Fn() -> Box<dyn Session>>,
    ) -> Self {
        let (folder, host) = (Folder::new(), Arc::new(Process::default()));
        let dialects = Dialects::new(dialects.iter().copied());
        let node = Self::start(&folder, &dialects, host.clone());
        node.import_definitions(definitions, true).expect("the definitions of the scripts are right");
        let new_session = sessions(node.limits());
        let (bell, connections) = (Arc::default(), Vec::new());
        Self { answers_first: false, node, host, bell, new_session, dialects, connections, folder }
    }

    fn start(folder: &Folder, dialects: &Dialects, host: Arc<Process>) -> Arc<Node> {
        let settings = NodeSettings {
            directory: folder.0.clone(),
            limits: Limits::default(),
            fixed: FixedStorage::default(),
            storage: Options { file_bytes: 256 << 10, ..Options::default() },
            dialects: dialects.clone(),
            backends: vec![Backend::Internal],
            events: true,
        };
        Node::open(settings, Arc::new(RealDisk), host).expect("an empty or closed folder opens")
    }

    /// Ends all connections, stops the node, and starts it again.
    pub fn restart(&mut self) {
        self.connections.iter_mut().for_each(|connection| *connection = None);
        self.node.stop().expect("everything can be written");
        self.node = Self::start(&self.folder, &self.dialects, self.host.clone());
    }

    fn attend_to_all(&mut self) {
        let now = self.host.moment();
        for connection in self.connections.iter_mut().flatten() {
            connection.attend(now);
        }
    }

    /// The next time at which the node or a session has something to do, if it is before `end`.
    fn next_timer(&self, end: u64) -> Option<u64> {
        let sessions = self.connections.iter().flatten().filter_map(|connection| connection.pump.deadline());
        sessions.map(|deadline| deadline.0).chain(self.host.0.timer_ms()).filter(|due| *due <= end).min()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.connections.clear();
        self.node.stop().expect("everything can be written");
    }
}

impl Target for Memory {
    fn open(&mut self) -> Result<ConnectionId, String> {
        let peer = Arc::new(Buffer { bell: self.bell.clone(), outgoing: Mutex::default() });
        let client = self.node.connect(peer.clone(), "memory".to_owned(), true).map_err(|why| why.to_string())?;
        let mut pump = Pump::new((self.new_session)(), client, ConnectionLog::default());
        pump.opened(self.host.moment(), &*peer);
        self.connections.push(Some(InMemory { pump, peer, unread: Vec::new() }));
        Ok(self.connections.len() - 1)
    }

    fn send(&mut self, connection: ConnectionId, bytes: &[u8]) -> Result<(), String> {
        if let Some(connection) = &mut self.connections[connection] {
            connection.input(bytes, self.host.moment());
        }
        Ok(())
    }

    fn receive(&mut self, connection: ConnectionId, into: &mut Vec<u8>) -> Result<Arrival, String> {
        loop {
            let heard = self.bell.count();
            if self.answers_first
                && let Some(open) = &self.connections[connection]
                && open.peer.take(into)
            {
                return Ok(Arrival::Bytes);
            }
            self.attend_to_all();
            let Some(open) = &self.connections[connection] else { return Ok(Arrival::Closed) };
            let over = open.pump.is_closing() && open.pump.is_drained();
            if open.peer.take(into) {
                return Ok(Arrival::Bytes);
            }
            if over {
                self.connections[connection] = None;
                return Ok(Arrival::Closed);
            }
            if !self.bell.wait_after(heard) {
                return Ok(Arrival::Quiet);
            }
        }
    }

    fn abandon(&mut self, connection: ConnectionId) {
        self.connections[connection] = None;
    }

    /// Stops at each timer on the way, as a real clock would.
    fn advance(&mut self, by: Duration) {
        let end = self.host.moment().0 + u64::try_from(by.as_millis()).expect("scripts are short");
        while let Some(due) = self.next_timer(end) {
            self.host.0.advance_to(due);
            if self.host.0.take_due() {
                self.node.on_timer();
            }
            self.attend_to_all();
        }
        self.host.0.advance_to(end);
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.host.moment().0)
    }

    fn advance_to_next_timer(&mut self) {
        if let Some(due) = self.next_timer(u64::MAX) {
            self.advance(Duration::from_millis(due.saturating_sub(self.host.moment().0)));
        }
    }
}

impl InMemory {
    fn input(&mut self, bytes: &[u8], now: Moment) {
        self.unread.extend_from_slice(bytes);
        self.take_unread(now);
        self.take_rest(now);
    }

    fn take_unread(&mut self, now: Moment) {
        self.pump.begin_turn();
        let consumed = self.pump.input(&self.unread, now, &*self.peer);
        self.unread.drain(..consumed);
    }

    /// Runs turns as long as there is something to do.
    fn take_rest(&mut self, now: Moment) {
        while self.pump.wants_rest() && !self.pump.is_paused() {
            self.take_unread(now);
        }
    }

    fn attend(&mut self, now: Moment) {
        self.pump.attend(now, &*self.peer);
        self.take_rest(now);
    }
}

/// A socket that accepts everything at once.
struct Buffer {
    bell: Arc<Bell>,
    /// The flush thread, which sends confirms, uses it too.
    outgoing: Mutex<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    outbox: Outbox,
    encoder: Option<Box<dyn Encoder>>,
    /// What waits for a window.
    stopped: StoppedEffects,
}

impl Encoding for Buffer {
    fn encode_with(&self, encoder: Box<dyn Encoder>) {
        self.outgoing.lock().encoder = Some(encoder);
    }

    fn resume(&self, channel: u16) -> usize {
        let Outgoing { outbox, encoder, stopped } = &mut *self.outgoing.lock();
        let encoder = encoder.as_mut().expect("what stopped has an encoder");
        let before = outbox.len();
        encoder.resume(channel);
        stopped.resume(channel, |effect| encoder.encode(effect, outbox) == Encoded::Whole);
        self.bell.ring();
        outbox.len() - before
    }
}

impl Buffer {
    /// Moves what was sent. Returns whether there was something.
    fn take(&self, into: &mut Vec<u8>) -> bool {
        let outbox = &mut self.outgoing.lock().outbox;
        let before = into.len();
        while !outbox.is_empty() {
            let start = into.len();
            if let Some(stretch) = outbox.file() {
                into.resize(start + stretch.bytes, 0);
                stretch
                    .file
                    .read_at(stretch.position, &mut into[start..])
                    .expect("the file is as long as was promised");
            } else {
                let mut slices = [std::io::IoSlice::new(&[]); 16];
                let count = outbox.slices(&mut slices);
                slices[..count].iter().for_each(|slice| into.extend_from_slice(slice));
            }
            outbox.advance(into.len() - start);
        }
        into.len() > before
    }
}

impl Peer for Buffer {
    fn send(&self, effects: &Effects) {
        let Outgoing { outbox, encoder, stopped } = &mut *self.outgoing.lock();
        effects.encode_each(stopped, |effect| match (effect, encoder.as_mut()) {
            (Effect::Frames(bytes), _) => {
                outbox.bytes().extend_from_slice(bytes);
                None
            }
            (effect, Some(encoder)) => match encoder.encode(effect, outbox) {
                Encoded::Whole => None,
                Encoded::Stopped { channel } => Some(channel),
            },
            (_, None) => panic!("something was decided for a connection before its handshake was over"),
        });
        self.bell.ring();
    }

    /// Nothing waits: the reader may read everything.
    fn waiting(&self) -> usize {
        0
    }

    fn stopped(&self) -> usize {
        self.outgoing.lock().stopped.len_bytes()
    }

    fn wake(&self) {
        self.bell.ring();
    }
}

/// Counts events, and lets one thread wait for more.
#[derive(Default)]
struct Bell {
    count: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.count.lock() += 1;
        self.rung.notify_all();
    }

    fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Waits until the count is above `heard`. False if nothing happens.
    fn wait_after(&self, heard: u64) -> bool {
        let mut count = self.count.lock();
        !self.rung.wait_while_for(&mut count, |count| *count == heard, PATIENCE).timed_out()
    }
}

/// A process in which time passes when a script says so.
#[derive(Debug, Default)]
struct Process(Clock);

impl Process {
    fn moment(&self) -> Moment {
        Moment(self.0.passed_ms())
    }
}

impl Host for Process {
    fn now(&self) -> Time {
        self.0.now()
    }

    fn wall(&self) -> Time {
        self.0.now()
    }

    fn random(&self) -> u128 {
        self.0.random()
    }

    fn set_timer(&self, due: Option<Time>) {
        self.0.set_timer(due);
    }

    fn fault(&self, reason: String) {
        panic!("the node cannot go on: {reason}");
    }
}
