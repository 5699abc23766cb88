//! What a session asks of its node.
//!
//! A command borrows nothing: parts that may be long are spans into the bytes from which the session read it, so that a
//! batch of commands can be collected without a copy and carried out under one lock.

use bytes::Bytes;

use crate::{Arguments, Dialect, Name, Table, Time};

/// A stretch of the session's input, or of a publish's own [`Rare::head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// Where it begins.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Span {
    /// The bytes of this stretch.
    ///
    /// # Panics
    /// Where `of` is not what the span was made for.
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

/// Who wants to come in, and how it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By a password.
    Password {
        /// The user's name.
        user: Name,
        /// The password, as typed.
        password: Vec<u8>,
    },
    /// By what the connection itself has proved: the client's certificate, which names the user.
    Certificate,
}

/// A publish's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the input (or in the publish's [`Rare::head`]); at most [`crate::Limits::copy_bytes_max`] long.
    Span(Span),
    /// In a buffer of its own.
    Shared(Bytes),
}

/// One message to be routed.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The request.
    pub origin: Origin,
    /// Whose bytes the properties are.
    pub dialect: Dialect,
    /// The exchange's name; UTF-8 was checked.
    pub exchange: Span,
    /// The routing key.
    pub routing_key: Span,
    /// The properties as they arrived.
    pub properties: Span,
    /// The body.
    pub body: Body,
    /// Whether it comes back when it cannot be routed.
    pub mandatory: bool,
    /// Whether it should be written to disk, where its queues are durable.
    pub persistent: bool,
    /// Its priority, where it has one.
    pub priority: Option<u8>,
    /// How long it may wait, in milliseconds, where it says so itself.
    pub expiration_ms: Option<u64>,
    /// What few publishes have. The others are moved about without it.
    pub rare: Option<Box<Rare>>,
}

/// What few publishes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rare {
    /// What the spans point into, where it is not the session's input: a message that arrived in several reads.
    pub head: Option<Bytes>,
    /// The user it claims to come from.
    pub user: Option<Name>,
    /// Further routing keys (AMQP: CC and BCC).
    pub more_keys: Vec<Vec<u8>>,
    /// Whether answers are to come back through the channel's own [`Command::ConsumeReplies`]: its properties get that
    /// address.
    pub wants_replies: bool,
}

impl Publish {
    /// What the spans point into, where the session reads from `input`.
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

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done with.
    Accept,
    /// Back into the queue.
    Release,
    /// Back into the queue, because something has failed with it.
    Fail,
    /// Dead-letter, or drop.
    Reject,
}

/// The end of deliveries, by the channel's delivery tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The request.
    pub origin: Origin,
    /// The delivery; 0 with `multiple` means all so far.
    pub delivery_tag: u64,
    /// Whether all up to it are meant.
    pub multiple: bool,
    /// What becomes of them.
    pub settlement: Settlement,
}

/// Make an exchange, or make sure that it is there.
#[derive(Clone, Debug)]
pub struct DeclareExchange {
    /// The request.
    pub origin: Origin,
    /// Its name.
    pub exchange: Name,
    /// Its kind as the client wrote it; the catalog refuses those it does not know. Not looked at where `passive`.
    pub kind: Name,
    /// Only look whether it is there.
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
    /// Refuse if something is bound to it.
    pub if_unused: bool,
    /// No reply is wanted.
    pub no_wait: bool,
}

/// Make a queue, or make sure that it is there.
#[derive(Clone, Debug)]
pub struct DeclareQueue {
    /// The request.
    pub origin: Origin,
    /// Its name; empty: the server chooses one (or, where `passive`, the one last declared on the channel).
    pub queue: Name,
    /// Only look whether it is there.
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
    /// To another exchange, which routes the message on by the same key.
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
    /// What messages are sent on to.
    pub destination: Destination,
    /// The exchange that they come from.
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
    /// Deliveries are settled as they leave.
    pub no_ack: bool,
    /// No other subscription may be there.
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
    /// The delivery is settled as it leaves.
    pub no_ack: bool,
}

/// Set how many deliveries may be unsettled.
#[derive(Clone, Copy, Debug)]
pub struct QosCommand {
    /// The request.
    pub origin: Origin,
    /// The count; 0 is without limit.
    pub prefetch: u16,
    /// Whether it limits the channel as a whole, at once; else each subscription made from now on.
    pub global: bool,
}

