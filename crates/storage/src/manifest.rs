//! The manifest: what a data directory is. It is written last when one is made, so a directory without it is not one yet.

use std::io;
use std::path::Path;

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::fields::{FieldWriter, Fields};

/// The newest version that we write and read.
const VERSION: u32 = 1;
/// Features that we know; a directory that uses others is not ours to touch.
const FEATURES: u64 = 0;
const MAGIC: &[u8; 8] = b"FERRYMQ\n";
const BYTES: usize = 32;

/// What does not change while a data directory lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Length of a journal file.
    pub file_bytes: u32,
    /// How many there are.
    pub files: u32,
}

impl Manifest {
    /// Reads it; `None` if there is none.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, OpenError> {
        let bytes = match disk::read_all(disk, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(OpenError::io("read", path))?,
        };
        let damaged = |what| OpenError::damaged(path, 0, what);
        let mut fields = Fields(&bytes);
        if fields.bytes(MAGIC.len()) != Some(MAGIC) {
            return Err(damaged("it is not a FerryMQ manifest"));
        }
        let version = fields.u32().unwrap_or(0);
        if version > VERSION {
            return Err(OpenError::Newer { file: path.to_owned(), found: version, known: VERSION });
        }
        let manifest = Self::read_fields(&bytes, path, fields)?;
        manifest.map(Some).ok_or_else(|| damaged("it does not check"))
    }

    fn read_fields(bytes: &[u8], path: &Path, mut fields: Fields<'_>) -> Result<Option<Self>, OpenError> {
        let Some((body, crc)) = bytes.get(..BYTES).and_then(<[u8]>::split_last_chunk) else { return Ok(None) };
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Ok(None);
        }
        let (Some(features), Some(file_bytes), Some(files)) = (fields.u64(), fields.u32(), fields.u32()) else {
            return Ok(None);
        };
        match features & !FEATURES {
            0 => Ok(Some(Self { file_bytes, files })),
            bits => Err(OpenError::Features { file: path.to_owned(), bits }),
        }
    }

    /// Writes it.
    pub fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
        let mut bytes = [0; BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        out.put(MAGIC);
        out.u32(VERSION);
        out.u64(FEATURES);
        out.u32(self.file_bytes);
        out.u32(self.files);
        let crc = crc32c::crc32c(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        disk::replace(disk, path, &bytes).map_err(OpenError::io("write", path))
    }
}
