//! A blocking AMQP 0-9-1 connection with one channel: the handshake, and calls that wait for their answer.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::frames::*;
use super::target::Target;
use crate::bench::Failure;

/// How long the server may take to answer a call, or to take octets that we write.
const PATIENCE: Duration = Duration::from_secs(30);

/// The frame_max that the client asks for, which is RabbitMQ's default. One read takes two of the largest frames.
const FRAME_BYTES_MAX: u32 = 131_072;
const INBOX_BYTES: usize = 2 * FRAME_BYTES_MAX as usize;

/// What a `basic.ack` or `basic.nack` of the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    pub tag: u64,
    pub multiple: bool,
}

#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    inbox: Inbox,
    frame_bytes_max: usize,
}

impl Connection {
    /// Connects, logs in without heartbeats, and opens the channel.
    pub fn open(target: &Target) -> Result<Connection, Failure> {
        Connection::open_with_heartbeats(target, 0)
    }

    /// The same, with this heartbeat interval in seconds; 0 means no heartbeats. The caller must send heartbeats
    /// itself.
    pub fn open_with_heartbeats(target: &Target, heartbeat_seconds: u16) -> Result<Connection, Failure> {
        let socket = TcpStream::connect_timeout(&target.address, PATIENCE)
            .map_err(|source| Failure::connect(&target.address, source))?;
        let set_up = |socket: &TcpStream| {
            socket.set_nodelay(true)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.set_read_timeout(Some(PATIENCE))
        };
        set_up(&socket).map_err(Failure::io("setting up the socket"))?;
        let mut connection =
            Connection { socket, inbox: Inbox::new(INBOX_BYTES), frame_bytes_max: FRAME_BYTES_MAX as usize };
        connection.log_in(target, heartbeat_seconds)?;
        Ok(connection)
    }

    fn log_in(&mut self, target: &Target, heartbeat_seconds: u16) -> Result<(), Failure> {
        self.send(b"AMQP\0\0\x09\x01")?;
        self.wait_for(CONNECTION_START)?;
        let mut out = Outgoing::default();
        out.method(0, CONNECTION_START_OK, |out| {
            out.long(&client_properties()).short("PLAIN");
            out.long(format!("\0{}\0{}", target.user, target.password).as_bytes());
            out.short("en_US");
        });
        self.send(&out.0)?;

        let tune = self.wait_for(CONNECTION_TUNE)?;
        let mut fields = Fields(&tune);
        let (channels_max, offered) = (fields.u16()?, fields.u32()?);
        // 0 means no limit.
        let agreed = match offered {
            0 => FRAME_BYTES_MAX,
            limit => limit.min(FRAME_BYTES_MAX),
        };
        self.frame_bytes_max = agreed as usize;
        let mut out = Outgoing::default();
        out.method(0, CONNECTION_TUNE_OK, |out| {
            // Usually there are no heartbeats: if a load generator sends nothing, it has failed, and its user sees
            // that.
            out.u16(channels_max).u32(agreed).u16(heartbeat_seconds);
        });
        out.method(0, CONNECTION_OPEN, |out| {
            out.short(&target.vhost).short("").u8(0);
        });
        self.send(&out.0)?;
        self.wait_for(CONNECTION_OPEN_OK)?;
        self.call(CHANNEL_OPEN, CHANNEL_OPEN_OK, |out| {
            out.short("");
        })?;
        Ok(())
    }

    /// Declares a queue and returns how many messages it holds.
    pub fn declare_queue(&mut self, queue: &str, durable: bool) -> Result<u32, Failure> {
        let answer = self.call(QUEUE_DECLARE, QUEUE_DECLARE_OK, |out| {
            let durable_bit = u8::from(durable) << 1;
            out.u16(0).short(queue).u8(durable_bit).u32(0);
        })?;
        let mut fields = Fields(&answer);
        fields.short()?;
        fields.u32()
    }

    pub fn delete_queue(&mut self, queue: &str) -> Result<(), Failure> {
        self.call(QUEUE_DELETE, QUEUE_DELETE_OK, |out| {
            out.u16(0).short(queue).u8(0);
        })?;
        Ok(())
    }

    /// Declares a transient exchange of this type.
    pub fn declare_exchange(&mut self, exchange: &str, kind: &str) -> Result<(), Failure> {
        self.call(EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK, |out| {
            out.u16(0).short(exchange).short(kind).u8(0).u32(0);
        })?;
        Ok(())
    }

    pub fn delete_exchange(&mut self, exchange: &str) -> Result<(), Failure> {
        self.call(EXCHANGE_DELETE, EXCHANGE_DELETE_OK, |out| {
            out.u16(0).short(exchange).u8(0);
        })?;
        Ok(())
    }

    pub fn bind(&mut self, queue: &str, exchange: &str, key: &str) -> Result<(), Failure> {
        self.call(QUEUE_BIND, QUEUE_BIND_OK, |out| {
            out.u16(0).short(queue).short(exchange).short(key).u8(0).u32(0);
        })?;
        Ok(())
    }

    /// Sends these methods at once and waits for this number of replies of this type.
    pub fn call_all(&mut self, methods: &Outgoing, answer: MethodId, count: usize) -> Result<(), Failure> {
        self.send(&methods.0)?;
        for _ in 0..count {
            self.wait_for(answer)?;
        }
        Ok(())
    }

