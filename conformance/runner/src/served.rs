//! Our own binary, started on a free port with a data directory of its own, and ended when it is let go.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running `ferrymq serve` with a listener for AMQP.
#[derive(Debug)]
pub struct Served {
    binary: PathBuf,
    folder: PathBuf,
    child: Child,
    address: String,
}

impl Served {
    /// Starts the binary with an empty data directory, and returns when it says that it is ready.
    pub fn start(binary: &Path) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ferrymq-served-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let (child, address) = launch(binary, &folder, "127.0.0.1:0")?;
        Ok(Self { binary: binary.to_owned(), folder, child, address })
    }

    /// Ends the server without warning (SIGKILL) and starts it again on its data and its address.
    pub fn kill_and_restart(&mut self) -> Result<(), String> {
        self.end();
        (self.child, self.address) = launch(&self.binary, &self.folder, &self.address)?;
        Ok(())
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the server has written to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        // Both fail only where the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
        // A folder that cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn launch(binary: &Path, folder: &Path, address: &str) -> Result<(Child, String), String> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log"));
    let mut child = Command::new(binary)
        .arg("serve")
        .args(["--listen", &format!("amqp={address}")])
        .arg("--data-dir")
        .arg(folder.join("data"))
        .stdout(Stdio::piped())
        .stderr(log.map_err(|why| why.to_string())?)
        .spawn()
        .map_err(|why| format!("{}: {why}", binary.display()))?;
    let stdout = child.stdout.take().expect("the pipe was asked for above");
    let mut listening = String::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if let Some(address) = line.strip_prefix("listening amqp ") {
            address.clone_into(&mut listening);
        } else if line == "ready" {
            return Ok((child, listening));
        }
    }
    let ended = child.wait().map_err(|why| why.to_string())?;
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    Err(format!("{} ended with {ended} before it was ready\n{log}", binary.display()))
}
