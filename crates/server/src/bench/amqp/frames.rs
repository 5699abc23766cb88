//! The few AMQP 0-9-1 frames that a load generator needs, as octets.
//!
//! This is not the server's codec, on purpose: a fault in one must not hide the same fault in the other.

use std::io::{self, Read};
use std::net::TcpStream;

use crate::bench::Failure;

pub const METHOD: u8 = 1;
pub const HEADER: u8 = 2;
pub const BODY: u8 = 3;
pub const HEARTBEAT: u8 = 8;
const END: u8 = 0xCE;

/// Bytes around a frame's payload: type, channel, length; end.
pub const FRAME_OVERHEAD_BYTES: usize = 8;
const FRAME_HEADER_BYTES: usize = 7;

/// The only channel of a connection.
pub const CHANNEL: u16 = 1;

/// Class and method, as they stand in a method frame.
pub type MethodId = (u16, u16);
pub const CONNECTION_START: MethodId = (10, 10);
pub const CONNECTION_START_OK: MethodId = (10, 11);
pub const CONNECTION_TUNE: MethodId = (10, 30);
pub const CONNECTION_TUNE_OK: MethodId = (10, 31);
pub const CONNECTION_OPEN: MethodId = (10, 40);
pub const CONNECTION_OPEN_OK: MethodId = (10, 41);
pub const CONNECTION_CLOSE: MethodId = (10, 50);
pub const CHANNEL_OPEN: MethodId = (20, 10);
pub const CHANNEL_OPEN_OK: MethodId = (20, 11);
pub const CHANNEL_CLOSE: MethodId = (20, 40);
pub const EXCHANGE_DECLARE: MethodId = (40, 10);
pub const EXCHANGE_DECLARE_OK: MethodId = (40, 11);
pub const EXCHANGE_DELETE: MethodId = (40, 20);
pub const EXCHANGE_DELETE_OK: MethodId = (40, 21);
pub const QUEUE_DECLARE: MethodId = (50, 10);
pub const QUEUE_DECLARE_OK: MethodId = (50, 11);
pub const QUEUE_BIND: MethodId = (50, 20);
pub const QUEUE_BIND_OK: MethodId = (50, 21);
pub const QUEUE_UNBIND: MethodId = (50, 50);
pub const QUEUE_UNBIND_OK: MethodId = (50, 51);
pub const QUEUE_DELETE: MethodId = (50, 40);
pub const QUEUE_DELETE_OK: MethodId = (50, 41);
pub const BASIC_QOS: MethodId = (60, 10);
pub const BASIC_QOS_OK: MethodId = (60, 11);
pub const BASIC_CONSUME: MethodId = (60, 20);
pub const BASIC_CONSUME_OK: MethodId = (60, 21);
pub const BASIC_CANCEL: MethodId = (60, 30);
pub const BASIC_CANCEL_OK: MethodId = (60, 31);
pub const BASIC_PUBLISH: MethodId = (60, 40);
pub const BASIC_DELIVER: MethodId = (60, 60);
pub const BASIC_ACK: MethodId = (60, 80);
pub const BASIC_NACK: MethodId = (60, 120);
pub const CONFIRM_SELECT: MethodId = (85, 10);
pub const CONFIRM_SELECT_OK: MethodId = (85, 11);

/// Bytes to be sent.
#[derive(Debug, Default)]
pub struct Outgoing(pub Vec<u8>);

impl Outgoing {
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text of at most 255 bytes. Longer ones were refused when the options were read.
    pub fn short(&mut self, text: &str) -> &mut Self {
        let length = u8::try_from(text.len()).expect("names were checked to fit 255 octets");
        self.u8(length).bytes(text.as_bytes())
    }

    pub fn long(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).bytes(bytes)
    }

    /// One frame, whose payload is what `fill` appends.
    pub fn frame(&mut self, kind: u8, channel: u16, fill: impl FnOnce(&mut Self)) {
        self.u8(kind).u16(channel).u32(0);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[start - 4..start].copy_from_slice(&length.to_be_bytes());
        self.u8(END);
    }

    /// One method frame, whose arguments are what `arguments` appends.
    pub fn method(&mut self, channel: u16, id: MethodId, arguments: impl FnOnce(&mut Self)) {
        self.frame(METHOD, channel, |out| {
            out.u16(id.0).u16(id.1);
            arguments(out);
        });
    }
}

