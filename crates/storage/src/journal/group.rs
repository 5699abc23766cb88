//! A group: what one flush writes. It starts on a 4 KiB boundary of a journal file, with two headers.
//!
//! ```text
//! group                                  section, behind it
//!  0 u32 magic                            0 u32 magic
//!  4 u16 version                          4 u8  version     5 u8 shard
//!  6 u16 flags (1: void)                  6 u16 flags (1: goes on with an earlier unit)
//!  8 u64 stamp of the directory           8 u64 term
//! 16 u64 position in the journal         16 u64 index
//! 24 u64 number of the group             24 u64 time, in milliseconds since 1970
//! 32 u64 position synced so far          32 u64 index known to be synced
//! 40 u32 bytes behind this header        40 u32 bytes, this header included
//! 44 u32 chain: CRC over the sections    44 u32 where an unfinished unit begins, or 0
//! 48 u32 chain of the group before       48 u32 where the merged records begin
//! 52 u32 sections                        52 u32 where an earlier unit ends, or 0
//! 56 u32 spare                           56 u32 CRC of the section before
//! 60 u32 CRC-32C of this header          60 u32 CRC-32C of this section
//! ```
//! The group is physical: where it stands on this disk. The section is logical: what was decided, by whom and when. A
//! group has one section so far; `places` in a section are counted from its own beginning.
//!
//! The stamp is random, made with the directory and shown to nobody. A body that looks like a group does not have it,
//! and a copy of a real group does not stand at its own position: so neither is ever taken for a group.
//!
//! The records stand behind the headers; settlements and marks of delivery are merged and stand last. A unit that did
//! not fit goes on in the next group: its records count only if that group is there. A *void* group stands for groups
//! that could not be read and were given up: it has no sections, and carries the chain over the gap.

use ferrymq_model::Time;

use crate::disk::BLOCK_BYTES;
use crate::fields::{FieldWriter, Fields};
use crate::sabotage::{self, Sabotage};

/// Groups start at multiples of this.
pub(crate) const ALIGN: u32 = 4096;
const _: () = assert!((ALIGN as usize).is_multiple_of(BLOCK_BYTES), "groups are written as whole blocks");
/// Length of a group's own header.
pub(crate) const GROUP_BYTES: usize = 64;
/// Length of a section's header.
const SECTION_BYTES: usize = 64;
/// What stands in front of the records of a group: its header and that of its only section.
pub(crate) const HEADER_BYTES: usize = GROUP_BYTES + SECTION_BYTES;
/// The version that we write and read.
pub(crate) const VERSION: u16 = 2;
const SECTION_VERSION: u8 = 1;
/// The shard whose sections a node writes. They carry the records of the catalog, too.
const SHARD: u8 = 1;

const MAGIC: u32 = u32::from_le_bytes(*b"FQgr");
const SECTION_MAGIC: u32 = u32::from_le_bytes(*b"FQse");
const CRC_AT: usize = 60;
/// Flag of a group: nothing could be read here, and that was accepted.
const VOID: u16 = 1;
/// Flag of a section: the unit that it does not finish began in an earlier one.
const CARRIED: u16 = 1;

/// A group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Stands for groups that were given up.
    pub void: bool,
    /// Where the group is in the journal as a whole.
    pub position: u64,
    /// Counts groups.
    pub number: u64,
    /// The journal was synced up to here when the group was written.
    pub synced: u64,
    /// Bytes behind the header.
    pub bytes: u32,
    /// What the next group names as the one before.
    pub chain: u32,
    /// The chain of the group before.
    pub previous: u32,
}

