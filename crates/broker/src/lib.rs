//! The heart of FerryMQ, and pure: commands in, outcomes and effects out. No IO, no clock, no thread, no chance; the
//! time and every seed are arguments, so that the same calls always decide the same.
//!
//! Two halves that meet in [`QueueId`](ferrymq_model::QueueId) only:
//!
//! * [`Catalog`] knows what there is (vhosts, exchanges, queues, bindings, users, permissions) and routes. One for the
//!   node, changed in place under one reader-writer lock. Its durable changes are appended to a list that the caller
//!   passes, to be written to the journal.
//! * [`Shard`] holds the queues themselves: what waits, who subscribes, what is out, what expires. It keeps no message;
//!   it decides over sequence numbers and asks its [`Ports`] for the rest.

mod catalog;
mod queue;
mod schedule;
mod selector;

pub use catalog::{
    ApplyTo, BindingFacts, Caller, Catalog, Declared, Envelope, Epoch, Happening, History, HistoryBudget, Holds,
    KeptMessage, LoadError, Loaded, PolicyScope, PolicySpec, QueueKind, QueueRecord, Rights, ScheduleChange, Scopes,
    User, UserLimits, VhostSettings, policy_settings, random_text,
};
#[cfg(debug_assertions)]
pub use queue::Sabotage;
pub use queue::{
    Committed, Content, Counters, Dead, DeadLettering, DeleteWhen, Delivery, Due, Got, Letter, Next, Overflow, Ports,
    Published, QueueCounts, QueueSettings, Recovered, RetryDelay, Shard, Stretch, Subscriber, Taken,
};
pub use schedule::ScheduleSettings;
