//! Queues: waiting messages, subscriptions, unsettled deliveries, expiry.

mod attempts;
mod commit;
mod dead_letters;
mod dispatch;
mod drain;
mod hold;
mod lane;
mod lanes;
mod limits;
mod pause;
mod pending_dead_letters;
mod ports;
mod publish;
mod retry;
mod schedules;
mod settings;
mod settle;
mod shard;
mod timers;
mod turns;

pub use commit::Committed;
pub(crate) use dispatch::Settling;
pub use ports::{Content, Dead, DelayedMessage, Delivery, Next, Ports, RoutedMessage, SequenceRange, Taken};
pub use publish::Published;
pub use settings::{DeadLettering, DeleteWhen, Got, Overflow, QueueSettings, Recovered, RetryDelay, Subscriber};
pub use shard::Shard;
