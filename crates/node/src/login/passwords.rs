//! Passwords: how they are stored, and how repeated logins avoid the cost of a check.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use base64ct::{Base64, Encoding};
use ferrymq_model::Name;
use md5::Md5;
use parking_lot::Mutex;
use sha2::{Digest, Sha256, Sha512};

use crate::connection::peer::Connection;

/// The stored form of a new password: argon2id, in PHC string format.
pub fn hash(password: &[u8]) -> String {
    Argon2::default().hash_password(password).expect("the default parameters are valid").to_string()
}

/// RabbitMQ's password hashes by their names in its definitions, and the prefixes of their stored forms.
const RABBITMQS: [(&str, &str, usize); 3] = [
    ("rabbit_password_hashing_sha256", "rabbitmq-sha256:", 32),
    ("rabbit_password_hashing_sha512", "rabbitmq-sha512:", 64),
    ("rabbit_password_hashing_md5", "rabbitmq-md5:", 16),
];

/// The length of RabbitMQ's salt, which is before the digest, and before the password that is digested.
const SALT_BYTES: usize = 4;

/// The stored form of a hash from RabbitMQ: its name for the algorithm, SHA-256 by default, and the salted hash in
/// base 64. An empty hash lets nobody log in.
///
/// # Errors
/// If it is not such a hash: why, and what would be right.
pub fn kept_as(algorithm: Option<&str>, hash: &str) -> Result<String, String> {
    let algorithm = algorithm.unwrap_or(RABBITMQS[0].0);
    let known = RABBITMQS.iter().find(|(name, ..)| *name == algorithm);
    let Some((_, prefix, digest_bytes)) = known else {
        let names = RABBITMQS.map(|(name, ..)| name).join(", ");
        return Err(format!("hashing_algorithm is '{algorithm}'; it must be one of {names}"));
    };
    if hash.is_empty() {
        return Ok(String::new());
    }
    let is_whole = |bytes: &Vec<u8>| bytes.len() == SALT_BYTES + digest_bytes;
    match Base64::decode_vec(hash).ok().filter(is_whole) {
        Some(_) => Ok(format!("{prefix}{hash}")),
        None => Err(format!(
            "password_hash is not {SALT_BYTES} bytes of salt and {digest_bytes} of digest in base 64; export it again, \
             or give a password instead"
        )),
    }
}

