//! Recovery on damaged files: never a panic, and never a message lost without a report. Failures are kept in
//! `proptest-regressions` and replayed.

use proptest::prelude::*;

use crate::faults::full_directory;
use crate::story::open;
use ferrymq_testkit::FakeDisk;

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Zero { at: usize, bytes: usize },
    Cut { at: usize },
    Lose,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (any::<usize>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        3 => (any::<usize>(), 1..9_000_usize).prop_map(|(at, bytes)| Damage::Zero { at, bytes }),
        1 => any::<usize>().prop_map(|at| Damage::Cut { at }),
        1 => Just(Damage::Lose),
    ]
}

fn inflict(disk: &FakeDisk, file: usize, damage: &Damage) {
    let files = disk.files();
    let path = &files[file % files.len()];
    match damage {
        Damage::Lose => disk.lose(path),
        Damage::Cut { at } => disk.meddle(path, |bytes| bytes.truncate(at % (bytes.len() + 1))),
        Damage::Flip { at, bit } => disk.meddle(path, |bytes| {
            let at = at % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }),
        Damage::Zero { at, bytes: count } => disk.meddle(path, |bytes| {
            let at = at % bytes.len().max(1);
            let end = (at + count).min(bytes.len());
            bytes[at..end].fill(0);
        }),
    }
}

/// Opens what is left; true if everything is there, or if a loss was reported.
fn is_honest(disk: &FakeDisk) -> bool {
    let Ok((shard, recovered)) = open(disk) else { return true };
    let (mut from, mut found) = (0, 0);
    while let Ok(Some((sequence, _))) = shard.try_next(256, from) {
        from = sequence + 1;
        found += 1;
    }
    found == 1000 || !recovered.missing.is_empty() || shard.heard(|heard| !heard.failed.is_empty())
}

#[test]
fn recovery_survives_any_damage_and_says_so() {
    let whole = full_directory();
    let config = ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(file in any::<usize>(), one in damage())| {
        let disk = whole.copy();
        inflict(&disk, file, &one);
        prop_assert!(is_honest(&disk), "messages are lost in silence");
    });
}

#[test]
fn recovery_does_not_panic_on_several_damages() {
    let whole = full_directory();
    let config = ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(several in prop::collection::vec((any::<usize>(), damage()), 2..6))| {
        let disk = whole.copy();
        several.iter().for_each(|(file, damage)| inflict(&disk, *file, damage));
        is_honest(&disk);
    });
}
