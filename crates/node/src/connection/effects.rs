//! Effects on their way to a connection: copied into a compact form when they are decided, read back when they are
//! encoded.
//!
//! Small bodies and all names are copied into two buffers, so that pushing an effect under a lock allocates nothing
//! once the buffers have grown. Large bodies are shared.

mod stopped;

use std::{cell::RefCell, collections::VecDeque};

use bytes::Bytes;
use ferrymq_model::{
    BodyRef, DialectId, Effect, FiledBody, MessageRef, Name, Origin, Position, Refusal, Reply, ReturnReason,
};

pub use stopped::StoppedEffects;

use crate::management::counters::Batch;

/// One effect. Its texts are in [`Effects::texts`] and its bytes in [`Effects::bytes`], in the order of the fields
/// with their lengths.
#[derive(Clone, Debug)]
enum Record {
    Frames { len: u32 },
    Reply { origin: Origin, reply: Reply },
    Refused { origin: Origin, refusal: Box<Refusal> },
    Deliver { channel: u16, tag_len: u8, redelivered: bool, attempts: Option<u32>, delivery_tag: u64, message: Message },
    Got { channel: u16, redelivered: bool, attempts: Option<u32>, delivery_tag: u64, remaining: u64, message: Message },
    Return { channel: u16, reason: ReturnReason, message: Message },
    Confirm { channel: u16, multiple: bool, publish_tag: u64 },
    NotConfirmed { channel: u16, publish_tag: u64 },
    CreditLapsed { channel: u16, tag: Name, left: u32 },
    Cancelled { channel: u16, tag: Name },
}

/// What a consumer gets with a delivery in addition to the message.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryHeader {
    /// Its number on the channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How often it came back, if the queue counts that.
    pub attempts: Option<u32>,
}

/// A message's parts: lengths in the buffer, and the body if it is shared.
#[derive(Clone, Debug)]
struct Message {
    dialect: DialectId,
    exchange_len: u8,
    key_len: u16,
    properties_len: u32,
    annotations_len: u32,
    inline_len: u32,
    shared: Option<Bytes>,
}

/// Effects of one connection, in the order in which they were decided.
#[derive(Debug, Default)]
pub struct Effects {
    records: Vec<Record>,
    /// Separate from the bytes, so that nobody has to check again that they are valid text.
    texts: String,
    bytes: Vec<u8>,
    /// Replies that wait for the journal, with everything that follows them: the number of records before each, and
    /// the position that must be durable.
    held: VecDeque<(usize, Position)>,
    shared_bytes: usize,
    /// The messages in it that are delivered to the client.
    delivered: Batch,
}

impl Effects {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of their texts, messages and frames: about what they take when they are encoded.
    pub fn len_bytes(&self) -> usize {
        self.texts.len() + self.bytes.len() + self.shared_bytes
    }

    /// The memory that they take, in bytes. Of short ones it is far more than [`Effects::len_bytes`].
    pub fn memory_bytes(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.len_bytes()
    }

    /// The messages in it that are delivered to the client.
    pub fn delivered(&self) -> Batch {
        self.delivered
    }

    /// The position that must be durable before everything in here may leave.
    pub fn held(&self) -> Option<Position> {
        self.held.back().map(|(_, position)| *position)
    }

    /// Everything that follows waits until `position` is durable.
    pub fn hold(&mut self, position: Position) {
        if self.held.back().is_none_or(|(_, last)| *last < position) {
            self.held.push_back((self.records.len(), position));
        }
    }

    /// Adds the session's own bytes.
    pub fn frames(&mut self, bytes: &[u8]) {
        self.adopt();
        self.bytes.extend_from_slice(bytes);
        self.records.push(Record::Frames { len: len_u32(bytes) });
    }

    /// Adds an answer.
    pub fn reply(&mut self, origin: Origin, reply: Reply) {
        self.adopt();
        self.records.push(Record::Reply { origin, reply });
    }

    /// Adds a refusal.
    pub fn refused(&mut self, origin: Origin, refusal: Refusal) {
        self.adopt();
        self.records.push(Record::Refused { origin, refusal: Box::new(refusal) });
    }

    /// Adds a message for a subscription.
    pub fn deliver(&mut self, channel: u16, tag: &str, delivery: DeliveryHeader, message: &MessageRef<'_>) {
        self.adopt();
        self.texts.push_str(tag);
        self.delivered.add(message.body.bytes().len());
        let message = self.message(message);
        let DeliveryHeader { delivery_tag, redelivered, attempts } = delivery;
        let tag_len = len_u8(tag.as_bytes());
        self.records.push(Record::Deliver { channel, tag_len, redelivered, attempts, delivery_tag, message });
    }

