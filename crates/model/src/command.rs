//! What a session asks of its node.
//!
//! A command borrows nothing. Parts that may be long are spans of the bytes from which the session read it. So a batch of
//! commands can be collected without a copy and carried out under one lock.

use bytes::Bytes;

use crate::{Arguments, Dialect, FiledBody, Name, Table, Time};

/// A range of the session's input, or of a publish's own [`Rare::head`].
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
    /// Where `of` is not the buffer that the span was made for.
    #[must_use]
    pub fn of(self, of: &[u8]) -> &[u8] {
        &of[self.start as usize..][..self.len as usize]
    }
}

/// Which request a command came from, so that a refusal can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The channel; 0 for the connection itself.
    pub channel: u16,
    /// The request's number in the protocol's own terms (AMQP: class in the upper 16 bits, method in the lower). Opaque.
    pub method: u32,
}

/// Who wants to log in, and with which proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// With a password.
    Password {
        /// The user's name.
        user: Name,
        /// The password, as typed.
        password: Vec<u8>,
    },
    /// With the client's certificate, which the connection has checked and which names the user.
    Certificate,
}

/// A publish's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the input (or in the publish's [`Rare::head`]): at most [`crate::Limits::copy_bytes_max`] bytes.
    Span(Span),
    /// In a buffer of its own.
    Shared(Bytes),
    /// In a buffer, and in a file of its own already.
    Filed(Box<FiledBody>),
}

/// One message to be routed.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The request.
    pub origin: Origin,
    /// The protocol whose encoding the properties have.
    pub dialect: Dialect,
    /// The exchange's name; UTF-8 was checked.
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
    /// Fields that few publishes have. The others do not carry them.
    pub rare: Option<Box<Rare>>,
}

/// Fields that few publishes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rare {
    /// The buffer that the spans point into, if it is not the session's input: a message that arrived in several reads.
    pub head: Option<Bytes>,
    /// The user that the message names as its publisher (AMQP: user-id).
    pub user: Option<Name>,
    /// Further routing keys (AMQP: CC and BCC).
    pub more_keys: Vec<Vec<u8>>,
    /// Whether replies come through the channel's own [`Command::ConsumeReplies`]: then the properties get that
    /// address.
    pub wants_replies: bool,
}

impl Publish {
    /// The buffer that the spans point into; `input` is what the session reads from.
    #[must_use]
    pub fn source<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        self.rare.as_ref().and_then(|rare| rare.head.as_deref()).unwrap_or(input)
    }

    /// Routing keys beside its own.
    #[must_use]
    pub fn more_keys(&self) -> &[Vec<u8>] {
        self.rare.as_ref().map_or(&[], |rare| &rare.more_keys)
    }
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Accepted: the message is removed.
    Accept,
    /// Requeued.
    Release,
    /// Requeued after a failure.
    Fail,
    /// Rejected: dead-lettered, or dropped.
    Reject,
}

/// Settles deliveries, by the channel's delivery tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The request.
    pub origin: Origin,
    /// The delivery tag; 0 with `multiple` means all deliveries so far.
    pub delivery_tag: u64,
    /// Whether it means all deliveries up to this one.
    pub multiple: bool,
    /// How they are settled.
    pub settlement: Settlement,
}

/// Declares an exchange.
#[derive(Clone, Debug)]
pub struct DeclareExchange {
    /// The request.
    pub origin: Origin,
    /// Its name.
    pub exchange: Name,
    /// Its kind as the client wrote it; the catalog refuses an unknown one. Ignored if `passive`.
    pub kind: Name,
    /// Only check that it exists.
    pub passive: bool,
    /// See [`crate::ExchangeSpec`].
    pub durable: bool,
    /// See [`crate::ExchangeSpec`].
    pub auto_delete: bool,
    /// See [`crate::ExchangeSpec`].
    pub internal: bool,
    /// No reply is wanted.
    pub no_wait: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Delete an exchange.
#[derive(Clone, Debug)]
pub struct DeleteExchange {
    /// The request.
    pub origin: Origin,
    /// Its name.
    pub exchange: Name,
    /// Refuse if it has bindings.
    pub if_unused: bool,
    /// No reply is wanted.
    pub no_wait: bool,
}

/// Declares a queue.
#[derive(Clone, Debug)]
pub struct DeclareQueue {
    /// The request.
    pub origin: Origin,
    /// Its name. Empty: the server chooses one, or, if `passive`, the one last declared on the channel.
    pub queue: Name,
    /// Only check that it exists.
    pub passive: bool,
    /// See [`crate::QueueSpec`].
    pub durable: bool,
    /// See [`crate::QueueSpec`].
    pub exclusive: bool,
    /// See [`crate::QueueSpec`].
    pub auto_delete: bool,
    /// No reply is wanted.
    pub no_wait: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Delete a queue with its messages.
#[derive(Clone, Debug)]
pub struct DeleteQueue {
    /// The request.
    pub origin: Origin,
    /// Its name; empty: the one last declared on the channel.
    pub queue: Name,
    /// Refuse if it has subscriptions.
    pub if_unused: bool,
    /// Refuse if it has ready messages.
    pub if_empty: bool,
    /// No reply is wanted.
    pub no_wait: bool,
}

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// To a queue; an empty name is the one last declared on the channel.
    Queue(Name),
    /// To another exchange, which routes the message by the same key.
    Exchange(Name),
}

impl Destination {
    /// The name of what it leads to.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Queue(name) | Self::Exchange(name) => name,
        }
    }
}

