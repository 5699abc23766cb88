//! What can go wrong, one clear sentence each.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {0} is in use by another server")]
    InUse(PathBuf),
    /// It was written by a newer version.
    #[error("{file} has format version {found}, and this version of FerryMQ reads up to {known}: use a newer FerryMQ")]
    Newer {
        /// The file that says so.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It uses something that this version does not know.
    #[error("{file} names features ({bits:#x}) that this version of FerryMQ does not know: use a newer FerryMQ")]
    Features {
        /// The manifest.
        file: PathBuf,
        /// The unknown bits.
        bits: u64,
    },
    /// Bytes that were synced cannot be read back.
    #[error("{file} is damaged at position {position}: {what}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        position: u64,
        /// What does not hold.
        what: String,
    },
    /// A file that must be there is not.
    #[error("{file} is missing: {what}")]
    Missing {
        /// The file.
        file: PathBuf,
        /// Why it must be there.
        what: String,
    },
    /// The operating system says no.
    #[error("cannot {what} {file}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        file: PathBuf,
        /// The answer.
        error: io::Error,
    },
    /// The checkpoint's database says no.
    #[error("cannot read the checkpoint {file}: {error}")]
    Checkpoint {
        /// The database.
        file: PathBuf,
        /// Its answer.
        error: redb::Error,
    },
    /// Options that cannot work.
    #[error("{0}")]
    Options(String),
}

impl OpenError {
    pub(crate) fn io(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |error| Self::Io { what, file, error }
    }

    pub(crate) fn damaged(file: &Path, position: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), position, what: what.into() }
    }

    pub(crate) fn checkpoint(file: &Path, error: impl Into<redb::Error>) -> Self {
        Self::Checkpoint { file: file.to_owned(), error: error.into() }
    }
}

/// The journal cannot be written or synced any more. What reached the disk is unknown, so the process must end; only a
/// restart, which trusts nothing but what it can read, may go on.
#[derive(Clone, Debug, Error)]
#[error("cannot {what} {file}: {error}")]
pub struct FatalError {
    /// What was tried.
    pub what: &'static str,
    /// With which file.
    pub file: PathBuf,
    /// The operating system's answer.
    pub error: String,
}
