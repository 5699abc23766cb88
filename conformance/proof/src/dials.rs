//! Settings that a proof changes while a server runs: kill the server in its n-th sync, and make syncs do nothing. The
//! server is started with a small library (`LD_PRELOAD`) that reads the settings. The source is
//! `conformance/clients/dials.c`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("../../clients/dials.c");

/// A setting. The number is its position in the file that the library reads.
#[derive(Debug, Clone, Copy)]
pub enum Dial {
    /// With the value 1, syncs do nothing.
    NoSync = 2,
    /// With the value n, the n-th sync from now kills the server.
    KillAtSync = 3,
    /// With the value 1, files are opened without `O_DIRECT`, so all writes go through the page cache.
    NoDirect = 5,
}

#[derive(Debug)]
pub struct Dials {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Dials {
    /// Builds the library in `folder`. `None` if there is no C compiler.
    pub fn build(folder: &Path) -> Result<Option<Self>, String> {
        let (source, library, path) = (folder.join("dials.c"), folder.join("dials.so"), folder.join("dials"));
        fs::write(&source, SOURCE).map_err(|why| format!("{}: {why}", source.display()))?;
        let mut compiler = Command::new("cc");
        match compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status() {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("cc ended with {status}")),
            Err(_) => return Ok(None),
        }
        let opened = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = opened.and_then(|file| file.write_all_at(&[0; 4096], 0).map(|()| file));
        let file = file.map_err(|why| format!("{}: {why}", path.display()))?;
        Ok(Some(Self { library, path, file }))
    }

    /// Changes a setting. The server sees it at once.
    pub fn turn(&self, dial: Dial, value: i64) -> Result<(), String> {
        let written = self.file.write_all_at(&value.to_ne_bytes(), 8 * dial as u64);
        written.map_err(|why| format!("{}: {why}", self.path.display()))
    }

    /// The environment variables for the server.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![("LD_PRELOAD", self.library.clone().into()), ("FERRYMQ_DIALS", self.path.clone().into())]
    }
}
