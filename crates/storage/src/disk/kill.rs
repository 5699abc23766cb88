//! Ends the process in the middle of a write, which `cargo x crash` chooses. It exists only with
//! `debug_assertions`, so not in a release.
//!
//! `FERRYMQ_KILL_AT_WRITE` names a file that need not exist yet. When it contains `runs 17`, the 17th following
//! write to a file with `runs` in its path is done by half, and the process ends there.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many writes to such files there were.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// The first half of a write, if the process ends in this write.
pub(super) fn half_of_the_last(path: &Path, parts: &[IoSlice<'_>]) -> Option<Vec<u8>> {
    static ORDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let order = ORDER.get_or_init(|| std::env::var_os("FERRYMQ_KILL_AT_WRITE").map(PathBuf::from)).as_ref()?;
    let order = std::fs::read_to_string(order).ok()?;
    let (part, number) = order.trim().split_once(' ')?;
    let is_due = path.to_string_lossy().contains(part)
        && WRITES.fetch_add(1, Ordering::Relaxed) + 1 == number.parse::<u64>().ok()?;
    is_due.then(|| {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        bytes.truncate(bytes.len() / 2);
        bytes
    })
}
