//! The protocols this server speaks: a new one adds its line here, its crate and its page in docs/, and nothing else.

use std::sync::Arc;

use ferrymq_amqp091::{Greeting, HeaderReader, Identity};
use ferrymq_model::{Dialect, Limits, Properties};
use ferrymq_wire::Session;

/// Begins a session for a connection that was accepted.
pub type NewSession = Arc<dyn Fn() -> Box<dyn Session> + Send + Sync>;

/// A protocol that a listener can be opened for.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// As the command line and the configuration call it.
    pub name: &'static str,
    /// The port it listens on where nothing else is said.
    pub port: u16,
    /// Makes what all sessions of a listener share, and gives what begins one.
    pub open: fn(&Limits) -> NewSession,
    /// Whose properties its messages have, and how they are read.
    pub dialect: (Dialect, &'static dyn Properties),
}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protocol").field("name", &self.name).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Every protocol, in the order in which the documentation lists them.
pub const PROTOCOLS: &[Protocol] =
    &[Protocol { name: "amqp", port: 5672, open: open_amqp091, dialect: (Dialect::Amqp091, &HeaderReader) }];

/// The protocol called `name`.
#[must_use]
pub fn find(name: &str) -> Option<Protocol> {
    PROTOCOLS.iter().find(|protocol| protocol.name == name).copied()
}

fn open_amqp091(limits: &Limits) -> NewSession {
    let greeting = Arc::new(Greeting::new(&Identity::default(), limits.clone()));
    Arc::new(move || Box::new(ferrymq_amqp091::Connection::new(greeting.clone())))
}
