//! A refusal: a typed error. The `mapping` of each protocol's crate turns it into the protocol's reply code.

use std::fmt;

use crate::Name;

/// The kind of object that a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// An exchange.
    Exchange,
    /// A queue.
    Queue,
    /// A vhost.
    Vhost,
    /// A user.
    User,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
            Self::Vhost => "vhost",
            Self::User => "user",
        })
    }
}

/// The reason why a command was refused. No part of the command was carried out.
///
/// The texts are for people. They follow RabbitMQ's texts, because some clients compare them. The variant, not the
/// text, decides the reply code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The login failed: name or password is wrong, or this user may not log in from there.
    LoginFailed(String),
    /// What the client sent for its login is not valid for the mechanism.
    LoginMalformed(String),
    /// A permission is missing, or nobody may use the object.
    AccessRefused(String),
    /// The object does not exist.
    NotFound {
        /// The kind of the object.
        object: Object,
        /// Its name.
        name: Name,
        /// The vhost in which it was looked for.
        vhost: Name,
    },
    /// There is no vhost of that name, so the connection cannot be opened.
    VhostNotFound(Name),
    /// A name that an earlier command should have set is missing, such as the queue last declared on the channel.
    NothingNamed(String),
    /// The object belongs to another connection.
    ResourceLocked(String),
    /// It exists with other properties than the command says, or an argument has a wrong value.
    PreconditionFailed(String),
    /// The protocol forbids it here.
    NotAllowed(String),
    /// The command is not possible in this state.
    CommandInvalid(String),
    /// A feature that is not implemented. Contains its name.
    NotImplemented(String),
    /// A message is too large for the connection on which it should be sent. Contains which part of it.
    TooLarge(String),
    /// A limit of the server would be exceeded. Contains which one.
    ResourceLimit(String),
    /// The server's own fault. Contains what failed, for the operator.
    Fault(String),
    /// Another connection of the client has taken over its session.
    TakenOver,
    /// The server stops, or an operator closed this connection. Contains the reason.
    ConnectionForced(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { object, name, vhost } => write!(f, "no {object} '{name}' in vhost '{vhost}'"),
            Self::TakenOver => f.write_str("another connection has taken over the session"),
            Self::VhostNotFound(name) => write!(f, "vhost {name} not found"),
            Self::LoginFailed(text)
            | Self::LoginMalformed(text)
            | Self::AccessRefused(text)
            | Self::NothingNamed(text)
            | Self::ResourceLocked(text)
            | Self::PreconditionFailed(text)
            | Self::NotAllowed(text)
            | Self::CommandInvalid(text)
            | Self::NotImplemented(text)
            | Self::TooLarge(text)
            | Self::ResourceLimit(text)
            | Self::Fault(text)
            | Self::ConnectionForced(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}
