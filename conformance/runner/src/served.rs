//! Starts FerryMQ's binary on free ports with its own data directory, and ends it when the value is dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Certificates;

/// A running `ferrymq serve` with a listener for AMQP. With certificates it also has a listener for AMQP with TLS.
#[derive(Debug)]
pub struct Served {
    binary: PathBuf,
    folder: PathBuf,
    certificates: Option<Certificates>,
    definitions: Option<PathBuf>,
    child: Child,
    addresses: Addresses,
}

/// The addresses of its listeners, each `HOST:PORT`.
#[derive(Debug, Clone)]
struct Addresses {
    amqp: String,
    amqps: String,
}

impl Served {
    /// Starts the binary with an empty data directory. Returns when the server prints `ready`.
    pub fn start(binary: &Path) -> Result<Self, String> {
        Self::start_with(binary, None, None)
    }

    /// The same, with the users, vhosts and policies of a definitions file.
    pub fn start_defined(binary: &Path, definitions: &Path) -> Result<Self, String> {
        Self::start_with(binary, None, Some(definitions.to_owned()))
    }

    /// The same, with TLS. Clients need no certificates, but the server knows the authority of their certificates.
    pub fn start_secure(binary: &Path, certificates: &Certificates) -> Result<Self, String> {
        Self::start_with(binary, Some(certificates.clone()), None)
    }

    fn start_with(
        binary: &Path,
        certificates: Option<Certificates>,
        definitions: Option<PathBuf>,
    ) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ferrymq-served-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let any = || "127.0.0.1:0".to_owned();
        let wanted = Addresses { amqp: any(), amqps: any() };
        let (child, addresses) = launch(binary, &folder, certificates.as_ref(), definitions.as_deref(), &wanted)?;
        Ok(Self { binary: binary.to_owned(), folder, certificates, definitions, child, addresses })
    }

    /// Kills the server with SIGKILL, and starts it again with the same data and the same addresses.
    pub fn kill_and_restart(&mut self) -> Result<(), String> {
        self.end();
        let (certificates, definitions) = (self.certificates.as_ref(), self.definitions.as_deref());
        (self.child, self.addresses) = launch(&self.binary, &self.folder, certificates, definitions, &self.addresses)?;
        Ok(())
    }

    /// The address as `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.addresses.amqp
    }

    /// The address for connections with TLS as `HOST:PORT`.
    pub fn secure_address(&self) -> Option<&str> {
        self.certificates.is_some().then_some(&self.addresses.amqps)
    }

    /// The text that the server has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        // Both fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
        // If the folder cannot be removed, it stays for the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn launch(
    binary: &Path,
    folder: &Path,
    certificates: Option<&Certificates>,
    definitions: Option<&Path>,
    wanted: &Addresses,
) -> Result<(Child, Addresses), String> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log"));
    let mut command = Command::new(binary);
    command.arg("serve").args(["--listen", &format!("amqp={}", wanted.amqp)]);
    if let Some(certificates) = certificates {
        command.args(["--listen", &format!("amqps={}", wanted.amqps)]);
        command.arg("--tls-certificate-file").arg(certificates.path("server_certificate.pem"));
        command.arg("--tls-key-file").arg(certificates.path("server_key.pem"));
        command.arg("--tls-client-ca-file").arg(certificates.path("ca_certificate.pem"));
        command.args(["--tls-client-certificates", "optional"]);
    }
    if let Some(definitions) = definitions {
        // Some scripts consume events.
        command.arg("--definitions").arg(definitions).args(["--events", "yes"]);
    }
    let mut child = command
        .arg("--data-dir")
        .arg(folder.join("data"))
        .stdout(Stdio::piped())
        .stderr(log.map_err(|why| why.to_string())?)
        .spawn()
        .map_err(|why| format!("{}: {why}", binary.display()))?;
    let stdout = child.stdout.take().expect("the command above has a pipe");
    let mut listening = wanted.clone();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(address) = line.strip_prefix("listening amqp ") {
            address.clone_into(&mut listening.amqp);
        } else if let Some(address) = line.strip_prefix("listening amqps ") {
            address.clone_into(&mut listening.amqps);
        } else if line == "ready" {
            return Ok((child, listening));
        }
    }
    let ended = child.wait().map_err(|why| why.to_string())?;
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    Err(format!("{} ended with {ended} before it was ready\n{log}", binary.display()))
}
