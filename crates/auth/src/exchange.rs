//! Logins of several steps: what the server asks a client, and what it makes of the responses.

use ferrymq_model::{Mechanism, Name};

/// The server's side of a login that has begun and is not over.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    /// RABBIT-CR-DEMO: the client has named its user, and was asked for the password.
    AwaitPassword {
        /// The user.
        user: Name,
    },
}

/// What follows from a client's response.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The client gets this challenge and answers it.
    Challenge(Vec<u8>, Exchange),
    /// The client has said everything: this password is to be checked.
    Password {
        /// The user's name.
        user: Name,
        /// The password.
        password: Vec<u8>,
    },
}

/// What RABBIT-CR-DEMO asks, in RabbitMQ's words.
const DEMO_CHALLENGE: &[u8] = b"Please tell me your password";

/// What the answer begins with; the password follows.
const DEMO_RESPONSE: &[u8] = b"My password is ";

impl Exchange {
    /// The user that the client has named.
    #[must_use]
    pub fn user(&self) -> &Name {
        match self {
            Self::AwaitPassword { user } => user,
        }
    }

    /// The first response of a client, which comes with its choice of the mechanism.
    ///
    /// # Errors
    /// The reason, if the response is not valid for the mechanism, or the mechanism has only one step.
    pub fn begin(mechanism: Mechanism, response: &[u8]) -> Result<Next, String> {
        match mechanism {
            Mechanism::RabbitCrDemo => {
                let user = Name::parse(response).map_err(|_| invalid(mechanism))?;
                Ok(Next::Challenge(DEMO_CHALLENGE.to_vec(), Self::AwaitPassword { user }))
            }
            Mechanism::Plain | Mechanism::AmqPlain | Mechanism::External => {
                Err(format!("mechanism {} has no challenge", mechanism.name()))
            }
        }
    }

    /// The client's response to the last challenge.
    ///
    /// # Errors
    /// The reason, if the response is not valid.
    pub fn respond(self, response: &[u8]) -> Result<Next, String> {
        match self {
            Self::AwaitPassword { user } => {
                let password = response.strip_prefix(DEMO_RESPONSE).ok_or_else(|| invalid(Mechanism::RabbitCrDemo))?;
                Ok(Next::Password { user, password: password.to_vec() })
            }
        }
    }
}

/// Does not show the response, which may have a password in it.
fn invalid(mechanism: Mechanism) -> String {
    format!("the response is not one of mechanism {}", mechanism.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: Mechanism = Mechanism::RabbitCrDemo;

    fn asked() -> Exchange {
        match Exchange::begin(DEMO, b"guest") {
            Ok(Next::Challenge(challenge, exchange)) => {
                assert_eq!(challenge, b"Please tell me your password");
                exchange
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_password_is_what_follows_the_words() {
        for password in [&b"guest"[..], b"", b"My password is ", b"\xff\0", &[b'x'; 64 << 10]] {
            let next = asked().respond(&[DEMO_RESPONSE, password].concat());
            assert_eq!(next, Ok(Next::Password { user: Name::from("guest"), password: password.to_vec() }));
        }
    }

    #[test]
    fn other_responses_are_refused_without_being_shown() {
        for response in [&b""[..], b"guest", b"my password is guest", b"My password is", &[b'x'; 64 << 10]] {
            let why = asked().respond(response).unwrap_err();
            assert_eq!(why, "the response is not one of mechanism RABBIT-CR-DEMO");
        }
        for user in [&[b'x'; 256][..], b"\xff"] {
            assert!(Exchange::begin(DEMO, user).is_err());
        }
    }

    #[test]
    fn a_mechanism_of_one_step_begins_none() {
        for mechanism in [Mechanism::Plain, Mechanism::AmqPlain, Mechanism::External] {
            assert!(Exchange::begin(mechanism, b"\0guest\0guest").is_err());
        }
    }
}
