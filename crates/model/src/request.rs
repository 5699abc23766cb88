//! The requests of a session to its node.

use crate::{Arguments, Login, Name, Publish, Settle};

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
    },
    /// Open the channel.
    OpenChannel(OnRefusal),
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
    /// Carry out the waiting publishes and settlements: all of them or none.
    Commit,
    /// Drop the waiting publishes and settlements. Deliveries that were settled since the last commit are unsettled
    /// again.
    RollBack,
    /// The connection's user sends a new secret, such as a new token before the old one expires.
    RenewLogin(Vec<u8>),
}

impl Ask {
    /// Whether a channel that a refusal has ended still carries this out.
    #[must_use]
    pub fn concerns_ended_channels(&self) -> bool {
        matches!(
            self,
            Self::OpenVhost { .. }
                | Self::OpenChannel(_)
                | Self::CloseChannel
                | Self::CloseConnection
                | Self::RenewLogin(_)
        )
    }
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
