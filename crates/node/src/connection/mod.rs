//! One connection in the node: its mailbox, its credit, and what it holds.

pub(crate) mod answers;
pub(crate) mod confirms;
pub(crate) mod consumer_timeouts;
pub(crate) mod credit;
pub(crate) mod effects;
pub(crate) mod ledger;
pub(crate) mod mailbox;
pub(crate) mod peer;
pub(crate) mod transaction;
pub(crate) mod unacked;
pub(crate) mod unsent;
pub(crate) mod waiting_gets;