/// What a session asks of its node. Commands of one connection are carried out in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Prove who is there. Answered by [`crate::Event`] `LoggedIn` or `Refused`, both on channel 0.
    Login(Login),
    /// Work in a vhost from now on.
    OpenVhost {
        /// The request.
        origin: Origin,
        /// Its name.
        vhost: Name,
    },
    /// A channel begins.
    OpenChannel(Origin),
    /// A channel ends: what it holds unsettled goes back to its queues.
    CloseChannel {
        /// The request.
        origin: Origin,
        /// Whether [`crate::Reply::ChannelClosed`] is wanted; not, where the channel ends because of a refusal.
        reply: bool,
    },
    /// The connection ends in good order: everything of it goes, then the reply leaves.
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
    /// Receive, on this channel and without a queue, what is published to an address that nobody can guess (AMQP: direct
    /// reply-to). The address begins with `prefix`; publishes with `wants_replies` are given it.
    ConsumeReplies {
        /// The request.
        origin: Origin,
        /// The subscription's name on the channel; empty: the server chooses.
        tag: Name,
        /// What the address begins with.
        prefix: Name,
        /// No reply is wanted.
        no_wait: bool,
    },
    /// Give all unsettled deliveries of the channel back to their queues.
    Recover {
        /// The request.
        origin: Origin,
        /// Whether [`crate::Reply::Recovered`] is wanted.
        reply: bool,
    },
    /// Publishes and settlements of this channel wait for a commit from now on.
    TxSelect(Origin),
    /// Decide what waits, all of it or nothing.
    TxCommit(Origin),
    /// Forget what waits; deliveries settled since the last commit are unsettled again.
    TxRollback(Origin),
    /// The connection's user shows a new secret, such as a token that replaces one that ends.
    RenewLogin {
        /// The request.
        origin: Origin,
        /// The new password or token.
        secret: Vec<u8>,
    },
    /// Unsubscribe; deliveries already made can still be settled.
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

/// Reads and rewrites a message's properties where the house must know or change what they say. Each room gives one;
/// `node` holds them by dialect. Properties were checked when the message came in.
pub trait Properties: Send + Sync {
    /// The message's headers, with their values decoded.
    fn headers(&self, properties: &[u8]) -> Table;

    /// What the message says of itself under this name, if it does.
    fn identity(&self, properties: &[u8], identity: Identity) -> Option<Vec<u8>>;

    /// The properties of the message as it leaves `death.queue` for its dead-letter exchange.
    fn dead_letter(&self, properties: &[u8], death: &Death<'_>) -> DeadLetter;

    /// The properties of a message that tells of an event.
    fn event(&self, told: &Table, at: Time) -> Vec<u8>;

    /// The exchange that a dead letter was published to first, as it says itself.
    fn first_exchange(&self, properties: &[u8]) -> Option<Vec<u8>>;

    /// The properties of a message that shows another one to those who watch. Where they would be too long for a client, or
    /// nest too deeply, they tell less.
    fn trace(&self, traced: &Traced<'_>) -> Vec<u8>;

    /// The same properties with the address to which answers should go.
    fn with_reply_address(&self, properties: &[u8], address: &str) -> Vec<u8>;

    /// How long the message asks to wait before it is routed, in milliseconds; never 0.
    fn delay_ms(&self, properties: &[u8]) -> Option<u64>;

    /// Whether the message is to be written to disk, where its queues are durable.
    fn is_persistent(&self, properties: &[u8]) -> bool;

    /// What the message becomes when it has waited as long as it asked for.
    fn come_due(&self, properties: &[u8]) -> ComeDue;
}

/// What becomes of a message that has waited as long as it asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComeDue {
    /// The properties, which ask for no delay any more.
    pub properties: Vec<u8>,
    /// Further routing keys.
    pub more_keys: Vec<Vec<u8>>,
    /// How long it may wait in a queue, in milliseconds.
    pub expiration_ms: Option<u64>,
}

/// A message that is shown to those who watch, without its body.
#[derive(Clone, Debug)]
pub struct Traced<'a> {
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a [u8],
    /// Routing keys beside that, where they do not stand in its properties.
    pub more_keys: &'a [Vec<u8>],
    /// Its properties.
    pub properties: &'a [u8],
    /// The member on which it is seen.
    pub node: &'a str,
    /// What happened to it.
    pub more: Table,
}

/// What tells a message from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The application's own name of it.
    MessageId,
    /// What it answers, or what its answers will carry.
    CorrelationId,
    /// When the application made it: seconds since 1970, as digits.
    Timestamp,
}

/// Why a message is dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected,
    /// It waited too long.
    Expired,
    /// Its queue was too long.
    MaxLength,
    /// It came back too often.
    DeliveryLimit,
}

impl DeathReason {
    const ALL: [Self; 4] = [Self::Rejected, Self::Expired, Self::MaxLength, Self::DeliveryLimit];

    /// What stands for a message's attempts in storage once its end is decided and its letter has to wait. Stored: it
    /// never changes.
    #[must_use]
    pub const fn as_attempts(self) -> u32 {
        u32::MAX - self as u32
    }

    /// The reason that stands there, where one does.
    #[must_use]
    pub fn from_attempts(attempts: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_attempts() == attempts)
    }
}

/// The end of a message in a queue.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// The queue's name.
    pub queue: &'a str,
    /// Why.
    pub reason: DeathReason,
    /// The exchange that had sent it there.
    pub exchange: &'a str,
    /// The routing key it had.
    pub routing_key: &'a [u8],
    /// Whether it gets another routing key, which replaces further ones (AMQP: CC), too.
    pub new_key: bool,
    /// When.
    pub at: Time,
}

/// What becomes of a message's properties when it is dead-lettered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The properties with this death in them and without an expiration.
    pub properties: Vec<u8>,
    /// Further routing keys that it keeps.
    pub more_keys: Vec<Vec<u8>>,
    /// Whether it should be written to disk, where its queues are durable.
    pub persistent: bool,
    /// Its deaths, the latest first, this one included: the queue's name, and whether a consumer rejected it there. A
    /// message that would come into a queue again without a rejection in between goes in a circle.
    pub deaths: Vec<(String, bool)>,
}