    /// Adds a message for a get.
    pub fn got(&mut self, channel: u16, delivery: DeliveryHeader, remaining: u64, message: &MessageRef<'_>) {
        self.adopt();
        self.delivered.add(message.body.bytes().len());
        let message = self.message(message);
        let DeliveryHeader { delivery_tag, redelivered, attempts } = delivery;
        self.records.push(Record::Got { channel, redelivered, attempts, delivery_tag, remaining, message });
    }

    /// Adds a message that is returned to its publisher.
    pub fn returned(&mut self, channel: u16, reason: ReturnReason, message: &MessageRef<'_>) {
        self.adopt();
        let message = self.message(message);
        self.records.push(Record::Return { channel, reason, message });
    }

    /// Adds a confirm for a publish, or for all up to it.
    pub fn confirm(&mut self, channel: u16, publish_tag: u64, multiple: bool) {
        self.adopt();
        self.records.push(Record::Confirm { channel, multiple, publish_tag });
    }

    /// Adds a nack for a publish that a queue refused.
    pub fn not_confirmed(&mut self, channel: u16, publish_tag: u64) {
        self.adopt();
        self.records.push(Record::NotConfirmed { channel, publish_tag });
    }

    /// Adds the end of a pull.
    pub fn credit_lapsed(&mut self, channel: u16, tag: Name, left: u32) {
        self.adopt();
        self.records.push(Record::CreditLapsed { channel, tag, left });
    }

    /// Adds the end of a subscription.
    pub fn cancelled(&mut self, channel: u16, tag: Name) {
        self.adopt();
        self.records.push(Record::Cancelled { channel, tag });
    }

    // Inlined, the message is made where it is in the record.
    #[inline(always)]
    fn message(&mut self, message: &MessageRef<'_>) -> Message {
        self.texts.push_str(message.exchange);
        self.bytes.extend_from_slice(message.routing_key);
        self.bytes.extend_from_slice(message.properties);
        if !message.annotations.is_empty() {
            self.bytes.extend_from_slice(message.annotations);
        }
        let (inline_len, shared) = match message.body {
            BodyRef::Inline(body) => {
                self.bytes.extend_from_slice(body);
                (len_u32(body), None)
            }
            BodyRef::Shared(body) | BodyRef::Filed(FiledBody { bytes: body, .. }) => {
                self.shared_bytes += body.len();
                (0, Some(body.clone()))
            }
        };
        Message {
            dialect: message.dialect,
            exchange_len: len_u8(message.exchange.as_bytes()),
            key_len: u16::try_from(message.routing_key.len()).expect("a longer key was refused"),
            properties_len: len_u32(message.properties),
            annotations_len: len_u32(message.annotations),
            inline_len,
            shared,
        }
    }

    /// Moves what may leave now, with `durable` as the durable position, to `out`, which is empty.
    pub fn take(&mut self, durable: Position, out: &mut Self) {
        debug_assert!(out.is_empty(), "the last batch was encoded");
        while self.held.front().is_some_and(|(_, position)| *position <= durable) {
            self.held.pop_front();
        }
        let Some((count, _)) = self.held.front().copied() else {
            std::mem::swap(self, out);
            return;
        };
        out.adopt();
        out.records.extend(self.records.drain(..count));
        let texts: usize = out.records.iter().map(Record::len_texts).sum();
        out.texts.extend(self.texts.drain(..texts));
        let bytes: usize = out.records.iter().map(Record::len_bytes).sum();
        out.bytes.extend(self.bytes.drain(..bytes));
        out.shared_bytes = out.records.iter().map(Record::shared_bytes).sum();
        self.shared_bytes -= out.shared_bytes;
        out.records.iter().filter_map(Record::delivered_bytes).for_each(|bytes| out.delivered.add(bytes));
        self.delivered.messages -= out.delivered.messages;
        self.delivered.bytes -= out.delivered.bytes;
        for (at, _) in &mut self.held {
            *at -= count;
        }
    }

