//! The protocols of this server. A new one adds its line here, its crate, and its page in docs/.

use std::sync::Arc;

use ferrymq_amqp091::{
    Greeting, PropertyList,
    codec::frame::{PROTOCOL_HEADER, PROTOCOL_HEADER_0_9},
};
use ferrymq_model::{Dialect, Dialects, Limits, Mechanism, ServerProperties};
use ferrymq_wire::Session;

use crate::choosing::{self, Choice};

/// Begins a session for a connection that was accepted.
pub type NewSession = Arc<dyn Fn() -> Box<dyn Session> + Send + Sync>;

/// A protocol that a listener can be opened for.
#[derive(Debug)]
pub struct Protocol {
    /// Its name on the command line and in the configuration.
    pub name: &'static str,
    /// Its default port.
    pub port: u16,
    /// Its name and its port with TLS.
    pub secure: Option<(&'static str, u16)>,
    /// What is spoken there.
    pub transport: Transport,
}

/// How a protocol's connections are served.
pub enum Transport {
    /// By sessions over a node. If there are several protocols, a client's first bytes say which one it speaks; what is the
    /// header of none of them is the first one's.
    Sessions(&'static [Spoken]),
    /// By the HTTP interface.
    Http,
}

/// A protocol that sessions speak.
pub struct Spoken {
    /// Makes what all sessions of a listener share, and returns the function that begins a session. The last argument
    /// says how clients log in there.
    pub open: fn(&ServerProperties, &Limits, &[Mechanism]) -> NewSession,
    /// What its clients can send first; read only where there are several protocols.
    pub headers: &'static [&'static [u8]],
    /// The dialect of its messages: how their properties are read and written.
    pub dialect: &'static dyn Dialect,
}

impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spoken").field("dialect", &self.dialect.id()).finish_non_exhaustive()
    }
}

/// Opens all protocols of a listener, and returns the function that begins a session.
pub fn open(spoken: &[Spoken], properties: &ServerProperties, limits: &Limits, mechanisms: &[Mechanism]) -> NewSession {
    let open = |spoken: &Spoken| Choice {
        headers: spoken.headers,
        new_session: (spoken.open)(properties, limits, mechanisms),
    };
    choosing::sessions_of(spoken.iter().map(open).collect())
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sessions(_) => "Sessions",
            Self::Http => "Http",
        })
    }
}

/// All protocols, in the order of the documentation.
pub static PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "amqp",
        port: 5672,
        secure: Some(("amqps", 5671)),
        transport: Transport::Sessions(&[Spoken {
            open: open_amqp091,
            headers: &[&PROTOCOL_HEADER, &PROTOCOL_HEADER_0_9],
            dialect: &PropertyList,
        }]),
    },
    Protocol { name: "http", port: 15672, secure: None, transport: Transport::Http },
];

/// A protocol, plain or with TLS: what a listener is opened for.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// What is spoken.
    pub protocol: &'static Protocol,
    /// Its name on the command line and in the configuration.
    pub name: &'static str,
    /// Its default port.
    pub port: u16,
    /// Whether it uses TLS.
    pub is_secure: bool,
}

impl Service {
    /// All of them, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        PROTOCOLS.iter().flat_map(|protocol| {
            let plain = Self { protocol, name: protocol.name, port: protocol.port, is_secure: false };
            let secure = protocol.secure.map(|(name, port)| Self { protocol, name, port, is_secure: true });
            [Some(plain), secure].into_iter().flatten()
        })
    }

    /// The one called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|service| service.name == name)
    }
}

/// The dialects of all protocols. Two never have the same number.
pub fn dialects() -> Dialects {
    let spoken = PROTOCOLS.iter().flat_map(|protocol| match protocol.transport {
        Transport::Sessions(spoken) => spoken,
        Transport::Http => &[],
    });
    Dialects::new(spoken.map(|spoken| spoken.dialect))
}

fn open_amqp091(properties: &ServerProperties, limits: &Limits, mechanisms: &[Mechanism]) -> NewSession {
    let greeting = Greeting::offering(mechanisms, properties, limits.clone()).with_dialects(dialects());
    let greeting = Arc::new(greeting);
    Arc::new(move || Box::new(ferrymq_amqp091::Connection::new(greeting.clone())))
}

#[cfg(test)]
mod tests {
    use ferrymq_model::DialectId;

    use super::*;

    /// They are stored with messages. [`Dialects::new`] refuses a number that is used twice.
    #[test]
    fn the_numbers_of_the_dialects_stay() {
        let dialects = dialects();
        assert_eq!(format!("{dialects:?}"), "[1]", "a new dialect adds its own number here");
        assert_eq!(dialects.get(DialectId(1)).map(Dialect::id), Some(ferrymq_amqp091::DIALECT));
    }
}
