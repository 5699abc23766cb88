//! A message on its way to the node: spans of the bytes from which the session read it.
//!
//! A publish borrows nothing. Its long parts are spans: ranges of those bytes. So the node can collect a batch of
//! publishes without a copy and decide it under one lock.

use bytes::Bytes;

use crate::{DialectId, FiledBody, Name, Origin, QueueId, TransactionId};

/// A range of the session's input, or of a publish's own [`PublishExtras::head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// Where it begins.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes of this range.
    ///
    /// # Panics
    /// If the span is not within `of`: the span is from another buffer.
    #[must_use]
    pub fn of(self, of: &[u8]) -> &[u8] {
        &of[self.start as usize..][..self.len as usize]
    }
}

/// A publish's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the input (or in the publish's [`PublishExtras::head`]): at most [`crate::Limits::copy_bytes_max`] bytes.
    Span(Span),
    /// In a buffer of its own.
    Shared(Bytes),
    /// In a buffer, and already in a file of its own.
    Filed(Box<FiledBody>),
}

/// One message to be routed.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The request.
    pub origin: Origin,
    /// The protocol whose encoding the properties have.
    pub dialect: DialectId,
    /// The exchange's name. The session has checked that it is UTF-8.
    pub exchange: Span,
    /// The routing key.
    pub routing_key: Span,
    /// The properties as they arrived.
    pub properties: Span,
    /// The body.
    pub body: Body,
    /// Whether it is returned when it is unroutable (AMQP: mandatory).
    pub mandatory: bool,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// Its priority, if it has one.
    pub priority: Option<u8>,
    /// Its own time to live in milliseconds, if it has one.
    pub expiration_ms: Option<u64>,
    /// Fields that few publishes have; `None` for all other publishes.
    pub rare: Option<Box<PublishExtras>>,
}

/// Fields that few publishes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishExtras {
    /// The buffer that the spans point into, if it is not the session's input. A message that arrived in several reads
    /// has such a buffer.
    pub head: Option<Bytes>,
    /// The user that the message names as its publisher (AMQP: user-id).
    pub user: Option<Name>,
    /// Further routing keys (AMQP: CC and BCC).
    pub more_keys: Vec<Vec<u8>>,
    /// Whether replies come through the channel's own [`crate::Ask::SubscribeReplies`]. Then the node annotates the
    /// message with that address.
    pub wants_replies: bool,
    /// The transaction whose commit it waits for, if it is one that [`crate::Ask::Begin`] has begun.
    pub transaction: Option<TransactionId>,
    /// What the server says of the message: see [`crate::Annotations`].
    pub annotations: Box<[u8]>,
    /// The bindings that ask to be named, for each queue that the message reaches through them. The node fills this in
    /// when it routes the message.
    pub matched: Vec<(QueueId, u64)>,
}

impl Publish {
    /// The buffer that the spans point into. `input` is the session's input.
    #[must_use]
    pub fn source<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        self.rare.as_ref().and_then(|rare| rare.head.as_deref()).unwrap_or(input)
    }

    /// What the server says of the message.
    #[inline]
    #[must_use]
    pub fn annotations(&self) -> &[u8] {
        self.rare.as_ref().map_or(&[], |rare| &rare.annotations)
    }

    /// See [`PublishExtras::matched`].
    #[inline]
    #[must_use]
    pub fn matched(&self) -> &[(QueueId, u64)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.matched)
    }

    /// The further routing keys.
    #[must_use]
    pub fn more_keys(&self) -> &[Vec<u8>] {
        self.rare.as_ref().map_or(&[], |rare| &rare.more_keys)
    }
}
