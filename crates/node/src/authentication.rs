//! Who may come in: what a client brings as a proof, against what is kept of the users.

use ferrymq_model::{Name, Refusal};

use crate::node::{GUEST, Node};

impl Node {
    /// Checks a password against what is kept of the user.
    pub(crate) fn check_password(&self, user: Name, password: &[u8], loopback: bool) -> Result<Name, Refusal> {
        let kept = self.known(&user, loopback)?;
        if self.logins.check(&user, password, &kept) { Ok(user) } else { Err(refused(&user, "the password is wrong")) }
    }

    /// Takes the word of the connection itself for who the user is, who need not have a password then.
    pub(crate) fn check_proof(&self, proof: Result<Name, String>, loopback: bool) -> Result<Name, Refusal> {
        let user = proof.map_err(Refusal::LoginFailed)?;
        self.known(&user, loopback)?;
        Ok(user)
    }

    /// The password's hash of a user who may come from there.
    fn known(&self, user: &Name, loopback: bool) -> Result<String, Refusal> {
        if **user == *GUEST && !loopback {
            return Err(refused(user, "it may come from this machine only"));
        }
        let kept = self.catalog.read().user(user).map(|user| user.password_hash.clone());
        kept.ok_or_else(|| refused(user, "there is none of that name"))
    }
}

/// The reason is for the log: whoever tries passwords does not learn it.
fn refused(user: &Name, why: &str) -> Refusal {
    Refusal::LoginFailed(format!("user '{user}': {why}"))
}
