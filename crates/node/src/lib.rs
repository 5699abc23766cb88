//! One member: joins the pure broker and storage, keeps connections' mailboxes and credit, and carries out the
//! commands of sessions. It speaks no protocol, opens no socket and reads no clock: a [`Peer`] is a socket, a
//! [`Host`] is the process.

mod authentication;
mod catalog_change;
#[cfg(test)]
mod catalog_tests;
mod check;
mod client;
#[cfg(test)]
mod confirm_tests;
mod confirms;
mod connection;
mod consumer_timeouts;
mod counters;
mod dead_letters;
mod definition_entries;
mod definition_import;
mod definition_limits;
#[cfg(test)]
mod definition_tests;
mod definitions;
mod disk;
#[cfg(test)]
mod doubling_tests;
mod effects;
mod events;
mod failed;
mod failed_logins;
mod firehose;
mod host;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod login;
#[cfg(test)]
mod login_tests;
mod made;
mod mailbox;
mod node;
mod opening;
#[cfg(test)]
mod pacing_tests;
#[cfg(test)]
mod publish_tests;
mod replies;
#[cfg(test)]
mod rig_tests;
mod schedules;
mod token_keys;
#[cfg(test)]
mod token_tests;
mod tokens;
mod touched;
mod transaction;
mod transition;
mod unacked;
#[cfg(test)]
mod unbinding_tests;
mod usage;

pub use authentication::Backend;
pub use check::{Checked, check};
pub use client::Client;
pub use connection::Peer;
pub use definitions::{DefinitionsError, Imported};
pub use effects::Effects;
pub use host::Host;
pub use node::{FixedStorage, Found, Node, NodeSettings};
pub use opening::NodeError;
pub use token_keys::TokenKeys;
pub use tokens::TokenSettings;
