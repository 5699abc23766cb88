//! TLS: certificates and keys from files, and the records between a connection's outbox and its socket.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ferrymq_model::Name;
use ferrymq_wire::Outbox;
use parking_lot::Mutex;
use rustls::{
    CertificateError, RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;

use crate::{
    certificate::{LoginPart, LoginSource, SanType},
    files::{FILE_BYTES_AT_ONCE, with_portion},
};

/// The options: which certificate the server has, and which clients it accepts.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The server's certificate and the intermediate ones up to its authority, in PEM form.
    pub certificate_file: Option<PathBuf>,
    /// The key of the first of them.
    pub key_file: Option<PathBuf>,
    /// The authorities of clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients show certificates.
    pub client_certificates: ClientCertificates,
    /// The part of a client's certificate that names the user.
    pub login_from: LoginPart,
    /// If that is an alternative name: its type.
    pub login_san_type: SanType,
    /// The number of that alternative name, from 0.
    pub login_san_index: u32,
}

/// What all TLS connections share.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    login: LoginSource,
}

/// The certificates for new connections. They can be read again while the server runs.
#[derive(Debug)]
pub struct TlsSource {
    /// Held only to take or replace the pointer.
    current: Mutex<Arc<Tls>>,
}

impl TlsSource {
    /// Reads the files.
    ///
    /// # Errors
    /// As for [`TlsFiles::read`].
    pub fn new(files: &TlsFiles) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self { current: Mutex::new(files.read()?) }))
    }

    /// The current ones.
    pub fn current(&self) -> Arc<Tls> {
        self.current.lock().clone()
    }

    /// Reads the files again. Open connections keep the old ones.
    ///
    /// # Errors
    /// Like [`TlsFiles::read`]; then the old ones stay.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), String> {
        *self.current.lock() = files.read()?;
        Ok(())
    }
}

/// Whether the server asks clients for certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// It does not ask.
    #[default]
    None,
    /// It asks; a client that shows a certificate must show a valid one.
    Optional,
    /// A client without one is refused.
    Required,
}

impl TlsFiles {
    /// Whether TLS can be offered.
    pub fn are_given(&self) -> bool {
        self.certificate_file.is_some() || self.key_file.is_some()
    }

    /// Whether a certificate can identify a client.
    pub fn can_prove(&self) -> bool {
        self.client_certificates != ClientCertificates::None && self.login_from != LoginPart::None
    }

    /// Reads the files.
    ///
    /// # Errors
    /// If something is missing or wrong: the option, the file, and why.
    pub fn read(&self) -> Result<Arc<Tls>, String> {
        let (Some(certificate_file), Some(key_file)) = (&self.certificate_file, &self.key_file) else {
            return Err("TLS needs both tls.certificate_file and tls.key_file".into());
        };
        let chain = certificates("tls.certificate_file", certificate_file)?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| unreadable("tls.key_file", key_file, "private key", &error))?;
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| {
                let (certificate, key) = (certificate_file.display(), key_file.display());
                format!("tls.key_file {key} does not belong to tls.certificate_file {certificate}: {error}")
            })?;
        let login = LoginSource {
            part: self.login_from,
            san_type: self.login_san_type,
            san_index: self.login_san_index as usize,
        };
        Ok(Arc::new(Tls { config: Arc::new(config), login }))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
        if self.client_certificates == ClientCertificates::None && self.login_from != LoginPart::None {
            return Err(
                "tls.login_from needs tls.client_certificates: without it clients are not asked for a certificate"
                    .into(),
            );
        }
        let path = match (self.client_certificates, &self.client_ca_file) {
            (ClientCertificates::None, None) => return Ok(Arc::new(NoClientAuth)),
            (ClientCertificates::None, Some(_)) => {
                return Err("tls.client_ca_file has no effect while tls.client_certificates is none".into());
            }
            (_, None) => return Err("tls.client_certificates needs tls.client_ca_file".into()),
            (_, Some(path)) => path,
        };
        let wrong = |error: &dyn std::fmt::Display| format!("tls.client_ca_file {}: {error}", path.display());
        let mut authorities = RootCertStore::empty();
        for certificate in certificates("tls.client_ca_file", path)? {
            authorities.add(certificate).map_err(|error| wrong(&error))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone());
        let builder = match self.client_certificates {
            ClientCertificates::Required => builder,
            _ => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|error| wrong(&error))
    }
}

