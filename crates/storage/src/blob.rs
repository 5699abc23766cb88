//! Bodies that are too long for the journal: each in its own file, written and synced before the group that refers
//! to it, and deleted when no queue needs it any more.
//!
//! ```text
//! magic | u32 version | u32 CRC of the body | u64 number | u64 body bytes | u32 spare | u32 CRC of this header | body
//! ```

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{self, Disk, DiskFile, Open};
use crate::error::Unreadable;
use crate::fields::{FieldWriter, Fields};
use crate::stored::BodyPlace;

const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"FERRYBOD";
const HEADER_BYTES: usize = 40;

/// Their folder. A number has the count of the server's starts in its upper half, and a counter in its lower half.
#[derive(Clone, Debug)]
pub(crate) struct BlobFiles {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl BlobFiles {
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder }
    }

    pub fn path_of(&self, number: u64) -> PathBuf {
        self.folder.join(Self::name_of(number))
    }

    /// The number of the body in a file of this name.
    pub fn number_of(name: &str) -> Option<u64> {
        u64::from_str_radix(name.strip_suffix(".body")?, 16).ok()
    }

    /// The name of a body's file.
    pub fn name_of(number: u64) -> String {
        format!("{number:016x}.body")
    }

    /// Writes a body and syncs it; its name survives after [`Self::sync_names`]. Remains of a failed try are
    /// deleted: nothing can refer to them. Returns the body's CRC.
    pub fn write(&self, number: u64, body: &[u8]) -> io::Result<u32> {
        let path = self.path_of(number);
        let file = self.disk.open(&path, Open::New)?;
        let written = Self::fill(&*file, number, body).and_then(|crc| file.sync_data().map(|()| crc));
        if written.is_err() {
            // If it cannot be deleted now, the next start sets it aside.
            let _ = self.disk.remove(&path);
        }
        written
    }

    fn fill(file: &dyn DiskFile, number: u64, body: &[u8]) -> io::Result<u32> {
        let body_crc = crc32c::crc32c(body);
        let mut header = [0; HEADER_BYTES];
        let mut out = FieldWriter::new(&mut header);
        out.put(MAGIC);
        out.u32(VERSION);
        out.u32(body_crc);
        out.u64(number);
        out.u64(body.len() as u64);
        out.u32(0);
        let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]);
        header[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        file.write_at(0, &[IoSlice::new(&header), IoSlice::new(body)])?;
        Ok(body_crc)
    }

    /// Makes the names of all of them survive a power loss.
    pub fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.folder)
    }

    /// Reads the body of a message, and checks that it is the one that was stored with it.
    pub fn read(&self, place: BodyPlace, length: u32) -> Result<Bytes, Unreadable> {
        let path = self.path_of(place.at);
        let bytes = disk::read_all(&*self.disk, &path).map_err(|error| Unreadable::io(&path, &error))?;
        let body = Self::check(&Bytes::from(bytes), place.at).map_err(|what| Unreadable::rot(&path, 0, what))?;
        if body.len() != length as usize || crc32c::crc32c(&body) != place.crc {
            return Err(Unreadable::rot(&path, 0, "it is not the body that was stored with this message"));
        }
        Ok(body)
    }

    fn check(bytes: &Bytes, number: u64) -> Result<Bytes, &'static str> {
        let (Some(header), Some(body)) = (bytes.get(..HEADER_BYTES), bytes.get(HEADER_BYTES..)) else {
            return Err("the file is cut off");
        };
        if Fields(&header[HEADER_BYTES - 4..]).u32() != Some(crc32c::crc32c(&header[..HEADER_BYTES - 4])) {
            return Err("its header has a wrong checksum");
        }
        let mut fields = Fields(&header[MAGIC.len()..]);
        if !header.starts_with(MAGIC) || fields.u32().is_none_or(|version| version > VERSION) {
            return Err("it is not a body that this version of FerryMQ reads");
        }
        let (crc, found, length) = (fields.u32(), fields.u64(), fields.u64());
        if found != Some(number) || length != Some(body.len() as u64) || crc != Some(crc32c::crc32c(body)) {
            return Err("the body has a wrong checksum");
        }
        Ok(bytes.slice(HEADER_BYTES..))
    }
}
