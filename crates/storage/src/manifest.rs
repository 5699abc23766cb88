//! The manifest: what a data directory is. It is written last when one is made, so a directory without it is not one
//! yet.
//!
//! ```text
//!  0 magic           20 u32 length of a journal file    32 u64 stamp          72 u64 node, or 0
//!  8 u32 version     24 u32 journal files               40 u128 incarnation   80 spare
//! 12 u64 features    28 u32 feature level               56 u128 cluster, or 0 124 u32 CRC-32C of the rest
//! ```

use std::io;
use std::path::Path;

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::fields::{FieldWriter, Fields};

/// The version that we write and read.
const VERSION: u32 = 2;
/// Features that we know; a directory that uses others is not ours to touch.
const FEATURES: u64 = 0;
const MAGIC: &[u8; 8] = b"FERRYMQ\n";
const BYTES: usize = 128;

/// What does not change while a data directory lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Length of a journal file.
    pub file_bytes: u32,
    /// How many there are.
    pub files: u32,
    /// Known to nobody outside: what tells our groups from what clients send.
    pub stamp: u64,
    /// What tells this directory from all others, and from an older copy that was made anew.
    pub incarnation: u128,
    /// The cluster that the directory belongs to; 0 for none.
    pub cluster: u128,
    /// The node in that cluster; 0 for none.
    pub node: u64,
    /// The features that may be used, once there are levels of them.
    pub level: u32,
}

impl Manifest {
    /// That of a new directory, which is like no other.
    pub fn new(disk: &dyn Disk, file_bytes: u32, files: u32) -> io::Result<Self> {
        let mut chance = [0; 24];
        disk.random(&mut chance)?;
        let mut fields = Fields(&chance);
        let mut number = || fields.u64().unwrap_or_default();
        let (stamp, high, low) = (number(), number(), number());
        let incarnation = u128::from(high) << 64 | u128::from(low);
        Ok(Self { file_bytes, files, stamp, incarnation, cluster: 0, node: 0, level: 1 })
    }

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
        let checks = bytes
            .split_last_chunk()
            .is_some_and(|(body, crc)| bytes.len() == BYTES && crc32c::crc32c(body) == u32::from_le_bytes(*crc));
        // A version that we know is checked first: a flipped bit is no other version.
        if version != VERSION && (checks || bytes.len() != BYTES) {
            return Err(OpenError::version(path, version, VERSION));
        }
        let (features, manifest) =
            Self::read_fields(fields).filter(|_| checks).ok_or_else(|| damaged("it has a wrong checksum"))?;
        match features & !FEATURES {
            0 => Ok(Some(manifest)),
            bits => Err(OpenError::Features { file: path.to_owned(), bits }),
        }
    }

    fn read_fields(mut fields: Fields<'_>) -> Option<(u64, Self)> {
        let (features, file_bytes, files, level) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let stamp = fields.u64()?;
        let mut long = || Some(u128::from(fields.u64()?) << 64 | u128::from(fields.u64()?));
        let (incarnation, cluster) = (long()?, long()?);
        Some((features, Self { file_bytes, files, stamp, incarnation, cluster, node: fields.u64()?, level }))
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
        out.u32(self.level);
        out.u64(self.stamp);
        for long in [self.incarnation, self.cluster] {
            out.u64((long >> 64) as u64);
            out.u64(long as u64);
        }
        out.u64(self.node);
        let crc = crc32c::crc32c(&bytes[..BYTES - 4]);
        bytes[BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        disk::replace(disk, path, &bytes).map_err(OpenError::io("write", path))
    }
}
