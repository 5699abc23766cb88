//! The keys that sign tokens, and the check of signatures (RFC 7515, 7517 and 7518).
//!
//! A key is valid only for its own algorithms, whatever a token's header says: nobody can use a public key as a
//! secret.

use base64ct::{Base64UrlUnpadded, Encoding};
use ring::{
    hmac,
    signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};
use serde::Deserialize;
use x509_cert::der::{Decode as _, Reader as _, SliceReader, asn1::UintRef, oid::ObjectIdentifier};
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// The keys that an operator trusts.
#[derive(Clone, Debug, Default)]
pub struct TokenKeys(Vec<Key>);

#[derive(Clone)]
struct Key {
    /// Tokens that name another key are not checked with it.
    id: Option<String>,
    /// The only algorithm for which it may be used, if it names one.
    algorithm: Option<String>,
    material: Material,
}

impl std::fmt::Debug for Key {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

/// One key of a set, as in RFC 7517 and 7518.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ON_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ON_P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

const RSA_ALGORITHMS: [(&str, &RsaParameters); 6] = [
    ("RS256", &signature::RSA_PKCS1_2048_8192_SHA256),
    ("RS384", &signature::RSA_PKCS1_2048_8192_SHA384),
    ("RS512", &signature::RSA_PKCS1_2048_8192_SHA512),
    ("PS256", &signature::RSA_PSS_2048_8192_SHA256),
    ("PS384", &signature::RSA_PSS_2048_8192_SHA384),
    ("PS512", &signature::RSA_PSS_2048_8192_SHA512),
];

impl TokenKeys {
    /// Adds the keys of a set in JSON. Keys that do not sign, and keys of an unknown type, are ignored.
    ///
    /// # Errors
    /// If it is not such a set, if a key in it is malformed, or if no key remains.
    pub fn add_set(&mut self, json: &[u8]) -> Result<(), String> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|why| format!("it is not a JSON Web Key Set: {why}"))?;
        let before = self.0.len();
        for (at, jwk) in set.keys.into_iter().enumerate() {
            if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
                continue;
            }
            let material = jwk.material().map_err(|why| format!("key {at} in it: {why}"))?;
            let Jwk { kid: id, alg: algorithm, .. } = jwk;
            self.0.extend(material.map(|material| Key { id, algorithm, material }));
        }
        if self.0.len() == before { Err("it has no key that tokens can be signed with".to_owned()) } else { Ok(()) }
    }

    /// Adds a public key in the form that certificates have (RFC 5280, `SubjectPublicKeyInfo`, DER). It is tried
    /// for all tokens, whichever key they name.
    ///
    /// # Errors
    /// If it is not a key, or of an unknown type.
    pub fn add_public(&mut self, info: &[u8]) -> Result<(), String> {
        let unreadable = |why: x509_cert::der::Error| format!("it is not a public key: {why}");
        let info = SubjectPublicKeyInfoRef::from_der(info).map_err(unreadable)?;
        let bytes = info.subject_public_key.raw_bytes();
        let curve = info.algorithm.parameters_oid().ok();
        let material = match (info.algorithm.oid, curve) {
            (RSA, _) => Material::Rsa(rsa(bytes).map_err(unreadable)?),
            (ELLIPTIC, Some(ON_P256)) => Material::P256(bytes.to_vec()),
            (ELLIPTIC, Some(ON_P384)) => Material::P384(bytes.to_vec()),
            (ED25519, _) => Material::Ed25519(bytes.to_vec()),
            _ => return Err("it must be an RSA key, or one on the curve P-256, P-384 or Ed25519".to_owned()),
        };
        self.0.push(Key { id: None, algorithm: None, material });
        Ok(())
    }

    /// Checks whether one of the keys has signed `message`, and may be used for that. `algorithm` is a name of RFC
    /// 7518, section 3.1, such as `ES256`; `id` is the key that the token names, if it names one; `signature` is
    /// decoded.
    ///
    /// # Errors
    /// If there is no such key, or if none of them has signed it by that algorithm: which, for the log.
    pub fn check(&self, algorithm: &str, id: Option<&str>, message: &[u8], signature: &[u8]) -> Result<(), String> {
        let named = |key: &&Key| key.id.is_none() || id.is_none() || key.id.as_deref() == id;
        let mut fitting = self.0.iter().filter(named).peekable();
        if fitting.peek().is_none() {
            return Err(format!("there is no key '{}'", id.unwrap_or_default()));
        }
        if fitting.any(|key| key.has_signed(algorithm, message, signature)) {
            return Ok(());
        }
        Err(format!("its signature by {algorithm} is not that of a known key"))
    }
}

impl Key {
    fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|only| only != algorithm) {
            return false;
        }
        let by = |with: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(with, key).verify(message, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::Rsa(key), _) => {
                let known = RSA_ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
                known.is_some_and(|(_, parameters)| key.verify(parameters, message, signature).is_ok())
            }
            (Material::P256(key), "ES256") => by(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Material::P384(key), "ES384") => by(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Material::Ed25519(key), "EdDSA") => by(&signature::ED25519, key),
            (Material::Secret(key), "HS256") => is_mac(hmac::HMAC_SHA256, key, message, signature),
            (Material::Secret(key), "HS384") => is_mac(hmac::HMAC_SHA384, key, message, signature),
            (Material::Secret(key), "HS512") => is_mac(hmac::HMAC_SHA512, key, message, signature),
            _ => false,
        }
    }
}

fn is_mac(algorithm: hmac::Algorithm, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(algorithm, key), message, signature).is_ok()
}

impl Jwk {
    /// `None` if its type is unknown.
    fn material(&self) -> Result<Option<Material>, String> {
        let material = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Material::Rsa(RsaPublicKeyComponents { n: field("n", &self.n)?, e: field("e", &self.e)? }),
            ("EC", Some("P-256")) => Material::P256(self.point(32)?),
            ("EC", Some("P-384")) => Material::P384(self.point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(field("x", &self.x)?),
            ("oct", _) => Material::Secret(field("k", &self.k)?),
            _ => return Ok(None),
        };
        Ok(Some(material))
    }

    fn point(&self, bytes: usize) -> Result<Vec<u8>, String> {
        let (x, y) = (field("x", &self.x)?, field("y", &self.y)?);
        if x.len() != bytes || y.len() != bytes {
            return Err(format!("x and y must have {bytes} bytes each on this curve"));
        }
        Ok([&[4], &x[..], &y[..]].concat())
    }
}

fn field(name: &str, text: &Option<String>) -> Result<Vec<u8>, String> {
    let text = text.as_deref().ok_or_else(|| format!("it has no {name}"))?;
    let bytes = Base64UrlUnpadded::decode_vec(text.trim_end_matches('='));
    let some = bytes.ok().filter(|bytes| !bytes.is_empty());
    some.ok_or_else(|| format!("{name} is not in base 64 for URLs"))
}

/// Modulus and exponent of a key (RFC 8017, appendix A.1.1).
fn rsa(der: &[u8]) -> Result<RsaPublicKeyComponents<Vec<u8>>, x509_cert::der::Error> {
    let mut reader = SliceReader::new(der)?;
    reader.sequence(|inner| {
        let (n, e) = (UintRef::decode(inner)?, UintRef::decode(inner)?);
        Ok(RsaPublicKeyComponents { n: n.as_bytes().to_vec(), e: e.as_bytes().to_vec() })
    })
}
