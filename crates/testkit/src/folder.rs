//! A folder of a test.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// A name for a folder that no other test has; the folder is removed at the end of the test.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// A path in the system's folder for temporary files. Nothing is there yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each one is another folder")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ferrymq-test-{}-{number}", std::process::id()));
        // An earlier process with this number may have left it.
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    /// The same, and the folder exists.
    #[must_use]
    pub fn created() -> Self {
        let folder = Self::new();
        std::fs::create_dir_all(&folder.0).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If a folder cannot be removed, the system cleans it up later.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
