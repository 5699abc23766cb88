//! The client's side of the connections in a conversation: they are opened and closed, they send, and they wait.

use std::collections::BTreeMap;

use crate::amqp::{self, FRAME_END, Fields};
use crate::inbox::{Inbox, Received};
use crate::notation::{Arguments, Captures, Term};
use crate::spec::{FieldKind, Spec};
use crate::target::{Arrival, ConnectionId, Target};
use crate::value::{Item, Table, Value};

/// The connections, by their numbers in the script.
pub struct Peers<'t> {
    target: &'t mut dyn Target,
    peers: BTreeMap<usize, Peer>,
}

#[derive(Debug)]
struct Peer {
    id: ConnectionId,
    inbox: Inbox,
    closed_by_server: bool,
    frame_bytes_max: usize,
}

impl<'t> Peers<'t> {
    pub fn new(target: &'t mut dyn Target) -> Self {
        Self { target, peers: BTreeMap::new() }
    }

    pub fn target(&mut self) -> &mut dyn Target {
        self.target
    }

    pub fn open(&mut self, number: usize) -> Result<(), String> {
        if self.peers.contains_key(&number) {
            return Err(format!("connection {number} is already open"));
        }
        let id = self.target.open()?;
        let peer = Peer { id, inbox: Inbox::default(), closed_by_server: false, frame_bytes_max: 4096 };
        self.peers.insert(number, peer);
        Ok(())
    }

    pub fn is_open(&self, number: usize) -> bool {
        self.peers.get(&number).is_some_and(|peer| !peer.closed_by_server)
    }

    pub fn numbers(&self) -> Vec<usize> {
        self.peers.keys().copied().collect()
    }

    fn peer(&mut self, number: usize) -> Result<&mut Peer, String> {
        self.peers.get_mut(&number).ok_or_else(|| format!("connection {number} is not open"))
    }

    pub fn inbox(&mut self, number: usize) -> Result<&mut Inbox, String> {
        Ok(&mut self.peer(number)?.inbox)
    }

    pub fn frame_bytes_max(&mut self, number: usize) -> Result<usize, String> {
        Ok(self.peer(number)?.frame_bytes_max)
    }

    pub fn send(&mut self, number: usize, bytes: &[u8]) -> Result<(), String> {
        let id = self.peer(number)?.id;
        self.target.send(id, bytes)
    }

    pub fn send_frame(&mut self, number: usize, channel: u16, kind: u8, payload: &[u8]) -> Result<(), String> {
        self.send(number, &amqp::frame(kind, channel, payload, FRAME_END))
    }

    /// Sends a method. Fields that are not given are zero or empty.
    pub fn send_method(&mut self, number: usize, channel: u16, name: &str, fields: &Fields) -> Result<(), String> {
        let method = Spec::amqp091().method(name).ok_or_else(|| format!("there is no method {name}"))?;
        let payload = amqp::method_payload(method, |field| {
            let given = fields.iter().find(|(name, _)| *name == field.name);
            Ok(given.map_or_else(|| amqp::default_of(field.kind), |(_, value)| value.clone()))
        })?;
        self.send_frame(number, channel, amqp::FRAME_METHOD, &payload)
    }

    /// Waits for the next message on a channel. Fails if the server closes the connection.
    pub fn wait(&mut self, number: usize, channel: u16) -> Result<(), String> {
        loop {
            let peer = self.peer(number)?;
            if peer.inbox.front(channel).is_some() {
                return Ok(());
            }
            if let Some(close) = peer.inbox.front(0).filter(|front| front.name == "connection.close") {
                return Err(format!("the server closed the connection: {close}"));
            }
            match self.read(number)? {
                Arrival::Bytes => {}
                Arrival::Closed => return Err("the server closed the socket".to_owned()),
                Arrival::Quiet => return Err("the server sent nothing".to_owned()),
            }
        }
    }

