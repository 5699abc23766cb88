//! What an operator may ask of a running server. `admin` asks; the server answers, for itself and for its node.

use crate::Name;

/// Whether clients can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Recovery is done, all listeners are open, and what is published is made durable.
    Ready,
    /// Not now, and why: one sentence for people.
    NotReady(String),
}

/// What a vhost or a user has open, and what it has done since the server began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections now.
    pub connections: u64,
    /// Channels now.
    pub channels: u64,
    /// Messages that were published, whatever became of them.
    pub published: u64,
    /// Bytes of their bodies.
    pub published_bytes: u64,
    /// Messages that were handed to clients, each time that one was.
    pub delivered: u64,
    /// Bytes of their bodies.
    pub delivered_bytes: u64,
    /// Deliveries that were accepted by an acknowledgement.
    pub acked: u64,
}

/// Who uses how much of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageReport {
    /// By vhost, in the order of their names.
    pub vhosts: Vec<(Name, Usage)>,
    /// By user, in the order of their names. Users that only tokens name stand here while they are connected.
    pub users: Vec<(Name, Usage)>,
    /// Bytes of memory, by owner.
    pub memory: Vec<(&'static str, u64)>,
}

/// Answers questions. Called by whoever serves HTTP, from any thread; an answer must not wait.
pub trait Queries: Send + Sync {
    /// Whether clients can be served.
    fn readiness(&self) -> Readiness;

    /// Who uses how much; nothing where recovery is not done.
    fn usage(&self) -> UsageReport;
}
