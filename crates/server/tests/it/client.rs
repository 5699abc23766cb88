//! A client that writes frames itself: a test must send what no library sends, and as fast as the socket accepts.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

use ferrymq_amqp091::codec::{
    content::ContentHeader,
    frame::{FrameKind, HEARTBEAT, PROTOCOL_HEADER, put_body, put_header, put_method},
    methods::{
        BasicConsume, BasicPublish, ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk, QueueDeclare,
        WireMethod,
    },
    table::RawTable,
};

/// The class of the methods about messages.
const BASIC: u16 = 60;

/// A connection that has logged in, with its channel 1 open.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A frame that has arrived.
pub struct Arrived {
    pub kind: u8,
    pub payload: Vec<u8>,
}

impl Arrived {
    pub fn is_heartbeat(&self) -> bool {
        self.kind == HEARTBEAT[0]
    }

    /// Its class and method, if it is a method frame.
    pub fn method(&self) -> Option<(u16, u16)> {
        let number = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        (self.kind == FrameKind::Method as u8).then(|| (number(0), number(2)))
    }
}

impl Client {
    /// Connects to a server, with a heartbeat of so many seconds.
    pub fn connect(address: &str, heartbeat: u16) -> io::Result<Self> {
        let mut client = Self::begin(address, "PLAIN", b"\0guest\0guest")?;
        client.until((10, 30))?;
        client.send(&method(0, &ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat }))?;
        client.send(&method(0, &ConnectionOpen { virtual_host: "/" }))?;
        client.until((10, 41))?;
        client.call(&method(1, &ChannelOpen), (20, 11))?;
        Ok(client)
    }

    /// Connects to a server and begins a login by this mechanism.
    pub fn begin(address: &str, mechanism: &str, response: &[u8]) -> io::Result<Self> {
        let mut client = Self { stream: TcpStream::connect(address)?, unread: Vec::new() };
        client.stream.set_nodelay(true)?;
        client.send(&PROTOCOL_HEADER)?;
        client.until((10, 10))?;
        let client_properties = RawTable::check(&[]).expect("an empty table is well formed");
        let locale = "en_US";
        client.send(&method(0, &ConnectionStartOk { client_properties, mechanism, response, locale }))?;
        Ok(client)
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame.
    pub fn receive(&mut self) -> io::Result<Arrived> {
        loop {
            if let Some(head) = self.unread.first_chunk::<7>() {
                let end = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 8;
                if self.unread.len() >= end {
                    let kind = head[0];
                    let frame: Vec<u8> = self.unread.drain(..end).collect();
                    return Ok(Arrived { kind, payload: frame[7..end - 1].to_vec() });
                }
            }
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.unread.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Waits for a method and ignores the frames before it.
    pub fn until(&mut self, wanted: (u16, u16)) -> io::Result<Arrived> {
        loop {
            let arrived = self.receive()?;
            if arrived.method() == Some(wanted) {
                return Ok(arrived);
            }
        }
    }

    pub fn call(&mut self, bytes: &[u8], answer: (u16, u16)) -> io::Result<Arrived> {
        self.send(bytes)?;
        self.until(answer)
    }

    pub fn declare(&mut self, queue: &str) -> io::Result<()> {
        let arguments = RawTable::check(&[]).expect("an empty table is well formed");
        let declare = QueueDeclare {
            queue,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments,
        };
        self.call(&method(1, &declare), (50, 11)).map(drop)
    }

    /// Consumes a queue, without acknowledgements.
    pub fn consume(&mut self, queue: &str) -> io::Result<()> {
        let arguments = RawTable::check(&[]).expect("an empty table is well formed");
        let (consumer_tag, no_local, no_ack, exclusive, no_wait) = ("", false, true, false, false);
        let consume = BasicConsume { queue, consumer_tag, no_local, no_ack, exclusive, no_wait, arguments };
        self.call(&method(1, &consume), (60, 21)).map(drop)
    }

    /// Sends a message to a queue that this client consumes, and waits for its delivery.
    pub fn round_trip(&mut self, queue: &str) -> io::Result<()> {
        self.call(&publish("", queue, &[0; 16]), (60, 60)).map(drop)
    }
}

/// A method as a frame.
pub fn method(channel: u16, method: &impl WireMethod) -> Vec<u8> {
    let mut frame = Vec::new();
    put_method(&mut frame, channel, method);
    frame
}

/// A publish on channel 1, with its content.
pub fn publish(exchange: &str, key: &str, body: &[u8]) -> Vec<u8> {
    let (exchange, routing_key) = (exchange.as_bytes(), key.as_bytes());
    let mut frames = method(1, &BasicPublish { exchange, routing_key, mandatory: false, immediate: false });
    let properties = &[0, 0];
    put_header(&mut frames, 1, &ContentHeader { class: BASIC, body_bytes: body.len() as u64, properties });
    put_body(&mut frames, 1, body, 131_072);
    frames
}
