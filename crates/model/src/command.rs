//! The requests of a session to its node.
//!
//! A command borrows nothing. Its long parts are spans: ranges of the bytes from which the session read it. So the node
//! can collect a batch of commands without a copy and carry it out under one lock.

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
    /// If the span is not within `of`: the span is from another buffer.
    #[must_use]
    pub fn of(self, of: &[u8]) -> &[u8] {
        &of[self.start as usize..][..self.len as usize]
    }
}

/// The client's request that a command came from, so that a refusal can name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The channel; 0 for the connection itself.
    pub channel: u16,
    /// The request's number in the protocol's own terms (AMQP: class in the upper 16 bits, method in the lower).
    /// Opaque.
    pub method: u32,
}

/// How a client logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// With a password.
    Password {
        /// The user's name.
        user: Name,
        /// The password, as typed.
        password: Vec<u8>,
    },
    /// With the client's certificate, which names the user. The connection has checked it.
    Certificate,
}

/// A publish's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the input (or in the publish's [`Rare::head`]): at most [`crate::Limits::copy_bytes_max`] bytes.
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
    pub dialect: Dialect,
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
    pub rare: Option<Box<Rare>>,
}

/// Fields that few publishes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rare {
    /// The buffer that the spans point into, if it is not the session's input. A message that arrived in several reads
    /// has such a buffer.
    pub head: Option<Bytes>,
    /// The user that the message names as its publisher (AMQP: user-id).
    pub user: Option<Name>,
    /// Further routing keys (AMQP: CC and BCC).
    pub more_keys: Vec<Vec<u8>>,
    /// Whether replies come through the channel's own [`Command::ConsumeReplies`]. Then the node writes that address
    /// into the properties.
    pub wants_replies: bool,
}

impl Publish {
    /// The buffer that the spans point into. `input` is the session's input.
    #[must_use]
    pub fn source<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        self.rare.as_ref().and_then(|rare| rare.head.as_deref()).unwrap_or(input)
    }

    /// The further routing keys.
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
    /// Whether all deliveries up to this one are settled.
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
    /// Its type as the client wrote it; the catalog refuses an unknown type. Ignored if `passive`.
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

/// Deletes an exchange.
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
    /// Its name. Empty: the server chooses a name; with `passive`, it is the queue last declared on the channel.
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

/// Deletes a queue with its messages.
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

/// The destination of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue; an empty name means the queue last declared on the channel.
    Queue(Name),
    /// Another exchange, which routes the message by the same key.
    Exchange(Name),
}

impl Destination {
    /// The name of the queue or exchange.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Queue(name) | Self::Exchange(name) => name,
        }
    }
}

/// Binds a queue or an exchange to an exchange, or unbinds it.
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

/// Subscribes to a queue.
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

/// Takes one message, if there is one.
#[derive(Clone, Debug)]
pub struct GetCommand {
    /// The request.
    pub origin: Origin,
    /// The queue; empty: the one last declared on the channel.
    pub queue: Name,
    /// The delivery is settled when it is sent (AMQP: no-ack).
    pub no_ack: bool,
}

/// Sets how many deliveries may be unsettled.
#[derive(Clone, Copy, Debug)]
pub struct QosCommand {
    /// The request.
    pub origin: Origin,
    /// The number of deliveries; 0 means no limit.
    pub prefetch: u16,
    /// Whether the limit is for the whole channel and holds at once. Otherwise it is for each later subscription on its
    /// own.
    pub global: bool,
}

/// A request of a session to its node. The commands of one connection are carried out in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Log in. The answer is [`crate::Event`] `LoggedIn` or `Refused`, on channel 0.
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
    /// Close the connection in the regular way: first everything that belongs to it is removed, then the reply is sent.
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
    /// Declare an exchange.
    DeclareExchange(DeclareExchange),
    /// Delete an exchange.
    DeleteExchange(DeleteExchange),
    /// Declare a queue.
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
    /// Receive replies on this channel without a queue (AMQP: direct reply-to). The address of the replies begins with
    /// `prefix` and cannot be guessed. Publishes with `wants_replies` get this address.
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
    /// Carry out the waiting publishes and settlements: all of them or none.
    TxCommit(Origin),
    /// Drop the waiting publishes and settlements. Deliveries that were settled since the last commit are unsettled
    /// again.
    TxRollback(Origin),
    /// The connection's user sends a new secret, such as a new token before the old one expires.
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
        /// True to resume, false to pause.
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

/// Reads and rewrites a message's properties for the node. Each protocol's crate implements it; `node` has one
/// implementation for each dialect. The session has checked the properties when the message arrived.
pub trait Properties: Send + Sync {
    /// The message's headers, with their values decoded.
    fn headers(&self, properties: &[u8]) -> Table;

    /// The property of this name, if the message has it.
    fn identity(&self, properties: &[u8], identity: Identity) -> Option<Vec<u8>>;

    /// The properties of the message as it leaves `death.queue` for its dead-letter exchange.
    fn dead_letter(&self, properties: &[u8], death: &Death<'_>) -> DeadLetter;

    /// The properties of a message that reports an event.
    fn event(&self, told: &Table, at: Time) -> Vec<u8>;

    /// The exchange of a dead letter's first death, from the message's own headers.
    fn first_exchange(&self, properties: &[u8]) -> Option<Vec<u8>>;

    /// The properties of a trace message, which describes another message. If they would be too long for a client, or
    /// nested too deeply, some of them are left out.
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

/// A message as tracing describes it, without its body.
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
    /// Facts about the event, such as whether the message was redelivered.
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
    /// The reason.
    pub reason: DeathReason,
    /// The exchange that had routed it to the queue.
    pub exchange: &'a str,
    /// Its routing key until now.
    pub routing_key: &'a [u8],
    /// Whether it gets another routing key, which also replaces the further keys (AMQP: CC).
    pub new_key: bool,
    /// The time.
    pub at: Time,
}

/// A message's properties after dead-lettering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The properties, with this death added and the expiration removed.
    pub properties: Vec<u8>,
    /// The further routing keys that the message keeps.
    pub more_keys: Vec<Vec<u8>>,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// All its deaths, the latest first and this one included: the queue's name, and whether a consumer rejected it
    /// there. A message that would enter a queue again without a rejection in between is in a cycle.
    pub deaths: Vec<(String, bool)>,
}