/// Whether this is the stored form of `password`: FerryMQ's or RabbitMQ's.
pub fn is_right(password: &[u8], kept: &str) -> bool {
    for (name, prefix, _) in RABBITMQS {
        if let Some(hash) = kept.strip_prefix(prefix) {
            return Base64::decode_vec(hash).is_ok_and(|salted| is_right_at_rabbitmq(name, password, &salted));
        }
    }
    PasswordHash::new(kept).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn is_right_at_rabbitmq(algorithm: &str, password: &[u8], salted: &[u8]) -> bool {
    let Some((salt, kept)) = salted.split_at_checked(SALT_BYTES) else { return false };
    let digest = match algorithm {
        "rabbit_password_hashing_sha512" => Sha512::new().chain_update(salt).chain_update(password).finalize().to_vec(),
        "rabbit_password_hashing_md5" => Md5::new().chain_update(salt).chain_update(password).finalize().to_vec(),
        _ => Sha256::new().chain_update(salt).chain_update(password).finalize().to_vec(),
    };
    // In constant time, so that the time does not tell how much of it is right.
    digest.len() == kept.len() && digest.iter().zip(kept).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A hash that no password has.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Takes as long as the check of a wrong password.
pub fn check_in_vain(password: &[u8]) {
    std::hint::black_box(is_right(password, NOBODYS));
}

/// What a check is for: user, digest of the password, whether the client is on this machine.
pub type Check = (Name, [u8; 32], bool);

/// The maximum number of waiting checks; with more, a login is refused at once. One check takes about 25 ms of a
/// processor, and no client waits for longer than its handshake may take.
const WAITING_MAX: usize = 512;

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It must be made.
    First,
    /// Another connection has asked for the same.
    WithOthers,
    /// Too many are waiting.
    InVain,
}

/// Logins that succeeded before. The check of a password takes tens of milliseconds on purpose. A client that
/// connects again with the same one should not pay again, and a thousand that connect at once should not stop all
/// others.
#[derive(Debug)]
pub struct Logins {
    /// Makes the stored digests useless outside this process.
    key: [u8; 16],
    /// By user: the stored form that it was checked against, and the digest of the password.
    right: Mutex<HashMap<Name, (String, [u8; 32])>>,
    /// Which connections wait for which check.
    waiting: Mutex<HashMap<Check, Vec<Weak<Connection>>>>,
    /// A sabotage: equal checks are not shared.
    #[cfg(test)]
    pub never_shares: std::sync::atomic::AtomicBool,
}

impl Logins {
    pub fn new(key: u128) -> Self {
        Self {
            key: key.to_ne_bytes(),
            right: Mutex::default(),
            waiting: Mutex::default(),
            #[cfg(test)]
            never_shares: Default::default(),
        }
    }

    fn digest(&self, password: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(password).finalize().into()
    }

    /// What identifies this check.
    pub fn key_of(&self, user: &Name, password: &[u8], loopback: bool) -> Check {
        (user.clone(), self.digest(password), loopback)
    }

    /// A connection waits for a check.
    pub fn wait(&self, check: Check, connection: &Arc<Connection>) -> Waits {
        let mut waiting = self.waiting.lock();
        let count = waiting.len();
        let awaited_by = Arc::downgrade(connection);
        if let Some(others) = waiting.get_mut(&check) {
            others.push(awaited_by);
            #[cfg(test)]
            if self.never_shares.load(std::sync::atomic::Ordering::Relaxed) {
                return Waits::First;
            }
            return Waits::WithOthers;
        }
        if count >= WAITING_MAX {
            return Waits::InVain;
        }
        waiting.insert(check, vec![awaited_by]);
        Waits::First
    }

    /// Whether a connection still waits for it.
    pub fn is_awaited(&self, check: &Check) -> bool {
        self.waiting.lock().get(check).is_some_and(|waiting| waiting.iter().any(|one| one.strong_count() > 0))
    }

    /// The check was made: returns the connections that waited for it.
    pub fn answered(&self, check: &Check) -> Vec<Weak<Connection>> {
        self.waiting.lock().remove(check).unwrap_or_default()
    }

    /// Whether this succeeded before.
    pub fn is_remembered(&self, user: &Name, password: &[u8], kept: &str) -> bool {
        let digest = self.digest(password);
        self.right.lock().get(user).is_some_and(|(hash, right)| hash == kept && *right == digest)
    }

    /// Whether `kept` is the stored form of `password` for `user`.
    pub fn check(&self, user: &Name, password: &[u8], kept: &str) -> bool {
        if self.is_remembered(user, password, kept) {
            return true;
        }
        let right = is_right(password, kept);
        if !kept.starts_with("$argon2") {
            // The check of a RabbitMQ hash is fast, and that of an empty one even faster: this adds the time of a slow
            // check, so that nobody learns which one it is.
            check_in_vain(password);
        }
        let digest = self.digest(password);
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

    /// Made by RabbitMQ 3.10.8 for the password `secret`.
    #[test]
    fn hashes_of_rabbitmq_are_checked_in_its_way() {
        for (algorithm, hash) in [
            (None, "AQIDBDB9kM21iEUzN1lZ+6VReCsdNqS0sERdAQTcY6Xs3PMz"),
            (
                Some("rabbit_password_hashing_sha512"),
                "AQIDBPhTH2L5HGYB1LWOrn+YpvuQmVOXKGqgsuiJRIZTILRoEvblSJo/WAsym3IZTfuaIaK5KR2o5KwFfTv6KsxfMIE=",
            ),
            (Some("rabbit_password_hashing_md5"), "AQIDBDgk9ci8Lfh6CKE9Y0AUfmU="),
        ] {
            let kept = kept_as(algorithm, hash).unwrap();
            assert!(is_right(b"secret", &kept), "{algorithm:?}");
            assert!(!is_right(b"Secret", &kept), "{algorithm:?}");
        }
        assert!(!is_right(b"", &kept_as(None, "").unwrap()));
        for (algorithm, hash) in [(Some("rot13"), "AAAA"), (None, "AAAA"), (None, "not base 64!")] {
            assert!(kept_as(algorithm, hash).is_err(), "{algorithm:?} {hash}");
        }
    }
}
