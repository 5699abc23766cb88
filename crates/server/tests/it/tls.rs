//! TLS on its own port: which clients get in, which do not, and the errors about files that cannot be used.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::Arc,
};

use ferrymq_conformance::Certificates;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::running::{Folder, Running, fails, ferrymq};

/// A folder with certificates, which is also the server's.
struct Scene {
    folder: Folder,
    certificates: Certificates,
}

impl Scene {
    fn new() -> Self {
        let folder = Folder::created();
        let certificates = Certificates::make(&folder.0).unwrap();
        Self { folder, certificates }
    }

    /// A server with the valid certificate and these other options.
    fn serve(&self, options: &[&str]) -> Running {
        let mut command = self.command("server_certificate.pem", "server_key.pem");
        Running::start_with(&self.folder, command.args(options))
    }

    fn command(&self, certificate: &str, key: &str) -> Command {
        let mut command = ferrymq();
        command.args(["--listen", "amqps=127.0.0.1:0", "--listen", "amqp=127.0.0.1:0"]);
        command.arg("--tls-certificate-file").arg(self.certificates.path(certificate));
        command.arg("--tls-key-file").arg(self.certificates.path(key));
        command
    }

    /// A server that asks its clients for certificates.
    fn serve_asking(&self, whether: &str) -> Running {
        let ca = self.certificates.path("ca_certificate.pem");
        self.serve(&["--tls-client-ca-file", ca.to_str().unwrap(), "--tls-client-certificates", whether])
    }

