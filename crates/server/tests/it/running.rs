//! A server on free ports with its own data directory.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

pub use ferrymq_testkit::Folder;

/// The binary under test, with nothing configured.
pub fn ferrymq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferrymq"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FERRYMQ_")) {
        command.env_remove(name);
    }
    command
}

/// A server that is ready.
pub struct Running {
    process: Child,
    lines: Vec<String>,
    /// Its log file, if it was started with one.
    log: Option<PathBuf>,
}

impl Running {
    pub fn start(data: &Folder) -> Self {
        Self::start_with(
            data,
            ferrymq().args(["serve", "--listen", "amqp=127.0.0.1:0", "--listen", "http=127.0.0.1:0"]),
        )
    }

    /// A server with the options of this command.
    pub fn start_with(data: &Folder, command: &mut Command) -> Self {
        let mut process = command.arg("--data-dir").arg(data.0.join("data")).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let mut lines = Vec::new();
        for line in out.lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap() == "ready" {
                break;
            }
        }
        Self { process, lines, log: None }
    }

    /// The same, with a log that can be read.
    pub fn start_logged(data: &Folder, command: &mut Command) -> Self {
        let log = data.0.join("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut running = Self::start_with(data, command.stderr(Stdio::from(file)));
        running.log = Some(log);
        running
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.as_ref().expect("it was started with a log")).unwrap()
    }

    /// Waits until the log contains this; returns the log. The limit is for failures, not for successes.
    pub fn logged(&self, text: &str) -> String {
        let began = std::time::Instant::now();
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(began.elapsed().as_secs() < 60, "the log never has `{text}`: {log}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The address of a protocol.
    pub fn address(&self, protocol: &str) -> &str {
        let opening = format!("listening {protocol} ");
        let found = self.lines.iter().find_map(|line| line.strip_prefix(&opening));
        found.unwrap_or_else(|| panic!("{protocol} is not in {:?}", self.lines))
    }

    /// The status line and the body of an answer.
    pub fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address("http")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The memory of the process that is not of files, in bytes: counted page by page.
    pub fn anonymous_bytes(&self) -> usize {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    /// Sends a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: a program of that name is not on every machine.
        let kill = format!("kill -s {name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.process.wait().unwrap()
    }

    /// The same; returns the whole log.
    pub fn terminate_logged(self) -> String {
        let log = self.log.clone().expect("it was started with a log");
        assert!(self.terminate().success());
        std::fs::read_to_string(log).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if the test came to its end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a server that cannot start.
pub fn fails(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}
