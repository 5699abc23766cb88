//! The servers to measure: started on free loopback ports with new data directories, and stopped when they are
//! dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Debian's path of RabbitMQ's own start script, which does not need the user `rabbitmq`.
const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// RabbitMQ takes about five seconds on two cores; a machine under load may take longer.
const START_SECONDS_MAX: u64 = 60;
/// The maximum time that FerryMQ may take to stop.
const END_SECONDS_MAX: u64 = 60;

#[derive(Debug)]
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    /// The process that does the work; it may be another one than the one that was started.
    pub pid: u32,
    /// The address of its health checks.
    pub health: Option<SocketAddr>,
    child: Child,
    /// The binary and the folder of a server that can be started again.
    again: Option<(PathBuf, PathBuf)>,
}

impl Server {
    /// Starts this checkout's release build, with its default configuration except for folder and port.
    pub fn ferrymq(binary: &Path, folder: &Path) -> Result<Self, String> {
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "amqp=127.0.0.1:0", "--listen", "http=127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| format!("{}: {why}", binary.display()))?;
        let stdout = child.stdout.take().expect("the pipe was asked for above");
        let again = Some((binary.to_owned(), folder.to_owned()));
        let mut server = Self { name: "FerryMQ", port: 0, pid: child.id(), health: None, child, again };
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|why| format!("ferrymq: {why}"))?;
            if let Some(address) = line.strip_prefix("listening amqp ") {
                let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
                server.port = port.ok_or_else(|| format!("ferrymq announced `{line}`"))?;
            }
            if let Some(address) = line.strip_prefix("listening http ") {
                server.health = address.parse().ok();
            }
            if line == "ready" {
                return Ok(server);
            }
        }
        Err("ferrymq ended before it was ready; its own words are above".to_owned())
    }

    /// Starts RabbitMQ with its default configuration except for folder and ports. `None` if it is not installed.
    pub fn rabbitmq(folder: &Path) -> Result<Option<Self>, String> {
        if !Path::new(RABBITMQ).exists() {
            return Ok(None);
        }
        let broken = |why| format!("{}: {why}", folder.display());
        fs::create_dir_all(folder).map_err(broken)?;
        fs::write(folder.join("plugins"), "[].").map_err(broken)?;
        let (port, distribution_port) = (free_port()?, free_port()?);
        let log = fs::File::create(folder.join("output")).map_err(broken)?;
        let child = Command::new(RABBITMQ)
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("ferrymq-bench-{}@localhost", std::process::id()))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", distribution_port.to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("no-configuration"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("no-environment"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(broken)?)
            .stderr(log)
            .spawn()
            .map_err(|why| format!("{RABBITMQ}: {why}"))?;
        let mut server = Self { name: "RabbitMQ", port, pid: child.id(), health: None, child, again: None };
        server.wait_for_port(&folder.join("output"))?;
        server.pid = fs::read_to_string(folder.join("pid"))
            .map_err(broken)?
            .trim()
            .parse()
            .map_err(|_| format!("no process id in {}/pid", folder.display()))?;
        Ok(Some(server))
    }

    /// Whether it is FerryMQ, which can be started again quickly.
    pub fn is_ours(&self) -> bool {
        self.again.is_some()
    }

    /// Asks FerryMQ to stop, waits for the end, and starts it again with an empty folder. Returns how long it took to
    /// stop.
    pub fn end_and_start_again(&mut self) -> Result<Duration, String> {
        let (binary, folder) = self.again.clone().ok_or_else(|| format!("{} is not started again", self.name))?;
        let asked = Instant::now();
        self.terminate();
        while self.child.try_wait().map_err(|why| format!("{}: {why}", self.name))?.is_none() {
            if asked.elapsed().as_secs() > END_SECONDS_MAX {
                return Err(format!("{} did not end within {END_SECONDS_MAX} s after SIGTERM", self.name));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let took = asked.elapsed();
        fs::remove_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        *self = Self::ferrymq(&binary, &folder)?;
        Ok(took)
    }

    /// With SIGTERM: RabbitMQ leaves helper processes behind when it is killed.
    fn terminate(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.pid)]).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _already_gone = self.child.kill();
        }
    }

    fn wait_for_port(&mut self, log: &Path) -> Result<(), String> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().map_err(|why| format!("{}: {why}", self.name))?;
            if ended.is_some() || started.elapsed().as_secs() > START_SECONDS_MAX {
                return Err(format!("{} did not start; see {}", self.name, log.display()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.terminate();
        let _its_end_is_all_we_want = self.child.wait();
    }
}

/// A port that was free a moment ago. RabbitMQ cannot choose a port itself.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|why| format!("no free port: {why}"))?;
    Ok(listener.local_addr().map_err(|why| why.to_string())?.port())
}