    /// A client that trusts the authority, and shows the certificate of `name` if there is one.
    fn client(&self, server: &Running, name: Option<&str>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificates.path("ca_certificate.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let file = |name: &str, what: &str| self.certificates.path(&format!("{name}_{what}.pem"));
        let config = match name {
            None => config.with_no_client_auth(),
            Some(name) => {
                let chain = vec![CertificateDer::from_pem_file(file(name, "certificate")).unwrap()];
                let key = PrivateKeyDer::from_pem_file(file(name, "key")).unwrap();
                // Without the client's own checks: some of these certificates are invalid on purpose.
                let certified = CertifiedKey::new(chain, ring::sign::any_supported_type(&key).unwrap());
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        StreamOwned::new(connection, TcpStream::connect(server.address("amqps")).unwrap())
    }

    /// Whether a client gets as far as `connection.start`.
    fn gets_in(&self, server: &Running, name: Option<&str>) -> io::Result<()> {
        greeted(&mut self.client(server, name))
    }
}

/// Sends the protocol header and reads the beginning of `connection.start`.
fn greeted(stream: &mut (impl io::Read + io::Write)) -> io::Result<()> {
    stream.write_all(b"AMQP\0\0\x09\x01")?;
    let mut head = [0; 11];
    stream.read_exact(&mut head)?;
    assert_eq!((head[0], &head[1..3], &head[7..11]), (1, &[0, 0][..], &[0, 10, 0, 10][..]));
    Ok(())
}

/// Reads until the server closes the connection; returns what arrived.
fn all_that_comes(stream: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    match stream.read_to_end(&mut came) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => came,
    }
}

#[test]
fn amqp_is_spoken_under_tls() {
    let scene = Scene::new();
    let server = scene.serve(&[]);
    scene.gets_in(&server, None).unwrap();
    // The plain port still works without TLS.
    greeted(&mut TcpStream::connect(server.address("amqp")).unwrap()).unwrap();
    assert!(server.terminate().success());
}

#[test]
fn a_certificate_that_is_required_must_be_shown_and_good() {
    let scene = Scene::new();
    let server = scene.serve_asking("required");
    scene.gets_in(&server, Some("client")).unwrap();
    for bad in [None, Some("expired"), Some("stranger")] {
        assert!(scene.gets_in(&server, bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_certificate_that_is_optional_must_be_good_if_it_is_shown() {
    let scene = Scene::new();
    let server = scene.serve_asking("optional");
    for good in [None, Some("client")] {
        scene.gets_in(&server, good).unwrap();
    }
    for bad in ["expired", "stranger"] {
        assert!(scene.gets_in(&server, Some(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_plain_client_gets_an_alert_and_no_greeting() {
    let scene = Scene::new();
    let server = scene.serve(&[]);
    let mut client = TcpStream::connect(server.address("amqps")).unwrap();
    client.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let came = all_that_comes(&mut client);
    // A record of the type alert, and nothing that looks like AMQP.
    assert_eq!(came.first(), Some(&21), "{came:?}");
    scene.gets_in(&server, None).unwrap();
}

#[test]
fn tls_on_the_plain_port_gets_the_protocol_header() {
    let scene = Scene::new();
    let server = scene.serve(&[]);
    let mut client = scene.client(&server, None);
    client.sock = TcpStream::connect(server.address("amqp")).unwrap();
    let error = client.write_all(b"AMQP\0\0\x09\x01").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "AMQP is not TLS: {error}");
}

#[test]
fn a_handshake_that_stalls_is_ended() {
    let scene = Scene::new();
    let server = scene.serve(&["--limits-handshake-ms-max", "100"]);
    let mut silent = TcpStream::connect(server.address("amqps")).unwrap();
    // An alert that says that nothing more will come.
    assert_eq!(all_that_comes(&mut silent), [21, 3, 3, 0, 2, 1, 0]);
    let mut halfway = TcpStream::connect(server.address("amqps")).unwrap();
    halfway.write_all(&[22, 3, 1, 2, 0, 1, 0]).unwrap();
    all_that_comes(&mut halfway);
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let scene = Scene::new();
    let path = |name: &str| scene.certificates.path(name).display().to_string();
    std::fs::write(path("empty"), "").unwrap();
    let cases: [(&str, &str, String); 4] = [
        (
            "missing.pem",
            "server_key.pem",
            format!("tls.certificate_file {}: it cannot be read: No such file", path("missing.pem")),
        ),
        (
            "empty",
            "server_key.pem",
            format!("tls.certificate_file {}: it contains no certificate in PEM form", path("empty")),
        ),
        (
            "server_certificate.pem",
            "empty",
            format!("tls.key_file {}: it contains no private key in PEM form", path("empty")),
        ),
        (
            "server_certificate.pem",
            "client_key.pem",
            format!(
                "tls.key_file {} does not belong to tls.certificate_file {}",
                path("client_key.pem"),
                path("server_certificate.pem")
            ),
        ),
    ];
    for (certificate, key, expected) in cases {
        not_started(&mut scene.command(certificate, key), &scene.folder.0, &expected);
    }
}

#[test]
fn certificates_are_read_again_on_sighup() {
    let (scene, renewed) = (Scene::new(), Scene::new());
    let mut command = scene.command("server_certificate.pem", "server_key.pem");
    let server = Running::start_logged(&scene.folder, &mut command);
    scene.gets_in(&server, None).unwrap();
    assert!(renewed.gets_in(&server, None).is_err(), "it trusts another authority");
    for name in ["server_certificate.pem", "server_key.pem"] {
        std::fs::copy(renewed.certificates.path(name), scene.certificates.path(name)).unwrap();
    }
    server.signal("HUP");
    server.logged("certificates were read again");
    renewed.gets_in(&server, None).unwrap();
    // Files that cannot be used change nothing.
    std::fs::write(scene.certificates.path("server_key.pem"), "").unwrap();
    server.signal("HUP");
    server.logged("certificates stay as they are: tls.key_file");
    renewed.gets_in(&server, None).unwrap();
}

/// Like those of `openssl x509 -req` without `-extfile`.
#[test]
fn a_certificate_of_version_1_is_refused_with_what_to_do() {
    let scene = Scene::new();
    for (name, pem) in [
        ("old_certificate.pem", include_str!("version_1/client_certificate.pem")),
        ("old_key.pem", include_str!("version_1/client_key.pem")),
        ("old_ca.pem", include_str!("version_1/ca.pem")),
    ] {
        std::fs::write(scene.certificates.path(name), pem).unwrap();
    }
    let mut command = scene.command("server_certificate.pem", "server_key.pem");
    command.args(["--tls-client-certificates", "required", "--tls-client-ca-file"]);
    let server = Running::start_logged(&scene.folder, command.arg(scene.certificates.path("old_ca.pem")));
    assert!(scene.gets_in(&server, Some("old")).is_err());
    server.logged("the client's certificate is of X.509 version 1");
}

#[test]
fn options_that_do_not_fit_together_stop_the_start() {
    let scene = Scene::new();
    let data = &scene.folder.0;
    not_started(
        ferrymq().args(["--listen", "amqps=127.0.0.1:0"]),
        data,
        "amqps needs tls.certificate_file and tls.key_file",
    );
    let good = || scene.command("server_certificate.pem", "server_key.pem");
    not_started(good().args(["--tls-client-certificates", "required"]), data, "needs tls.client_ca_file");
    not_started(good().args(["--tls-login-from", "common_name"]), data, "needs tls.client_certificates");
    let mut plain = ferrymq();
    plain.args(["--listen", "amqp=127.0.0.1:0"]);
    plain.arg("--tls-certificate-file").arg(scene.certificates.path("server_certificate.pem"));
    plain.arg("--tls-key-file").arg(scene.certificates.path("server_key.pem"));
    not_started(&mut plain, data, "add one, such as --listen amqps=127.0.0.1:5671");
    let ca = scene.certificates.path("ca_certificate.pem");
    not_started(
        good().arg("--tls-client-ca-file").arg(ca),
        data,
        "has no effect while tls.client_certificates is none",
    );
}

#[track_caller]
fn not_started(command: &mut Command, folder: &Path, expected: &str) {
    let (code, log) = fails(command.arg("--data-dir").arg(folder.join("data")));
    assert_eq!(code, Some(1));
    assert!(log.contains(expected), "{log}");
}