    /// Selects confirms. From now on the server confirms each message with a tag that counts from 1.
    pub fn select_confirms(&mut self) -> Result<(), Failure> {
        self.call(CONFIRM_SELECT, CONFIRM_SELECT_OK, |out| {
            out.u8(0);
        })?;
        Ok(())
    }

    /// Starts a consumer with this tag. `prefetch` 0 means no limit.
    pub fn consume(&mut self, queue: &str, tag: &str, prefetch: u16, auto_ack: bool) -> Result<(), Failure> {
        if prefetch > 0 {
            self.call(BASIC_QOS, BASIC_QOS_OK, |out| {
                out.u32(0).u16(prefetch).u8(0);
            })?;
        }
        self.call(BASIC_CONSUME, BASIC_CONSUME_OK, |out| {
            let no_ack_bit = u8::from(auto_ack) << 1;
            out.u16(0).short(queue).short(tag).u8(no_ack_bit).u32(0);
        })?;
        Ok(())
    }

    /// Payload that fits into one body frame.
    pub fn body_bytes_max(&self) -> usize {
        self.frame_bytes_max - FRAME_OVERHEAD_BYTES
    }

    /// How long `wait` waits at most from now on.
    pub fn set_patience(&mut self, patience: Duration) -> Result<(), Failure> {
        self.socket.set_read_timeout(Some(patience)).map_err(Failure::io("setting up the socket"))
    }

    /// A second handle on the same connection, for a thread that only writes.
    pub fn writer(&self) -> Result<TcpStream, Failure> {
        self.socket.try_clone().map_err(Failure::io("setting up the socket"))
    }

    /// Writes all of it. When the server has closed the connection, the error has the reason that the server sent.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = (&self.socket).write_all(bytes);
        written.map_err(|source| self.last_words().unwrap_or(Failure::Io { doing: "sending", source }))
    }

    /// Waits for bytes. False if none arrive in time.
    pub fn wait(&mut self) -> Result<bool, Failure> {
        match self.inbox.fill(&self.socket) {
            Ok(()) => Ok(true),
            Err(error) if is_timeout(&error) => Ok(false),
            Err(source) => Err(Failure::Io { doing: "reading", source }),
        }
    }

    /// The next complete frame that was read. A close is an error. The caller ignores heartbeats.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, Failure> {
        let frame = self.inbox.next()?;
        if let Some(frame) = frame
            && frame.kind == METHOD
        {
            refuse_close(frame.payload)?;
        }
        Ok(frame)
    }

    /// Calls `each` for every confirm that was read. A nack of a message is an error.
    pub fn take_confirms(&mut self, mut each: impl FnMut(Confirm) -> Result<(), Failure>) -> Result<(), Failure> {
        while let Some(frame) = self.next_frame()? {
            if frame.kind != METHOD {
                continue;
            }
            let mut fields = Fields(frame.payload);
            match fields.method()? {
                BASIC_ACK => each(Confirm { tag: fields.u64()?, multiple: fields.u8()? & 1 != 0 })?,
                BASIC_NACK => return Err(Failure::Nacked { tag: fields.u64()? }),
                other => return Err(unexpected(other)),
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        id: MethodId,
        answer: MethodId,
        arguments: impl FnOnce(&mut Outgoing),
    ) -> Result<Vec<u8>, Failure> {
        let mut out = Outgoing::default();
        out.method(CHANNEL, id, arguments);
        self.send(&out.0)?;
        self.wait_for(answer)
    }

    /// Reads until this method arrives and returns its arguments. What follows it stays in the inbox.
    fn wait_for(&mut self, expected: MethodId) -> Result<Vec<u8>, Failure> {
        loop {
            while let Some(frame) = self.next_frame()? {
                if frame.kind != METHOD {
                    continue;
                }
                let mut fields = Fields(frame.payload);
                match fields.method()? {
                    id if id == expected => return Ok(fields.0.to_vec()),
                    other => return Err(unexpected(other)),
                }
            }
            self.inbox.fill(&self.socket).map_err(Failure::io("waiting for an answer"))?;
        }
    }

    /// The close that a server sends before it drops the connection, if it can be read.
    fn last_words(&mut self) -> Option<Failure> {
        self.set_patience(Duration::from_millis(200)).ok()?;
        loop {
            match self.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => self.inbox.fill(&self.socket).ok()?,
                Err(closed) => return Some(closed),
            }
        }
    }
}

/// The client's properties. The capabilities make the server say why it refuses a login or cancels a consumer.
fn client_properties() -> Vec<u8> {
    let mut capabilities = Outgoing::default();
    for name in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "authentication_failure_close"] {
        capabilities.short(name).u8(b't').u8(1);
    }
    let mut properties = Outgoing::default();
    properties.short("product").u8(b'S').long(b"FerryMQ bench");
    properties.short("capabilities").u8(b'F').long(&capabilities.0);
    properties.0
}

fn refuse_close(payload: &[u8]) -> Result<(), Failure> {
    let mut fields = Fields(payload);
    match fields.method()? {
        CONNECTION_CLOSE | CHANNEL_CLOSE => {
            Err(Failure::Closed { code: fields.u16()?, text: String::from_utf8_lossy(fields.short()?).into_owned() })
        }
        BASIC_CANCEL => Err(Failure::Closed { code: 404, text: "the consumer was cancelled".to_owned() }),
        _ => Ok(()),
    }
}

pub fn unexpected((class, method): MethodId) -> Failure {
    Failure::Protocol(format!("method {method} of class {class} came where it does not belong"))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
