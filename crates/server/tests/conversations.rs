//! Every protocol script against session and node in memory: without a socket, and with a clock that moves when a
//! script says so.
//!
//! Storage is the real one, in its own folder, because a confirm needs the flush. Its thread is the only other one
//! here; the conversation waits for it when it waits for an answer.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferrymq_amqp091::{Greeting, PropertyList};
use ferrymq_conformance::{Arrival, ConnectionId, Script, Suite, Target, Whose, play};
use ferrymq_model::{Dialect, Dialects, Effect, Limits, ServerProperties, Time};
use ferrymq_node::{Backend, Effects, FixedStorage, Host, Node, NodeSettings, Peer};
use ferrymq_server::{connection_log::ConnectionLog, pump::Pump};
use ferrymq_storage::{Options, RealDisk};
use ferrymq_wire::{Encoder, Moment, Outbox};
use parking_lot::{Condvar, Mutex};

/// No answer takes so long. It limits failures, not successes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The time of day at which a conversation begins; any time will do.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// The users, vhosts and policies that the scripts need.
const DEFINITIONS: &[u8] = include_bytes!("../../../conformance/amqp/definitions.json");

#[test]
fn every_script_in_memory() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/amqp");
    let suite = Suite::read(&folder).unwrap();
    let failures: Vec<String> = suite
        .scripts
        .iter()
        .filter_map(|script| {
            // A panic in one conversation fails that one only; the others still run.
            let played = std::panic::catch_unwind(|| suite.check(script, &mut Memory::new(), Whose::Ours));
            let failure = played.unwrap_or_else(|_| Err("panicked".to_owned())).err()?;
            Some(format!("{}: {failure}", script.name))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), suite.scripts.len(), failures.join("\n"));
}

/// Another connection's request closes a channel. The client's answer may be read before the channel's own connection has
/// looked at what the other one has caused.
#[test]
fn the_answer_to_a_close_is_understood_however_soon_it_comes() {
    let script = "
C: connect
C2: connect frame-max=4096
C: queue.declare queue=soon
S: queue.declare-ok
C2: basic.consume queue=soon consumer-tag=c
S2: basic.consume-ok
C: basic.publish routing-key=soon headers={own=\"x\"*5000} body=\"a\"
S2: channel.close reply-code=311
C2: channel.close-ok
C2: channel.open
S2: channel.open-ok
";
    let script = Script::parse("soon", script).unwrap();
    let mut memory = Memory::new();
    memory.answers_first = true;
    play(&script, &mut memory, Whose::Ours).unwrap();
}

/// The end of a connection comes in the same read as a message whose body must be in a file first.
#[test]
fn a_close_behind_a_long_body_is_answered() {
    const BODY_BYTES: usize = 2_000_000;
    let frame = |kind: u8, channel: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, channel][..], &length, payload, &[206]].concat()
    };
    let publish = [&[0, 60, 0, 40, 0, 0, 0, 4][..], b"long", &[0]].concat();
    let header = [&[0, 60, 0, 0][..], &(BODY_BYTES as u64).to_be_bytes(), &[0x10, 0, 2]].concat();
    let body: Vec<Vec<u8>> = vec![b'x'; BODY_BYTES].chunks(131_000).map(|part| frame(3, 1, part)).collect();
    let close = frame(1, 0, &[0, 10, 0, 50, 0, 200, 0, 0, 0, 0, 0]);
    let input = [frame(1, 1, &publish), frame(2, 1, &header), body.concat(), close].concat();
    let input = input.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
    let script = format!(
        "C: connect\nC: queue.declare queue=long durable=true exclusive=true\nS: queue.declare-ok\n\
         C: bytes{input}\nS1.0: connection.close-ok\n"
    );
    play(&Script::parse("long", &script).unwrap(), &mut Memory::new(), Whose::Ours).unwrap();
}

/// A node with a clock that stands still, and its connections.
struct Memory {
    /// Clients read and answer before the server looks at what others have caused.
    answers_first: bool,
    node: Arc<Node>,
    host: Arc<StandingClock>,
    /// Notified when something has arrived for any connection.
    bell: Arc<Bell>,
    greeting: Arc<Greeting>,
    connections: Vec<Option<InMemory>>,
    folder: PathBuf,
}

/// One connection, from the server's side.
struct InMemory {
    pump: Pump,
    peer: Arc<Buffer>,
    /// Bytes of an incomplete frame.
    unread: Vec<u8>,
}

