//! The requests of a session to its node.

use crate::{Arguments, Login, Name, Publish, Settle, Table};

/// A request of a session to its node. The requests of one connection are carried out in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Log in. The answer is [`crate::Event`] `LoggedIn`, `Challenge` or `Refused`, on channel 0.
    Login(Login),
    /// Route a message.
    Publish(Publish),
    /// Settle deliveries.
    Settle(Settle),
    /// Anything else.
    Request(Request),
}

/// What all requests have, and what this one asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it came from, and who gets the answer.
    pub origin: Origin,
    /// What it asks for.
    pub ask: Ask,
}

/// Where a request came from, and who gets its answer.
///
/// In eight bytes, because each publish has one. No protocol numbers its requests or channels with more bits: AMQP 1.0,
/// Kafka, OpenWire and RocketMQ number requests with 32 bits, and both versions of AMQP number channels with 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Origin {
    /// The channel; 0 for the connection itself.
    pub channel: u16,
    /// Who gets the answer.
    pub answer: Answer,
    /// The protocol's own number for the request. Answers and refusals have it; the node does not read it. (AMQP
    /// 0-9-1: class in the upper 16 bits, method in the lower.)
    pub token: u32,
}

impl Origin {
    /// The same request, to which nobody wants an answer if this is true. A refusal is still an answer.
    #[must_use]
    pub fn unanswered(self, nobody: bool) -> Self {
        Self { answer: if nobody { Answer::Nobody } else { self.answer }, ..self }
    }
}

/// Who gets the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Answer {
    /// The peer, through the encoder: [`crate::Effect::Reply`], in the order in which the node decides.
    #[default]
    Peer,
    /// The session: [`crate::Event::Answered`]. It comes when the answer is as durable as its request asks, which may
    /// be after the answers to later requests.
    Session,
    /// Nobody. A refusal is an event for the session all the same.
    Nobody,
}

/// How the publishes of a channel are confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmMode {
    /// By their numbers on the channel, several at once: [`crate::Effect::Confirm`] (AMQP 0-9-1).
    Counted,
    /// Each publish has an answer of its own, with its token: [`crate::Reply::Published`]. It goes to who wants the answer
    /// to the publish, as soon as the message is as safe as its queues promise, and holds up nothing else (MQTT, STOMP,
    /// Kafka).
    Each,
}

/// What a refused request does to its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnRefusal {
    /// The channel ends: its later requests are ignored until the session closes it with [`Ask::CloseChannel`], and its
    /// deliveries stop (AMQP 0-9-1).
    #[default]
    CloseChannel,
    /// The refusal is the answer, and the next request is carried out.
    GoOn,
}

/// How a channel works, for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ChannelOptions {
    /// What a refused request does to it.
    pub on_refusal: OnRefusal,
    /// Which numbers its deliveries get.
    pub delivery_ids: DeliveryIds,
}

/// The numbers of a channel's deliveries. They count up from 1. After the largest one, 1 follows; numbers of deliveries
/// that are not settled are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeliveryIds {
    /// 64 bits (AMQP 0-9-1: delivery tags).
    #[default]
    U64,
    /// 32 bits (AMQP 1.0: delivery ids).
    U32,
    /// 16 bits (MQTT: packet identifiers).
    U16,
}

impl DeliveryIds {
    /// The largest number.
    #[must_use]
    pub const fn max(self) -> u64 {
        match self {
            Self::U64 => u64::MAX,
            Self::U32 => u32::MAX as u64,
            Self::U16 => u16::MAX as u64,
        }
    }
}

