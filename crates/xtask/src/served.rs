//! Our own binary, started on a free port with a data directory of its own, and ended when it is let go.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::workspace::Workspace;

#[derive(Debug)]
pub struct Served {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Served {
    /// Starts `ferrymq serve` with one listener and returns when it says that it is ready.
    pub fn start(workspace: &Workspace, protocol: &str) -> Result<Self, String> {
        let folder = workspace.target.join("tmp").join(format!("served-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let log = std::fs::File::create(folder.join("log")).map_err(|why| why.to_string())?;
        let mut child = Command::new(workspace.binary("ferrymq"))
            .arg("serve")
            .args(["--listen", &format!("{protocol}=127.0.0.1:0")])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|why| format!("ferrymq serve: {why}"))?;
        let stdout = child.stdout.take().expect("the pipe was asked for above");
        let mut served = Self { child, address: String::new(), folder };
        let listening = format!("listening {protocol} ");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix(&listening) {
                address.clone_into(&mut served.address);
            } else if line == "ready" {
                return Ok(served);
            }
        }
        let log = std::fs::read_to_string(served.folder.join("log")).unwrap_or_default();
        Err(format!("ferrymq serve ended before it was ready\n{log}"))
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only where the process or its folder is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
