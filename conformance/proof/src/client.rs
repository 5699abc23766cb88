//! A small blocking AMQP 0-9-1 client: one connection, one channel, and only the methods that a proof needs.
//!
//! It shares no code with the server's codec, so a fault in one cannot hide the same fault in the other.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::failure::{Failure, Outcome};

/// How long an answer may take. After that the connection counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// The frame_max that we ask for, in bytes.
const FRAME_BYTES_MAX: u32 = 131_072;
/// How many bytes of a body fit into such a frame.
const PIECE_BYTES: usize = FRAME_BYTES_MAX as usize - 8;
const READ_BYTES: usize = 256 * 1024;
const CHANNEL: u16 = 1;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xCE;

type MethodId = (u16, u16);
const DELIVER: MethodId = (60, 60);
const ACK: MethodId = (60, 80);
const NACK: MethodId = (60, 120);

/// A message of the server that is not a reply.
#[derive(Debug)]
pub enum Arrival {
    Confirm { tag: u64, multiple: bool },
    Delivery(Delivery),
}

#[derive(Debug)]
pub struct Delivery {
    pub tag: u64,
    pub redelivered: bool,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    inbox: Vec<u8>,
    /// The position up to which the inbox has been read.
    seen: usize,
    outbox: Vec<u8>,
    /// A delivery whose body is not complete, and how many bytes are missing.
    coming: Option<(Delivery, u64)>,
}

