//! The types that all crates share: names, values, messages, commands, events, refusals and limits.
//!
//! Every other crate depends on this crate; it depends on none of them. Its only logic keeps values well formed. It
//! does no IO and reads no clock.

mod annotations;
mod buffer;
mod catalog;
mod death;
mod dialect;
mod effect;
mod file_stretch;
mod ids;
mod intervals;
mod limits;
mod login;
mod management;
mod message;
mod name;
mod publish;
mod refusal;
mod request;
mod server_properties;
mod settle;
mod state;
mod value;

pub use annotations::Annotations;
pub use buffer::BodyBuffer;
pub use catalog::{
    Access, Arguments, BindingSpec, CatalogEntry, EntryKind, ExchangeKind, ExchangeSpec, QueueOwner, QueueSpec,
};
pub use death::{DeadLetter, Death, DeathPlace, DeathReason, DeathRecord};
pub use dialect::{Dialect, DialectId, Dialects, Head, Property, Traced};
pub use effect::{Effect, Event, PublishOutcome, Reply, ReturnReason};
pub use file_stretch::{FileStretch, SentFile};
pub use ids::{ConnectionId, MessageKey, Position, QueueId, Sequence, SubscriptionId};
pub use intervals::Intervals;
pub use limits::Limits;
pub use login::{Login, Mechanism};
pub use management::{
    Actor, ApplyTo, BindingFacts, BindingsOf, Change, Changed, ChannelReport, ConnectionReport, ConsumerReport,
    ExchangeReport, GotMessage, ListenerReport, Managed, Management, NewPassword, Operations, Pending,
    PermissionReport, PolicyNames, PolicyReport, PolicyScope, PolicySpec, Queries, QueueCounters, QueueCounts,
    QueueDetails, QueueReport, Readiness, TokenScopes, TopicPermissionReport, Usage, UsageReport, UserLimits,
    UserReport, VhostReport, VhostSettings, Which,
};
pub use message::{BodyRef, Facts, FiledBody, MessageRef, OwnedBody, OwnedMessage};
pub use name::{Name, NameError};
pub use publish::{Body, Publish, PublishExtras, Span};
pub use refusal::{Object, Refusal};
pub use request::{
    Answer, Ask, Attach, BindCommand, ChannelOptions, ClientFacts, Command, ConfirmMode, Credit, CreditOf,
    DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, DeliveryIds, Destination, GetCommand, OnRefusal,
    Origin, Request, SetCredit, Subscribe, TransactionId,
};
pub use server_properties::ServerProperties;
pub use settle::{Deliveries, Outcome, Settle, Settlement};
pub use state::{QueueState, Settled, Time};
pub use value::{Table, Value};
