//! The messages that one connection has received, by channel.
//!
//! A server may send the frames of several channels in any order. So the order counts only within a channel.

use std::collections::{BTreeMap, VecDeque};

use crate::amqp::{self, Fields, Reader};
use crate::spec::Spec;

/// A complete message of the server: a method with its content, a heartbeat or a protocol header.
#[derive(Debug, Clone)]
pub struct Received {
    /// `basic.deliver`, `heartbeat` or `protocol-header`.
    pub name: String,
    /// The fields of the method, then the properties of its content.
    pub fields: Fields,
    pub body: Option<Vec<u8>>,
    /// The number of the body's frames.
    pub body_frames: usize,
}

#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    whole: BTreeMap<u16, VecDeque<Received>>,
    /// By channel, a method whose content is not complete, and the number of octets of the body that are missing.
    unfinished: BTreeMap<u16, (Received, Option<u64>)>,
}

impl Inbox {
    /// The buffer to which received bytes are appended, before [`Inbox::sort`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Takes all complete frames out of the buffer.
    pub fn sort(&mut self) -> Result<(), String> {
        while let Some((kind, channel, payload)) = self.next_frame()? {
            let failed = |why| format!("channel {channel}, frame type {kind}: {why}");
            self.take_frame(kind, channel, &payload).map_err(failed)?;
        }
        Ok(())
    }

    pub fn front(&self, channel: u16) -> Option<&Received> {
        self.whole.get(&channel).and_then(VecDeque::front)
    }

    pub fn pop(&mut self, channel: u16) -> Option<Received> {
        self.whole.get_mut(&channel).and_then(VecDeque::pop_front)
    }

    /// Removes the first message of this name from a channel. Other messages may be before it.
    pub fn pull(&mut self, channel: u16, name: &str) -> Option<Received> {
        let waiting = self.whole.get_mut(&channel)?;
        let index = waiting.iter().position(|received| received.name == name)?;
        waiting.remove(index)
    }

    /// A message that waits, with its channel. Heartbeats do not count.
    pub fn leftover(&self) -> Option<(u16, &Received)> {
        let message =
            |waiting: &'_ VecDeque<Received>| waiting.iter().position(|received| received.name != "heartbeat");
        self.whole.iter().find_map(|(channel, waiting)| Some((*channel, &waiting[message(waiting)?])))
    }

    fn next_frame(&mut self) -> Result<Option<(u8, u16, Vec<u8>)>, String> {
        if self.bytes.starts_with(b"AMQP") {
            if self.bytes.len() >= 8 {
                let version: Vec<u8> = self.bytes.drain(..8).skip(4).collect();
                self.push(0, Received::bare("protocol-header", version));
            }
            return Ok(None);
        }
        let Some((head, rest)) = self.bytes.split_first_chunk::<7>() else { return Ok(None) };
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if rest.len() <= length {
            return Ok(None);
        }
        if rest[length] != amqp::FRAME_END {
            return Err(format!("the server ended a frame with {:#04x}", rest[length]));
        }
        let frame = (head[0], channel, rest[..length].to_vec());
        self.bytes.drain(..length + amqp::FRAME_OVERHEAD);
        Ok(Some(frame))
    }

    fn take_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Result<(), String> {
        match kind {
            amqp::FRAME_METHOD => self.take_method(channel, payload),
            amqp::FRAME_HEADER => self.take_header(channel, payload),
            amqp::FRAME_BODY => self.take_body(channel, payload),
            amqp::FRAME_HEARTBEAT => {
                self.push(channel, Received::bare("heartbeat", payload.to_vec()));
                Ok(())
            }
            _ => Err("no such type".to_owned()),
        }
    }

    fn take_method(&mut self, channel: u16, payload: &[u8]) -> Result<(), String> {
        if self.unfinished.contains_key(&channel) {
            return Err("a method within the content of another method".to_owned());
        }
        let mut reader = Reader::new(payload);
        let (class_id, id) = (reader.number(2)? as u16, reader.number(2)? as u16);
        let method = Spec::amqp091()
            .method_by_id(class_id, id)
            .ok_or_else(|| format!("the server sent an unknown method {class_id}.{id}"))?;
        let fields = reader.fields(&method.fields)?;
        if !reader.is_empty() {
            return Err(format!("there are octets after the fields of {}", method.name));
        }
        let received = Received { name: method.name.clone(), fields, body: None, body_frames: 0 };
        if method.has_content {
            self.unfinished.insert(channel, (received, None));
        } else {
            self.push(channel, received);
        }
        Ok(())
    }

    fn take_header(&mut self, channel: u16, payload: &[u8]) -> Result<(), String> {
        let Some((received, missing @ None)) = self.unfinished.get_mut(&channel) else {
            return Err("a content header without a method before it".to_owned());
        };
        let mut reader = Reader::new(payload);
        if reader.number(2)? != amqp::CLASS_BASIC.into() || reader.number(2)? != 0 {
            return Err("a content header of another class, or with a weight".to_owned());
        }
        *missing = Some(reader.number(8)?);
        received.fields.extend(reader.properties()?);
        received.body = Some(Vec::new());
        self.finish(channel);
        Ok(())
    }

    fn take_body(&mut self, channel: u16, payload: &[u8]) -> Result<(), String> {
        let Some((received, Some(missing))) = self.unfinished.get_mut(&channel) else {
            return Err("a body without a content header before it".to_owned());
        };
        *missing =
            missing.checked_sub(payload.len() as u64).ok_or("the body is longer than its content header says")?;
        received.body_frames += 1;
        received.body.get_or_insert_default().extend_from_slice(payload);
        self.finish(channel);
        Ok(())
    }

    fn finish(&mut self, channel: u16) {
        if matches!(self.unfinished.get(&channel), Some((_, Some(0)))) {
            let (received, _) = self.unfinished.remove(&channel).expect("it was found above");
            self.push(channel, received);
        }
    }

    fn push(&mut self, channel: u16, received: Received) {
        self.whole.entry(channel).or_default().push_back(received);
    }
}

impl Received {
    fn bare(name: &str, body: Vec<u8>) -> Self {
        Self { name: name.to_owned(), fields: Fields::new(), body: Some(body), body_frames: 0 }
    }

    pub fn field(&self, name: &str) -> Option<&crate::value::Value> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }
}

impl std::fmt::Display for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        if let Some(body) = &self.body {
            write!(f, " body={}", crate::value::Value::Text(body.clone()))?;
        }
        Ok(())
    }
}
