//! How passwords are stored: new ones as argon2id, imported ones as RabbitMQ's salted digests.

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use base64ct::{Base64, Encoding};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};

/// The stored form of a new password: argon2id with its default parameters, as a text in PHC string format
/// (`$argon2id$v=19$...`). This takes about 25 ms of a processor on purpose.
///
/// `salt` is random, and another one for each password. With equal salts, equal passwords have equal stored forms.
///
/// # Panics
/// If the password has 4 GiB or more.
#[must_use]
pub fn hash(password: &[u8], salt: [u8; 16]) -> String {
    let hash: PasswordHash =
        Argon2::default().hash_password_with_salt(password, &salt).expect("the default parameters are valid");
    hash.to_string()
}

/// RabbitMQ's password hashes by their names in its definitions, and the prefixes of their stored forms.
const RABBITMQS: [(&str, &str, usize); 3] = [
    ("rabbit_password_hashing_sha256", "rabbitmq-sha256:", 32),
    ("rabbit_password_hashing_sha512", "rabbitmq-sha512:", 64),
    ("rabbit_password_hashing_md5", "rabbitmq-md5:", 16),
];

/// The name of FerryMQ's own hashes in definitions.
const OWN: &str = "ferrymq_argon2id";

/// How they begin. Hashes with other parameters are refused: a check could take any time and memory.
const OWN_PARAMETERS: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// The length of RabbitMQ's salt, which is before the digest, and before the password that is digested.
const SALT_BYTES: usize = 4;

/// The stored form of a hash from RabbitMQ: its name for the algorithm, SHA-256 by default, and the salted hash in
/// base 64. An empty hash lets nobody log in.
///
/// # Errors
/// If it is not such a hash: why, and what would be right.
pub fn stored_form(algorithm: Option<&str>, hash: &str) -> Result<String, String> {
    let algorithm = algorithm.unwrap_or(RABBITMQS[0].0);
    if algorithm == OWN {
        return match PasswordHash::new(hash) {
            Ok(_) if hash.starts_with(OWN_PARAMETERS) => Ok(hash.to_owned()),
            _ if hash.is_empty() => Ok(String::new()),
            _ => Err("password_hash is not a hash by argon2 that FerryMQ has exported; export it again".to_owned()),
        };
    }
    let known = RABBITMQS.iter().find(|(name, ..)| *name == algorithm);
    let Some((_, prefix, digest_bytes)) = known else {
        let names = RABBITMQS.map(|(name, ..)| name).join(", ");
        return Err(format!("hashing_algorithm is '{algorithm}'; it must be one of {names}, {OWN}"));
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

/// The name of the algorithm of a stored form, and the hash, as [`stored_form`] reads them.
#[must_use]
pub fn exported(stored: &str) -> (&'static str, String) {
    let of_rabbitmq = RABBITMQS.iter().find_map(|(name, prefix, _)| Some((*name, stored.strip_prefix(prefix)?)));
    let (name, hash) = of_rabbitmq.unwrap_or((if stored.is_empty() { RABBITMQS[0].0 } else { OWN }, stored));
    (name, hash.to_owned())
}

/// Whether `stored` is the stored form of `password`, in FerryMQ's form or in one of RabbitMQ's. Nothing matches a
/// text that is no stored form, such as an empty one.
#[must_use]
pub fn matches(password: &[u8], stored: &str) -> bool {
    for (name, prefix, _) in RABBITMQS {
        if let Some(hash) = stored.strip_prefix(prefix) {
            return Base64::decode_vec(hash).is_ok_and(|salted| matches_digest(name, password, &salted));
        }
    }
    PasswordHash::new(stored).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// Whether the digest behind RabbitMQ's salt is that of `password`.
fn matches_digest(algorithm: &str, password: &[u8], salted: &[u8]) -> bool {
    let Some((salt, stored)) = salted.split_at_checked(SALT_BYTES) else { return false };
    let digest = match algorithm {
        "rabbit_password_hashing_sha512" => Sha512::new().chain_update(salt).chain_update(password).finalize().to_vec(),
        "rabbit_password_hashing_md5" => Md5::new().chain_update(salt).chain_update(password).finalize().to_vec(),
        _ => Sha256::new().chain_update(salt).chain_update(password).finalize().to_vec(),
    };
    // In constant time, so that the time does not tell how much of it is right.
    digest.len() == stored.len() && digest.iter().zip(stored).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Whether `stored` is a hash by argon2, whose check takes long.
pub(crate) fn is_slow(stored: &str) -> bool {
    stored.starts_with("$argon2")
}

/// A hash that no password has.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Takes as long as the check of a wrong password. Called where there is nothing to check, so that a client cannot
/// tell by the time whether a user exists.
pub fn dummy_check(password: &[u8]) {
    std::hint::black_box(matches(password, NOBODYS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_decided_by_password_and_salt() {
        let stored = hash(b"guest", [7; 16]);
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$BwcHBwcHBwcHBwcHBwcHBw$"), "{stored}");
        assert_eq!(hash(b"guest", [7; 16]), stored);
        let salted_otherwise = hash(b"guest", [8; 16]);
        assert_ne!(salted_otherwise, stored);
        for stored in [stored, salted_otherwise] {
            assert!(matches(b"guest", &stored));
            assert!(!matches(b"guess", &stored));
        }
    }

    /// Made by RabbitMQ 3.10.8 for the password `secret`.
    #[test]
    fn what_is_exported_can_be_imported() {
        let digest = Base64::encode_string(&[7; 36]);
        for stored in [hash(b"guest", [7; 16]), format!("rabbitmq-sha256:{digest}"), String::new()] {
            let (algorithm, hash) = exported(&stored);
            assert_eq!(stored_form(Some(algorithm), &hash), Ok(stored));
        }
        assert!(stored_form(Some(OWN), "$argon2id$x").is_err());
    }

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
            let stored = stored_form(algorithm, hash).unwrap();
            assert!(matches(b"secret", &stored), "{algorithm:?}");
            assert!(!matches(b"Secret", &stored), "{algorithm:?}");
        }
        assert!(!matches(b"", &stored_form(None, "").unwrap()));
        for (algorithm, hash) in [(Some("rot13"), "AAAA"), (None, "AAAA"), (None, "not base 64!")] {
            assert!(stored_form(algorithm, hash).is_err(), "{algorithm:?} {hash}");
        }
    }

    #[test]
    fn nobodys_hash_is_as_slow_as_a_new_one_and_is_nobodys() {
        let parameters = |stored: &str| stored.split('$').nth(3).map(str::to_owned);
        assert_eq!(parameters(NOBODYS), parameters(&hash(b"", [0; 16])));
        assert!(PasswordHash::new(NOBODYS).is_ok(), "it is checked in full");
        assert!(!matches(b"", NOBODYS));
    }
}