/// A transaction of a channel. The session chooses the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// The transaction of a channel after [`Ask::SelectTransactions`]. It begins again with each commit and rollback.
    pub const SELECTED: Self = Self(0);
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Open a vhost for this connection.
    OpenVhost {
        /// Its name.
        vhost: Name,
        /// The longest properties that the peer takes with a message, in bytes. A message with longer ones ends the
        /// channel of its delivery.
        properties_bytes_max: usize,
        /// What operators are told of the client.
        client: Option<Box<ClientFacts>>,
    },
    /// Use a client session of the vhost: what belongs to the client is kept for it when the connection ends, and a later
    /// connection goes on with it. Before any channel is open. The answer is [`crate::Reply::Attached`]; it comes when
    /// another connection that has the session has given it up, so the session should wait for it.
    Attach(Attach),
    /// Keep the client session for so many milliseconds after the end of this connection; 0: it ends with the connection.
    KeepSession {
        /// In milliseconds.
        ms: u64,
    },
    /// Open the channel.
    OpenChannel(ChannelOptions),
    /// Close the channel: its unsettled deliveries are requeued.
    CloseChannel,
    /// Close the connection in the regular way: first everything that belongs to it is removed, then the reply is sent.
    CloseConnection,
    /// Declare an exchange.
    DeclareExchange(DeclareExchange),
    /// Delete an exchange.
    DeleteExchange(DeleteExchange),
    /// Declare a queue.
    DeclareQueue(DeclareQueue),
    /// Delete a queue with its messages.
    DeleteQueue(DeleteQueue),
    /// Drop the ready messages of this queue. Empty: the one last declared on the channel.
    PurgeQueue(Name),
    /// Bind a queue or an exchange to an exchange.
    Bind(BindCommand),
    /// Remove such a binding.
    Unbind(BindCommand),
    /// Subscribe to a queue.
    Subscribe(Subscribe),
    /// Receive replies on this channel without a queue (AMQP: direct reply-to). The address of the replies begins with
    /// `prefix` and cannot be guessed. Publishes with `wants_replies` get this address.
    SubscribeReplies {
        /// The subscription's name on the channel; empty: the server chooses.
        tag: Name,
        /// The first part of the address.
        prefix: Name,
    },
    /// End the subscription of this name. Its deliveries so far can still be settled.
    Unsubscribe(Name),
    /// Take one message.
    Get(GetCommand),
    /// Limit unsettled deliveries.
    SetCredit(SetCredit),
    /// Pause or resume deliveries on the channel.
    Flow {
        /// True to resume, false to pause.
        active: bool,
    },
    /// Requeue all unsettled deliveries of the channel.
    Recover,
    /// Confirm publishes on this channel from now on.
    SelectConfirms(ConfirmMode),
    /// From now on, publishes and settlements of this channel wait for a commit.
    SelectTransactions,
    /// Begin a transaction on the channel, next to others: publishes and settlements that name it wait for its commit.
    Begin(TransactionId),
    /// Carry out the waiting publishes and settlements of the transaction: all of them or none.
    Commit(TransactionId),
    /// Drop the waiting publishes and settlements of the transaction. Its settled deliveries are unsettled again.
    RollBack(TransactionId),
    /// Store the transaction so that it can be committed or rolled back later by its name, from any connection of the
    /// same user and after a restart. It is over for the channel: its settled deliveries count no more, and are not
    /// ready either.
    Prepare {
        /// Of the channel.
        transaction: TransactionId,
        /// Unique in the vhost, at most [`crate::Limits::PREPARED_NAME_BYTES_MAX`] bytes (XA: format, global and branch
        /// identifiers).
        name: Vec<u8>,
    },
    /// Commit a prepared transaction.
    CommitPrepared(Vec<u8>),
    /// Roll back a prepared transaction: its settled deliveries are requeued.
    RollBackPrepared(Vec<u8>),
    /// Name the prepared transactions of the vhost that the user may decide about.
    ListPrepared,
    /// The connection's user sends a new secret, such as a new token before the old one expires.
    RenewLogin(Vec<u8>),
}

impl Ask {
    /// Whether a channel that is not open, or that a refusal has ended, carries this out.
    #[must_use]
    pub fn concerns_ended_channels(&self) -> bool {
        matches!(
            self,
            Self::OpenVhost { .. }
                | Self::OpenChannel(_)
                | Self::Attach(_)
                | Self::KeepSession { .. }
                | Self::CommitPrepared(_)
                | Self::RollBackPrepared(_)
                | Self::ListPrepared
                | Self::CloseChannel
                | Self::CloseConnection
                | Self::RenewLogin(_)
        )
    }
}

