//! One member: joins the pure broker and storage, keeps connections' mailboxes and credit, and carries out the
//! commands of sessions. It speaks no protocol, opens no socket and reads no clock: a [`Peer`] is a socket, a
//! [`Host`] is the process.

mod client;
mod connection;
mod core;
mod login;
mod management;
mod routing;
mod session;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use connection::effects::{Effects, StoppedEffects};
pub use connection::peer::Peer;
pub use core::check::{Checked, check};
pub use core::host::Host;
pub use core::node::{FixedStorage, Found, Node, NodeSettings};
pub use core::start::NodeError;
pub use ferrymq_auth::{TokenKeys, TokenSettings};
pub use login::authentication::Backend;
pub use management::definitions::{DefinitionsError, Imported};
pub use management::queries::NodeManagement;