/// Bind a queue or an exchange to an exchange, or unbind it.
#[derive(Clone, Debug)]
pub struct BindCommand {
    /// The request.
    pub origin: Origin,
    /// The queue or exchange that is bound.
    pub destination: Destination,
    /// The exchange to which it is bound.
    pub exchange: Name,
    /// The binding key.
    pub key: Vec<u8>,
    /// No reply is wanted.
    pub no_wait: bool,
    /// The binding's arguments.
    pub arguments: Arguments,
}

/// Subscribe to a queue.
#[derive(Clone, Debug)]
pub struct ConsumeCommand {
    /// The request.
    pub origin: Origin,
    /// The queue; empty: the one last declared on the channel.
    pub queue: Name,
    /// The subscription's name on the channel; empty: the server chooses.
    pub tag: Name,
    /// Deliveries are settled when they are sent (AMQP: no-ack).
    pub no_ack: bool,
    /// The queue may have no other subscription.
    pub exclusive: bool,
    /// No reply is wanted.
    pub no_wait: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Take one message, if there is one.
#[derive(Clone, Debug)]
pub struct GetCommand {
    /// The request.
    pub origin: Origin,
    /// The queue; empty: the one last declared on the channel.
    pub queue: Name,
    /// The delivery is settled when it is sent (AMQP: no-ack).
    pub no_ack: bool,
}

/// Set how many deliveries may be unsettled.
#[derive(Clone, Copy, Debug)]
pub struct QosCommand {
    /// The request.
    pub origin: Origin,
    /// The count; 0 is without limit.
    pub prefetch: u16,
    /// Whether it limits the channel as a whole, at once. Otherwise it limits each subscription from now on.
    pub global: bool,
}

/// What a session asks of its node. Commands of one connection are carried out in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Log in. Answered by [`crate::Event`] `LoggedIn` or `Refused`, both on channel 0.
    Login(Login),
    /// Open a vhost for this connection.
    OpenVhost {
        /// The request.
        origin: Origin,
        /// Its name.
        vhost: Name,
    },
    /// Open a channel.
    OpenChannel(Origin),
    /// Close a channel: its unsettled deliveries are requeued.
    CloseChannel {
        /// The request.
        origin: Origin,
        /// Whether [`crate::Reply::ChannelClosed`] is wanted. It is not when a refusal closes the channel.
        reply: bool,
    },
    /// Close the connection in good order: everything that belongs to it is removed, then the reply is sent.
    CloseConnection {
        /// The request.
        origin: Origin,
        /// Whether [`crate::Reply::ConnectionClosed`] is wanted.
        reply: bool,
    },
    /// Route a message.
    Publish(Publish),
    /// Settle deliveries.
    Settle(Settle),
    /// Make an exchange.
    DeclareExchange(DeclareExchange),
    /// Delete an exchange.
    DeleteExchange(DeleteExchange),
    /// Make a queue.
    DeclareQueue(DeclareQueue),
    /// Delete a queue.
    DeleteQueue(DeleteQueue),
    /// Drop a queue's ready messages.
    PurgeQueue {
        /// The request.
        origin: Origin,
        /// The queue; empty: the one last declared on the channel.
        queue: Name,
        /// No reply is wanted.
        no_wait: bool,
    },
    /// Bind a queue.
    Bind(BindCommand),
    /// Unbind a queue.
    Unbind(BindCommand),
    /// Subscribe.
    Consume(ConsumeCommand),
    /// Receive replies on this channel without a queue (AMQP: direct reply-to). Nobody can guess their address. It begins
    /// with `prefix`; publishes with `wants_replies` get it.
    ConsumeReplies {
        /// The request.
        origin: Origin,
        /// The subscription's name on the channel; empty: the server chooses.
        tag: Name,
        /// The first part of the address.
        prefix: Name,
        /// No reply is wanted.
        no_wait: bool,
    },
    /// Requeue all unsettled deliveries of the channel.
    Recover {
        /// The request.
        origin: Origin,
        /// Whether [`crate::Reply::Recovered`] is wanted.
        reply: bool,
    },
    /// From now on, publishes and settlements of this channel wait for a commit.
    TxSelect(Origin),
    /// Carry out what waits: all of it or nothing.
    TxCommit(Origin),
    /// Drop what waits. Deliveries that were settled since the last commit are unsettled again.
    TxRollback(Origin),
    /// The connection's user sends a new secret, such as a token that replaces one that expires.
    RenewLogin {
        /// The request.
        origin: Origin,
        /// The new password or token.
        secret: Vec<u8>,
    },
    /// Unsubscribe. The deliveries so far can still be settled.
    Cancel {
        /// The request.
        origin: Origin,
        /// The subscription.
        tag: Name,
        /// No reply is wanted.
        no_wait: bool,
    },
    /// Take one message.
    Get(GetCommand),
    /// Limit unsettled deliveries.
    Qos(QosCommand),
    /// Pause or resume deliveries on the channel.
    Flow {
        /// The request.
        origin: Origin,
        /// Whether deliveries flow.
        active: bool,
    },
    /// Confirm publishes on this channel from now on.
    ConfirmSelect {
        /// The request.
        origin: Origin,
        /// No reply is wanted.
        no_wait: bool,
    },
}

