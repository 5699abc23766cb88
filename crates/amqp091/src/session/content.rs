//! Turns the frames of a publish (method, content header, body) into one command.
//!
//! For most messages, all frames are in the input, one after the other. Such a message becomes spans of the input,
//! without a copy. A message that arrives in parts is collected in a buffer of its channel. The buffer grows with the
//! bytes that have arrived, never by the length in the header.

use bytes::Bytes;
use ferrymq_model::{Body, BodyBuffer, Command, Limits, Name, Object, Origin, Publish, Refusal, Span};
use ferrymq_wire::Output;

use super::encoder::BASIC;
use crate::{
    codec::{
        content::{ContentHeader, publish},
        frame::{Frame, FrameKind, expected},
        methods::{BasicPublish, WireMethod},
        reply_code::ReplyCode,
    },
    mapping::{self, PublishFacts, Violation},
};

/// The limits for the publishes of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub limits: &'a Limits,
    pub frame_bytes_max: u32,
    pub vhost: &'a Name,
}

/// A publish whose content is not complete.
#[derive(Debug)]
pub(super) enum Assembly {
    /// Its content header must come next.
    AwaitHeader(AwaitHeader),
    /// More of its body must come next.
    AwaitBody(AwaitBody),
}

impl Assembly {
    /// The number of its bytes that have arrived.
    pub fn bytes(&self) -> usize {
        match self {
            Self::AwaitHeader(start) => start.head.len(),
            Self::AwaitBody(gathered) => gathered.start.head.len() + gathered.body.bytes().len(),
        }
    }
}

/// A publish without its content header.
#[derive(Debug)]
pub(super) struct AwaitHeader {
    origin: Origin,
    /// The exchange and the routing key.
    head: Vec<u8>,
    exchange: Span,
    routing_key: Span,
    mandatory: bool,
}

/// A publish with its content header.
#[derive(Debug)]
pub(super) struct AwaitBody {
    start: AwaitHeader,
    properties: Span,
    facts: PublishFacts,
    body: BodyBuffer,
    /// How many bytes of the body are missing. 0 if only the end octet of the last frame is missing.
    missing: u64,
}

/// The result of taking a frame of content.
#[derive(Debug)]
pub(super) enum Gathered {
    /// The publish is not complete.
    Partly(Assembly),
    /// The publish is complete.
    Whole(Publish),
}

/// Takes the publish of `method`, if all its other frames follow in `input` at `at`. Returns the position of its end.
///
/// `None` means that the publish must be collected frame by frame. The errors are those of a complete message.
#[inline]
pub(super) fn contiguous(
    origin: Origin,
    method: &BasicPublish<'_>,
    input: &[u8],
    at: usize,
    terms: Terms<'_>,
    out: &mut Output,
) -> Result<Option<usize>, Violation> {
    let Some((header, body_at)) = next(input, at, FrameKind::Header, origin.channel, terms) else { return Ok(None) };
    let header = ContentHeader::read(header)?;
    let (body, end) = if header.body_bytes == 0 {
        (Body::Span(Span::default()), body_at)
    } else {
        match next(input, body_at, FrameKind::Body, origin.channel, terms) {
            Some((body, end)) if body.len() as u64 == header.body_bytes => (self::body(input, body, terms), end),
            _ => return Ok(None),
        }
    };
    let facts = check(method, &header, terms)?;
    if facts.shown.is_some() {
        // The properties change, so they are not in the input: the publish needs a head of its own.
        return Ok(None);
    }
    out.command(Command::Publish(Publish {
        origin,
        dialect: mapping::DIALECT,
        exchange: span(input, method.exchange),
        routing_key: span(input, method.routing_key),
        properties: span(input, header.properties),
        body,
        mandatory: method.mandatory,
        persistent: facts.persistent,
        priority: facts.priority,
        expiration_ms: facts.expiration_ms,
        rare: facts.rare,
    }));
    Ok(Some(end))
}

/// Takes the publish at `at`, if it is complete, on this channel and without an error. Returns the position of its end.
#[inline]
pub(super) fn following(channel: u16, input: &[u8], at: usize, terms: Terms<'_>, out: &mut Output) -> Option<usize> {
    let (payload, at) = next(input, at, FrameKind::Method, channel, terms)?;
    let method = publish(payload)?.ok()?;
    contiguous(mapping::origin(channel, BasicPublish::ID), &method, input, at, terms, out).ok()?
}

