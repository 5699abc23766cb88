//! The types that all crates share: names, values, messages, commands, events, refusals and limits.
//!
//! Every other crate depends on this crate; it depends on none of them. Its only logic keeps values well formed. It
//! does no IO and reads no clock.

mod buffer;
mod catalog;
mod command;
mod effect;
mod ids;
mod intervals;
mod limits;
mod message;
mod name;
mod query;
mod refusal;
mod state;
mod value;

pub use buffer::BodyBuffer;
pub use catalog::{
    Access, Arguments, BindingSpec, CatalogEntry, EntryKind, ExchangeKind, ExchangeSpec, QueueOwner, QueueSpec,
};
pub use command::{
    BindCommand, Body, ComeDue, Command, ConsumeCommand, DeadLetter, Death, DeathReason, DeclareExchange, DeclareQueue,
    DeleteExchange, DeleteQueue, Destination, GetCommand, Identity, Login, Origin, Properties, Publish, QosCommand,
    Rare, Settle, Settlement, Span, Traced,
};
pub use effect::{Effect, Event, Reply, ReturnReason};
pub use ids::{ChannelKey, ConnectionId, Place, Position, QueueId, Sequence, SubscriptionId};
pub use intervals::Intervals;
pub use limits::Limits;
pub use message::{BodyRef, Dialect, Facts, FiledBody, MessageRef, OwnedBody, OwnedMessage};
pub use name::{Name, NameError};
pub use query::{Queries, Readiness, Usage, UsageReport};
pub use refusal::{Object, Refusal};
pub use state::{QueueState, Settled, Time};
pub use value::{Table, Value};
