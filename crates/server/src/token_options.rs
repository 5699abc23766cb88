//! Tokens as passwords: which tokens are accepted, from the configuration and the key files.

use std::path::{Path, PathBuf};

use ferrymq_node::{Backend, TokenKeys, TokenSettings};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use x509_cert::{
    Certificate,
    der::{Decode as _, Encode as _},
};

/// User backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendName {
    /// The catalog's users.
    Internal,
    /// Tokens.
    Tokens,
}

/// The options.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// The server's name in the audience of tokens.
    pub resource_server_id: Option<String>,
    /// The prefix of scopes for this server.
    pub scope_prefix: Option<String>,
    /// A claim with further scopes.
    pub additional_scopes_key: Option<String>,
    /// The claims that can name the user.
    pub preferred_username_claims: Vec<String>,
    /// Whether the audience is checked.
    pub verify_aud: bool,
    /// Keys, as a JSON Web Key Set.
    pub jwks_file: Option<PathBuf>,
    /// One public key, or a certificate with it.
    pub public_key_file: Option<PathBuf>,
}

impl Default for TokenOptions {
    fn default() -> Self {
        Self {
            resource_server_id: None,
            scope_prefix: None,
            additional_scopes_key: None,
            preferred_username_claims: Vec::new(),
            verify_aud: true,
            jwks_file: None,
            public_key_file: None,
        }
    }
}

/// The user backends, in their order.
///
/// # Errors
/// If something is missing or wrong: the option, the file, and why.
pub fn backends(names: &[BackendName], oauth2: &TokenOptions) -> Result<Vec<Backend>, String> {
    let backend = |name: &BackendName| match name {
        BackendName::Internal => Ok(Backend::Internal),
        BackendName::Tokens => oauth2.read().map(Backend::Tokens),
    };
    names.iter().map(backend).collect()
}

impl TokenOptions {
    fn read(&self) -> Result<TokenSettings, String> {
        let resource_server_id =
            self.resource_server_id.clone().ok_or("auth_backends with oauth2 need oauth2.resource_server_id")?;
        let mut keys = TokenKeys::default();
        if let Some(path) = &self.jwks_file {
            let wrong = |why| format!("oauth2.jwks_file {}: {why}", path.display());
            let json = std::fs::read(path).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
            keys.add_set(&json).map_err(wrong)?;
        }
        if let Some(path) = &self.public_key_file {
            let wrong = |why| format!("oauth2.public_key_file {}: {why}", path.display());
            public_key(path).and_then(|key| keys.add_public(&key)).map_err(wrong)?;
        }
        if self.jwks_file.is_none() && self.public_key_file.is_none() {
            return Err("auth_backends with oauth2 need oauth2.jwks_file or oauth2.public_key_file".to_owned());
        }
        Ok(TokenSettings {
            resource_server_id,
            scope_prefix: self.scope_prefix.clone(),
            additional_scopes_key: self.additional_scopes_key.clone(),
            preferred_username_claims: self.preferred_username_claims.clone(),
            verify_aud: self.verify_aud,
            keys,
        })
    }
}

/// A public key, or that of a certificate, from a file in PEM form.
fn public_key(path: &Path) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(&pem) {
        return Ok(key.to_vec());
    }
    let none = |_| "it contains no public key and no certificate in PEM form".to_owned();
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(none)?;
    let unreadable = |error: x509_cert::der::Error| format!("its certificate cannot be read: {error}");
    let certificate = Certificate::from_der(&certificate).map_err(unreadable)?;
    certificate.tbs_certificate().subject_public_key_info().to_der().map_err(unreadable)
}
