//! Answers to questions of operators.

use crate::{
    ClientFacts, ConnectionId, Destination, ExchangeSpec, Name, PolicyScope, PolicySpec, QueueCounts, QueueId,
    QueueOwner, QueueSpec, Table, Time, UserLimits, VhostSettings,
};

/// Whether clients can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Recovery is done, all listeners are open, and published messages are made durable.
    Ready,
    /// Clients can be served, but publishers wait. Contains the reason: one sentence for people.
    Blocked(String),
    /// Clients cannot be served now. Contains the reason: one sentence for people.
    NotReady(String),
}

/// What a vhost or a user has open now, and its counters since the start of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections now.
    pub connections: u64,
    /// Channels now.
    pub channels: u64,
    /// Published messages, routed or not.
    pub published: u64,
    /// Bytes of their bodies.
    pub published_bytes: u64,
    /// Deliveries to clients; a redelivered message counts again.
    pub delivered: u64,
    /// Bytes of their bodies.
    pub delivered_bytes: u64,
    /// Deliveries that were acknowledged.
    pub acked: u64,
}

/// How much of the server each vhost and each user takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// By vhost, in the order of their names.
    pub vhosts: Vec<(Name, Usage)>,
    /// By user, in the order of their names. A user that exists only in tokens is listed while it is connected.
    pub users: Vec<(Name, Usage)>,
    /// Bytes of memory, by owner.
    pub memory: Vec<(&'static str, u64)>,
    /// Bytes of memory of the process, without what it shares with others; `None` if that is unknown.
    pub process_bytes: Option<u64>,
}

/// An open listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReport {
    /// Its protocol, such as `amqp` or `https`.
    pub protocol: &'static str,
    /// Its IP address.
    pub ip: String,
    /// Its port.
    pub port: u16,
}

/// Which objects are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those of a vhost.
    InVhost(Name),
    /// One, by its vhost and its name.
    Named(Name, Name),
    /// Queues by their ids. Those that are gone are left out.
    Queues(Vec<QueueId>),
}

/// Which bindings are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingsOf {
    /// All.
    All,
    /// Those in a vhost.
    Vhost(Name),
    /// Those from an exchange.
    Source(Name, Name),
    /// Those to a queue or an exchange of a vhost.
    Destination(Name, Destination),
}

/// A vhost.
#[derive(Clone, Debug)]
pub struct VhostReport {
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub settings: VhostSettings,
    /// Whether it is traced.
    pub is_traced: bool,
}

/// A user.
#[derive(Clone, Debug)]
pub struct UserReport {
    /// The name.
    pub name: Name,
    /// The name of the algorithm of the hash, as in definitions.
    pub hashing_algorithm: &'static str,
    /// The hash of the password. Empty: no password is right.
    pub password_hash: String,
    /// The tags.
    pub tags: Vec<String>,
    /// The limits.
    pub limits: UserLimits,
    /// The permissions, by vhost.
    pub permissions: Vec<PermissionReport>,
    /// The permissions for routing keys, by vhost and exchange.
    pub topic_permissions: Vec<TopicPermissionReport>,
}

/// A user's permissions in a vhost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionReport {
    /// The vhost.
    pub vhost: Name,
    /// Regular expressions for configure, write and read.
    pub patterns: [String; 3],
}

/// A user's permissions for the routing keys of a topic exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermissionReport {
    /// The vhost.
    pub vhost: Name,
    /// The exchange.
    pub exchange: Name,
    /// Regular expressions for write and read.
    pub patterns: [String; 2],
}

/// A policy.
#[derive(Clone, Debug)]
pub struct PolicyReport {
    /// Its vhost.
    pub vhost: Name,
    /// Its kind.
    pub scope: PolicyScope,
    /// Its name.
    pub name: Name,
    /// What it says.
    pub spec: PolicySpec,
}

/// The policies that apply to an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyNames {
    /// The user policy.
    pub user: Option<Name>,
    /// The operator policy.
    pub operator: Option<Name>,
    /// What both say together.
    pub effective: Table,
}

/// An exchange.
#[derive(Clone, Debug)]
pub struct ExchangeReport {
    /// Its vhost.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Its declaration.
    pub spec: ExchangeSpec,
    /// The policies that apply to it.
    pub policies: PolicyNames,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueReport {
    /// Its id.
    pub id: QueueId,
    /// Its vhost.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Its state.
    pub counts: QueueCounts,
    /// The rest, if it was asked for.
    pub details: Option<Box<QueueDetails>>,
}

/// The declaration of a queue, and what applies to it.
#[derive(Clone, Debug)]
pub struct QueueDetails {
    /// Its type, such as `classic`.
    pub kind: &'static str,
    /// Its declaration.
    pub spec: QueueSpec,
    /// Who may use it.
    pub owner: QueueOwner,
    /// The policies that apply to it.
    pub policies: PolicyNames,
    /// Why it has stopped, if it has.
    pub failure: Option<String>,
}

/// A binding, by names.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingFacts {
    /// Its vhost.
    pub vhost: Name,
    /// The source exchange.
    pub source: Name,
    /// The name of the target.
    pub target: Name,
    /// Whether the target is a queue, and not an exchange.
    pub to_queue: bool,
    /// Its key.
    pub key: Box<[u8]>,
    /// Its arguments.
    pub arguments: Table,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    /// Its number among those that are open, to which exclusive queues belong.
    pub id: ConnectionId,
    /// Its number since the start of the server.
    pub serial: u64,
    /// Its name: from which address to which.
    pub name: String,
    /// The vhost that it has opened.
    pub vhost: Name,
    /// The user who has logged in.
    pub user: Name,
    /// When it was opened, by the wall clock.
    pub connected_at: Time,
    /// Whether its publishes are blocked.
    pub is_blocked: bool,
    /// What the client says of itself, and what was agreed on.
    pub client: ClientFacts,
    /// Its channels, by number.
    pub channels: Vec<ChannelReport>,
}

/// A channel.
#[derive(Clone, Debug)]
pub struct ChannelReport {
    /// Its number.
    pub number: u16,
    /// Whether publishes are confirmed.
    pub confirms: bool,
    /// Whether publishes and settlements wait for a commit.
    pub is_transactional: bool,
    /// The window of all subscriptions together; 0: none.
    pub window: u32,
    /// The window of each later subscription; 0: none.
    pub later_window: u32,
    /// Unsettled deliveries.
    pub unacked: u64,
    /// Its consumers, by tag.
    pub consumers: Vec<ConsumerReport>,
}

/// A consumer.
#[derive(Clone, Debug)]
pub struct ConsumerReport {
    /// Its tag.
    pub tag: Name,
    /// Its queue.
    pub queue: Name,
    /// Whether deliveries are settled when they are sent.
    pub no_ack: bool,
    /// How many unsettled deliveries it may have; 0: any number.
    pub window: u32,
    /// Its unsettled deliveries.
    pub unacked: u32,
}
