//! A disk that loses its power: ext4 on a loop device. The backing file is copied while the server is stopped. Data
//! that is only in the page cache is not in the copy.
//!
//! The mounts are in a mount namespace of this process ([`own_namespace`]). So they are gone when the process ends,
//! even if it is killed.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The length of the disk. It is enough for the data of a round and of the round before.
const IMAGE_BYTES: u64 = 640 << 20;
/// The environment variable that is set in the process with its own namespace.
const IN_NAMESPACE: &str = "FERRYMQ_PROOF_NAMESPACE";

/// Runs this program again in its own mount namespace, and returns the exit code. In the new process it returns `None`.
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

/// Whether this process may mount loop devices in its own namespace.
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

/// The search path with the folders of root's programs.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

#[derive(Debug)]
pub struct Disk {
    /// A folder in memory. There syncs are fast, so there are many of them.
    memory: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes a new file system and mounts it in `folder`.
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

    /// The folder on the disk. Its files survive a power loss as on a real disk.
    pub fn folder(&self) -> &Path {
        &self.mount
    }

    /// Saves the content of the disk at this moment. Processes that write to the disk must be stopped.
    pub fn freeze(&self) -> Result<(), String> {
        run("cp", &["--sparse=always", &shown(&self.image()), &shown(&self.frozen())])
    }

    /// Restores the disk to its content at the last `freeze`, as after a power loss. No process may use the disk now.
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
        // If this fails, the mounts are gone when the namespace ends.
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
