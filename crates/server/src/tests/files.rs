//! Stretches of files on plain and encrypted connections.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ferrymq_conformance::Certificates;
use ferrymq_model::{FileStretch, Limits, SentFile};
use ferrymq_testkit::Folder;
use ferrymq_wire::Outbox;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

use ferrymq_probe::{LineClient, Lines};

use super::in_process::InProcess;
use crate::{files::FILE_BYTES_AT_ONCE, peer::write_plain, process::Process, tls::TlsFiles};

const FILE_BYTES: usize = 5_000_000;

/// A file in the folder with this content.
fn file(folder: &Folder, content: &[u8]) -> File {
    let path = folder.0.join("sent");
    std::fs::write(&path, content).unwrap();
    File::open(path).unwrap()
}

/// A file that the kernel can send.
#[derive(Debug)]
struct OfTheSystem(File);

impl SentFile for OfTheSystem {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, position)
    }

    fn system_file(&self) -> Option<&dyn std::any::Any> {
        Some(&self.0)
    }
}

/// A file that must be read, such as one of a test's disk. It notes the longest read.
#[derive(Debug)]
struct OnlyRead(File, AtomicUsize);

impl SentFile for OnlyRead {
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()> {
        self.1.fetch_max(into.len(), Ordering::Relaxed);
        self.0.read_exact_at(into, position)
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// A server that sends stretches of a file, and how clients reach it.
struct Scene {
    server: InProcess,
    certificates: Option<Certificates>,
    _folder: Folder,
}

impl Scene {
    fn new(encrypted: bool, limits: Limits, file: impl FnOnce(&Folder) -> Arc<dyn SentFile>) -> Self {
        let folder = Folder::created();
        let file = file(&folder);
        let certificates = encrypted.then(|| Certificates::make(&folder.0).unwrap());
        let tls = certificates.as_ref().map(|certificates| {
            let files = TlsFiles {
                certificate_file: Some(certificates.path("server_certificate.pem")),
                key_file: Some(certificates.path("server_key.pem")),
                ..TlsFiles::default()
            };
            files.read().unwrap()
        });
        let server = InProcess::start(Process::new(), limits, tls, |_| {
            Arc::new(move || Box::new(Lines::with_file(file.clone())))
        });
        Self { server, certificates, _folder: folder }
    }

    /// A client that has a subscription of a queue of this name.
    fn client(&self, queue: &str) -> LineClient<Box<dyn Stream + Send>> {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        let stream: Box<dyn Stream + Send> = match &self.certificates {
            None => Box::new(stream),
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                let authority = CertificateDer::from_pem_file(certificates.path("ca_certificate.pem")).unwrap();
                roots.add(authority).unwrap();
                let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
            }
        };
        let mut client = LineClient::new(stream);
        client.send(&format!("declare {queue}\nsubscribe 1 {queue}\nwindow 1 1000"));
        client.expect(&["1 queue has 0", "1 subscribed"]);
        client
    }
}

/// Content in which no two stretches of a few bytes are equal.
fn content() -> Vec<u8> {
    (0_u32..).flat_map(u32::to_be_bytes).take(FILE_BYTES).collect()
}

/// Between and around the stretches there are copied bytes, and the second stretch directly follows the first one's end.
fn stretches_arrive(encrypted: bool, file: impl FnOnce(&Folder) -> Arc<dyn SentFile>) {
    let content = content();
    let scene = Scene::new(encrypted, Limits::default(), file);
    let mut client = scene.client("q");
    let stretches = [(3, 10), (0, FILE_BYTES), (1_000_001, 3_000_000), (FILE_BYTES - 1, 1), (7, 0)];
    for (position, bytes) in stretches {
        client.send(&format!("publish q abc\npublish q file {position} {bytes}\npublish q def"));
    }
    for (position, bytes) in stretches {
        client.expect(&["1 abc.", "here it is"]);
        assert!(client.bytes(bytes) == content[position..][..bytes], "{bytes} bytes from {position}");
        client.expect(&["", "that was it", "1 def."]);
    }
}

#[test]
fn the_kernel_sends_stretches_between_other_bytes() {
    stretches_arrive(false, |folder| Arc::new(OfTheSystem(file(folder, &content()))));
}

#[test]
fn stretches_are_encrypted_in_portions() {
    stretches_arrive(true, |folder| Arc::new(OfTheSystem(file(folder, &content()))));
}

#[test]
fn a_file_that_is_not_of_the_system_is_read_in_portions() {
    for encrypted in [false, true] {
        let mut read = None;
        stretches_arrive(encrypted, |folder| {
            let only_read = Arc::new(OnlyRead(file(folder, &content()), AtomicUsize::new(0)));
            read = Some(only_read.clone());
            only_read
        });
        assert_eq!(read.unwrap().1.load(Ordering::Relaxed), 64 << 10);
    }
}

/// The client has what is there, and then the end of its connection; others are served.
#[test]
fn a_file_that_is_too_short_ends_the_connection() {
    for encrypted in [false, true] {
        let scene = Scene::new(encrypted, Limits::default(), |folder| Arc::new(OfTheSystem(file(folder, &content()))));
        let (mut client, mut other) = (scene.client("q"), scene.client("other"));
        client.send(&format!("publish q file 0 {}\npublish q never", FILE_BYTES + 1));
        let got = client.until_closed();
        let got = got.strip_prefix(b"here it is\n").unwrap();
        assert!(got.len() <= FILE_BYTES && *got == content()[..got.len()], "{} bytes", got.len());
        // Another client's publish makes the server write to the connection.
        let mut slow = scene.client("slow");
        other.send(&format!("publish slow file {FILE_BYTES} 9"));
        assert_eq!(slow.until_closed(), b"here it is\n");
        other.send("publish other abc");
        other.expect(&["1 abc."]);
    }
}

/// Bytes in files count as backlog, so that deliveries stop.
#[test]
fn a_stretch_is_backlog() {
    const LONG: usize = 256 << 20;
    let scene = Scene::new(false, Limits::default(), |folder| {
        let file = file(folder, &[]);
        File::options().write(true).open(folder.0.join("sent")).unwrap().set_len(LONG as u64).unwrap();
        Arc::new(OfTheSystem(file))
    });
    let (mut client, mut other) = (scene.client("q"), scene.client("other"));
    client.send(&format!("publish q file 0 {LONG}"));
    client.expect(&["here it is"]);
    other.send("publish q waits\ndeclare q");
    other.expect(&["1 queue has 1"]);
    let mut left = LONG;
    while left > 0 {
        left -= client.bytes(left.min(1 << 20)).len();
    }
    client.expect(&["", "that was it", "1 wait", "1 s."]);
}

/// A client that reads fast would take a long file without end: so the connection's task looks at other things in between.
#[tokio::test]
async fn one_write_sends_only_some_of_a_long_file() {
    let (folder, listener) = (Folder::created(), TcpListener::bind("127.0.0.1:0").unwrap());
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    stream.writable().await.unwrap();
    let mut outbox = Outbox::default();
    let file = Arc::new(OfTheSystem(file(&folder, &content())));
    outbox.send_file(FileStretch { file, position: 0, bytes: FILE_BYTES });
    assert_eq!(write_plain(&mut outbox, &stream).unwrap(), FILE_BYTES_AT_ONCE);
    assert!(write_plain(&mut outbox, &stream).unwrap() > 0, "the socket would have taken more");
    drop(client);
}
