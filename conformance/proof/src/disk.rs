//! A disk that loses its power: ext4 on a loop device, whose backing file is copied while the server stands still. What is only
//! in the page cache is not in the copy.
//!
//! The mounts are made in a mount namespace of this process's own ([`own_namespace`]), so they vanish with it, however it ends.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Large enough for what a round leaves and writes.
const IMAGE_BYTES: u64 = 640 << 20;
/// Set in the process that has a namespace of its own.
const IN_NAMESPACE: &str = "FERRYMQ_PROOF_NAMESPACE";

/// Runs this program again in a mount namespace of its own; gives its exit code. Nothing in that process itself.
pub fn own_namespace() -> Result<Option<u8>, String> {
    if env::var_os(IN_NAMESPACE).is_some() {
        return Ok(None);
    }
    let program = env::current_exe().map_err(|why| why.to_string())?;
    let mut again = Command::new("unshare");
    again.args(["--mount", "--propagation", "private"]).arg(program).args(env::args_os().skip(1));
    let status = again.env(IN_NAMESPACE, "1").status().map_err(|why| format!("unshare: {why}"))?;
    Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Whether this machine lets us mount loop devices in a namespace of our own.
pub fn can_run() -> bool {
    let quiet = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).env("PATH", path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let loops = "d=$(mktemp -d) && mount -t tmpfs none $d && truncate -s 8M $d/i && mkfs.ext4 -q $d/i && mkdir $d/m && \
                 mount -o loop $d/i $d/m && umount $d/m && umount $d && rmdir $d";
    quiet("unshare", &["--mount", "--propagation", "private", "sh", "-c", loops])
}

/// Where the programs are that root uses.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

#[derive(Debug)]
pub struct Disk {
    /// A folder in memory, so that syncs are fast, and many.
    memory: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// A fresh file system, mounted below `folder`.
    pub fn new(folder: &Path) -> Result<Self, String> {
        let (memory, mount) = (folder.join("memory"), folder.join("mount"));
        for each in [&memory, &mount] {
            fs::create_dir_all(each).map_err(|why| format!("{}: {why}", each.display()))?;
        }
        run("mount", &["-t", "tmpfs", "-o", "size=1600M", "none", &shown(&memory)])?;
        let disk = Self { memory, mount };
        let image = File::create(disk.image()).and_then(|file| file.set_len(IMAGE_BYTES));
        image.map_err(|why| format!("{}: {why}", disk.image().display()))?;
        run("mkfs.ext4", &["-q", "-m", "0", &shown(&disk.image())])?;
        disk.attach()?;
        Ok(disk)
    }

    /// Where files survive as on a real disk.
    pub fn folder(&self) -> &Path {
        &self.mount
    }

    /// Keeps what is on the disk at this moment. Whoever writes to it must stand still.
    pub fn freeze(&self) -> Result<(), String> {
        run("cp", &["--sparse=always", &shown(&self.image()), &shown(&self.frozen())])
    }

    /// The power comes back: the disk is as it was when it was frozen. Nobody may use it.
    pub fn restore(&self) -> Result<(), String> {
        run("umount", &[&shown(&self.mount)])?;
        fs::rename(self.frozen(), self.image()).map_err(|why| format!("{}: {why}", self.image().display()))?;
        self.attach()
    }

    fn attach(&self) -> Result<(), String> {
        run("mount", &["-o", "loop,commit=60", &shown(&self.image()), &shown(&self.mount)])
    }

    fn image(&self) -> PathBuf {
        self.memory.join("image")
    }

    fn frozen(&self) -> PathBuf {
        self.memory.join("frozen")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // They go with the namespace in any case.
        let _ = run("umount", &["--lazy", &shown(&self.mount)])
            .and_then(|()| run("umount", &["--lazy", &shown(&self.memory)]));
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(words).env("PATH", path()).output();
    let done = done.map_err(|why| format!("{program}: {why}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}