/// What a client says of itself, and what was agreed on with it. Operators are told of it; nothing depends on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientFacts {
    /// The protocol and its version, such as `AMQP 0-9-1`.
    pub protocol: &'static str,
    /// How it has logged in.
    pub mechanism: &'static str,
    /// What it says of itself, such as its product and version.
    pub properties: Table,
    /// The maximum number of channels; 0 if the protocol has none.
    pub channels_max: u16,
    /// The maximum length of a frame, in bytes; 0 if the protocol has none.
    pub frame_bytes_max: u32,
    /// The time between two heartbeats, in milliseconds; 0: none.
    pub heartbeat_ms: u64,
}

/// Uses a client session.
///
/// To it belong the channels with their subscriptions, the deliveries that are not settled, and exclusive queues. While
/// no connection has it, nothing is delivered. Open transactions, gets that wait and reply addresses end with each
/// connection.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Its name, unique in the vhost. Only the user who has made a session may use it.
    pub session: Name,
    /// Whether to begin a new session: an old one of this name ends first.
    pub is_fresh: bool,
    /// How long it is kept after the end of the connection, in milliseconds; 0: it ends with the connection.
    pub keep_ms: u64,
}

/// Declares an exchange.
#[derive(Clone, Debug)]
pub struct DeclareExchange {
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
    /// Its arguments.
    pub arguments: Arguments,
}

/// Deletes an exchange.
#[derive(Clone, Debug)]
pub struct DeleteExchange {
    /// Its name.
    pub exchange: Name,
    /// Refuse if it has bindings.
    pub if_unused: bool,
}

/// Declares a queue.
#[derive(Clone, Debug)]
pub struct DeclareQueue {
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
    /// Its arguments.
    pub arguments: Arguments,
}

/// Deletes a queue with its messages.
#[derive(Clone, Debug)]
pub struct DeleteQueue {
    /// Its name; empty: the one last declared on the channel.
    pub queue: Name,
    /// Refuse if it has subscriptions.
    pub if_unused: bool,
    /// Refuse if it has ready messages.
    pub if_empty: bool,
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
    /// The queue or exchange that is bound.
    pub destination: Destination,
    /// The exchange to which it is bound.
    pub exchange: Name,
    /// The binding key.
    pub key: Vec<u8>,
    /// The binding's arguments.
    pub arguments: Arguments,
}

/// Subscribes to a queue.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The queue; empty: the one last declared on the channel.
    pub queue: Name,
    /// The subscription's name on the channel; empty: the server chooses.
    pub tag: Name,
    /// Deliveries are settled when they are sent (AMQP: no-ack).
    pub no_ack: bool,
    /// The queue may have no other subscription.
    pub exclusive: bool,
    /// How many deliveries it may get; `None` means what [`CreditOf::LaterSubscriptions`] of its channel says.
    pub credit: Option<Credit>,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Takes one message, if there is one.
#[derive(Clone, Debug)]
pub struct GetCommand {
    /// The queue; empty: the one last declared on the channel.
    pub queue: Name,
    /// The delivery is settled when it is sent (AMQP: no-ack).
    pub no_ack: bool,
}

/// How many deliveries a subscription or a channel may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// So many may be unsettled at the same time; 0 means no limit (AMQP 0-9-1: prefetch; MQTT 5: receive maximum).
    /// Deliveries that are settled when they are sent do not count.
    Window(u32),
    /// So many more from now on, whether they are settled or not (AMQP 1.0: link credit; a pull of a consumer). It
    /// replaces what is left of an earlier grant.
    Grant(u32),
    /// Like a grant, but what is left of it lapses: [`crate::Effect::CreditLapsed`] follows the last delivery (AMQP 1.0:
    /// drain; OpenWire: message pull).
    Pull {
        /// How many deliveries.
        messages: u32,
        /// How long to wait for messages, in milliseconds. 0: what is left lapses as soon as the queue has no ready
        /// message.
        wait_ms: u64,
    },
}

/// Whose credit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreditOf {
    /// All subscriptions of the channel together. Only a window.
    Channel,
    /// Each later subscription of the channel that names no credit of its own.
    LaterSubscriptions,
    /// The subscription of this name.
    Subscription(Name),
}

/// Sets how many deliveries there may be. It applies at once.
#[derive(Clone, Debug)]
pub struct SetCredit {
    /// Whose credit.
    pub of: CreditOf,
    /// How much.
    pub credit: Credit,
}
