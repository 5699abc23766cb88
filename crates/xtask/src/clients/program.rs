//! One program that uses a real client, with its server.
//!
//! Programs that start the server's binary themselves find it in FERRYMQ_BIN. For the others a server is started
//! here; FERRYMQ_AT has its address, FERRYMQ_TLS_AT that of its TLS listener, and FERRYMQ_CERTIFICATES the folder
//! with the certificates (`conformance/runner/src/certificates.rs` lists them). If FERRYMQ_MAY_KILL is set, a
//! program may print `kill the server` on its own line: then the server is killed and started again on its data and
//! its port, and the program reads `ready`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ferrymq_conformance::{Certificates, Served};

use super::Against;
use super::scratch::Scratch;
use crate::workspace::forget_our_package;

/// The exit code of a program that cannot run against this server.
const SKIPPED: i32 = 77;

/// What a program prints to have its server killed.
const KILL: &str = "kill the server";

/// A program that still runs after this is stuck, and is killed; without an error none takes nearly as long.
const STUCK_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Program {
    name: String,
    command: PathBuf,
    arguments: Vec<OsString>,
    folder: Option<PathBuf>,
    variables: Vec<(&'static str, OsString)>,
    starts_server: bool,
    /// Further variables with the server's address, besides FERRYMQ_AT.
    address_variables: fn(&Place<'_>) -> Vec<(&'static str, String)>,
}

/// Where a server is.
#[derive(Debug)]
pub struct Place<'a> {
    pub host: &'a str,
    pub port: &'a str,
    /// Empty without a TLS listener.
    pub tls_port: &'a str,
}

#[derive(Debug)]
pub enum Failure {
    /// With the reason.
    CannotRunHere(String),
    Wrong(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

impl Program {
    /// A program that starts the binary itself.
    pub fn with_its_own_server(name: &str, command: PathBuf) -> Self {
        Self { starts_server: true, ..Self::new(name, command) }
    }

    /// A program for which a server is started.
    pub fn new(name: &str, command: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            command: command.into(),
            arguments: Vec::new(),
            folder: None,
            variables: Vec::new(),
            starts_server: false,
            address_variables: |_| Vec::new(),
        }
    }

    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Its working folder.
    pub fn inside(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    pub fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub fn told_by(mut self, variables: fn(&Place<'_>) -> Vec<(&'static str, String)>) -> Self {
        self.address_variables = variables;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it to its end; returns its output.
    pub fn run(&self, against: &Against, certificates: &Certificates) -> Result<String, Failure> {
        let scratch = Scratch::new()?;
        let mut command = self.command();
        command.env("TMPDIR", scratch.folder());
        command.env("FERRYMQ_CERTIFICATES", certificates.folder());
        let mut served = None;
        match against {
            Against::Binary(binary) if self.starts_server => {
                command.env("FERRYMQ_BIN", binary);
            }
            Against::Binary(binary) => {
                let server = served.insert(Served::start_secure(binary, certificates)?);
                self.tell(&mut command, server.address(), server.secure_address());
                command.env("FERRYMQ_MAY_KILL", "true");
            }
            Against::Address(address) => self.tell(&mut command, address, None),
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|why| format!("{}: {why}", self.command.display()))?;
        let said = converse(&mut child, served.as_mut())?;
        let status = child.wait().map_err(|why| why.to_string())?;
        match status.code() {
            Some(0) => Ok(said),
            Some(SKIPPED) => Err(Failure::CannotRunHere(reason_of(&said))),
            _ => {
                let log =
                    served.map_or_else(String::new, |served| format!("--- the server's log\n{}---", served.log()));
                Err(Failure::Wrong(format!("{status}\n{said}{log}")))
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command);
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        forget_our_package(&mut command);
        for variable in ["FERRYMQ_BIN", "FERRYMQ_AT", "FERRYMQ_TLS_AT", "FERRYMQ_MAY_KILL"] {
            command.env_remove(variable);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }

    fn tell(&self, command: &mut Command, address: &str, secure: Option<&str>) {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5672"));
        let tls_port = secure.and_then(|secure| secure.rsplit_once(':')).map_or("", |(_, port)| port);
        command.env("FERRYMQ_AT", address).envs(secure.map(|secure| ("FERRYMQ_TLS_AT", secure)));
        command.envs((self.address_variables)(&Place { host, port, tls_port }));
    }
}

/// Why a program was skipped, in its own words.
fn reason_of(said: &str) -> String {
    let reason = said.lines().find_map(|line| line.strip_prefix("skipped: "));
    reason.unwrap_or("it does not say why").to_owned()
}

/// Collects the program's output until it ends, and restarts its server when it asks for that.
fn converse(child: &mut Child, mut served: Option<&mut Served>) -> Result<String, String> {
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take().expect("the pipe was asked for"), sender.clone());
    forward(child.stderr.take().expect("the pipe was asked for"), sender);
    let mut answers = child.stdin.take().expect("the pipe was asked for");
    let stuck = Instant::now() + STUCK_AFTER;
    let mut said = String::new();
    loop {
        match lines.recv_timeout(stuck.saturating_duration_since(Instant::now())) {
            Ok(line) if line == KILL => {
                served.as_mut().ok_or("it wants a server killed that is not ours")?.kill_and_restart()?;
                // A program that does not wait for the answer has ended, and prints the reason itself.
                let _ = writeln!(answers, "ready");
            }
            Ok(line) => {
                said.push_str(&line);
                said.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(said),
            Err(RecvTimeoutError::Timeout) => {
                // This fails only if the program has ended already.
                let _ = child.kill();
                return Err(format!("stuck: it still ran after {} s\n{said}", STUCK_AFTER.as_secs()));
            }
        }
    }
}

/// Sends each line to the channel, until the pipe is closed.
fn forward(pipe: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}