/// The header of a group's section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionHeader {
    /// Whether the unit that is not finished here began in an earlier section.
    pub carried: bool,
    /// Counts the starts of the server: what an earlier one left unfinished is void.
    pub term: u64,
    /// Counts the shard's sections.
    pub index: u64,
    /// When the section was closed; never before the one before it.
    pub time: Time,
    /// The last section known to be synced when this one was written.
    pub synced_index: u64,
    /// Length in bytes, this header included.
    pub bytes: u32,
    /// Where a unit begins that this section does not finish; 0 if there is none.
    pub unfinished_from: u32,
    /// Where the records begin that were merged over the whole section.
    pub merged_from: u32,
    /// Where the unit ends that earlier sections began; 0 if there is none.
    pub finished_to: u32,
    /// The CRC of the shard's section before.
    pub previous: u32,
}

/// Why there is no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoGroup {
    /// Nothing that is a group of this directory at this place.
    Absent,
    /// A group whose contents do not check.
    Torn,
    /// One of a newer version.
    Newer(u16),
}

impl GroupHeader {
    /// The header's bytes.
    pub fn encode(&self, stamp: u64) -> [u8; GROUP_BYTES] {
        let mut bytes = [0; GROUP_BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        out.u32(MAGIC);
        out.u16(VERSION);
        out.u16(if self.void { VOID } else { 0 });
        out.u64(stamp);
        out.u64(self.position);
        out.u64(self.number);
        out.u64(self.synced);
        out.u32(self.bytes);
        out.u32(self.chain);
        out.u32(self.previous);
        out.u32(u32::from(!self.void));
        out.u32(0);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header at the front of `bytes`, if it is one that this directory's journal has at `position`.
    pub fn read(bytes: &[u8], stamp: u64, position: u64) -> Result<Self, NoGroup> {
        let header = bytes.get(..GROUP_BYTES).ok_or(NoGroup::Absent)?;
        let mut fields = Fields(header);
        let (magic, version, flags) = (fields.u32(), fields.u16(), fields.u16());
        let own = Fields(&header[CRC_AT..]).u32() == Some(crc32c::crc32c(&header[..CRC_AT]));
        let has_stamp = fields.u64() == Some(stamp) || sabotage::is(Sabotage::AnyStamp);
        if magic != Some(MAGIC) || !has_stamp || fields.u64() != Some(position) || !own {
            return Err(NoGroup::Absent);
        }
        let (version, flags) = (version.unwrap_or(0), flags.unwrap_or(0));
        let (parsed, sections) = Self::read_fields(flags & VOID != 0, position, fields).ok_or(NoGroup::Absent)?;
        if version != VERSION || sections != u32::from(!parsed.void) {
            return Err(NoGroup::Newer(version));
        }
        Ok(parsed)
    }

    fn read_fields(void: bool, position: u64, mut fields: Fields<'_>) -> Option<(Self, u32)> {
        let (number, synced) = (fields.u64()?, fields.u64()?);
        let (bytes, chain, previous) = (fields.u32()?, fields.u32()?, fields.u32()?);
        Some((Self { void, position, number, synced, bytes, chain, previous }, fields.u32()?))
    }
}

impl SectionHeader {
    /// The header's bytes, and the section's CRC, which stands in them. `parts` are its records.
    pub fn encode<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> ([u8; SECTION_BYTES], u32) {
        let mut bytes = [0; SECTION_BYTES];
        let mut out = FieldWriter::new(&mut bytes);
        out.u32(SECTION_MAGIC);
        out.put(&[SECTION_VERSION, SHARD]);
        out.u16(if self.carried { CARRIED } else { 0 });
        out.u64(self.term);
        out.u64(self.index);
        out.u64(self.time.0);
        out.u64(self.synced_index);
        for place in [self.bytes, self.unfinished_from, self.merged_from, self.finished_to, self.previous] {
            out.u32(place);
        }
        let crc = parts.into_iter().fold(crc32c::crc32c(&bytes[..CRC_AT]), crc32c::crc32c_append);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads and checks the section that `bytes` are, from front to back; gives its header and CRC.
    pub fn read(bytes: &[u8]) -> Result<(Self, u32), NoGroup> {
        let (header, records) = bytes.split_at_checked(SECTION_BYTES).ok_or(NoGroup::Torn)?;
        let mut fields = Fields(header);
        let stored = Fields(&header[CRC_AT..]).u32().ok_or(NoGroup::Torn)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_AT]), records);
        if (fields.u32() != Some(SECTION_MAGIC) || crc != stored) && !sabotage::is(Sabotage::IgnoreCrc) {
            return Err(NoGroup::Torn);
        }
        let (version, shard) = (fields.u8().unwrap_or(0), fields.u8().unwrap_or(0));
        if (version, shard) != (SECTION_VERSION, SHARD) {
            return Err(NoGroup::Newer(version.into()));
        }
        let parsed = Self::read_fields(&mut fields).ok_or(NoGroup::Torn)?;
        if parsed.bytes as usize != bytes.len() || !parsed.is_consistent() {
            return Err(NoGroup::Torn);
        }
        Ok((parsed, stored))
    }

