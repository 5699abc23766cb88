//! Authentication: compares what a client sends as proof with what the catalog has of the user, or with what a
//! token says.

use ferrymq_broker::Rights;
use ferrymq_model::{Name, Refusal, Time};

use std::sync::{Arc, Weak};

use crate::{
    connection::peer::Connection,
    core::node::{GUEST, Node},
    login::{
        passwords::{self, Waits},
        tokens::{Token, TokenSettings},
    },
};

/// The user backends. The first one that accepts the client decides what that user may do.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The catalog, with its passwords and permissions.
    Internal,
    /// Tokens that clients send as passwords.
    Tokens(TokenSettings),
}

/// The user for whom a connection acts.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub name: Name,
    /// The token, if a token also says what the user may do.
    pub token: Option<Token>,
}

impl Identity {
    /// The source of its permissions now, by the wall clock.
    pub fn rights(&self, now: impl FnOnce() -> Time) -> Rights<'_> {
        match &self.token {
            None => Rights::OfUser,
            Some(token) if token.has_expired(now()) => Rights::Expired,
            Some(token) => Rights::OfToken(&token.scopes),
        }
    }
}

impl Node {
    /// Checks a password, which may be a token: one backend after the other, until one accepts it.
    pub(crate) fn check_password(&self, user: &Name, password: &[u8], loopback: bool) -> Result<Identity, Refusal> {
        let mut reasons = Vec::with_capacity(self.backends.len());
        for backend in &self.backends {
            let checked = match backend {
                Backend::Internal => self.check_own(user, password),
                Backend::Tokens(settings) => settings
                    .check(password, self.wall())
                    .map(|token| Identity { name: token.user.clone(), token: Some(token) }),
            };
            match checked {
                Ok(identity) => return from_there(identity, loopback),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(refused(user, &reasons.join("; ")))
    }

    /// Whether checking this takes almost no CPU time.
    pub(crate) fn is_checked_soon(&self, user: &Name, password: &[u8]) -> bool {
        if !self.backends.iter().any(|backend| matches!(backend, Backend::Internal)) {
            return true;
        }
        let catalog = self.catalog.read();
        catalog.user(user).is_some_and(|found| self.logins.is_remembered(user, password, &found.password_hash))
    }

    /// Checks a password on another thread, and notifies the connection. Equal requests at the same time share one
    /// check.
    ///
    /// # Errors
    /// [`Refusal::LoginFailed`] if too many checks wait.
    pub(crate) fn check_later(
        self: &Arc<Self>,
        user: Name,
        password: Vec<u8>,
        loopback: bool,
        connection: &Arc<Connection>,
    ) -> Result<(), Refusal> {
        let key = self.logins.key_of(&user, &password, loopback);
        match self.logins.wait(key.clone(), connection) {
            Waits::WithOthers => return Ok(()),
            Waits::InVain => return Err(refused(&user, "too many passwords wait to be checked")),
            Waits::First => {}
        }
        let node = Arc::downgrade(self);
        self.host.compute(Box::new(move || {
            let Some(node) = node.upgrade() else { return };
            // A client that has disconnected does not cost a check.
            let checked = node.logins.is_awaited(&key).then(|| node.check_password(&user, &password, loopback));
            let waiting = node.logins.answered(&key);
            for connection in waiting.iter().filter_map(Weak::upgrade) {
                let checked = checked.clone().unwrap_or_else(|| node.check_password(&user, &password, loopback));
                connection.mailbox().login = Some(Box::new(checked));
                connection.wake();
            }
        }));
        Ok(())
    }

    /// Accepts the user that the connection itself proves, who needs no password.
    pub(crate) fn check_proof(&self, proof: Result<Name, String>, loopback: bool) -> Result<Identity, Refusal> {
        let name = proof.map_err(Refusal::LoginFailed)?;
        let asked = self.backends.iter().any(|backend| matches!(backend, Backend::Internal));
        if asked && self.catalog.read().user(&name).is_some() {
            return from_there(Identity { name, token: None }, loopback);
        }
        Err(refused(&name, NOBODY))
    }

    /// The user after `update-secret`. A password does not expire, so any new secret is accepted for it.
    pub(crate) fn renewed(&self, identity: &Identity, secret: &[u8]) -> Result<Option<Token>, String> {
        if identity.token.is_none() {
            return Ok(None);
        }
        let mut reason = "tokens are not accepted".to_owned();
        for backend in &self.backends {
            let Backend::Tokens(settings) = backend else { continue };
            match settings.check(secret, self.wall()) {
                Ok(token) if token.user == identity.name => return Ok(Some(token)),
                Ok(token) => reason = format!("it is a token of user '{}'", token.user),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    fn check_own(&self, user: &Name, password: &[u8]) -> Result<Identity, String> {
        let kept = self.catalog.read().user(user).map(|user| user.password_hash.clone());
        let Some(kept) = kept else {
            // It takes as long as for an existing user, so that nobody learns which users exist.
            passwords::check_in_vain(password);
            return Err(NOBODY.to_owned());
        };
        if !self.logins.check(user, password, &kept) {
            return Err("the password is wrong".to_owned());
        }
        Ok(Identity { name: user.clone(), token: None })
    }
}

const NOBODY: &str = "there is none of that name";

/// Whether the user may log in from that machine.
fn from_there(identity: Identity, loopback: bool) -> Result<Identity, Refusal> {
    if *identity.name == *GUEST && !loopback {
        return Err(refused(&identity.name, "it may come from this machine only"));
    }
    Ok(identity)
}

/// The reason is for the log: a client that tries passwords does not learn it.
fn refused(user: &Name, why: &str) -> Refusal {
    Refusal::LoginFailed(format!("user '{user}': {why}"))
}
