//! A group: what one flush writes. It starts on a 4 KiB boundary of a journal file.
//!
//! ```text
//!  0 u32 magic        16 u64 number of the group        40 u32 start of the server that wrote it
//!  4 u16 version      24 u64 position synced so far     44 u32 where an unfinished unit begins, or 0
//!  6 u16 flags (1: carried) 32 u32 bytes behind the header    48 u32 where the settlements begin
//!  8 u64 generation   36 u32 CRC of the group before    60 u32 CRC-32C of everything else
//! ```
//! The records stand behind the header; settlements and marks of delivery are merged and stand last. A unit that did not
//! fit goes on in the next group: its records count only if that group is there.

use crate::fields::{FieldWriter, Fields};
use crate::sabotage::{self, Sabotage};

/// Groups start at multiples of this.
pub(crate) const ALIGN: u32 = 4096;
/// Length of a group's header.
pub(crate) const HEADER_BYTES: usize = 64;
/// The newest version that we write and read.
pub(crate) const VERSION: u16 = 1;

/// What a group begins with.
pub(crate) const GROUP_MAGIC: &[u8; 4] = b"FQgr";
const MAGIC: u32 = u32::from_le_bytes(*GROUP_MAGIC);
const CRC_AT: usize = 60;
/// Where the number of bytes behind the header stands.
pub(crate) const LENGTH_AT: usize = 32;
/// Flag: the unfinished unit began in an earlier group.
const CARRIED: u16 = 1;

/// A group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Which use of a journal file this is; files are used in turn.
    pub generation: u64,
    /// Counts groups.
    pub number: u64,
    /// The journal was synced up to here when the group was written.
    pub synced: u64,
    /// Bytes behind the header.
    pub bytes: u32,
    /// The CRC of the group before.
    pub previous_crc: u32,
    /// Counts the starts of the server, so that leftovers of an earlier one are told apart.
    pub start: u32,
    /// Where in the file a unit begins that this group does not finish; 0 if there is none.
    pub unfinished_from: u32,
    /// Whether that unit began in an earlier group.
    pub carried: bool,
    /// Where in the file the settlements begin that were merged over the whole group.
    pub settlements_from: u32,
}

/// Why there is no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoGroup {
    /// Nothing that looks like one.
    Absent,
    /// Something that does not check.
    Torn,
    /// One of a newer version, whole or not.
    Newer(u16),
}

impl GroupHeader {
    /// The header's bytes, complete but for the CRC of what follows.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        out.u32(MAGIC);
        out.u16(VERSION);
        out.u16(if self.carried { CARRIED } else { 0 });
        out.u64(self.generation);
        out.u64(self.number);
        out.u64(self.synced);
        out.u32(self.bytes);
        out.u32(self.previous_crc);
        out.u32(self.start);
        out.u32(self.unfinished_from);
        out.u32(self.settlements_from);
        bytes
    }

    /// Reads and checks the group at the front of `file`; gives its header and CRC.
    pub fn read(file: &[u8]) -> Result<(Self, u32), NoGroup> {
        let header = file.get(..HEADER_BYTES).ok_or(NoGroup::Absent)?;
        let mut fields = Fields(header);
        if fields.u32() != Some(MAGIC) {
            return Err(NoGroup::Absent);
        }
        let version = fields.u16().ok_or(NoGroup::Absent)?;
        let parsed = Self::read_fields(&mut fields).ok_or(NoGroup::Absent)?;
        let end = HEADER_BYTES.checked_add(parsed.bytes as usize).ok_or(NoGroup::Torn)?;
        let payload = file.get(HEADER_BYTES..end).ok_or(NoGroup::Torn)?;
        let stored = Fields(&header[CRC_AT..]).u32().ok_or(NoGroup::Torn)?;
        if crc(header, [payload]) != stored && !sabotage::is(Sabotage::IgnoreCrc) {
            return Err(NoGroup::Torn);
        }
        if version > VERSION {
            return Err(NoGroup::Newer(version));
        }
        Ok((parsed, stored))
    }

    fn read_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let flags = fields.u16()?;
        Some(Self {
            carried: flags & CARRIED != 0,
            generation: fields.u64()?,
            number: fields.u64()?,
            synced: fields.u64()?,
            bytes: fields.u32()?,
            previous_crc: fields.u32()?,
            start: fields.u32()?,
            unfinished_from: fields.u32()?,
            settlements_from: fields.u32()?,
        })
    }
}

/// The CRC of a group: its header but for the CRC itself, and everything behind it.
pub(crate) fn crc<'a>(header: &[u8], parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let whole = crc32c::crc32c(&header[..CRC_AT]);
    parts.into_iter().fold(whole, crc32c::crc32c_append)
}

/// Writes the CRC into an encoded header.
pub(crate) fn seal(header: &mut [u8; HEADER_BYTES], crc: u32) {
    header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// The next place where a group can start.
pub(crate) fn align(position: u32) -> u32 {
    position.next_multiple_of(ALIGN)
}
