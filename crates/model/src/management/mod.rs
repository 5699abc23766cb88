//! What operators ask a running server, and what they change on it: the port between a management interface, such as
//! RabbitMQ's HTTP API, and the node. It has no words of HTTP.

mod change;
mod counts;
mod reports;
mod settings;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{Dialects, Name, Refusal};

pub use change::{Actor, Change, Changed, GotMessage, NewPassword, TokenScopes};
pub use counts::{QueueCounters, QueueCounts};
pub use reports::{
    BindingFacts, BindingsOf, ChannelReport, ConnectionReport, ConsumerReport, ExchangeReport, ListenerReport,
    PermissionReport, PolicyNames, PolicyReport, QueueDetails, QueueReport, Readiness, TopicPermissionReport, Usage,
    UsageReport, UserReport, VhostReport, Which,
};
pub use settings::{ApplyTo, PolicyScope, PolicySpec, UserLimits, VhostSettings};

/// An answer that comes later.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// A server, from its start to its end.
pub trait Managed: Send + Sync {
    /// Whether clients can be served. It never waits.
    fn readiness(&self) -> Readiness;

    /// The open listeners.
    fn listeners(&self) -> Vec<ListenerReport>;

    /// What can be asked and changed; `None` until recovery is done.
    fn management(&self) -> Option<Arc<dyn Management>>;
}

/// What can be asked and changed.
pub trait Management: Queries + Operations {}

impl<T: Queries + Operations> Management for T {}

/// Questions. An answer never waits for the disk, and holds the shard's lock for at most 128 objects at a time. Long
/// lists are given to `each`, one after another and with no lock held. Their order is that of the declarations, or that
/// of the names.
pub trait Queries: Send + Sync {
    /// How much vhosts and users use, and where the memory is.
    fn usage(&self) -> UsageReport;

    /// The encodings of messages.
    fn dialects(&self) -> Dialects;

    /// The vhosts, or one of them.
    fn vhosts(&self, name: Option<&str>) -> Vec<VhostReport>;

    /// The users with their permissions, or one of them.
    fn users(&self, name: Option<&str>) -> Vec<UserReport>;

    /// Whether the actor may enter a vhost.
    fn may_enter(&self, actor: &Actor, vhost: &str) -> bool;

    /// The policies of a vhost, or of all.
    fn policies(&self, vhost: Option<&str>) -> Vec<PolicyReport>;

    /// Exchanges.
    fn exchanges(&self, which: &Which, each: &mut dyn FnMut(ExchangeReport));

    /// Queues. Without `details` the reports have none, and are made faster.
    fn queues(&self, which: &Which, details: bool, each: &mut dyn FnMut(QueueReport));

    /// Bindings, without those of the default exchange, which every queue has.
    fn bindings(&self, of: &BindingsOf, each: &mut dyn FnMut(BindingFacts));

    /// Connections with their channels and consumers.
    fn connections(&self, each: &mut dyn FnMut(ConnectionReport));
}

/// Changes, and the logins of those who make them.
pub trait Operations: Send + Sync {
    /// Checks a password, which may be a token. `address` is where it comes from, without a port.
    ///
    /// The answer is [`Refusal::LoginFailed`] for a wrong password, and [`Refusal::ResourceLimit`] if too many have failed
    /// from there: then nothing was checked.
    fn log_in(&self, user: Name, password: Vec<u8>, address: String, loopback: bool) -> Pending<Actor>;

    /// Changes something. The answer comes when the change is durable. The change is made even if nobody waits for the
    /// answer.
    ///
    /// Tags of the actor are not checked. Permissions are, where a client of a protocol would need them: for exchanges,
    /// queues, bindings and messages.
    fn change(&self, by: &Actor, change: Change) -> Pending<Changed>;
}
