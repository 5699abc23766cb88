//! Logins: which backend accepts a client, and which logins wait. What passwords and tokens are is the crate auth's.

pub(crate) mod authentication;
pub(crate) mod delayed_logins;
