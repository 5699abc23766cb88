//! Passwords: how they are kept, and how a login is checked without paying for it each time.

use std::collections::HashMap;

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use ferrymq_model::Name;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// The hash under which a new password is kept: argon2id, in PHC string format.
pub fn hash(password: &[u8]) -> String {
    Argon2::default().hash_password(password).expect("the default parameters are valid").to_string()
}

fn is_right(password: &[u8], kept: &str) -> bool {
    PasswordHash::new(kept).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Logins that were right before. Checking a password costs tens of milliseconds on purpose; a client that connects
/// again with the same one should not pay again, and a thousand that connect at once should not stop everybody else.
#[derive(Debug)]
pub struct Logins {
    /// Makes the remembered digests worthless outside this process.
    key: [u8; 16],
    /// By user: the kept hash it was checked against, and the digest of the password.
    right: Mutex<HashMap<Name, (String, [u8; 32])>>,
}

impl Logins {
    pub fn new(key: u128) -> Self {
        Self { key: key.to_ne_bytes(), right: Mutex::default() }
    }

    /// Whether `password` is the one that is kept as `kept` for `user`.
    pub fn check(&self, user: &Name, password: &[u8], kept: &str) -> bool {
        let digest: [u8; 32] = Sha256::new().chain_update(self.key).chain_update(password).finalize().into();
        if self.right.lock().get(user).is_some_and(|(hash, right)| hash == kept && *right == digest) {
            return true;
        }
        let right = is_right(password, kept);
        if right {
            self.right.lock().insert(user.clone(), (kept.to_owned(), digest));
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_for_the_kept_hash_passes_and_is_remembered() {
        let logins = Logins::new(7);
        let (user, kept) = (Name::from("guest"), hash(b"guest"));
        assert!(!logins.check(&user, b"guess", &kept));
        for _ in 0..2 {
            assert!(logins.check(&user, b"guest", &kept));
            assert!(!logins.check(&user, b"guess", &kept));
        }
        let changed = hash(b"other");
        assert!(!logins.check(&user, b"guest", &changed), "a changed password ends what was remembered");
        assert!(!logins.check(&user, b"guest", "not a hash"));
    }
}
