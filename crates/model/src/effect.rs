//! What comes back to a connection: effects for its socket and events for its session.

use crate::{MessageRef, Name, Origin, Refusal};

/// Why a message is returned to its publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnReason {
    /// It is unroutable.
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
    /// The exchange exists.
    ExchangeDeclared,
    /// The exchange is gone.
    ExchangeDeleted,
    /// The queue exists.
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
        /// How many ready messages were deleted with it.
        messages: u64,
    },
    /// The ready messages are gone.
    QueuePurged {
        /// How many there were.
        messages: u64,
    },
    /// The binding exists.
    Bound,
    /// The binding is gone.
    Unbound,
    /// The limit holds.
    QosSet,
    /// The subscription exists.
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
    /// The unsettled deliveries are requeued.
    Recovered,
    /// Publishes and settlements wait for a commit from now on.
    TxSelected,
    /// The transaction is committed and on disk.
    TxCommitted,
    /// The transaction is rolled back.
    TxRolledBack,
    /// The new secret is accepted.
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
    /// A refusal. The protocol's crate decides whether it closes the channel or the connection.
    Refused {
        /// The request.
        origin: Origin,
        /// The refusal.
        refusal: &'a Refusal,
    },
    /// A message for a subscription.
    Deliver {
        /// The channel.
        channel: u16,
        /// The subscription's name.
        tag: &'a str,
        /// Its delivery tag.
        delivery_tag: u64,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// How often it came back, if its queue tells that to consumers.
        attempts: Option<u32>,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A message that was asked for with `Get`.
    Got {
        /// The channel.
        channel: u16,
        /// Its delivery tag.
        delivery_tag: u64,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// How often it came back, if its queue tells that to consumers.
        attempts: Option<u32>,
        /// How many ready messages remain after it.
        remaining: u64,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A message that is returned to its publisher.
    Return {
        /// The channel.
        channel: u16,
        /// Why.
        reason: ReturnReason,
        /// The message.
        message: MessageRef<'a>,
    },
    /// Confirms publishes: they are as safe as their queues promise.
    Confirm {
        /// The channel.
        channel: u16,
        /// The last one's number on the channel.
        publish_tag: u64,
        /// Whether it confirms all publishes up to this one.
        multiple: bool,
    },
    /// A publish that a queue refused (AMQP: basic.nack to a publisher).
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

/// Something that a connection's session must know, in addition to what goes to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The login succeeded; the session goes on with its handshake.
    LoggedIn,
    /// The vhost is open. (Its reply goes to the socket by itself.)
    VhostOpened,
    /// A command was refused. The frame for the refusal is already on its way to the socket, except for a refused login,
    /// which the session answers. If the refusal closes the channel, the session asks for
    /// [`crate::Command::CloseChannel`] without a reply.
    Refused {
        /// The request.
        origin: Origin,
        /// The refusal.
        refusal: Refusal,
    },
    /// The reply to `CloseConnection` is on its way.
    ConnectionClosed,
    /// There is no space for this connection's publishes, so the server does not read from it: the reason. Sent once,
    /// until `Unblocked`.
    Blocked(String),
    /// There is space again.
    Unblocked,
    /// The server ends this connection: tell the peer, and close.
    Close(Refusal),
}
