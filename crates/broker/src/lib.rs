//! The core of FerryMQ, and pure: commands in, outcomes and effects out. It has no IO, no clock, no threads and no
//! random numbers. The time and every seed are arguments, so the same calls always have the same results.
//!
//! Two halves that share only [`QueueId`](ferrymq_model::QueueId):
//!
//! * [`Catalog`] has the declarations (vhosts, exchanges, queues, bindings, users, permissions) and routes. There
//!   is one per node, changed in place under one reader-writer lock. It appends its durable changes to a list that
//!   the caller passes, for the journal.
//! * [`Shard`] has the queues themselves: waiting messages, subscriptions, unsettled deliveries, expiry. It stores
//!   no message; it decides about sequence numbers and asks its [`Ports`] for the rest.

mod catalog;
mod keyed;
mod prepared;
mod queue;
mod schedule;
mod selector;

pub use catalog::{
    Cacheable, Caller, Catalog, CatalogEvent, Declared, Envelope, Epoch, History, HistoryBudget, KeptMessage,
    LoadError, Loaded, Outcome, QueueKind, QueueRecord, Rights, ScheduleChange, Scopes, User, binding_number,
    policy_settings, random_text,
};
pub use keyed::HashKey;
pub use prepared::PreparedTransaction;
pub use queue::{
    Committed, Content, Dead, DeadLettering, DelayedMessage, DeleteWhen, Delivery, Got, Next, Overflow, Ports,
    Published, QueueSettings, Recovered, RetryDelay, RoutedMessage, SequenceRange, Shard, Subscriber, Taken,
};
pub use schedule::ScheduleSettings;
