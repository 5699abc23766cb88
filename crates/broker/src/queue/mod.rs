//! Queues: waiting messages, subscriptions, unsettled deliveries, expiry.

mod attempts;
mod commit;
mod dispatch;
mod dying;
mod lane;
mod lanes;
mod letters;
mod limits;
mod ports;
mod publish;
mod resting;
pub(crate) mod sabotage;
mod schedules;
mod settings;
mod settle;
mod shard;
mod timers;
mod turns;

pub use commit::Committed;
pub(crate) use dispatch::Settling;
pub use ports::{Content, Dead, Delivery, Due, Letter, Next, Ports, Stretch, Taken};
pub use publish::Published;
#[cfg(debug_assertions)]
pub use sabotage::Sabotage;
pub use settings::{
    Counters, DeadLettering, DeleteWhen, Got, Overflow, QueueCounts, QueueSettings, Recovered, RetryDelay, Subscriber,
};
pub use shard::Shard;
