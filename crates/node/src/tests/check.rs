//! Checking a data directory.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use ferrymq_model::Limits;
use ferrymq_storage::{Disk, Options};
use ferrymq_testkit::FakeDisk;

use crate::{Backend, Node, NodeSettings, check, tests::rig::Still};

const DATA: &str = "/data";

fn files(disk: &FakeDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path))).collect()
}

/// What a server leaves that is killed, and what it leaves that stops.
fn left() -> [FakeDisk; 2] {
    let disk = FakeDisk::default();
    let settings = NodeSettings {
        directory: DATA.into(),
        limits: Limits::default(),
        storage: Options { file_bytes: 256 << 10, ..Options::default() },
        fixed: Default::default(),
        dialects: Default::default(),
        backends: vec![Backend::Internal],
        events: false,
    };
    let node = Node::open(settings, Arc::new(disk.clone()), Arc::new(Still)).unwrap();
    let running = disk.copy();
    node.stop().unwrap();
    [running, disk]
}

#[test]
fn a_check_changes_no_file_and_a_repair_does() {
    let [killed, stopped] = left();
    let torn = stopped.copy();
    let journal = PathBuf::from(DATA).join("journal/00.journal");
    torn.meddle(&journal, |bytes| {
        let last = (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"FQgr")).max().unwrap();
        bytes[last + 20] ^= 1;
    });
    // A copy may have left out the lock.
    let unlocked = stopped.copy();
    unlocked.lose(&PathBuf::from(DATA).join("lock"));
    for disk in [killed, stopped, torn, unlocked] {
        let before = files(&disk);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let checks = || {
            let checked = check(&shared, DATA.as_ref(), false).unwrap();
            (checked.notes, checked.damages, checked.queues, checked.messages)
        };
        let first = checks();
        assert_eq!(first, checks(), "a second check finds the same");
        assert!(first.1.is_empty());
        assert!(files(&disk) == before, "a check changes nothing");
        check(&shared, DATA.as_ref(), true).unwrap();
        assert!(files(&disk) != before, "a repair opens the directory as a start does");
    }
}
