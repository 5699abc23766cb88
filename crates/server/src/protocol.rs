//! The protocols this server speaks: a new one adds its line here, its crate and its page in docs/, and nothing else.

use std::sync::Arc;

use ferrymq_amqp091::{Greeting, Identity, PropertyList};
use ferrymq_model::{Dialect, Limits, Properties};
use ferrymq_wire::Session;

/// Begins a session for a connection that was accepted.
pub type NewSession = Arc<dyn Fn() -> Box<dyn Session> + Send + Sync>;

/// A protocol that a listener can be opened for.
#[derive(Debug)]
pub struct Protocol {
    /// As the command line and the configuration call it.
    pub name: &'static str,
    /// The port it listens on where nothing else is said.
    pub port: u16,
    /// What is spoken there.
    pub speech: Speech,
}

/// How a protocol's connections are served.
pub enum Speech {
    /// By sessions over a node.
    Sessions {
        /// Makes what all sessions of a listener share, and gives what begins one.
        open: fn(&Identity, &Limits) -> NewSession,
        /// Whose properties its messages have, and how they are read.
        dialect: (Dialect, &'static dyn Properties),
    },
    /// By the HTTP interface.
    Http,
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sessions { .. } => "Sessions",
            Self::Http => "Http",
        })
    }
}

/// Every protocol, in the order in which the documentation lists them.
pub static PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "amqp",
        port: 5672,
        speech: Speech::Sessions { open: open_amqp091, dialect: (Dialect::Amqp091, &PropertyList) },
    },
    Protocol { name: "http", port: 15672, speech: Speech::Http },
];

/// The protocol called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().find(|protocol| protocol.name == name)
}

fn open_amqp091(identity: &Identity, limits: &Limits) -> NewSession {
    let greeting = Arc::new(Greeting::new(identity, limits.clone()));
    Arc::new(move || Box::new(ferrymq_amqp091::Connection::new(greeting.clone())))
}
