//! A stretch of a file that is sent as it is, without passing through the process's memory where that is possible.

use std::{any::Any, fmt::Debug, io, sync::Arc};

/// An open file of which stretches are sent. Its bytes do not change meanwhile.
pub trait SentFile: Debug + Send + Sync {
    /// Fills `into` from `position` on, which is in bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file is too short, or what the system says.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<()>;

    /// The open file of the operating system (a `std::fs::File`), if there is one: then the kernel can send it.
    fn system_file(&self) -> Option<&dyn Any> {
        None
    }
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct FileStretch {
    /// The file.
    pub file: Arc<dyn SentFile>,
    /// Where the part begins, in bytes.
    pub position: u64,
    /// Its length. If the file is shorter, the connection that sends it ends.
    pub bytes: usize,
}
