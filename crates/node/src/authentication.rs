//! Who may come in: what a client brings as a proof, against what is kept of the users or a token says.

use ferrymq_broker::Rights;
use ferrymq_model::{Name, Refusal, Time};

use std::sync::{Arc, Weak};

use crate::{
    connection::Connection,
    login::{self, Waits},
    node::{GUEST, Node},
    tokens::{Token, TokenSettings},
};

/// Where users may be known. The first that knows one decides what that user may do.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In the catalog, with their passwords and permissions.
    Internal,
    /// In tokens that they show as passwords.
    Tokens(TokenSettings),
}

/// Who a connection acts for.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub name: Name,
    /// What has proved it, where that also says what the user may do.
    pub token: Option<Token>,
}

impl Identity {
    /// Where it stands what it may do now, by the wall clock.
    pub fn rights(&self, now: impl FnOnce() -> Time) -> Rights<'_> {
        match &self.token {
            None => Rights::OfUser,
            Some(token) if token.has_expired(now()) => Rights::Expired,
            Some(token) => Rights::OfToken(&token.scopes),
        }
    }
}

impl Node {
    /// Checks a password, which may be a token: one place after the other, until it is right in one.
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

    /// Whether checking this takes no computing worth speaking of.
    pub(crate) fn is_checked_soon(&self, user: &Name, password: &[u8]) -> bool {
        if !self.backends.iter().any(|backend| matches!(backend, Backend::Internal)) {
            return true;
        }
        let catalog = self.catalog.read();
        catalog.user(user).is_some_and(|found| self.logins.is_remembered(user, password, &found.password_hash))
    }

    /// Checks a password off the thread that asks, and tells the connection. Those who ask for the same at a time share one
    /// check.
    ///
    /// # Errors
    /// [`Refusal::LoginFailed`] where too many checks wait.
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
            // Who has gone meanwhile does not cost a check.
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

    /// Takes the word of the connection itself for who the user is, who need not have a password then.
    pub(crate) fn check_proof(&self, proof: Result<Name, String>, loopback: bool) -> Result<Identity, Refusal> {
        let name = proof.map_err(Refusal::LoginFailed)?;
        let asked = self.backends.iter().any(|backend| matches!(backend, Backend::Internal));
        if asked && self.catalog.read().user(&name).is_some() {
            return from_there(Identity { name, token: None }, loopback);
        }
        Err(refused(&name, NOBODY))
    }

    /// What a user becomes who shows a new secret. A password does not end, so that any will do in its place.
    pub(crate) fn renewed(&self, identity: &Identity, secret: &[u8]) -> Result<Option<Token>, String> {
        if identity.token.is_none() {
            return Ok(None);
        }
        let mut reason = "tokens are not taken".to_owned();
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
            // It takes as long as for a user who is there, so that nobody learns from that who is.
            login::check_in_vain(password);
            return Err(NOBODY.to_owned());
        };
        if !self.logins.check(user, password, &kept) {
            return Err("the password is wrong".to_owned());
        }
        Ok(Identity { name: user.clone(), token: None })
    }
}

const NOBODY: &str = "there is none of that name";

/// Whether the user may come from there.
fn from_there(identity: Identity, loopback: bool) -> Result<Identity, Refusal> {
    if *identity.name == *GUEST && !loopback {
        return Err(refused(&identity.name, "it may come from this machine only"));
    }
    Ok(identity)
}

/// The reason is for the log: whoever tries passwords does not learn it.
fn refused(user: &Name, why: &str) -> Refusal {
    Refusal::LoginFailed(format!("user '{user}': {why}"))
}
