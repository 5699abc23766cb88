//! A data directory that format 2 wrote, with one of every kind of file. It must always be readable.
//!
//! `cargo test -p ferrymq-storage -- --ignored write_the_fixture` writes a new one; do that for a new format only,
//! under a new name.

use std::path::{Path, PathBuf};

use ferrymq_model::Time;

use crate::faults::full_directory;
use crate::packed::{pack, unpack};
use crate::story::open;

fn path() -> PathBuf {
    fixture("directory-v2.packed")
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
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

/// Earlier versions stored attempts of transient messages, and the checkpoint kept them. In this directory, six messages
/// of a queue were delivered and came back; the second, fourth and sixth are persistent.
#[test]
fn attempts_of_lost_messages_are_forgotten() {
    let disk = unpack(&std::fs::read(fixture("attempts-of-transient-messages.packed")).unwrap());
    for _ in 0..2 {
        let (shard, recovered) = open(&disk).unwrap();
        let state = &recovered.queues[0].state;
        assert_eq!((recovered.queues[0].messages, state.next, state.head), (3, 7, 7));
        assert_eq!(state.open.iter().collect::<Vec<_>>(), [(2, 2), (4, 4), (6, 6)]);
        assert_eq!(state.attempts, [(2, 1), (4, 1), (6, 1)]);
        assert_eq!(state.due, [(2, DUE), (4, DUE), (6, DUE)]);
        shard.close();
    }
}

const DUE: Time = Time(u64::MAX / 2);
