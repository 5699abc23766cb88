//! What a node returns to a connection: effects for its socket and events for its session.

use crate::{MessageRef, Name, Origin, Refusal};

/// Why a message is returned to its publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnReason {
    /// The message is unroutable.
    Unroutable,
}

/// The answer to a command that wants one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The vhost is open.
    VhostOpened,
    /// The connection has the client session.
    Attached {
        /// Whether it was there. Then its channels are open, its outstanding deliveries follow once more with their ids,
        /// and after them new ones.
        was_there: bool,
        /// Of its channels, the delivery ids whose messages are accepted: see [`crate::Outcome::AcceptedIdKept`].
        kept_ids: Vec<(u16, u64)>,
    },
    /// The client session is kept for another time.
    SessionKept,
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
        /// Their number.
        messages: u64,
    },
    /// The binding exists.
    Bound,
    /// The binding is gone.
    Unbound,
    /// The credit is set.
    CreditSet,
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
    /// The queue has no ready message.
    GetEmpty,
    /// Deliveries are resumed or paused.
    FlowSet {
        /// Whether they are resumed.
        active: bool,
    },
    /// Publishes are confirmed from now on.
    ConfirmSelected,
    /// The unsettled deliveries are requeued.
    Recovered,
    /// Publishes and settlements wait for a commit from now on.
    TxSelected,
    /// The transaction is begun.
    TxBegun,
    /// The transaction is prepared, and on disk.
    TxPrepared,
    /// The names of prepared transactions, ascending.
    Prepared(Vec<Vec<u8>>),
    /// The transaction is committed and on disk.
    TxCommitted,
    /// The transaction is rolled back.
    TxRolledBack,
    /// The new secret is accepted.
    LoginRenewed,
    /// A message was published, on a channel that confirms each publish.
    Published(PublishOutcome),
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is as safe as its queues promise, or a channel that waits for replies has it.
    Accepted,
    /// It is unroutable.
    Unroutable,
    /// A queue refused it.
    Refused,
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
        /// How often it came back to the queue, if the queue tells this to consumers.
        attempts: Option<u32>,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A message for a `Get`.
    Got {
        /// The channel.
        channel: u16,
        /// Its delivery tag.
        delivery_tag: u64,
        /// Whether it may have been delivered before.
        redelivered: bool,
        /// How often it came back to the queue, if the queue tells this to consumers.
        attempts: Option<u32>,
        /// How many ready messages remain in the queue.
        remaining: u64,
        /// The message.
        message: MessageRef<'a>,
    },
    /// A message that is returned to its publisher.
    Return {
        /// The channel.
        channel: u16,
        /// The reason.
        reason: ReturnReason,
        /// The message.
        message: MessageRef<'a>,
    },
    /// Confirms publishes. Their messages are as safe as their queues promise.
    Confirm {
        /// The channel.
        channel: u16,
        /// The number of the last of them on the channel.
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
    /// What was left of a [`crate::Credit::Pull`] has lapsed, or nothing was left. It comes once for each pull, after
    /// the last delivery, unless other credit replaced the pull or the subscription has ended.
    CreditLapsed {
        /// The channel.
        channel: u16,
        /// The subscription's name.
        tag: &'a str,
        /// How many deliveries were left.
        left: u32,
    },
    /// The server ended a subscription: its queue is gone.
    Cancelled {
        /// The channel.
        channel: u16,
        /// The subscription's name.
        tag: &'a str,
    },
}

/// A fact for a connection's session, in addition to the effects for the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The login succeeded; the session goes on with its handshake.
    LoggedIn,
    /// The login has one more step: the client gets this, and its response is the next login
    /// ([`crate::Login::Respond`]).
    Challenge(Vec<u8>),
    /// The vhost is open. (The reply goes to the socket as an effect.)
    VhostOpened,
    /// The answer to a request whose answer the session wants.
    Answered {
        /// The request.
        origin: Origin,
        /// The answer. A refusal has ended nothing.
        reply: Result<Reply, Refusal>,
    },
    /// A request on a channel that a refusal ends, or a login, was refused. The refusal goes to the socket as an
    /// effect; only a refused login is answered by the session. If the refusal closes the channel, the session asks for
    /// [`crate::Ask::CloseChannel`] without an answer.
    Refused {
        /// The request.
        origin: Origin,
        /// The refusal.
        refusal: Refusal,
    },
    /// The connection is closed for the node, and the reply to `CloseConnection` goes to the socket as an effect.
    ConnectionClosed,
    /// The server does not read from this connection, because there is no space for its publishes. Contains the reason.
    /// It comes once before each `Unblocked`.
    Blocked(String),
    /// There is space again.
    Unblocked,
    /// The server ends this connection. The session tells the peer and closes.
    Close(Refusal),
}