    fn read_fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            carried: fields.u16()? & CARRIED != 0,
            term: fields.u64()?,
            index: fields.u64()?,
            time: Time(fields.u64()?),
            synced_index: fields.u64()?,
            bytes: fields.u32()?,
            unfinished_from: fields.u32()?,
            merged_from: fields.u32()?,
            finished_to: fields.u32()?,
            previous: fields.u32()?,
        })
    }

    /// Whether its places follow one another: records, the end of an earlier unit, an unfinished one, merged records.
    fn is_consistent(&self) -> bool {
        let begin = SECTION_BYTES as u32;
        let finished = if self.finished_to == 0 { begin } else { self.finished_to };
        let unfinished = if self.unfinished_from == 0 { self.merged_from } else { self.unfinished_from };
        begin <= finished && finished <= unfinished && unfinished <= self.merged_from && self.merged_from <= self.bytes
    }
}

/// The chain of a group whose sections have these CRCs.
pub(crate) fn chain(sections: &[u32]) -> u32 {
    sections.iter().fold(0, |chain, crc| crc32c::crc32c_append(chain, &crc.to_le_bytes()))
}

/// The next place where a group can start.
pub(crate) fn align(position: u32) -> u32 {
    position.next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: u64 = 0x0123_4567_89ab_cdef;

    fn header() -> GroupHeader {
        GroupHeader { void: false, position: 8192, number: 7, synced: 4096, bytes: 80, chain: 3, previous: 2 }
    }

    #[test]
    fn a_header_is_one_of_this_directory_at_its_own_place_only() {
        let bytes = header().encode(STAMP);
        assert_eq!(GroupHeader::read(&bytes, STAMP, 8192), Ok(header()));
        assert_eq!(GroupHeader::read(&bytes, STAMP ^ 1, 8192), Err(NoGroup::Absent), "of another directory");
        assert_eq!(GroupHeader::read(&bytes, STAMP, 12_288), Err(NoGroup::Absent), "copied to another place");
    }

    #[test]
    fn every_flipped_bit_of_a_header_or_section_is_noticed() {
        let section = SectionHeader {
            carried: true,
            term: 3,
            index: 9,
            time: Time(1_700_000_000_000),
            synced_index: 8,
            bytes: 64 + 5,
            unfinished_from: 64,
            merged_from: 66,
            finished_to: 0,
            previous: 11,
        };
        let (bytes, crc) = section.encode([&b"re"[..], b"cor"]);
        let whole = [&bytes[..], b"record"[..5].as_ref()].concat();
        assert_eq!(SectionHeader::read(&whole), Ok((section, crc)));
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SectionHeader::read(&flipped).is_err(), "bit {bit} of the section");
        }
        let group = header().encode(STAMP);
        for bit in 0..group.len() * 8 {
            let mut flipped = group;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupHeader::read(&flipped, STAMP, 8192).is_err(), "bit {bit} of the header");
        }
    }
}
