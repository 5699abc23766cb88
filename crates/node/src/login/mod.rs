//! Who a client is: passwords, tokens, certificates, and the limits on checks.

pub(crate) mod authentication;
pub(crate) mod failed_logins;
pub(crate) mod passwords;
pub(crate) mod token_keys;
pub(crate) mod tokens;
