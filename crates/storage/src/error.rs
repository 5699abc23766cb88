//! Errors, each with one clear sentence.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

/// Why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("the data directory {0} is in use by another server")]
    InUse(PathBuf),
    /// It was written by a newer version.
    #[error("{file} has format version {found}, and this version of FerryMQ reads up to {known}: use a newer FerryMQ")]
    Newer {
        /// The file with that version.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// This code's version.
        known: u32,
    },
    /// It was written by a version that no release has.
    #[error(
        "{file} has format version {found}, and this version of FerryMQ reads {known}: version {found} was never released; \
         move the data directory away"
    )]
    Older {
        /// The file with that version.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// This code's version.
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
        /// What is wrong.
        what: String,
    },
    /// A file that must be there is not.
    #[error("{file} is missing: {what}; restore the data directory from a backup")]
    Missing {
        /// The file.
        file: PathBuf,
        /// Why it must be there.
        what: String,
    },
    /// The operating system reports an error.
    #[error("cannot {what} {file}: {error}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// The checkpoint's database reports an error.
    #[error("cannot read the checkpoint {file}: {error}; restore the data directory from a backup")]
    Checkpoint {
        /// The database.
        file: PathBuf,
        /// Its error.
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

    /// A file has another format version than the one that this code reads.
    pub(crate) fn version(file: &Path, found: u32, known: u32) -> Self {
        let file = file.to_owned();
        if found > known { Self::Newer { file, found, known } } else { Self::Older { file, found, known } }
    }

    pub(crate) fn damaged(file: &Path, position: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), position, what: what.into() }
    }

    pub(crate) fn checkpoint(file: &Path, error: impl Into<redb::Error>) -> Self {
        Self::Checkpoint { file: file.to_owned(), error: error.into() }
    }
}

/// Why something stored cannot be read: a sentence for the log, with file and position.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    /// The kind of error. Temporary ones are tried again.
    pub kind: Kind,
    /// The sentence.
    pub what: String,
}

impl Unreadable {
    pub fn io(file: &Path, error: &io::Error) -> Self {
        Self { kind: kind_of(error), what: format!("{}: {error}", file.display()) }
    }

    pub fn rot(file: &Path, position: u64, what: impl fmt::Display) -> Self {
        Self { kind: Kind::Rot, what: format!("{} is damaged at position {position}: {what}", file.display()) }
    }

    /// The same, of bytes at a position.
    pub fn at(self, position: u64) -> Self {
        Self { what: format!("{}, at position {position}", self.what), ..self }
    }

    /// Whether it may be readable at another time.
    pub fn passes(&self) -> bool {
        self.kind == Kind::Passing
    }
}

/// The journal cannot be written or synced any more. What reached the disk is unknown, so the process must end;
/// only a restart, which trusts only what it can read, may continue.
#[derive(Clone, Debug, Error)]
#[error("cannot {what} {file}: {error}")]
pub struct FatalError {
    /// The operation.
    pub what: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The operating system's answer.
    pub error: String,
}

/// The meaning of an operating system's error: the one table for all of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Temporary: no descriptors, no memory, interrupted, not allowed for now. Tried again.
    Passing,
    /// The disk is full. Tried again when there may be space.
    Full,
    /// The bytes cannot be read, or are not those that were written.
    Rot,
    /// Anything else. A failed read of this kind is not tried again, and the rest of the file may be damaged, too.
    Other,
}

/// The kind of an error.
pub(crate) fn kind_of(error: &io::Error) -> Kind {
    match Errno::from_io_error(error) {
        Some(
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::INTR
            | Errno::AGAIN
            | Errno::ACCESS
            | Errno::PERM
            | Errno::BUSY
            | Errno::NOBUFS,
        ) => Kind::Passing,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Kind::Full,
        Some(Errno::IO | Errno::BADMSG | Errno::NODATA | Errno::REMOTEIO) => Kind::Rot,
        Some(_) => Kind::Other,
        None => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Kind::Full,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Kind::Rot,
            io::ErrorKind::Interrupted | io::ErrorKind::OutOfMemory | io::ErrorKind::PermissionDenied => Kind::Passing,
            _ => Kind::Other,
        },
    }
}
