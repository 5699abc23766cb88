//! Certificates for tests of TLS: for an authority, a server, and clients with valid and invalid certificates. They are
//! made when they are needed.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd, string::Ia5String,
};

/// A folder with the files. `NAME_certificate.pem` and `NAME_key.pem` belong together. NAME is one of
/// * `ca`: the authority of the next four;
/// * `server`: the server, for both addresses of localhost;
/// * `client`: a client; `expired`: a client whose certificate has expired;
/// * `worker`: a client with the subject `O=Ferry, Inc` and `CN=worker`, and with alternative names;
/// * `stranger`: a client of another authority.
///
/// `client_certificate_broken.pem` and `client_key_broken.pem` do not belong together.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes all files in an existing folder.
    pub fn make(folder: &Path) -> Result<Self, String> {
        let certificates = Self { folder: folder.to_owned() };
        certificates.make_all().map_err(|why| format!("certificates: {why}"))?;
        Ok(certificates)
    }

    /// The path of one of the files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder with all files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn make_all(&self) -> Result<(), String> {
        let ca = authority("ferrymq's tests").map_err(|why| why.to_string())?;
        self.write("ca", &ca.1, ca.0.key())?;
        let other = authority("somebody else").map_err(|why| why.to_string())?;
        let client_key = self.sign("client", person("client", false), &ca.0)?;
        self.sign("expired", person("client", true), &ca.0)?;
        self.sign("worker", worker(), &ca.0)?;
        let stranger_key = self.sign("stranger", person("client", false), &other.0)?;
        let localhost = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        self.sign("server", CertificateParams::new(localhost), &ca.0)?;
        std::fs::copy(self.path("client_certificate.pem"), self.path("client_certificate_broken.pem"))
            .map_err(|why| why.to_string())?;
        debug_assert_ne!(client_key, stranger_key, "keys are random");
        std::fs::write(self.path("client_key_broken.pem"), stranger_key).map_err(|why| why.to_string())
    }

    /// Makes a key and a certificate. Returns the key in PEM form.
    fn sign(
        &self,
        name: &str,
        params: Result<CertificateParams, Error>,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<String, String> {
        let key = KeyPair::generate().map_err(|why| why.to_string())?;
        let certificate = params.and_then(|params| params.signed_by(&key, issuer)).map_err(|why| why.to_string())?;
        self.write(name, &certificate.pem(), &key)?;
        Ok(key.serialize_pem())
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> Result<(), String> {
        std::fs::write(self.path(&format!("{name}_certificate.pem")), certificate).map_err(|why| why.to_string())?;
        std::fs::write(self.path(&format!("{name}_key.pem")), key.serialize_pem()).map_err(|why| why.to_string())
    }
}

/// An authority, and its certificate in PEM form.
fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), Error> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), certificate))
}

fn worker() -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new([])?;
    // The default contains a common name, which would stay before the names that are added.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Ferry, Inc");
    params.distinguished_name.push(DnType::CommonName, "worker");
    let text = |text: &str| Ia5String::try_from(text);
    params.subject_alt_names = vec![
        SanType::DnsName(text("first.example")?),
        SanType::DnsName(text("second.example")?),
        SanType::Rfc822Name(text("worker@example.org")?),
    ];
    Ok(params)
}

fn person(name: &str, is_expired: bool) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    if is_expired {
        params.not_after = date_time_ymd(2001, 1, 1);
    }
    Ok(params)
}
