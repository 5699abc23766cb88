//! The disk on which nothing changes: it reads like one that was written to, and the disk below stays as it was.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrymq_storage::{Disk, Open, UnchangedDisk};
use ferrymq_testkit::{Chance, FakeDisk};

const FOLDER: &str = "/data";

fn path(number: u64) -> PathBuf {
    Path::new(FOLDER).join(number.to_string())
}

fn files(disk: &FakeDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect()
}

/// Does something at random, and tells what came of it.
fn act(disk: &dyn Disk, chance: &mut Chance) -> String {
    let (one, other) = (path(chance.below(5)), path(chance.below(5)));
    let how = [Open::Existing, Open::Existing, Open::Existing, Open::Blocks, Open::Empty, Open::New];
    let how = how[chance.below(6) as usize];
    let (position, bytes) = (chance.below(10_000), chance.below(6_000) as usize);
    match chance.below(10) {
        0 => format!("{:?}", disk.rename(&one, &other).map_err(|error| error.kind())),
        1 => format!("{:?}", disk.remove(&one).map_err(|error| error.kind())),
        2 => {
            let mut names = disk.list(Path::new(FOLDER)).unwrap();
            names.sort();
            names.join(" ")
        }
        step => match disk.open(&one, how) {
            Err(error) => format!("{how:?} {:?}", error.kind()),
            Ok(file) => match step {
                3..6 => {
                    let (first, second) = (vec![1 + chance.below(255) as u8; bytes], [7; 3]);
                    file.write_at(position, &[IoSlice::new(&first), IoSlice::new(&second)]).unwrap();
                    file.sync_data().unwrap();
                    format!("{} bytes", file.len().unwrap())
                }
                6 => {
                    file.set_len(position).unwrap();
                    format!("{} bytes", file.len().unwrap())
                }
                _ => {
                    let mut into = vec![0; bytes];
                    let read = file.read_at(position, &mut into).map_err(|error| error.kind());
                    format!("{read:?} {:?}", read.is_ok().then(|| crc32c::crc32c(&into)))
                }
            },
        },
    }
}

#[test]
fn it_reads_like_one_that_was_written_to() {
    for seed in 0..100 {
        let disk = FakeDisk::default();
        disk.create_folder(Path::new(FOLDER)).unwrap();
        let mut chance = Chance::new(seed);
        for number in 0..3 {
            let bytes: Vec<u8> = (0..chance.below(12_000)).map(|at| (at % 251) as u8).collect();
            disk.open(&path(number), Open::New).unwrap().write_at(0, &[IoSlice::new(&bytes)]).unwrap();
        }
        let (below, before) = (disk.copy(), files(&disk));
        let unchanged = UnchangedDisk::new(Arc::new(below.clone()));
        let (mut one, mut other) = (Chance::new(seed + 1_000), Chance::new(seed + 1_000));
        for step in 0..200 {
            assert_eq!(act(&unchanged, &mut one), act(&disk, &mut other), "seed {seed}, step {step}");
        }
        assert!(files(&below) == before, "seed {seed}");
        assert!(files(&disk) != before, "seed {seed}");
    }
}

#[test]
fn a_lock_that_is_there_is_taken_and_one_that_is_not_is_not_made() {
    let below = FakeDisk::default();
    below.create_folder(Path::new(FOLDER)).unwrap();
    let lock = Path::new(FOLDER).join("lock");
    let unchanged = UnchangedDisk::new(Arc::new(below.clone()));
    drop(unchanged.lock(&lock).unwrap());
    assert!(below.files().is_empty());
    let held = below.lock(&lock).unwrap();
    below.open(&lock, Open::Empty).unwrap();
    assert_eq!(unchanged.lock(&lock).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(held);
    unchanged.lock(&lock).unwrap();
}
