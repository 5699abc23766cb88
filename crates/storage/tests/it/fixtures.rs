//! A data directory as version 1 wrote it, with one of every kind of file. Whatever changes, it must still open.
//!
//! The fixture is packed: for each file its name and its bytes, with long repetitions counted.
//! `cargo test -p ferrymq-storage -- --ignored write_the_fixture` writes a new one; do that for a new format only, under
//! a new name.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use ferrymq_storage::{Disk, Open};

use crate::fake_disk::FakeDisk;
use crate::faults::full_directory;
use crate::story::open;

/// Repetitions as long as this are counted.
const REPEATED_BYTES: usize = 16;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/directory-v1.packed")
}

/// Each file: name bytes and parts (u32 each), the name, the parts. A part is a u32 and bytes: twice a count and as many
/// bytes, or twice a count and one, and the byte that is repeated.
fn pack(disk: &FakeDisk) -> Vec<u8> {
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

fn unpack(mut packed: &[u8]) -> FakeDisk {
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
        let file = disk.open(Path::new(&name), Open::Empty).unwrap();
        file.write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    }
    disk
}

#[test]
fn a_directory_of_version_1_opens() {
    let disk = unpack(&std::fs::read(path()).unwrap());
    let kinds = ["manifest", "checkpoint.redb", ".journal", ".run", ".body"];
    for kind in kinds {
        assert!(disk.files().iter().any(|path| path.to_string_lossy().ends_with(kind)), "the fixture has a {kind}");
    }
    let (shard, recovered) = open(&disk).unwrap();
    assert_eq!((recovered.entries.len(), recovered.queues[0].messages), (1, 1000));
    let expected = |number: u64| vec![number as u8; if number == 10 { 100_000 } else { 1000 }];
    assert!(shard.messages(256) == (1..=1000).map(|number| (number, expected(number))).collect::<Vec<_>>());
}

#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    std::fs::create_dir_all(path().parent().unwrap()).unwrap();
    std::fs::write(path(), pack(&full_directory())).unwrap();
}
