//! The real binary as a process: started, watched until it is ready, and killed without warning.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How a server is started, again and again on the same data directory.
#[derive(Debug)]
pub struct Launch {
    binary: PathBuf,
    folder: PathBuf,
    /// Options of `serve` besides the data directory and the listener.
    options: Vec<String>,
    /// A program that runs the binary, with its options: a tracer.
    under: Vec<String>,
}

impl Launch {
    /// A launch with an empty data directory of its own below the system's temporary folder.
    pub fn new(binary: &Path, options: &[&str]) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ferrymq-proof-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Ok(Self { binary: binary.to_owned(), folder, options, under: Vec::new() })
    }

    /// Runs the binary under another program.
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Where the data directory and the log are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What all servers of this launch have written to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Takes the folder away, when nobody needs it to understand a failure.
    pub fn clean(self) {
        // What cannot be removed is left to the system's own cleaning.
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
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.map_err(|why| why.to_string())?)
            .spawn()
            .map_err(|why| format!("{}: {why}", program.display()))?;
        let stdout = child.stdout.take().expect("the pipe was asked for above");
        Ok(Starting { child, stdout, begun: Instant::now() })
    }

    /// Starts the process and returns when it says that it is ready.
    pub fn start(&self) -> Result<Server, String> {
        self.begin()?.ready().map_err(|why| format!("{why}\n--- the server's log\n{}---", self.log()))
    }
}

/// A process that has been started and may not be ready.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    stdout: ChildStdout,
    begun: Instant,
}

impl Starting {
    /// Waits for the line that ends the start.
    pub fn ready(mut self) -> Result<Server, String> {
        let mut address = None;
        for line in BufReader::new(&mut self.stdout).lines().map_while(Result::ok) {
            if let Some(listening) = line.strip_prefix("listening amqp ") {
                address = Some(listening.parse().map_err(|why| format!("`{line}`: {why}"))?);
            } else if line == "ready" {
                let address = address.ok_or("the server is ready and said no address")?;
                return Ok(Server { child: self.child, address, took: self.begun.elapsed() });
            }
        }
        let ended = self.child.wait().map_err(|why| why.to_string())?;
        Err(format!("the server ended with {ended} before it was ready"))
    }

    /// Kills the process; says whether that was before it was ready.
    pub fn kill(mut self) -> Result<bool, String> {
        end(&mut self.child)?;
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).map_err(|why| why.to_string())?;
        Ok(!said.lines().any(|line| line == "ready"))
    }
}

/// A server that is ready. It is killed when it is let go.
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

    /// SIGKILL, as near to a power cut as a process can come.
    pub fn kill(&mut self) -> Result<(), String> {
        end(&mut self.child)
    }

    /// Asks the server that runs under a tracer to stop, and waits for the tracer, whose log is then whole.
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
        // It fails only where the process is gone already, which is what is wanted.
        let _ = self.kill();
    }
}

fn end(child: &mut Child) -> Result<(), String> {
    child.kill().map_err(|why| format!("SIGKILL: {why}"))?;
    child.wait().map(drop).map_err(|why| why.to_string())
}
