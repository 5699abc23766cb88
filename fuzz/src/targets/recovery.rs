//! Recovery from a damaged data directory: it must not panic, and it must report each lost message.
//!
//! The input is a list of damages; each has eight bytes. They are done to the fixture in the current storage format: a
//! journal, a run, a checkpoint and a body with its own file, with a thousand messages in all.

use std::path::Path;
use std::sync::LazyLock;

use ferrymq_storage::Options;
use ferrymq_testkit::FakeDisk;

use super::{Marks, variant};

#[allow(dead_code, clippy::unwrap_used, reason = "storage's tests share it, and use the rest")]
#[path = "../../../crates/storage/tests/it/packed.rs"]
mod packed;
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "storage's tests share it, and use the rest")]
#[path = "../../../crates/storage/tests/it/rig.rs"]
mod rig;

const QUEUE: u64 = 256;
const MESSAGES: usize = 1000;
/// The maximum number of damages. More damages find nothing new.
const DAMAGES_MAX: usize = 8;

static FIXTURE: LazyLock<FakeDisk> =
    LazyLock::new(|| packed::unpack(include_bytes!("../../../crates/storage/tests/fixtures/directory-v2.packed")));

/// Opens the damaged directory and reads all messages.
pub fn read(input: &[u8]) -> Marks {
    let disk = FIXTURE.copy();
    let damages: Vec<&[u8; 8]> = input.as_chunks().0.iter().take(DAMAGES_MAX).collect();
    let mut marks: Marks = damages.iter().map(|damage| inflict(&disk, damage)).collect();
    let options = Options { sync_wait_ms: 5, read_bytes_max: 128 << 10, file_bytes: 256 << 10, ..Options::default() };
    let (shard, recovered) = match rig::open_on(std::sync::Arc::new(disk), Path::new("/data"), options) {
        Ok(opened) => opened,
        Err(why) => {
            // With several damages, it is not known which one caused the error.
            let of = marks.pop_first().filter(|_| marks.is_empty()).unwrap_or_else(|| "several".to_owned());
            return Marks::from([format!("{} after {of}", variant(&why))]);
        }
    };
    let (mut from, mut found) = (0, 0);
    while let Ok(Some((sequence, _))) = shard.try_next(QUEUE, from) {
        assert!(sequence >= from, "messages come in order");
        from = sequence + 1;
        found += 1;
    }
    let failed = shard.heard(|heard| !heard.failed.is_empty());
    let said = failed || !recovered.missing.is_empty();
    assert!(found == MESSAGES || said, "{} messages are lost and not reported", MESSAGES - found);
    marks.extend(failed.then(|| "a queue failed".to_owned()));
    marks.extend((!recovered.missing.is_empty()).then(|| "something is missing".to_owned()));
    marks
}

/// Does one damage. Returns its mark: the damage and the kind of file.
fn inflict(disk: &FakeDisk, damage: &[u8; 8]) -> String {
    let [kind, file, at @ .., count, value] = *damage;
    let files = disk.files();
    let path = &files[usize::from(file) % files.len()];
    let at = u32::from_le_bytes(at) as usize;
    let count = 1 << (count % 14);
    let what = match kind % 8 {
        0 => "lost",
        1 => "cut",
        2 => "zeroed",
        3 => "filled",
        _ => "flipped",
    };
    if what == "lost" {
        disk.lose(path);
    } else {
        disk.meddle(path, |bytes| {
            let at = at % bytes.len().max(1);
            let end = (at + count).min(bytes.len());
            match what {
                "cut" => bytes.truncate(at),
                "zeroed" => bytes[at..end].fill(0),
                "filled" => bytes[at..end].fill(value),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value % 8)),
            }
        });
    }
    let kind = path.extension().map_or_else(|| "manifest".into(), |extension| extension.to_string_lossy());
    format!("{kind} {what}")
}
