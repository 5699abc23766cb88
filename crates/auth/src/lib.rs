//! Who a client is: stored passwords, tokens and the keys that sign them, and the limits on checks. Pure: it reads
//! no clock and draws no random number. Salts, keys and the time are arguments, so the same calls always have the
//! same results.
//!
//! It knows no connection. What waits for a check is a type parameter of [`PasswordChecks`] and [`DelayedLogins`].

mod checks;
mod exchange;
mod failed_logins;
pub mod passwords;
mod token_keys;
mod tokens;

pub use checks::{Check, PasswordChecks, Waits};
pub use exchange::{Exchange, Next};
pub use failed_logins::{DelayedLogin, DelayedLogins, FailedLogins};
pub use token_keys::TokenKeys;
pub use tokens::{SCOPES_MAX, Token, TokenSettings};