/// Reads the fields of a payload, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| Failure::Protocol("a frame ends in the middle of a field".to_owned()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        Ok(self.take(N)?.try_into().expect("take gave as many octets as asked"))
    }

    pub fn u8(&mut self) -> Result<u8, Failure> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, Failure> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Failure> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn short(&mut self) -> Result<&'a [u8], Failure> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    pub fn method(&mut self) -> Result<MethodId, Failure> {
        Ok((self.u16()?, self.u16()?))
    }
}

/// A frame that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub kind: u8,
    pub payload: &'a [u8],
}

/// Bytes that were read from a socket and not yet parsed. One read fills the free space.
#[derive(Debug)]
pub struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// `capacity_bytes` must hold the largest frame that the server may send.
    pub fn new(capacity_bytes: usize) -> Inbox {
        Inbox { buffer: vec![0; capacity_bytes], start: 0, end: 0 }
    }

    /// Waits for bytes, for as long as the socket's timeout, and reads all that fit.
    pub fn fill(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        if self.start > 0 {
            // Less than one frame is left, because callers call `next` until it returns none.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let space = &mut self.buffer[self.end..];
        if space.is_empty() {
            return Err(io::Error::other("a frame is larger than agreed"));
        }
        match socket.read(space)? {
            0 => Err(io::ErrorKind::ConnectionAborted.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// The next whole frame, if there is one.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Failure> {
        let waiting = &self.buffer[self.start..self.end];
        if waiting.starts_with(b"AMQP") {
            return Err(Failure::Protocol("it answered with its own protocol header".to_owned()));
        }
        let Some((head, rest)) = waiting.split_at_checked(FRAME_HEADER_BYTES) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if length + FRAME_OVERHEAD_BYTES > self.buffer.len() {
            return Err(Failure::Protocol(format!("a frame of {length} octets")));
        }
        if rest.len() <= length {
            return Ok(None);
        }
        if rest[length] != END {
            return Err(Failure::Protocol("a frame without its end octet".to_owned()));
        }
        self.start += length + FRAME_OVERHEAD_BYTES;
        Ok(Some(Frame { kind: head[0], payload: &rest[..length] }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(bytes: &[u8], capacity: usize) -> Inbox {
        let mut inbox = Inbox::new(capacity);
        inbox.buffer[..bytes.len()].copy_from_slice(bytes);
        inbox.end = bytes.len();
        inbox
    }

    #[test]
    fn a_method_survives_its_octets() {
        let mut out = Outgoing::default();
        out.method(CHANNEL, BASIC_ACK, |out| {
            out.u64(7).u8(1);
        });
        assert_eq!(out.0.len(), 21);
        let mut inbox = inbox(&out.0, 64);
        let frame = inbox.next().unwrap().unwrap();
        let mut fields = Fields(frame.payload);
        assert_eq!(frame.kind, METHOD);
        assert_eq!(fields.method().unwrap(), BASIC_ACK);
        assert_eq!((fields.u64().unwrap(), fields.u8().unwrap()), (7, 1));
        assert!(fields.u8().is_err());
        assert!(inbox.next().unwrap().is_none());
    }

    #[test]
    fn half_a_frame_waits_for_the_rest() {
        let mut out = Outgoing::default();
        out.frame(BODY, CHANNEL, |out| {
            out.bytes(b"body");
        });
        for length in 0..out.0.len() {
            assert!(inbox(&out.0[..length], 64).next().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(inbox(b"AMQP\0\0\x09\x01", 64).next().is_err());
        assert!(inbox(b"\x01\0\x01\0\0\0\x01..", 64).next().is_err());
        assert!(inbox(b"\x01\0\x01\xFF\xFF\xFF\xFF", 64).next().is_err());
    }
}