    /// Waits until the server closes the socket. It may do so only after some time, such as at the end of a timeout.
    pub fn wait_closed(&mut self, number: usize) -> Result<(), String> {
        loop {
            self.target.advance_to_next_timer();
            match self.read(number)? {
                Arrival::Bytes => {}
                Arrival::Closed => break,
                Arrival::Quiet => return Err("the server left the connection open".to_owned()),
            }
        }
        match self.peer(number)?.inbox.leftover() {
            Some((channel, received)) => Err(format!("before closing, the server sent on {channel}: {received}")),
            None => Ok(()),
        }
    }

    fn read(&mut self, number: usize) -> Result<Arrival, String> {
        let peer = self.peers.get_mut(&number).ok_or("the connection is not open")?;
        let arrival = self.target.receive(peer.id, peer.inbox.buffer())?;
        peer.closed_by_server |= arrival == Arrival::Closed;
        peer.inbox.sort()?;
        Ok(arrival)
    }

    /// The next message on a channel, which must have this name.
    pub fn expect(&mut self, number: usize, channel: u16, name: &str) -> Result<Received, String> {
        self.wait(number, channel).map_err(|why| format!("expected {name}: {why}"))?;
        let received = self.inbox(number)?.pop(channel).expect("the wait has ended with a message");
        if received.name == name { Ok(received) } else { Err(format!("expected {name}, got {received}")) }
    }

    /// Sends a request that changes nothing and waits for the reply. Then all answers to earlier requests have arrived.
    /// With a queue, a request to that queue comes first, so that the queue has done its work, too.
    pub fn round_trip(&mut self, number: usize, channel: u16, queue: Option<Value>) -> Result<(), String> {
        if let Some(queue) = queue {
            self.messages_ready(number, channel, queue)?;
        }
        self.send_method(number, channel, "exchange.declare", &passive("exchange", text("amq.direct")))?;
        self.wait_for(number, channel, "exchange.declare-ok").map(drop)
    }

    /// The number of ready messages in a queue, from a passive declaration.
    pub fn messages_ready(&mut self, number: usize, channel: u16, queue: Value) -> Result<Value, String> {
        self.send_method(number, channel, "queue.declare", &passive("queue", queue))?;
        let answer = self.wait_for(number, channel, "queue.declare-ok")?;
        answer.field("message-count").cloned().ok_or_else(|| "queue.declare-ok without message-count".to_owned())
    }

    /// Waits for a reply. Other messages may come before it; they stay in the inbox.
    fn wait_for(&mut self, number: usize, channel: u16, name: &str) -> Result<Received, String> {
        loop {
            let inbox = self.inbox(number)?;
            if let Some(received) = inbox.pull(channel, name) {
                return Ok(received);
            }
            if let Some(close) = inbox.pull(channel, "channel.close").or_else(|| inbox.pull(0, "connection.close")) {
                return Err(format!("waiting for {name}: {close}"));
            }
            match self.read(number)? {
                Arrival::Bytes => {}
                Arrival::Closed => return Err(format!("waiting for {name}: the server closed the socket")),
                Arrival::Quiet => return Err(format!("waiting for {name}: the server sent nothing")),
            }
        }
    }