    /// Calls `each` for every effect, in order.
    pub fn for_each(&self, mut each: impl FnMut(&Effect<'_>)) {
        let mut rest = Cut { texts: &self.texts, bytes: &self.bytes };
        for record in &self.records {
            each(&record.view(&mut rest));
        }
    }

    /// Makes sure that it has memory, which may come from other effects of this thread. An idle connection has
    /// none.
    #[inline]
    fn adopt(&mut self) {
        if self.records.capacity() == 0 {
            self.adopt_spare();
        }
    }

    #[cold]
    fn adopt_spare(&mut self) {
        if let Some(spare) = SPARE.with_borrow_mut(Spare::take) {
            // What is pushed next may have to wait for the journal already.
            *self = Self { held: std::mem::take(&mut self.held), ..spare };
        }
    }

    /// Discards its effects, and keeps its memory for others of this thread.
    pub fn recycle(mut self) {
        self.records.clear();
        self.texts.clear();
        self.bytes.clear();
        self.held.clear();
        self.shared_bytes = 0;
        self.delivered = Batch::default();
        SPARE.with_borrow_mut(|spare| spare.put(self));
    }

    fn capacity_bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.texts.capacity() + self.bytes.capacity()
    }
}

/// Memory of effects that were sent; it is still in the processor's cache when it is used again.
#[derive(Debug, Default)]
struct Spare {
    effects: Vec<Effects>,
    bytes: usize,
}

impl Spare {
    /// The maximum of one buffer that is kept: that of one input of 256 KiB.
    const EACH_BYTES_MAX: usize = 1 << 20;
    /// What a thread keeps.
    const BYTES_MAX: usize = 4 << 20;

    fn take(&mut self) -> Option<Effects> {
        let spare = self.effects.pop()?;
        self.bytes -= spare.capacity_bytes();
        Some(spare)
    }

    fn put(&mut self, effects: Effects) {
        let bytes = effects.capacity_bytes();
        if bytes <= Self::EACH_BYTES_MAX && self.bytes + bytes <= Self::BYTES_MAX {
            self.bytes += bytes;
            self.effects.push(effects);
        }
    }
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

impl Record {
    fn view<'a>(&'a self, rest: &mut Cut<'a>) -> Effect<'a> {
        match self {
            Self::Frames { len } => Effect::Frames(rest.take(*len as usize)),
            Self::Reply { origin, reply } => Effect::Reply { origin: *origin, reply },
            Self::Refused { origin, refusal } => Effect::Refused { origin: *origin, refusal },
            Self::Deliver { channel, tag_len, redelivered, attempts, delivery_tag, message } => Effect::Deliver {
                channel: *channel,
                tag: rest.text(*tag_len),
                delivery_tag: *delivery_tag,
                redelivered: *redelivered,
                attempts: *attempts,
                message: message.view(rest),
            },
            Self::Got { channel, redelivered, attempts, delivery_tag, remaining, message } => Effect::Got {
                channel: *channel,
                delivery_tag: *delivery_tag,
                redelivered: *redelivered,
                attempts: *attempts,
                remaining: *remaining,
                message: message.view(rest),
            },
            Self::Return { channel, reason, message } => {
                Effect::Return { channel: *channel, reason: *reason, message: message.view(rest) }
            }
            Self::Confirm { channel, multiple, publish_tag } => {
                Effect::Confirm { channel: *channel, publish_tag: *publish_tag, multiple: *multiple }
            }
            Self::NotConfirmed { channel, publish_tag } => {
                Effect::NotConfirmed { channel: *channel, publish_tag: *publish_tag }
            }
            Self::CreditLapsed { channel, tag, left } => Effect::CreditLapsed { channel: *channel, tag, left: *left },
            Self::Cancelled { channel, tag } => Effect::Cancelled { channel: *channel, tag },
        }
    }

    fn len_texts(&self) -> usize {
        let tag_len = if let Self::Deliver { tag_len, .. } = self { *tag_len } else { 0 };
        usize::from(tag_len) + self.message().map_or(0, |message| usize::from(message.exchange_len))
    }

    fn len_bytes(&self) -> usize {
        if let Self::Frames { len } = self { *len as usize } else { self.message().map_or(0, Message::len_bytes) }
    }

