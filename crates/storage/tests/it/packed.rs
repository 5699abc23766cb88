//! A whole disk in one short file: for each file its name and its bytes, with long repetitions counted.

use std::io::IoSlice;
use std::path::Path;

use ferrymq_storage::{Disk, Open};

use ferrymq_testkit::FakeDisk;

/// Repetitions as long as this are counted.
const REPEATED_BYTES: usize = 16;

/// Each file: name bytes and parts (u32 each), the name, the parts. A part is a u32 and bytes: twice a count and as
/// many bytes, or twice a count and one, and the byte that is repeated.
pub fn pack(disk: &FakeDisk) -> Vec<u8> {
    let mut packed = Vec::new();
    for path in disk.files() {
        let (name, bytes) = (path.to_string_lossy().into_owned(), disk.bytes(&path));
        let parts = parts_of(&bytes);
        packed.extend_from_slice(&(name.len() as u32).to_le_bytes());
        packed.extend_from_slice(&(parts.len() as u32).to_le_bytes());
        packed.extend_from_slice(name.as_bytes());
        for part in parts {
            let repeats = is_repetition(part);
            packed.extend_from_slice(&((part.len() as u32) << 1 | u32::from(repeats)).to_le_bytes());
            packed.extend_from_slice(if repeats { &part[..1] } else { part });
        }
    }
    packed
}

fn is_repetition(part: &[u8]) -> bool {
    part.len() >= REPEATED_BYTES && part.iter().all(|byte| *byte == part[0])
}

/// Cuts bytes into repetitions and what lies between them.
fn parts_of(bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut begun = 0;
    let mut at = 0;
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() >= REPEATED_BYTES {
            parts.extend([&bytes[begun..at], run]);
            begun = at + run.len();
        }
        at += run.len();
    }
    parts.push(&bytes[begun..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// The disk that was packed.
pub fn unpack(mut packed: &[u8]) -> FakeDisk {
    let disk = FakeDisk::default();
    let number = |packed: &mut &[u8]| {
        let word = packed.split_off(..4)?;
        Some(u32::from_le_bytes(word.try_into().unwrap()) as usize)
    };
    while let Some(name) = number(&mut packed) {
        let parts = number(&mut packed).unwrap();
        let name = String::from_utf8(packed.split_off(..name).unwrap().to_vec()).unwrap();
        let mut bytes = Vec::new();
        for _ in 0..parts {
            let part = number(&mut packed).unwrap();
            if part & 1 == 0 {
                bytes.extend_from_slice(packed.split_off(..part >> 1).unwrap());
            } else {
                bytes.resize(bytes.len() + (part >> 1), packed.split_off(..1).unwrap()[0]);
            }
        }
        disk.create_folder(Path::new(&name).parent().unwrap()).unwrap();
        let file = disk.open(Path::new(&name), Open::Empty).unwrap();
        file.write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    }
    disk
}