/// Reads and rewrites a message's properties for the node. Each protocol's crate implements it; `node` holds one for each
/// dialect. Properties were checked when the message arrived.
pub trait Properties: Send + Sync {
    /// The message's headers, with their values decoded.
    fn headers(&self, properties: &[u8]) -> Table;

    /// The property of this name, if the message has it.
    fn identity(&self, properties: &[u8], identity: Identity) -> Option<Vec<u8>>;

    /// The properties of the message as it leaves `death.queue` for its dead-letter exchange.
    fn dead_letter(&self, properties: &[u8], death: &Death<'_>) -> DeadLetter;

    /// The properties of a message that reports an event.
    fn event(&self, told: &Table, at: Time) -> Vec<u8>;

    /// The exchange from which a dead letter came first, by its own headers.
    fn first_exchange(&self, properties: &[u8]) -> Option<Vec<u8>>;

    /// The properties of a trace message, which shows another message. If they would be too long for a client, or nested
    /// too deeply, some are left out.
    fn trace(&self, traced: &Traced<'_>) -> Vec<u8>;

    /// The same properties with the address for replies.
    fn with_reply_address(&self, properties: &[u8], address: &str) -> Vec<u8>;

    /// The delay in milliseconds before the message is routed; never 0.
    fn delay_ms(&self, properties: &[u8]) -> Option<u64>;

    /// Whether durable queues write the message to disk.
    fn is_persistent(&self, properties: &[u8]) -> bool;

    /// The message after its delay.
    fn come_due(&self, properties: &[u8]) -> ComeDue;
}

/// A message after its delay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComeDue {
    /// The properties, without a delay.
    pub properties: Vec<u8>,
    /// Further routing keys.
    pub more_keys: Vec<Vec<u8>>,
    /// Its time to live in a queue, in milliseconds.
    pub expiration_ms: Option<u64>,
}

/// A message as tracing shows it, without its body.
#[derive(Clone, Debug)]
pub struct Traced<'a> {
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a [u8],
    /// Further routing keys that are not in its properties.
    pub more_keys: &'a [Vec<u8>],
    /// Its properties.
    pub properties: &'a [u8],
    /// The node that traced it.
    pub node: &'a str,
    /// What happened to it.
    pub more: Table,
}

/// A property that identifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The application's identifier of the message.
    MessageId,
    /// The identifier of the request and its replies.
    CorrelationId,
    /// When the application created it: seconds since 1970, as digits.
    Timestamp,
}

/// Why a message is dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected,
    /// It expired.
    Expired,
    /// Its queue was over its length limit.
    MaxLength,
    /// It came back more often than the delivery limit allows.
    DeliveryLimit,
}

impl DeathReason {
    const ALL: [Self; 4] = [Self::Rejected, Self::Expired, Self::MaxLength, Self::DeliveryLimit];

    /// The value that storage keeps in place of a message's attempts while the message waits as an at-least-once dead
    /// letter. It is stored: never change it.
    #[must_use]
    pub const fn as_attempts(self) -> u32 {
        u32::MAX - self as u32
    }

    /// The reason that is stored in place of the attempts, if there is one.
    #[must_use]
    pub fn from_attempts(attempts: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_attempts() == attempts)
    }
}

/// Why, when and from where a message is dead-lettered.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// Why.
    pub reason: DeathReason,
    /// The exchange that had routed it to the queue.
    pub exchange: &'a str,
    /// The routing key it had.
    pub routing_key: &'a [u8],
    /// Whether it gets another routing key, which also replaces further keys (AMQP: CC).
    pub new_key: bool,
    /// When.
    pub at: Time,
}

/// A message's properties after dead-lettering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The properties with this death in them and without an expiration.
    pub properties: Vec<u8>,
    /// The further routing keys that it keeps.
    pub more_keys: Vec<Vec<u8>>,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// Its deaths, the latest first, this one included: the queue's name, and whether a consumer rejected it there. A
    /// message that would enter a queue again without a rejection in between is in a cycle.
    pub deaths: Vec<(String, bool)>,
}
