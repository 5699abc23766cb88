//! What comes back to a connection: effects for its socket and events for its session.

use crate::{MessageRef, Name, Origin, Refusal};

/// Why a message comes back to its publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnReason {
    /// No queue was found for it.
    Unroutable,
}

/// The answer to a command that wants one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The vhost is open.
    VhostOpened,
    /// The channel is open.
    ChannelOpened,
    /// The channel has ended.
    ChannelClosed,
    /// The connection has ended; nothing follows.
    ConnectionClosed,
    /// The exchange is there.
    ExchangeDeclared,
    /// The exchange is gone.
    ExchangeDeleted,
    /// The queue is there.
    QueueDeclared {
        /// Its name.
        queue: Name,
        /// Its ready messages.
        messages: u64,
        /// Its subscriptions.
        consumers: u32,
    },
    /// The queue is gone.
    QueueDeleted {
        /// How many ready messages went with it.
        messages: u64,
    },
    /// The ready messages are gone.
    QueuePurged {
        /// How many there were.
        messages: u64,
    },
    /// The binding is there.
    Bound,
    /// The binding is gone.
    Unbound,
    /// The limit holds.
    QosSet,
    /// The subscription is there.
    Subscribed {
        /// Its name.
        tag: Name,
    },
    /// The subscription is gone.
    Unsubscribed {
        /// Its name.
        tag: Name,
    },
    /// The queue has nothing ready.
    GetEmpty,
    /// Deliveries flow, or do not.
    FlowSet {
        /// Whether they do.
        active: bool,
    },
    /// Publishes are confirmed from now on.
    ConfirmSelected,
    /// The unsettled deliveries are back in their queues.
    Recovered,
    /// Publishes and settlements wait for a commit from now on.
    TxSelected,
    /// What waited is decided and safe.
    TxCommitted,
    /// What waited is forgotten.
    TxRolledBack,
    /// The new secret holds.
    LoginRenewed,
}

/// Something for a connection's socket. A connection's effects are encoded in the order in which they were decided.
#[derive(Clone, Debug)]
pub enum Effect<'a> {
    /// The session's own bytes, already encoded.
    Frames(&'a [u8]),
    /// An answer.
    Reply {
        /// The request.
        origin: Origin,
        /// The answer.
        reply: &'a Reply,
    },
    /// A no. Whether it ends the channel or the connection is the room's to say.
    Refused {
        /// The request.
        origin: Origin,
        /// The no.
        refusal: &'a Refusal,
    },
    /// A message for a subscription.
    Deliver {
        /// The channel.
        channel: u16,
        /// The subscription's name.
        tag: &'a str,
        /// The delivery's number on the channel.
        delivery_tag: u64,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// How often it was delivered and came back, where its queue tells that to consumers.
        attempts: Option<u32>,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A message that was asked for with `Get`.
    Got {
        /// The channel.
        channel: u16,
        /// The delivery's number on the channel.
        delivery_tag: u64,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// How often it was delivered and came back, where its queue tells that to consumers.
        attempts: Option<u32>,
        /// Ready messages left behind it.
        remaining: u64,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A message that comes back.
    Return {
        /// The channel.
        channel: u16,
        /// Why.
        reason: ReturnReason,
        /// The message.
        message: MessageRef<'a>,
    },
    /// Publishes that are safe, as safe as their targets promise.
    Confirm {
        /// The channel.
        channel: u16,
        /// The last one's number on the channel.
        publish_tag: u64,
        /// Whether all up to it are meant.
        multiple: bool,
    },
    /// A publish that a queue did not take: its publisher should know that it is not safe.
    NotConfirmed {
        /// The channel.
        channel: u16,
        /// The publish's number on the channel.
        publish_tag: u64,
    },
    /// The server ended a subscription: its queue is gone.
    Cancelled {
        /// The channel.
        channel: u16,
        /// The subscription's name.
        tag: &'a str,
    },
}

/// Something for a connection's session, beside what goes to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The login was right; the session goes on with its handshake.
    LoggedIn,
    /// The vhost is open. (Its reply goes to the socket by itself.)
    VhostOpened,
    /// A command was refused. The refusal's own frame is already on its way to the socket, except for a refused login,
    /// whose answer is the session's. Where it ends the channel the session asks for
    /// [`crate::Command::CloseChannel`] without a reply.
    Refused {
        /// The request.
        origin: Origin,
        /// The no.
        refusal: Refusal,
    },
    /// The reply to `CloseConnection` is on its way.
    ConnectionClosed,
    /// There is no room for what this connection publishes, so it is not read from: why. Told once, until `Unblocked`.
    Blocked(String),
    /// There is room again.
    Unblocked,
    /// The server wants this connection to end: say so to the peer, and close.
    Close(Refusal),
}