    /// Does the whole handshake, and opens the channels 1 to `channels`. Returns the server's properties.
    pub fn connect(&mut self, number: usize, mut arguments: Arguments, captures: &Captures) -> Result<Table, String> {
        let mut option =
            |name: &str, kind| arguments.take(name).map(|term: Term| term.resolve(kind, captures)).transpose();
        let user = option("user", FieldKind::ShortText)?.unwrap_or_else(|| text("guest"));
        let password = option("password", FieldKind::ShortText)?.unwrap_or_else(|| text("guest"));
        let vhost = option("vhost", FieldKind::ShortText)?.unwrap_or_else(|| text("/"));
        let channels = option("channels", FieldKind::Short)?.unwrap_or(Value::Number(1));
        let capabilities = option("capabilities", FieldKind::Table)?.unwrap_or_else(all_capabilities);
        let tuned: Vec<Option<Value>> = ["channel-max", "frame-max", "heartbeat"]
            .into_iter()
            .map(|name| option(name, FieldKind::Long))
            .collect::<Result<_, _>>()?;
        if let Some((name, _)) = arguments.named.first() {
            return Err(format!("connect has no option `{name}`"));
        }

        self.open(number)?;
        self.send(number, &amqp::PROTOCOL_HEADER)?;
        let start = self.expect(number, 0, "connection.start")?;
        self.send_method(number, 0, "connection.start-ok", &start_ok(&user, &password, capabilities)?)?;
        let tune = self.expect(number, 0, "connection.tune")?;
        let tune_ok = tune_ok(&tune, &tuned);
        if let Some((_, Value::Number(frame_max))) = tune_ok.iter().find(|(name, _)| name == "frame-max") {
            self.peer(number)?.frame_bytes_max = *frame_max as usize;
        }
        self.send_method(number, 0, "connection.tune-ok", &tune_ok)?;
        self.send_method(number, 0, "connection.open", &vec![("virtual-host".to_owned(), vhost)])?;
        self.expect(number, 0, "connection.open-ok")?;
        let Value::Number(channels) = channels else { return Err("channels must be a number".to_owned()) };
        for channel in 1..=u16::try_from(channels).map_err(|why| why.to_string())? {
            self.send_method(number, channel, "channel.open", &Fields::new())?;
            self.expect(number, channel, "channel.open-ok")?;
        }
        match start.field("server-properties") {
            Some(Value::Table(properties)) => Ok(properties.clone()),
            _ => Ok(Table::new()),
        }
    }

    /// Closes the socket of a connection without a close method.
    pub fn abandon(&mut self, number: usize) -> Result<(), String> {
        let peer = self.peers.remove(&number).ok_or_else(|| format!("connection {number} is not open"))?;
        self.target.abandon(peer.id);
        Ok(())
    }

    /// Closes a connection with the close method and waits for the reply. RabbitMQ deletes exclusive queues before it
    /// replies.
    pub fn close(&mut self, number: usize) -> Result<(), String> {
        if self.is_open(number) {
            let reply = vec![("reply-code".to_owned(), Value::Number(200))];
            self.send_method(number, 0, "connection.close", &reply)?;
            self.wait_for(number, 0, "connection.close-ok").map(drop)?;
        }
        self.abandon(number)
    }
}

pub fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

fn passive(field: &str, name: Value) -> Fields {
    vec![(field.to_owned(), name), ("passive".to_owned(), Value::Bit(true))]
}

fn all_capabilities() -> Value {
    let names = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    Value::Table(names.iter().map(|name| ((*name).to_owned(), Item::Bool(true))).collect())
}

fn start_ok(user: &Value, password: &Value, capabilities: Value) -> Result<Fields, String> {
    let (Value::Text(user), Value::Text(password), Value::Table(capabilities)) = (user, password, capabilities) else {
        return Err("user and password must be text, and capabilities must be a table".to_owned());
    };
    let properties = vec![
        ("product".to_owned(), Item::Text(b'S', b"conformance".to_vec())),
        ("capabilities".to_owned(), Item::Table(capabilities)),
    ];
    Ok(vec![
        ("client-properties".to_owned(), Value::Table(properties)),
        ("mechanism".to_owned(), text("PLAIN")),
        ("response".to_owned(), Value::Text([b"\0", user.as_slice(), b"\0", password].concat())),
        ("locale".to_owned(), text("en_US")),
    ])
}

/// The values that the script asks for. If it does not say, they are the server's offer, and heartbeats are off.
fn tune_ok(tune: &Received, asked: &[Option<Value>]) -> Fields {
    let offered = |name: &str| tune.field(name).cloned().unwrap_or(Value::Number(0));
    let [channel_max, frame_max, heartbeat] = asked else { unreachable!("connect passes three values") };
    vec![
        ("channel-max".to_owned(), channel_max.clone().unwrap_or_else(|| offered("channel-max"))),
        ("frame-max".to_owned(), frame_max.clone().unwrap_or_else(|| offered("frame-max"))),
        ("heartbeat".to_owned(), heartbeat.clone().unwrap_or(Value::Number(0))),
    ]
}