    fn message(&self) -> Option<&Message> {
        match self {
            Self::Deliver { message, .. } | Self::Got { message, .. } | Self::Return { message, .. } => Some(message),
            Self::Frames { .. }
            | Self::Reply { .. }
            | Self::Refused { .. }
            | Self::Confirm { .. }
            | Self::NotConfirmed { .. }
            | Self::CreditLapsed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// The length of the body, if it is delivered to the client.
    fn delivered_bytes(&self) -> Option<usize> {
        match self {
            Self::Deliver { message, .. } | Self::Got { message, .. } => {
                Some(message.shared.as_ref().map_or(message.inline_len as usize, Bytes::len))
            }
            _ => None,
        }
    }

    fn shared_bytes(&self) -> usize {
        self.message().and_then(|message| message.shared.as_ref()).map_or(0, Bytes::len)
    }
}

impl Message {
    // Inlined, the message is made where it is in the effect.
    #[inline(always)]
    fn view<'a>(&'a self, rest: &mut Cut<'a>) -> MessageRef<'a> {
        let exchange = rest.text(self.exchange_len);
        let routing_key = rest.take(usize::from(self.key_len));
        let properties = rest.take(self.properties_len as usize);
        let annotations = rest.take(self.annotations_len as usize);
        let inline = rest.take(self.inline_len as usize);
        let body = self.shared.as_ref().map_or(BodyRef::Inline(inline), BodyRef::Shared);
        MessageRef { dialect: self.dialect, exchange, routing_key, properties, annotations, body }
    }

    fn len_bytes(&self) -> usize {
        usize::from(self.key_len) + (self.properties_len + self.annotations_len + self.inline_len) as usize
    }
}

/// Texts and bytes that are read from the front.
#[derive(Clone, Copy)]
struct Cut<'a> {
    texts: &'a str,
    bytes: &'a [u8],
}

impl<'a> Cut<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken
    }

    fn text(&mut self, len: u8) -> &'a str {
        let (taken, rest) = self.texts.split_at(usize::from(len));
        self.texts = rest;
        taken
    }
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("frames, properties and inline bodies are far below 4 GiB")
}

fn len_u8(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).expect("names have at most 255 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(effects: &Effects) -> Vec<String> {
        let mut texts = Vec::new();
        effects.for_each(|effect| {
            texts.push(match effect {
                Effect::Frames(bytes) => format!("frames {}", String::from_utf8_lossy(bytes)),
                Effect::Reply { reply, .. } => format!("{reply:?}"),
                Effect::Deliver { tag, delivery_tag, message, .. } => format!(
                    "deliver {tag} {delivery_tag} {} {} {}",
                    message.exchange,
                    String::from_utf8_lossy(message.routing_key),
                    String::from_utf8_lossy(message.body.bytes())
                ),
                other => format!("{other:?}"),
            });
        });
        texts
    }

    /// Also with memory from effects that were sent before.
    #[test]
    fn a_reply_waits_for_the_journal_whatever_memory_it_stands_in() {
        let mut sent = Effects::default();
        sent.frames(b"sent before");
        sent.recycle();
        let (mut effects, mut out) = (Effects::default(), Effects::default());
        effects.hold(Position(10));
        effects.reply(Origin::default(), Reply::TxCommitted);
        effects.take(Position(9), &mut out);
        assert!(out.is_empty(), "it was answered before it was durable");
        effects.take(Position(10), &mut out);
        assert_eq!(texts(&out), ["TxCommitted"]);
    }

    /// Effects come out in order, and those after a reply that waits for the journal wait with it.
    #[test]
    fn what_follows_a_held_reply_waits_with_it() {
        let shared = Bytes::from_static(b"large");
        let message = |body| MessageRef {
            dialect: DialectId(1),
            exchange: "x",
            routing_key: b"key",
            properties: b"pp",
            annotations: &[],
            body,
        };
        let mut effects = Effects::default();
        effects.frames(b"one");
        let header = |delivery_tag| DeliveryHeader { delivery_tag, redelivered: false, attempts: None };
        effects.deliver(1, "tag", header(1), &message(BodyRef::Inline(b"body")));
        effects.deliver(1, "tag", header(2), &message(BodyRef::Shared(&shared)));
        effects.hold(Position(10));
        effects.reply(Origin::default(), Reply::Bound);
        effects.frames(b"two");
        effects.hold(Position(20));
        effects.reply(Origin::default(), Reply::Unbound);
        assert_eq!(effects.held(), Some(Position(20)), "whoever waits for the journal waits for the last one");
        let mut out = Effects::default();
        effects.take(Position(9), &mut out);
        assert_eq!(texts(&out), ["frames one", "deliver tag 1 x key body", "deliver tag 2 x key large"]);
        out = Effects::default();
        effects.take(Position(9), &mut out);
        assert!(out.is_empty());
        effects.take(Position(10), &mut out);
        assert_eq!(texts(&out), ["Bound", "frames two"]);
        out = Effects::default();
        effects.take(Position(25), &mut out);
        assert_eq!(texts(&out), ["Unbound"]);
        assert!(effects.is_empty());
    }
}