/// Reads the frame at `at`, if it is complete and the expected one. Returns its payload and the position of its end.
#[inline]
fn next<'a>(input: &'a [u8], at: usize, kind: FrameKind, channel: u16, terms: Terms<'_>) -> Option<(&'a [u8], usize)> {
    expected(input, at, kind, channel, terms.frame_bytes_max)
}

/// A small body stays in the input. A large body gets a buffer of its own.
#[inline]
fn body(input: &[u8], body: &[u8], terms: Terms<'_>) -> Body {
    if body.len() <= terms.limits.copy_bytes_max {
        Body::Span(span(input, body))
    } else {
        Body::Shared(BodyBuffer::copy(body))
    }
}

/// Checks a message after its content header has arrived.
#[inline]
fn check(method: &BasicPublish<'_>, header: &ContentHeader<'_>, terms: Terms<'_>) -> Result<PublishFacts, Violation> {
    check_method(method, terms)?;
    check_header(header, terms)
}

#[inline]
fn check_method(method: &BasicPublish<'_>, terms: Terms<'_>) -> Result<(), Violation> {
    if method.immediate || std::str::from_utf8(method.exchange).is_err() {
        return Err(unacceptable_method(method, terms));
    }
    Ok(())
}

/// The reason for refusing a publish before its content header is read.
#[cold]
fn unacceptable_method(method: &BasicPublish<'_>, terms: Terms<'_>) -> Violation {
    // AMQP-34
    if method.immediate {
        return Violation::new(ReplyCode::NotImplemented, "immediate=true");
    }
    // The name of an exchange is always text.
    let name = mapping::tag(&String::from_utf8_lossy(method.exchange).chars().take(60).collect::<String>());
    Violation::from(&Refusal::NotFound { object: Object::Exchange, name, vhost: terms.vhost.clone() })
}

#[inline]
fn check_header(header: &ContentHeader<'_>, terms: Terms<'_>) -> Result<PublishFacts, Violation> {
    let Limits { message_bytes_max, properties_bytes_max, .. } = *terms.limits;
    if header.class != BASIC || header.body_bytes > message_bytes_max || header.properties.len() > properties_bytes_max
    {
        return Err(unacceptable(header, terms.limits));
    }
    mapping::publish_facts(header.properties)
}

/// The reason for refusing a content header before its properties are read.
#[cold]
fn unacceptable(header: &ContentHeader<'_>, limits: &Limits) -> Violation {
    if header.class != BASIC {
        let got = header.class;
        let text = format!("expected content header for class {BASIC}, got one for class {got} instead");
        return Violation::new(ReplyCode::UnexpectedFrame, text);
    }
    // AMQP-8
    if header.body_bytes > limits.message_bytes_max {
        let (bytes, bytes_max) = (header.body_bytes, limits.message_bytes_max);
        let text = format!("message size {bytes} is larger than configured max size {bytes_max}");
        return Violation::new(ReplyCode::PreconditionFailed, text);
    }
    let (bytes, bytes_max) = (header.properties.len(), limits.properties_bytes_max);
    let text = format!("properties of {bytes} bytes are larger than properties_bytes_max ({bytes_max})");
    Violation::new(ReplyCode::PreconditionFailed, text)
}

/// The span of `part`, which was read from `input`.
#[inline]
fn span(input: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr() - input.as_ptr().addr();
    debug_assert!(start + part.len() <= input.len(), "the part was read from the input");
    Span { start: narrow(start), len: narrow(part.len()) }
}

#[inline]
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("the input and all heads are shorter than 4 GiB")
}

/// Appends a part to a head.
fn append(head: &mut Vec<u8>, part: &[u8]) -> Span {
    let start = narrow(head.len());
    head.extend_from_slice(part);
    Span { start, len: narrow(part.len()) }
}

