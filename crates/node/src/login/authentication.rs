//! Authentication: compares what a client sends as proof with what the catalog has of the user, or with what a
//! token says.

use std::sync::{Arc, Weak};

use ferrymq_auth::{Token, TokenSettings, Waits, passwords};
use ferrymq_broker::{Rights, Scopes};
use ferrymq_model::{Actor, Name, Refusal, Time, TokenScopes};

use crate::{
    connection::peer::Connection,
    core::node::{GUEST, Node},
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
pub(crate) struct Principal {
    pub name: Name,
    /// What the user may do, if a token says it.
    pub token: Option<Box<TokenRights>>,
}

/// What a token allows its user.
#[derive(Clone, Debug)]
pub(crate) struct TokenRights {
    scopes: Scopes,
    token: TokenScopes,
}

impl From<Token> for Principal {
    fn from(token: Token) -> Self {
        let Token { user, scopes, expires } = token;
        Self { name: user, token: Some(Box::new(TokenScopes { scopes, expires }.into())) }
    }
}

impl From<TokenScopes> for TokenRights {
    fn from(token: TokenScopes) -> Self {
        Self { scopes: Scopes::parse(token.scopes.iter().map(String::as_str)), token }
    }
}

impl From<&Actor> for Principal {
    fn from(actor: &Actor) -> Self {
        Self { name: actor.user.clone(), token: actor.token.clone().map(|token| Box::new(TokenRights::from(token))) }
    }
}

impl Principal {
    /// The source of its permissions now, by the wall clock.
    pub fn rights(&self, now: impl FnOnce() -> Time) -> Rights<'_> {
        match &self.token {
            None => Rights::OfUser,
            Some(rights) if rights.token.expires.is_some_and(|expires| expires <= now()) => Rights::Expired,
            Some(rights) => Rights::OfToken(&rights.scopes),
        }
    }
}

impl Principal {
    /// The user as one who changes things from `address`. `tags` are those of the catalog.
    pub fn actor(self, tags: Vec<String>, address: String) -> Actor {
        let tags = self.token.as_ref().map_or(tags, |rights| rights.scopes.tags().to_vec());
        Actor { user: self.name, tags, address, token: self.token.map(|rights| rights.token) }
    }
}

impl Node {
    /// Checks a password, which may be a token: one backend after the other, until one accepts it.
    pub(crate) fn check_password(&self, user: &Name, password: &[u8], loopback: bool) -> Result<Principal, Refusal> {
        let mut reasons = Vec::with_capacity(self.backends.len());
        for backend in &self.backends {
            let checked = match backend {
                Backend::Internal => self.check_own(user, password),
                Backend::Tokens(settings) => settings.check(password, self.wall()).map(Principal::from),
            };
            match checked {
                Ok(principal) => return from_there(principal, loopback),
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
        catalog.user(user).is_some_and(|found| self.password_checks.is_remembered(user, password, &found.password_hash))
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
        let check = self.password_checks.check_for(&user, &password, loopback);
        match self.password_checks.wait(check.clone(), connection) {
            Waits::WithOthers if self.shares_checks() => return Ok(()),
            Waits::TooMany => return Err(refused(&user, "too many passwords wait to be checked")),
            Waits::First | Waits::WithOthers => {}
        }
        let node = Arc::downgrade(self);
        self.host.compute(Box::new(move || {
            let Some(node) = node.upgrade() else { return };
            // A client that has disconnected does not cost a check.
            let checked =
                node.password_checks.is_awaited(&check).then(|| node.check_password(&user, &password, loopback));
            let waiting = node.password_checks.answered(&check);
            for connection in waiting.iter().filter_map(Weak::upgrade) {
                let checked = checked.clone().unwrap_or_else(|| node.check_password(&user, &password, loopback));
                connection.mailbox().login = Some(Box::new(checked));
                connection.wake();
            }
        }));
        Ok(())
    }

    #[cfg(not(test))]
    fn shares_checks(&self) -> bool {
        true
    }

    #[cfg(test)]
    fn shares_checks(&self) -> bool {
        !self.checks_each_login.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Accepts the user that the connection's certificate names, who needs no password.
    pub(crate) fn check_proof(&self, proof: Result<Name, String>, loopback: bool) -> Result<Principal, Refusal> {
        let name = proof.map_err(Refusal::LoginFailed)?;
        let asked = self.backends.iter().any(|backend| matches!(backend, Backend::Internal));
        if asked && self.catalog.read().user(&name).is_some() {
            return from_there(Principal { name, token: None }, loopback);
        }
        Err(refused(&name, NOBODY))
    }

    /// The user after `update-secret`. A password does not expire, so any new secret is accepted for it.
    pub(crate) fn renewed(&self, principal: &Principal, secret: &[u8]) -> Result<Option<Principal>, String> {
        if principal.token.is_none() {
            return Ok(None);
        }
        let mut reason = "tokens are not accepted".to_owned();
        for backend in &self.backends {
            let Backend::Tokens(settings) = backend else { continue };
            match settings.check(secret, self.wall()) {
                Ok(token) if token.user == principal.name => return Ok(Some(token.into())),
                Ok(token) => reason = format!("it is a token of user '{}'", token.user),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    fn check_own(&self, user: &Name, password: &[u8]) -> Result<Principal, String> {
        let stored = self.catalog.read().user(user).map(|user| user.password_hash.clone());
        let Some(stored) = stored else {
            // It takes as long as for an existing user, so that nobody learns which users exist.
            passwords::dummy_check(password);
            return Err(NOBODY.to_owned());
        };
        if !self.password_checks.check(user, password, &stored) {
            return Err("the password is wrong".to_owned());
        }
        Ok(Principal { name: user.clone(), token: None })
    }
}

const NOBODY: &str = "there is none of that name";

/// Whether the user may log in from that machine.
fn from_there(principal: Principal, loopback: bool) -> Result<Principal, Refusal> {
    if *principal.name == *GUEST && !loopback {
        return Err(refused(&principal.name, "it may come from this machine only"));
    }
    Ok(principal)
}

/// The reason is for the log: a client that tries passwords does not learn it.
fn refused(user: &Name, why: &str) -> Refusal {
    Refusal::LoginFailed(format!("user '{user}': {why}"))
}

#[cfg(test)]
mod tests {
    use ferrymq_broker::{Caller, Catalog, HashKey};
    use ferrymq_model::{Access, ConnectionId, Object};

    use super::*;

    const EXPIRES: Time = Time(1_700_000_000_000);

    #[test]
    fn a_token_allows_what_its_scopes_say_until_it_expires() {
        let scopes = vec!["read:*/%2A-{vhost}".to_owned(), "tag:monitoring".to_owned()];
        let principal = Principal::from(Token { user: Name::from("u"), scopes, expires: Some(EXPIRES) });
        let (catalog, vhost) = (Catalog::fresh("", HashKey::known(), &mut Vec::new()), Name::from("/"));
        let allows = |now, name: &str| {
            let rights = principal.rights(|| now);
            let caller = Caller { rights, ..Caller::of_user(&vhost, &principal.name, ConnectionId(1)) };
            // Then a queue that may be read is missing, and one that may not be read is refused.
            let refusal = catalog.queue(&caller, name, Some(Access::Read)).unwrap_err();
            matches!(refusal, Refusal::NotFound { object: Object::Queue, .. })
        };
        assert!(allows(Time(EXPIRES.0 - 1), "*-/"));
        assert!(!allows(Time(EXPIRES.0 - 1), "worker-/"));
        assert!(!allows(EXPIRES, "*-/"));
    }
}
