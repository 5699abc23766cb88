//! How a client says who it is.

use crate::Name;

/// A way to log in (SASL, RFC 4422).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// User and password, with zeros between them (RFC 4616).
    Plain,
    /// User and password in a field table: the mechanism of AMQP 0-8 as RabbitMQ reads it.
    AmqPlain,
    /// The client's certificate names the user (RFC 4422, appendix A).
    External,
    /// User and password in two steps: RabbitMQ's example of a mechanism with a challenge.
    RabbitCrDemo,
}

impl Mechanism {
    /// Its name in protocols and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
            Self::External => "EXTERNAL",
            Self::RabbitCrDemo => "RABBIT-CR-DEMO",
        }
    }
}

/// How a client logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// With a password.
    Password {
        /// The user's name.
        user: Name,
        /// The password, as typed.
        password: Vec<u8>,
    },
    /// With the client's certificate, which names the user. The connection has checked it.
    Certificate,
    /// In several steps, of which this is the first. The node answers with [`crate::Event::Challenge`].
    Begin {
        /// The mechanism.
        mechanism: Mechanism,
        /// The client's first response.
        response: Vec<u8>,
    },
    /// The client's response to the last challenge.
    Respond(Vec<u8>),
}