impl Assembly {
    /// Starts to collect the publish of `method`.
    pub fn begin(origin: Origin, method: &BasicPublish<'_>, terms: Terms<'_>) -> Result<Self, Violation> {
        check_method(method, terms)?;
        let mut head = Vec::new();
        let exchange = append(&mut head, method.exchange);
        let routing_key = append(&mut head, method.routing_key);
        Ok(Self::AwaitHeader(AwaitHeader { origin, head, exchange, routing_key, mandatory: method.mandatory }))
    }

    /// Whether the next frame can be taken in parts: it must be a body frame that is not longer than the rest of the
    /// body.
    pub fn takes_part_of(&self, payload_bytes: u32) -> bool {
        matches!(self, Self::AwaitBody(message) if message.missing >= u64::from(payload_bytes))
    }

    /// Takes part of a frame's payload, after [`Assembly::takes_part_of`] returned true for this frame.
    pub fn take_part(&mut self, part: &[u8]) {
        if let Self::AwaitBody(message) = self {
            message.missing = message.missing.saturating_sub(part.len() as u64);
            message.body.append(part);
        }
    }

    /// Ends the frame that was taken in parts.
    pub fn end_frame(self, terms: Terms<'_>) -> Gathered {
        match self {
            Self::AwaitBody(message) => message.gathered(terms),
            start @ Self::AwaitHeader(_) => Gathered::Partly(start),
        }
    }

    /// The request of the publish.
    pub fn origin(&self) -> Origin {
        match self {
            Self::AwaitHeader(start) | Self::AwaitBody(AwaitBody { start, .. }) => start.origin,
        }
    }

    /// Takes the next frame of the channel. (AMQP-8)
    pub fn take(self, frame: &Frame<'_>, terms: Terms<'_>) -> Result<Gathered, Violation> {
        match (self, frame.kind) {
            (Self::AwaitHeader(start), FrameKind::Header) => start.header(frame.payload, terms),
            (Self::AwaitBody(message), FrameKind::Body) => message.body(frame.payload, terms),
            (Self::AwaitHeader(_), _) => Err(unexpected("header for class 60", "header")),
            (Self::AwaitBody(_), _) => Err(unexpected("body", "body")),
        }
    }
}

fn unexpected(expected: &str, missing: &str) -> Violation {
    let text = format!("expected content {expected}, got non content {missing} frame instead");
    Violation::new(ReplyCode::UnexpectedFrame, text)
}

impl AwaitHeader {
    fn header(mut self, payload: &[u8], terms: Terms<'_>) -> Result<Gathered, Violation> {
        let header = ContentHeader::read(payload)?;
        let facts = check_header(&header, terms)?;
        let properties = append(&mut self.head, facts.shown.as_deref().unwrap_or(header.properties));
        let body = BodyBuffer::with_room(usize::try_from(header.body_bytes).unwrap_or(usize::MAX));
        let message = AwaitBody { start: self, properties, facts, body, missing: header.body_bytes };
        Ok(message.gathered(terms))
    }
}

impl AwaitBody {
    fn body(mut self, payload: &[u8], terms: Terms<'_>) -> Result<Gathered, Violation> {
        let Some(missing) = self.missing.checked_sub(payload.len() as u64) else {
            let text = "content body frame exceeds remaining content size";
            return Err(Violation::new(ReplyCode::FrameError, text));
        };
        self.missing = missing;
        self.body.append(payload);
        Ok(self.gathered(terms))
    }

    fn gathered(self, terms: Terms<'_>) -> Gathered {
        if self.missing > 0 {
            return Gathered::Partly(Assembly::AwaitBody(self));
        }
        let Self {
            start: AwaitHeader { origin, mut head, exchange, routing_key, mandatory },
            properties,
            facts,
            body,
            ..
        } = self;
        let body = if body.bytes().len() <= terms.limits.copy_bytes_max {
            Body::Span(append(&mut head, body.bytes()))
        } else {
            Body::Shared(body.share())
        };
        let mut rare = facts.rare.unwrap_or_default();
        rare.head = Some(Bytes::from(head));
        Gathered::Whole(Publish {
            origin,
            dialect: mapping::DIALECT,
            exchange,
            routing_key,
            properties,
            body,
            mandatory,
            persistent: facts.persistent,
            priority: facts.priority,
            expiration_ms: facts.expiration_ms,
            rare: Some(rare),
        })
    }
}