/// At least one certificate.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: &pem::Error| unreadable(option, path, "certificate", error);
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    if found.is_empty() { Err(failed(&pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn unreadable(option: &str, path: &Path, what: &str, error: &pem::Error) -> String {
    let why = match error {
        pem::Error::Io(error) => format!("it cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("it contains no {what} in PEM form"),
        other => format!("it is not in PEM form: {other:?}"),
    };
    format!("{option} {}: {why}", path.display())
}

/// The TLS records of a connection, between its outbox and its socket. It is under the outbox's lock, so that
/// records leave in the order in which they were made, whichever thread sends.
#[derive(Debug)]
pub struct Records {
    connection: Box<ServerConnection>,
    tls: Arc<Tls>,
}

impl Records {
    /// Begins a handshake.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn new(tls: Arc<Tls>) -> io::Result<Self> {
        let connection = ServerConnection::new(tls.config.clone()).map_err(io::Error::other)?;
        Ok(Self { connection: Box::new(connection), tls })
    }

    /// The user that the client's certificate names. The handshake has verified the certificate.
    ///
    /// # Errors
    /// If there is none: the reason, for the log.
    pub fn certificate_user(&self) -> Result<Name, String> {
        let shown = self.connection.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.ok_or("the client has shown no certificate")?;
        self.tls.login.user(certificate)
    }

    /// Whether there are records that the socket has not accepted.
    pub fn are_waiting(&self) -> bool {
        self.connection.wants_write()
    }

    /// Until the handshake is done, nothing else is encrypted.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The last record: nothing follows it.
    pub fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Encrypts what is in the outbox and writes as much as the socket accepts, but only some of a long file. Returns how
    /// many bytes are of files. Nothing more is encrypted while records wait, so that waiting bytes are in the outbox,
    /// where they are counted.
    ///
    /// # Errors
    /// If the socket is broken, or a file is shorter than was promised.
    pub fn write(&mut self, outbox: &mut Outbox, socket: &TcpStream) -> io::Result<usize> {
        let mut of_files = 0;
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut Socket(socket)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(of_files),
                    Err(error) => return Err(error),
                }
            }
            if outbox.is_empty() || of_files >= FILE_BYTES_AT_ONCE || self.connection.is_handshaking() {
                return Ok(of_files);
            }
            let mut writer = self.connection.writer();
            let taken = if let Some(stretch) = outbox.file() {
                with_portion(stretch, |bytes| writer.write(bytes)).inspect(|taken| of_files += taken)?
            } else {
                let mut slices = [io::IoSlice::new(&[]); super::peer::SLICES_MAX];
                let count = outbox.slices(&mut slices);
                writer.write_vectored(&slices[..count])?
            };
            outbox.advance(taken);
        }
    }

    /// Decrypts all of `records` into `into`. It must be larger by at least one record, because a part of one may
    /// have arrived before. Returns the number of bytes, and whether the peer has sent its last record.
    ///
    /// # Errors
    /// If the peer is not who it should be, or does not speak TLS. Then the last record says so to the peer.
    pub fn decrypt(&mut self, mut records: &[u8], into: &mut [u8]) -> io::Result<(usize, bool)> {
        let (mut made, mut ended) = (0, false);
        while !records.is_empty() && !ended {
            self.connection.read_tls(&mut records)?;
            let handshaking = self.connection.is_handshaking();
            let state = self.connection.process_new_packets().map_err(|error| refused(&error, handshaking))?;
            let bytes = state.plaintext_bytes_to_read();
            self.connection.reader().read_exact(&mut into[made..made + bytes])?;
            made += bytes;
            ended = state.peer_has_closed();
        }
        Ok((made, ended))
    }
}

/// A peer that does not speak TLS is the most frequent case, and the library has no plain text for it.
fn refused(error: &rustls::Error, handshaking: bool) -> io::Error {
    let why = match error {
        rustls::Error::InvalidMessage(_) if handshaking => format!("the client does not speak TLS ({error})"),
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) if is_version_1(other) => {
            "TLS: the client's certificate is of X.509 version 1, which lacks what must be checked; make one of \
             version 3, with openssl x509 -req by the option -extfile (docs/tls.md)"
                .to_owned()
        }
        _ => format!("TLS: {error}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The library does not show the texts of these reasons, only their names.
fn is_version_1(error: &rustls::OtherError) -> bool {
    format!("{error:?}").contains("UnsupportedCertVersion")
}

/// A socket that does not block, as a writer.
struct Socket<'a>(&'a TcpStream);

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
