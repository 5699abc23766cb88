//! Runs the real binary as a process: starts it, waits until it is ready, and kills it.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The way in which a server is started again and again on the same data directory.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    folder: PathBuf,
    /// Options of `serve` besides the data directory and the listener.
    options: Vec<String>,
    /// A program that runs the binary, with its options, such as a tracer.
    under: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    data: PathBuf,
}

impl Launch {
    /// A launch with a new, empty data directory in the system's temporary folder.
    pub fn new(binary: &Path, options: &[&str]) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ferrymq-proof-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let data = folder.join("data");
        Ok(Self { binary: binary.to_owned(), folder, options, under: Vec::new(), environment: Vec::new(), data })
    }

    /// Runs the binary under another program.
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Puts the data directory into this folder.
    pub fn on(mut self, folder: &Path) -> Self {
        self.data = folder.join("data");
        self
    }

    /// Adds to the environment of the binary.
    pub fn with_environment(mut self, variables: Vec<(&'static str, OsString)>) -> Self {
        self.environment = variables;
        self
    }

    /// The folder with the log, and with the data directory unless [`on`](Self::on) has put it elsewhere.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// The text that all servers of this launch have written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Removes the folder. After a failure the folder is kept, so that people can look at it.
    pub fn clean(self) {
        // If the folder cannot be removed, it stays for the system's own cleaning.
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// Starts the process and does not wait for it.
    pub fn begin(&self) -> Result<Starting, String> {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"));
        let (program, before) = match self.under.split_first() {
            Some((program, rest)) => (Path::new(program), [rest, &[self.binary.display().to_string()]].concat()),
            None => (self.binary.as_path(), Vec::new()),
        };
        let mut child = Command::new(program)
            .args(before)
            .args(["serve", "--listen", "amqp=127.0.0.1:0", "--data-dir"])
            .arg(self.data())
            .args(&self.options)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|why| why.to_string())?)
            .spawn()
            .map_err(|why| format!("{}: {why}", program.display()))?;
        let stdout = child.stdout.take().expect("the command above has a pipe");
        Ok(Starting { child, stdout, begun: Instant::now() })
    }

    /// Starts the process and returns when the server prints `ready`.
    pub fn start(&self) -> Result<Server, String> {
        self.begin()?.ready().map_err(|why| format!("{why}\n--- the server's log\n{}---", self.log()))
    }
}

/// A process that has been started and may not be ready yet.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    stdout: ChildStdout,
    begun: Instant,
}

impl Starting {
    /// Waits for the line `ready`.
    pub fn ready(mut self) -> Result<Server, String> {
        let mut address = None;
        for line in BufReader::new(&mut self.stdout).lines().map_while(Result::ok) {
            if let Some(listening) = line.strip_prefix("listening amqp ") {
                address = Some(listening.parse().map_err(|why| format!("`{line}`: {why}"))?);
            } else if line == "ready" {
                let address = address.ok_or("the server is ready and has printed no address")?;
                return Ok(Server { child: self.child, address, took: self.begun.elapsed() });
            }
        }
        let ended = self.child.wait().map_err(|why| why.to_string())?;
        Err(format!("the server ended with {ended} before it was ready"))
    }

    /// Stops the process where it stands, which may be anywhere.
    pub fn pause(&self) -> Result<(), String> {
        pause(&self.child)
    }

    /// Kills the process. Returns whether it was killed before it was ready.
    pub fn kill(mut self) -> Result<bool, String> {
        end(&mut self.child)?;
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).map_err(|why| why.to_string())?;
        Ok(!said.lines().any(|line| line == "ready"))
    }
}

/// A server that is ready. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    took: Duration,
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long the start took.
    pub fn took(&self) -> Duration {
        self.took
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if the process has ended by itself.
    pub fn check_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait().map_err(|why| why.to_string())? {
            None => Ok(()),
            Some(ended) => Err(format!("the server ended with {ended}")),
        }
    }

    /// Stops the process where it stands, which may be anywhere.
    pub fn pause(&self) -> Result<(), String> {
        pause(&self.child)
    }

    /// Sends SIGTERM and waits for the end. Fails unless the exit code is 0.
    pub fn terminate(&mut self) -> Result<(), String> {
        let server = Pid::from_child(&self.child);
        kill_process(server, Signal::TERM).map_err(|why| format!("SIGTERM: {why}"))?;
        let ended = self.child.wait().map_err(|why| why.to_string())?;
        if ended.success() { Ok(()) } else { Err(format!("the server ended with {ended} when it was asked to stop")) }
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> Result<bool, String> {
        self.child.try_wait().map(|ended| ended.is_some()).map_err(|why| why.to_string())
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) -> Result<(), String> {
        end(&mut self.child)
    }

    /// Asks a server that runs under a tracer to stop, and waits for the tracer. Then the tracer's log is complete.
    pub fn stop_under_tracer(mut self) -> Result<(), String> {
        let tracer = self.child.id();
        let children = fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"));
        let children = children.map_err(|why| format!("the tracer's children: {why}"))?;
        let server = children.split_ascii_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        let server = server.ok_or("the tracer has no child")?;
        kill_process(server, Signal::TERM).map_err(|why| format!("SIGTERM: {why}"))?;
        let ended = self.child.wait().map_err(|why| why.to_string())?;
        if ended.success() { Ok(()) } else { Err(format!("the server ended with {ended} when it was asked to stop")) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // This fails only if the process has already ended.
        let _ = self.kill();
    }
}

fn pause(child: &Child) -> Result<(), String> {
    kill_process(Pid::from_child(child), Signal::STOP).map_err(|why| format!("SIGSTOP: {why}"))?;
    // A thread in a system call stops when the call is done.
    while !all_stand(child.id())? {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn all_stand(process: u32) -> Result<bool, String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).map_err(|why| format!("the server's threads: {why}"))?;
    for task in tasks.filter_map(Result::ok) {
        // A thread that has just ended is stopped, too.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 'Z' | 'X') | None) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn end(child: &mut Child) -> Result<(), String> {
    child.kill().map_err(|why| format!("SIGKILL: {why}"))?;
    child.wait().map(drop).map_err(|why| why.to_string())
}
