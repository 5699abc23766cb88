//! How a client says who it is.

use crate::Name;

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
}
