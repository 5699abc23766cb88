//! The mark: the number of the last commit of the checkpoint that was relied upon, in its own file.
//!
//! If the newest page of the database is damaged, the database may be read as it was one commit before, and look
//! undamaged. Files that it does not refer to would then be taken for remains. So nothing relies on a commit before
//! the mark has its number, and a checkpoint with a smaller number is damaged.
//!
//! ```text
//! two sectors, 4 KiB apart, written in turn: magic | u32 version | u64 number | u32 CRC-32C of the rest
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, Open};
use crate::error::OpenError;
use crate::fields::{FieldWriter, Fields};

const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"FERRYMRK";
const BYTES: usize = 24;
/// Where the second sector is.
const APART: u64 = 4096;

/// The open file.
#[derive(Debug)]
pub(crate) struct Mark {
    file: Box<dyn DiskFile>,
    /// The number in it.
    pub number: u64,
}

fn path_of(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("mark")
}

impl Mark {
    /// Creates one for a checkpoint without a commit.
    pub fn create(disk: &Arc<dyn Disk>, checkpoint: &Path) -> Result<Self, OpenError> {
        let path = path_of(checkpoint);
        let file = disk.open(&path, Open::Empty).map_err(OpenError::io("create", &path))?;
        let mut mark = Self { file, number: 0 };
        mark.set(0).and_then(|()| mark.set(1)).map_err(OpenError::io("write", &path))?;
        mark.number = 0;
        Ok(mark)
    }

    /// Opens that of a checkpoint.
    pub fn open(disk: &Arc<dyn Disk>, checkpoint: &Path) -> Result<Self, OpenError> {
        let path = path_of(checkpoint);
        let file = match disk.open(&path, Open::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = "it says which checkpoint is the last".to_owned();
                return Err(OpenError::Missing { file: path, what });
            }
            file => file.map_err(OpenError::io("open", &path))?,
        };
        let numbers = [0, APART].map(|at| {
            let mut bytes = [0; BYTES];
            file.read_at(at, &mut bytes).ok().and_then(|()| read(&bytes))
        });
        let number = numbers.into_iter().flatten().max();
        let number = number.ok_or_else(|| OpenError::damaged(&path, 0, "both of its copies have a wrong checksum"))?;
        Ok(Self { file, number })
    }

    /// Writes and syncs a number.
    pub fn set(&mut self, number: u64) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        out.put(MAGIC);
        out.u32(VERSION);
        out.u64(number);
        let crc = crc32c::crc32c(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(number % 2 * APART, &[IoSlice::new(&bytes)])?;
        self.file.sync_data()?;
        self.number = number;
        Ok(())
    }
}

fn read(bytes: &[u8; BYTES]) -> Option<u64> {
    let mut fields = Fields(bytes);
    let magic = fields.bytes(MAGIC.len())?;
    let (version, number, crc) = (fields.u32()?, fields.u64()?, fields.u32()?);
    let checks = crc == crc32c::crc32c(&bytes[..BYTES - 4]);
    (magic == MAGIC && version == VERSION && checks).then_some(number)
}
