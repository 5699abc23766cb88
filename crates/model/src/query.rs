//! The questions that an operator can ask a running server. `admin` asks; the server answers for itself and for its
//! node.

use crate::Name;

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
}

/// Answers questions. The HTTP server calls it from any thread; an answer must not wait.
pub trait Queries: Send + Sync {
    /// Whether clients can be served.
    fn readiness(&self) -> Readiness;

    /// How much each vhost and each user takes; empty until recovery is done.
    fn usage(&self) -> UsageReport;
}
