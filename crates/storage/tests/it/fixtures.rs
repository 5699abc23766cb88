//! A data directory that format 2 wrote, with one of every kind of file. It must always be readable.
//!
//! `cargo test -p ferrymq-storage -- --ignored write_the_fixture` writes a new one; do that for a new format only,
//! under a new name.

use std::path::{Path, PathBuf};

use crate::faults::full_directory;
use crate::packed::{pack, unpack};
use crate::story::open;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/directory-v2.packed")
}

#[test]
fn a_directory_of_format_2_opens() {
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