impl Memory {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ferrymq-in-memory-{}-{number}", std::process::id()));
        let host = Arc::new(StandingClock::default());
        let settings = NodeSettings {
            directory: folder.clone(),
            limits: Limits::default(),
            fixed: FixedStorage::default(),
            storage: Options { file_bytes: 256 << 10, ..Options::default() },
            dialects: Dialects::new([&PropertyList as &'static dyn Dialect]),
            backends: vec![Backend::Internal],
            events: true,
        };
        let node = Node::open(settings, Arc::new(RealDisk), host.clone()).expect("an empty folder opens");
        node.import_definitions(DEFINITIONS, true).expect("the definitions of the scripts are right");
        let greeting = Arc::new(Greeting::new(&ServerProperties::default(), node.limits().clone()));
        Self { answers_first: false, node, host, bell: Arc::default(), greeting, connections: Vec::new(), folder }
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
        let node = self.host.timer.lock().map(|due| due.0.saturating_sub(BEGINNING_MS));
        sessions.map(|deadline| deadline.0).chain(node).filter(|due| *due <= end).min()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.connections.clear();
        self.node.stop().expect("everything can be written");
        // If a folder cannot be removed, the system cleans it up later.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Target for Memory {
    fn open(&mut self) -> Result<ConnectionId, String> {
        let peer = Arc::new(Buffer { bell: self.bell.clone(), outgoing: Mutex::default() });
        let client = self.node.connect(peer.clone(), "memory".to_owned(), true).map_err(|why| why.to_string())?;
        let session = Box::new(ferrymq_amqp091::Connection::new(self.greeting.clone()));
        let mut pump = Pump::new(session, client, ConnectionLog::default());
        pump.opened(self.host.moment(), &mut |encoder| peer.encode_with(encoder));
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
            self.host.passed_ms.fetch_max(due, Ordering::Relaxed);
            let is_due = self.host.timer.lock().take_if(|timer| timer.0 <= BEGINNING_MS + due).is_some();
            if is_due {
                self.node.on_timer();
            }
            self.attend_to_all();
        }
        self.host.passed_ms.store(end, Ordering::Relaxed);
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
        let peer = &self.peer;
        self.pump.begin_turn();
        let consumed = self.pump.input(&self.unread, now, &mut |encoder| peer.encode_with(encoder));
        self.unread.drain(..consumed);
    }

    /// Runs turns as long as there is something to do.
    fn take_rest(&mut self, now: Moment) {
        while self.pump.wants_rest() && !self.pump.is_paused() {
            self.take_unread(now);
        }
    }

    fn attend(&mut self, now: Moment) {
        let peer = &self.peer;
        self.pump.attend(now, &mut |encoder| peer.encode_with(encoder));
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
}

impl Buffer {
    fn encode_with(&self, encoder: Box<dyn Encoder>) {
        self.outgoing.lock().encoder = Some(encoder);
    }

    /// Moves what was sent. Returns whether there was something.
    fn take(&self, into: &mut Vec<u8>) -> bool {
        let outbox = &mut self.outgoing.lock().outbox;
        let before = into.len();
        while !outbox.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); 16];
            let count = outbox.slices(&mut slices);
            slices[..count].iter().for_each(|slice| into.extend_from_slice(slice));
            let taken = slices[..count].iter().map(|slice| slice.len()).sum();
            outbox.advance(taken);
        }
        into.len() > before
    }
}

impl Peer for Buffer {
    fn send(&self, effects: &Effects) {
        let Outgoing { outbox, encoder } = &mut *self.outgoing.lock();
        effects.for_each(|effect| match (effect, encoder.as_mut()) {
            (Effect::Frames(bytes), _) => outbox.bytes().extend_from_slice(bytes),
            (effect, Some(encoder)) => encoder.encode(effect, outbox),
            (_, None) => panic!("something was decided for a connection before its handshake was over"),
        });
        self.bell.ring();
    }

    /// Nothing waits: the reader may read everything.
    fn waiting(&self) -> usize {
        0
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
struct StandingClock {
    passed_ms: AtomicU64,
    timer: Mutex<Option<Time>>,
    given: AtomicU64,
}

impl StandingClock {
    fn moment(&self) -> Moment {
        Moment(self.passed_ms.load(Ordering::Relaxed))
    }
}

impl Host for StandingClock {
    fn now(&self) -> Time {
        Time(BEGINNING_MS + self.moment().0)
    }

    fn wall(&self) -> Time {
        self.now()
    }

    /// Nobody guesses here; it is enough that each value is different.
    fn random(&self) -> u128 {
        u128::from(self.given.fetch_add(1, Ordering::Relaxed)) << 64 | 0x5eed
    }

    fn set_timer(&self, due: Option<Time>) {
        *self.timer.lock() = due;
    }

    fn fault(&self, reason: String) {
        panic!("the node cannot go on: {reason}");
    }
}
