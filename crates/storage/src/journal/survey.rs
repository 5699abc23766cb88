//! Finds the groups: every block of the journal's files that begins like a group of this directory, at the place
//! that it names. Nothing else is ever taken for a group, whatever is in the files.

use super::files::{FIRST_GROUP, JournalFiles};
use super::group::{ALIGN, GROUP_BYTES, GroupHeader, NoGroup, VERSION};
use super::position;
use crate::error::OpenError;
use crate::fields::Fields;

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;
/// The place of the position in a header.
const POSITION_AT: usize = 16;

/// A header that was found; what follows it is not checked yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub at: u32,
    pub header: GroupHeader,
}

/// The newest generation of which a file has groups.
#[derive(Debug)]
pub(super) struct SeenFile {
    pub generation: u64,
    pub file: usize,
    /// Its groups, ascending.
    pub groups: Vec<Seen>,
}

/// Looks through all files; returns those with groups, by generation.
pub(super) fn survey(files: &JournalFiles, stamp: u64) -> Result<Vec<SeenFile>, OpenError> {
    let mut found = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    for file in 0..files.count() {
        found.extend(look_through(files, file, stamp, &mut buffer)?);
    }
    found.sort_by_key(|seen: &SeenFile| seen.generation);
    found.dedup_by_key(|seen| seen.generation);
    Ok(found)
}

fn look_through(
    files: &JournalFiles,
    file: usize,
    stamp: u64,
    buffer: &mut [u8],
) -> Result<Option<SeenFile>, OpenError> {
    let mut newest: Option<SeenFile> = None;
    let mut begin = FIRST_GROUP;
    while begin < files.file_bytes {
        let some = buffer.len().min((files.file_bytes - begin) as usize);
        let buffer = &mut buffer[..some];
        files.file(file).read_at(begin.into(), buffer).map_err(OpenError::io("read", &files.path(file)))?;
        for (block, bytes) in buffer.chunks(ALIGN as usize).enumerate() {
            let at = begin + block as u32 * ALIGN;
            let Some((generation, header)) = header_at(files.file_bytes, at, bytes, stamp, file, files)? else {
                continue;
            };
            match &mut newest {
                Some(seen) if seen.generation == generation => seen.groups.push(Seen { at, header }),
                Some(seen) if seen.generation > generation => {}
                _ => newest = Some(SeenFile { generation, file, groups: vec![Seen { at, header }] }),
            }
        }
        begin += some as u32;
    }
    Ok(newest)
}

/// The header of a group at this place, and its generation.
fn header_at(
    file_bytes: u32,
    at: u32,
    block: &[u8],
    stamp: u64,
    file: usize,
    files: &JournalFiles,
) -> Result<Option<(u64, GroupHeader)>, OpenError> {
    let Some(claimed) = block.get(POSITION_AT..GROUP_BYTES).and_then(|bytes| Fields(bytes).u64()) else {
        return Ok(None);
    };
    let generation = claimed / u64::from(file_bytes) + 1;
    if position(file_bytes, generation, at).0 != claimed {
        return Ok(None);
    }
    match GroupHeader::read(block, stamp, claimed) {
        Ok(header) => Ok(Some((generation, header))),
        Err(NoGroup::Newer(version)) => Err(OpenError::version(&files.path(file), version.into(), VERSION.into())),
        Err(_) => Ok(None),
    }
}
