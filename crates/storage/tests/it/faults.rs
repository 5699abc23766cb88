//! Power fails at every write and sync, again and again; recovery must find everything that was confirmed.

use std::path::Path;

use ferrymq_model::{BodyRef, CatalogEntry, EntryKind, Position, QueueId};
use ferrymq_storage::{Backpressure, OpenError};

use crate::rig::{facts, message, place, publish};
use crate::story::{Model, open, tell};
use ferrymq_testkit::{Chance, FakeDisk, Faults};

const STEPS: usize = 500;

/// Plays a story on a disk that stops at an operation, recovers (with further stops on the way) and checks.
pub fn power_fails(seed: u64, stop_at: u64, lie: bool) {
    // Shown only if the test fails.
    println!("seed {seed}, power fails at operation {stop_at}");
    let mut chance = Chance::new(seed);
    let mut model = Model::default();
    let mut disk = FakeDisk::default();
    disk.set_faults(Faults { stop_at: Some(stop_at), lie, ..Faults::default() });
    let mut promised = Position::default();
    if let Ok((shard, _)) = open(&disk) {
        promised = tell(&mut model, &shard, &mut chance, STEPS);
        disk.set_faults(Faults { stop_at: Some(0), ..Faults::default() });
        drop(shard);
    }
    // A quarter of the failures happen during recovery.
    while chance.one_in(4) {
        disk = disk.after_power_loss(&mut chance);
        disk.set_faults(Faults { stop_at: Some(chance.below(12)), ..Faults::default() });
        drop(open(&disk));
    }
    disk = if chance.one_in(4) { disk.after_kill() } else { disk.after_power_loss(&mut chance) };
    let (shard, recovered) = open(&disk).unwrap();
    println!("recovered; cut off: {:?}", recovered.missing);
    model.check(&shard, &recovered, promised);
    // And it continues from there: another run, another end.
    tell(&mut model, &shard, &mut chance, 50);
    let promised = shard.with(|store| store.durable_position());
    disk = disk.after_power_loss(&mut chance);
    drop(shard);
    let (shard, recovered) = open(&disk).unwrap();
    model.check(&shard, &recovered, promised);
}

/// How many operations a story takes on a disk that does not fail.
fn operations(seed: u64) -> u64 {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk).unwrap();
    tell(&mut Model::default(), &shard, &mut Chance::new(seed), STEPS);
    let stats = shard.with(|store| store.stats());
    assert!(stats.messages > 0);
    disk.operations()
}

/// `FERRYMQ_SEED` replays one story at all its stops.
fn seed() -> u64 {
    std::env::var("FERRYMQ_SEED").map_or(7, |seed| seed.parse().unwrap())
}

#[test]
fn power_fails_at_every_operation() {
    let seed = seed();
    let count = operations(seed);
    assert!(count > 200, "{count} operations are a story");
    for stop_at in 0..count {
        power_fails(seed, stop_at, false);
    }
}

/// Whatever is left of a directory that was being created, the next start creates or completes it.
#[test]
fn power_fails_in_the_first_start() {
    let disk = FakeDisk::default();
    drop(open(&disk).unwrap());
    for stop_at in 0..disk.operations() {
        for seed in 0..5 {
            let disk = FakeDisk::default();
            disk.set_faults(Faults { stop_at: Some(stop_at), ..Faults::default() });
            drop(open(&disk));
            let disk = disk.after_power_loss(&mut Chance::new(seed));
            open(&disk).unwrap_or_else(|error| panic!("operation {stop_at}, seed {seed}: {error}"));
        }
    }
}

#[test]
fn power_fails_in_many_stories() {
    for seed in 1_000..1_100 {
        let stop_at = Chance::new(seed).below(600);
        power_fails(seed, stop_at, false);
    }
}

#[test]
fn a_failed_sync_is_fatal_and_confirms_nothing_more() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk).unwrap();
    shard.with(|store| store.create_queue(QueueId(256), true));
    assert!(shard.flush());
    let before = shard.with(|store| store.durable_position());
    disk.set_faults(Faults { fail_sync_of: Some("journal"), ..Faults::default() });
    shard.with(|store| publish(store, b"never confirmed", &[place(256, 1)]));
    assert!(!shard.flush());
    disk.set_faults(Faults::default());
    shard.with(|store| store.request_flush());
    assert_eq!(shard.next(256, 1), Some((1, b"never confirmed".to_vec())), "consumers get what is in memory");
    assert_eq!(shard.with(|store| store.durable_position()), before, "the disk works again and nobody trusts it");
    let said = shard.heard(|heard| heard.fatal.clone()).unwrap();
    assert!(said.contains("sync") && said.contains(".journal"), "{said}");
}

