//! Bodies that are too long for the journal: each in a file of its own, written and synced before the group that names
//! it, and taken away when the last queue has let go of it.
//!
//! ```text
//! magic | u32 version | u32 CRC of the body | u64 number | u64 body bytes | u32 spare | u32 CRC of this header | body
//! ```

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{self, Disk, Open};
use crate::fields::{FieldWriter, Fields};

const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"FERRYBOD";
const HEADER_BYTES: usize = 40;

/// The folder they are in.
#[derive(Clone, Debug)]
pub(crate) struct OwnFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl OwnFiles {
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder }
    }

    pub fn path_of(&self, number: u64) -> PathBuf {
        self.folder.join(Self::name_of(number))
    }

    /// What the file of a body is called.
    pub fn name_of(number: u64) -> String {
        format!("{number:016x}.body")
    }

    /// Writes a body. Without [`Self::sync`] it may not survive.
    pub fn write(&self, number: u64, body: &[u8]) -> io::Result<()> {
        let file = self.disk.open(&self.path_of(number), Open::Empty)?;
        let mut header = [0; HEADER_BYTES];
        let mut out = FieldWriter::new(&mut header);
        out.put(MAGIC);
        out.u32(VERSION);
        out.u32(crc32c::crc32c(body));
        out.u64(number);
        out.u64(body.len() as u64);
        out.u32(0);
        let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        file.write_at(0, &[IoSlice::new(&header), IoSlice::new(body)])
    }

    /// Makes a body survive a power loss; its name too, after [`Self::sync_names`].
    pub fn sync(&self, number: u64) -> io::Result<()> {
        self.disk.open(&self.path_of(number), Open::Existing)?.sync_data()
    }

    pub fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.folder)
    }

    /// Reads a body. The error is a sentence for the log.
    pub fn read(&self, number: u64) -> Result<Bytes, String> {
        let path = self.path_of(number);
        let said = |what: &str| format!("{}: {what}", path.display());
        let bytes = Bytes::from(disk::read_all(&*self.disk, &path).map_err(|error| said(&error.to_string()))?);
        let (Some(header), Some(body)) = (bytes.get(..HEADER_BYTES), bytes.get(HEADER_BYTES..)) else {
            return Err(said("the file is cut off"));
        };
        if Fields(&header[HEADER_BYTES - 4..]).u32() != Some(crc32c::crc32c(&header[..HEADER_BYTES - 4])) {
            return Err(said("its header does not check"));
        }
        let mut fields = Fields(&header[MAGIC.len()..]);
        if !header.starts_with(MAGIC) || fields.u32().is_none_or(|version| version > VERSION) {
            return Err(said("it is not a body that this version of FerryMQ reads"));
        }
        let (crc, found, length) = (fields.u32(), fields.u64(), fields.u64());
        if found != Some(number) || length != Some(body.len() as u64) || crc != Some(crc32c::crc32c(body)) {
            return Err(said("the body does not check"));
        }
        Ok(bytes.slice(HEADER_BYTES..))
    }
}
