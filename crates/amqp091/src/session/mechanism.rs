//! SASL mechanisms: how a client logs in.

use ferrymq_model::{Login, Mechanism, Name};

use crate::codec::table::{RawTable, RawValue};

/// The mechanisms of a listener unless it is told others, in RabbitMQ's order.
pub(super) const USUAL: &[Mechanism] = &[Mechanism::AmqPlain, Mechanism::Plain];

/// The mechanism with this name, if it is offered.
pub(super) fn parse(name: &str, offered: &[Mechanism]) -> Option<Mechanism> {
    offered.iter().copied().find(|mechanism| mechanism.name() == name)
}

/// The login in a client's first response; `None` if the response is not valid for its mechanism. (AMQP-4)
pub(super) fn login(mechanism: Mechanism, response: &[u8]) -> Option<Login> {
    match mechanism {
        Mechanism::Plain => plain(response),
        Mechanism::AmqPlain => amqplain(response),
        // As in RabbitMQ, the response is ignored: a client cannot ask to act as another user.
        Mechanism::External => Some(Login::Certificate),
        Mechanism::RabbitCrDemo => Some(Login::Begin { mechanism, response: response.to_vec() }),
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