#[test]
fn a_full_disk_stalls_publishers_until_there_is_room() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk).unwrap();
    shard.with(|store| store.create_queue(QueueId(256), true));
    disk.set_faults(Faults { space_left: Some(0), ..Faults::default() });
    let body = [5; 1000];
    let mut number = 0;
    while shard.with(|store| store.backpressure()) == Backpressure::Open {
        number += 1;
        shard.with(|store| publish(store, &body, &[place(256, number)]));
    }
    // Consumers empty the queues, and their settlements are written.
    shard.with(|store| store.settle(QueueId(256), 1, number / 2, ferrymq_model::Settled::Accepted));
    assert!(shard.flush(), "into the file that was kept back");
    assert_eq!(shard.messages(256).len() as u64, number - number / 2);
    disk.set_faults(Faults::default());
    shard.wait_for_room();
    shard.with(|store| publish(store, b"goes on", &[place(256, number + 1)]));
    assert!(shard.flush());
    let disk = disk.after_power_loss(&mut Chance::new(1));
    drop(shard);
    let (shard, _) = open(&disk).unwrap();
    assert_eq!(shard.messages(256).len() as u64, number - number / 2 + 1);
}

/// A directory with messages in a run, in the journal and in a file of its own. The last group has no message.
pub fn full_directory() -> FakeDisk {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk).unwrap();
    shard.with(|store| store.create_queue(QueueId(256), true));
    for number in 1..=1000 {
        shard.wait_for_room();
        let body = vec![number as u8; if number == 10 { 100_000 } else { 1000 }];
        let body = BodyRef::Inline(&body);
        shard.with(|store| store.enqueue(&message(body), &facts(body), &[place(256, number)], &[]));
        if number.is_multiple_of(50) {
            assert!(shard.flush());
        }
    }
    let entry = CatalogEntry { kind: EntryKind::Exchange, key: b"e".to_vec(), value: Some(b"v".to_vec()) };
    shard.with(|store| store.put(&entry));
    assert!(shard.flush());
    shard.close();
    disk
}

fn file_of(disk: &FakeDisk, part: &str) -> std::path::PathBuf {
    disk.files().into_iter().find(|path| path.to_string_lossy().contains(part)).unwrap()
}

#[test]
fn a_damaged_run_stops_its_queues_and_no_others() {
    let disk = full_directory();
    disk.meddle(&file_of(&disk, ".run"), |bytes| bytes[5000] ^= 1);
    let (shard, _) = open(&disk).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(512), true);
        publish(store, b"works", &[place(512, 1)]);
    });
    let mut from = 0;
    while let Ok(Some((sequence, _))) = shard.try_next(256, from) {
        from = sequence + 1;
    }
    assert!(from < 1000);
    assert_eq!(shard.heard(|heard| heard.failed.clone()), [QueueId(256)]);
    assert!(shard.with(|store| matches!(store.next(QueueId(512), 1), ferrymq_storage::Next::Message { .. })));
}

#[test]
fn damage_in_the_middle_of_the_journal_stops_the_start() {
    let disk = full_directory();
    // Two groups before the end: the next one says that it was synced.
    let journal = disk.files().into_iter().filter(|path| path.to_string_lossy().ends_with(".journal"));
    for path in journal {
        disk.meddle(&path, |bytes| bytes[4096 + 100] ^= 1);
    }
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { position: 4096, .. }), "{error}");
}

#[test]
fn a_missing_journal_file_is_named() {
    let disk = full_directory();
    disk.lose(Path::new("/data/journal/02.journal"));
    let error = open(&disk).unwrap_err().to_string();
    assert!(error.contains("02.journal is missing"), "{error}");
}

#[test]
fn a_newer_format_is_named() {
    let disk = full_directory();
    let write = |path: &Path, version: u8, bytes_checked: usize| {
        disk.meddle(path, |bytes| {
            bytes[8] = version;
            let crc = crc32c::crc32c(&bytes[..bytes_checked]);
            bytes[bytes_checked..bytes_checked + 4].copy_from_slice(&crc.to_le_bytes());
        });
    };
    for (file, bytes_checked) in [("manifest", 124), ("00.journal", 20)] {
        let path = file_of(&disk, file);
        write(&path, 99, bytes_checked);
        let error = open(&disk).unwrap_err().to_string();
        assert!(error.contains("format version 99") && error.contains("newer FerryMQ"), "{error}");
        write(&path, 1, bytes_checked);
        let error = open(&disk).unwrap_err().to_string();
        assert!(error.contains("format version 1") && error.contains("never released"), "{error}");
        write(&path, 2, bytes_checked);
    }
    open(&disk).unwrap();
}