impl Client {
    /// Connects, logs in as guest, and opens the channel.
    pub fn open(address: SocketAddr) -> Outcome<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { socket, inbox: Vec::new(), seen: 0, outbox: Vec::new(), coming: None };
        client.outbox.extend_from_slice(b"AMQP\0\0\x09\x01");
        client.flush()?;
        client.wait_for((10, 10))?;
        client.method(0, (10, 11), |out| {
            out.extend_from_slice(&0_u32.to_be_bytes());
            short(out, "PLAIN");
            let login = b"\0guest\0guest";
            out.extend_from_slice(&(login.len() as u32).to_be_bytes());
            out.extend_from_slice(login);
            short(out, "en_US");
        });
        client.flush()?;
        client.wait_for((10, 30))?;
        client.method(0, (10, 31), |out| {
            out.extend_from_slice(&1_u16.to_be_bytes());
            out.extend_from_slice(&FRAME_BYTES_MAX.to_be_bytes());
            // No heartbeats: a server that stops sending has been killed on purpose.
            out.extend_from_slice(&0_u16.to_be_bytes());
        });
        client.method(0, (10, 40), |out| {
            short(out, "/");
            out.extend_from_slice(&[0, 0]);
        });
        client.flush()?;
        client.wait_for((10, 41))?;
        client.call((20, 10), |out| short(out, ""))?;
        Ok(client)
    }

    /// Declares a queue, or checks that it exists (`passive`). Returns how many messages are ready in it.
    pub fn declare(&mut self, queue: &str, durable: bool, passive: bool) -> Outcome<u64> {
        let answer = self.call((50, 10), |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, queue);
            out.push(u8::from(passive) | u8::from(durable) << 1);
            out.extend_from_slice(&0_u32.to_be_bytes());
        })?;
        let after_name = answer.get(1 + queue.len()..).and_then(|rest| rest.first_chunk::<4>());
        let ready = after_name.ok_or_else(|| Failure::Wrong("queue.declare-ok is too short".to_owned()))?;
        Ok(u32::from_be_bytes(*ready).into())
    }

    /// Declares a durable queue whose dead letters go to another queue.
    pub fn declare_with_dead_letters(&mut self, queue: &str, dead_letters: &str) -> Outcome<()> {
        let mut arguments = Vec::new();
        for (key, value) in [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", dead_letters)] {
            short(&mut arguments, key);
            arguments.push(b'S');
            arguments.extend_from_slice(&(value.len() as u32).to_be_bytes());
            arguments.extend_from_slice(value.as_bytes());
        }
        self.call((50, 10), |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, queue);
            out.push(1 << 1);
            out.extend_from_slice(&(arguments.len() as u32).to_be_bytes());
            out.extend_from_slice(&arguments);
        })
        .map(drop)
    }

    pub fn bind(&mut self, queue: &str, exchange: &str) -> Outcome<()> {
        self.call((50, 20), |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, queue);
            short(out, exchange);
            short(out, "");
            out.push(0);
            out.extend_from_slice(&0_u32.to_be_bytes());
        })?;
        Ok(())
    }

    /// Selects confirms. From now on each message is confirmed with a tag that counts from 1.
    pub fn select_confirms(&mut self) -> Outcome<()> {
        self.call((85, 10), |out| out.push(0)).map(drop)
    }

    /// Starts a consumer. `prefetch` 0 means no limit.
    pub fn consume(&mut self, queue: &str, prefetch: u16, auto_ack: bool) -> Outcome<()> {
        self.call((60, 10), |out| {
            out.extend_from_slice(&0_u32.to_be_bytes());
            out.extend_from_slice(&prefetch.to_be_bytes());
            out.push(0);
        })?;
        self.call((60, 20), |out| consume_arguments(out, queue, auto_ack)).map(drop)
    }

    /// Adds a consumer with automatic acks. The next flush sends the request. The consume-ok is skipped when it comes.
    pub fn consume_later(&mut self, queue: &str) {
        self.method(CHANNEL, (60, 20), |out| consume_arguments(out, queue, true));
    }

    /// Declares a durable exchange that delays messages and then routes them by the routing key.
    pub fn declare_delaying(&mut self, exchange: &str) -> Outcome<()> {
        let mut arguments = Vec::new();
        short(&mut arguments, "x-delayed-type");
        arguments.extend_from_slice(b"S\0\0\0\x06direct");
        self.call((40, 10), |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, exchange);
            short(out, "x-delayed-message");
            out.push(1 << 1);
            out.extend_from_slice(&(arguments.len() as u32).to_be_bytes());
            out.extend_from_slice(&arguments);
        })
        .map(drop)
    }

    /// Adds a publish, which the next flush sends.
    pub fn publish(&mut self, exchange: &str, key: &str, persistent: bool, body: &[u8]) {
        // The only property is delivery-mode.
        self.publish_with(exchange, key, &[0x10, 0, if persistent { 2 } else { 1 }], body);
    }

    /// Like [`publish`](Self::publish), for a persistent message with a delay.
    pub fn publish_delayed(&mut self, exchange: &str, key: &str, delay_ms: i32, body: &[u8]) {
        // The properties are headers and delivery-mode.
        let mut properties = vec![0x30, 0];
        let mut headers = Vec::new();
        short(&mut headers, "x-delay");
        headers.push(b'I');
        headers.extend_from_slice(&delay_ms.to_be_bytes());
        properties.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        properties.extend_from_slice(&headers);
        properties.push(2);
        self.publish_with(exchange, key, &properties, body);
    }

    fn publish_with(&mut self, exchange: &str, key: &str, properties: &[u8], body: &[u8]) {
        self.method(CHANNEL, (60, 40), |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, exchange);
            short(out, key);
            out.push(0);
        });
        self.frame(HEADER, CHANNEL, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
            out.extend_from_slice(properties);
        });
        for piece in body.chunks(PIECE_BYTES) {
            self.frame(BODY, CHANNEL, |out| out.extend_from_slice(piece));
        }
    }

    /// Adds an ack, which the next flush sends.
    pub fn ack(&mut self, tag: u64, multiple: bool) {
        self.method(CHANNEL, ACK, |out| {
            out.extend_from_slice(&tag.to_be_bytes());
            out.push(u8::from(multiple));
        });
    }

    /// Adds a reject without requeue, which the next flush sends.
    pub fn reject(&mut self, tag: u64) {
        self.method(CHANNEL, (60, 90), |out| {
            out.extend_from_slice(&tag.to_be_bytes());
            out.push(0);
        });
    }

    /// Selects transactions. From now on publishes and acks take effect when `commit` returns.
    pub fn select_transactions(&mut self) -> Outcome<()> {
        self.call((90, 10), |_| {}).map(drop)
    }

    /// Sends everything that was added, and returns when it is committed.
    pub fn commit(&mut self) -> Outcome<()> {
        self.call((90, 20), |_| {}).map(drop)
    }

    /// Removes all ready messages from a queue.
    pub fn purge(&mut self, queue: &str) -> Outcome<()> {
        self.call((50, 30), |out| {
            out.extend_from_slice(&[0, 0]);
            short(out, queue);
            out.push(0);
        })
        .map(drop)
    }

    /// Sends everything that was added.
    pub fn flush(&mut self) -> Outcome<()> {
        let sent = self.socket.write_all(&self.outbox);
        self.outbox.clear();
        Ok(sent?)
    }

    /// Sets how long `receive` waits at most.
    pub fn set_patience(&mut self, patience: Duration) -> Outcome<()> {
        Ok(self.socket.set_read_timeout(Some(patience))?)
    }

    /// Waits for the next arrival. `None` if nothing came in time.
    pub fn receive(&mut self) -> Outcome<Option<Arrival>> {
        loop {
            if let Some(arrival) = self.received()? {
                return Ok(Some(arrival));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// The next arrival in the bytes that have already been read.
    pub fn received(&mut self) -> Outcome<Option<Arrival>> {
        while let Some((kind, payload)) = self.next_frame()? {
            let payload = self.inbox[payload].to_vec();
            let arrival = match kind {
                METHOD => self.take_method(&payload)?,
                HEADER => self.take_header(&payload)?,
                BODY => self.take_body(&payload)?,
                _ => None,
            };
            if arrival.is_some() {
                return Ok(arrival);
            }
        }
        Ok(None)
    }

    /// Closes the connection with the close method. When this returns, the server has processed all acks.
    pub fn close(mut self) -> Outcome<()> {
        self.method(0, (10, 50), |out| {
            out.extend_from_slice(&200_u16.to_be_bytes());
            short(out, "");
            out.extend_from_slice(&0_u32.to_be_bytes());
        });
        self.flush()?;
        self.set_patience(PATIENCE)?;
        self.wait_for((10, 51)).map(drop)
    }

    fn call(&mut self, id: MethodId, arguments: impl FnOnce(&mut Vec<u8>)) -> Outcome<Vec<u8>> {
        self.method(CHANNEL, id, arguments);
        self.flush()?;
        self.wait_for((id.0, id.1 + 1))
    }

    /// Reads until this method comes, and returns its arguments. Deliveries before it are dropped: no caller is also a
    /// consumer.
    fn wait_for(&mut self, expected: MethodId) -> Outcome<Vec<u8>> {
        loop {
            while let Some((kind, payload)) = self.next_frame()? {
                if kind != METHOD {
                    continue;
                }
                let (id, arguments) = split_method(&self.inbox[payload])?;
                if id == expected {
                    return Ok(arguments.to_vec());
                }
                refuse_close(id, arguments)?;
            }
            if !self.fill()? {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
        }
    }

    fn take_method(&mut self, payload: &[u8]) -> Outcome<Option<Arrival>> {
        let (id, arguments) = split_method(payload)?;
        match id {
            DELIVER => {
                let consumer_bytes = usize::from(arguments[0]);
                let rest = &arguments[1 + consumer_bytes..];
                let tag = u64::from_be_bytes(*rest.first_chunk().ok_or_else(cut_short)?);
                let delivery = Delivery { tag, redelivered: rest[8] != 0, body: Vec::new() };
                self.coming = Some((delivery, 0));
                Ok(None)
            }
            ACK => {
                let tag = u64::from_be_bytes(*arguments.first_chunk().ok_or_else(cut_short)?);
                Ok(Some(Arrival::Confirm { tag, multiple: arguments[8] & 1 != 0 }))
            }
            NACK => Err(Failure::Wrong("the server refused a message (basic.nack)".to_owned())),
            _ => refuse_close(id, arguments).map(|()| None),
        }
    }

    fn take_header(&mut self, payload: &[u8]) -> Outcome<Option<Arrival>> {
        let (delivery, missing) = self.coming.as_mut().ok_or_else(out_of_place)?;
        *missing = u64::from_be_bytes(*payload[4..].first_chunk().ok_or_else(cut_short)?);
        delivery.body.reserve_exact(*missing as usize);
        Ok(self.complete())
    }

    fn take_body(&mut self, payload: &[u8]) -> Outcome<Option<Arrival>> {
        let (delivery, missing) = self.coming.as_mut().ok_or_else(out_of_place)?;
        delivery.body.extend_from_slice(payload);
        *missing = missing.checked_sub(payload.len() as u64).ok_or_else(out_of_place)?;
        Ok(self.complete())
    }

    fn complete(&mut self) -> Option<Arrival> {
        let (delivery, _) = self.coming.take_if(|(_, missing)| *missing == 0)?;
        Some(Arrival::Delivery(delivery))
    }

    /// The next complete frame: its type, and the range of its payload.
    fn next_frame(&mut self) -> Outcome<Option<(u8, std::ops::Range<usize>)>> {
        let unseen = &self.inbox[self.seen..];
        let Some(head) = unseen.first_chunk::<7>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let Some(&end) = unseen.get(7 + length) else { return Ok(None) };
        if end != END {
            return Err(Failure::Wrong("a frame without its end octet".to_owned()));
        }
        let start = self.seen + 7;
        self.seen += length + 8;
        Ok(Some((head[0], start..start + length)))
    }

    /// Reads more bytes. False if nothing came in time.
    fn fill(&mut self) -> Outcome<bool> {
        self.inbox.drain(..self.seen);
        self.seen = 0;
        let old = self.inbox.len();
        self.inbox.resize(old + READ_BYTES, 0);
        let read = self.socket.read(&mut self.inbox[old..]);
        self.inbox.truncate(old + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => Ok(true),
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }

    fn method(&mut self, channel: u16, id: MethodId, arguments: impl FnOnce(&mut Vec<u8>)) {
        self.frame(METHOD, channel, |out| {
            out.extend_from_slice(&id.0.to_be_bytes());
            out.extend_from_slice(&id.1.to_be_bytes());
            arguments(out);
        });
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
        let out = &mut self.outbox;
        out.push(kind);
        out.extend_from_slice(&channel.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let start = out.len();
        payload(out);
        let length = (out.len() - start) as u32;
        out[start - 4..start].copy_from_slice(&length.to_be_bytes());
        out.push(END);
    }
}

fn consume_arguments(out: &mut Vec<u8>, queue: &str, auto_ack: bool) {
    out.extend_from_slice(&[0, 0]);
    short(out, queue);
    // The consumer's tag.
    short(out, queue);
    out.push(u8::from(auto_ack) << 1);
    out.extend_from_slice(&0_u32.to_be_bytes());
}

fn short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("the names of a proof are short"));
    out.extend_from_slice(text.as_bytes());
}

fn split_method(payload: &[u8]) -> Outcome<(MethodId, &[u8])> {
    let (id, arguments) = payload.split_first_chunk::<4>().ok_or_else(cut_short)?;
    Ok(((u16::from_be_bytes([id[0], id[1]]), u16::from_be_bytes([id[2], id[3]])), arguments))
}

fn refuse_close(id: MethodId, arguments: &[u8]) -> Outcome<()> {
    if !matches!(id, (10, 50) | (20, 40)) {
        return Ok(());
    }
    let why = arguments.get(2..).map(String::from_utf8_lossy).unwrap_or_default();
    Err(Failure::Closed(why.into_owned()))
}

fn cut_short() -> Failure {
    Failure::Wrong("a frame ends within a field".to_owned())
}

fn out_of_place() -> Failure {
    Failure::Wrong("content came in the wrong place".to_owned())
}
