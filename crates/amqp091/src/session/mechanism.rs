//! SASL mechanisms: how a client logs in.

use ferrymq_model::{Login, Name};

use crate::codec::table::{RawTable, RawValue};

/// The mechanisms of a listener without client certificates, in RabbitMQ's order.
pub(super) const WITH_PASSWORDS: &[Mechanism] = &[Mechanism::AmqPlain, Mechanism::Plain];

/// The mechanisms of a listener on which a client's certificate may name the user.
pub(super) const WITH_CERTIFICATES: &[Mechanism] = &[Mechanism::AmqPlain, Mechanism::Plain, Mechanism::External];

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The mechanism of AMQP 0-8 as RabbitMQ reads it: a field table.
    AmqPlain,
    /// RFC 4422, appendix A: the certificate names the user.
    External,
}

impl Mechanism {
    /// The mechanism with this name, if it is offered.
    pub fn parse(name: &str, offered: &[Self]) -> Option<Self> {
        offered.iter().copied().find(|mechanism| mechanism.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
            Self::External => "EXTERNAL",
        }
    }

    /// The login in a client's response; `None` if the response is not valid for this mechanism.
    pub fn login(self, response: &[u8]) -> Option<Login> {
        match self {
            Self::Plain => plain(response),
            Self::AmqPlain => amqplain(response),
            // As in RabbitMQ, the response is ignored: a client cannot ask to act as another user.
            Self::External => Some(Login::Certificate),
        }
    }
}

/// Reads the user to act as, the user and the password, with zeros between them. A client cannot act as another user.
fn plain(response: &[u8]) -> Option<Login> {
    let mut parts = response.split(|octet| *octet == 0);
    let (act_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !(act_as.is_empty() || act_as == user) {
        return None;
    }
    Some(Login::Password { user: Name::parse(user).ok()?, password: password.to_vec() })
}

/// Reads the entries of a table, without its length: LOGIN and PASSWORD, both long strings.
fn amqplain(response: &[u8]) -> Option<Login> {
    let table = RawTable::check(response).ok()?;
    match (table.get("LOGIN"), table.get("PASSWORD")) {
        (Some(RawValue::Text(user)), Some(RawValue::Text(password))) => {
            Some(Login::Password { user: Name::parse(user).ok()?, password: password.to_vec() })
        }
        _ => None,
    }
}
