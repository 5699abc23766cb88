//! How many bytes storage holds, counted by the allocator. What the system shows of a process depends on the
//! allocator; this does not. A test program with only one test, because everything in it is counted.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use ferrymq_model::{BodyRef, QueueId};
use ferrymq_storage::Options;

#[allow(dead_code, reason = "the other tests use the rest of it")]
#[path = "it/rig.rs"]
mod rig;

use rig::{Folder, facts, message, place};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// 600 MB of shared bodies in a queue that nobody reads are on disk, except for the 32 MiB that may stay.
#[test]
fn long_transient_bodies_leave_memory() {
    let folder = Folder::new("held");
    let options = Options::default();
    let may_be_held = options.transient_bytes_max as usize + (4 << 20);
    let (shard, _) = folder.open(options).unwrap();
    shard.with(|store| store.create_queue(QueueId(256), false));
    let before = HELD.load(Relaxed);
    for number in 1..=60_000 {
        shard.wait_for_room();
        let body = Bytes::from(vec![number as u8; 10_000]);
        let body = BodyRef::Shared(&body);
        shard.with(|store| store.enqueue(&message(body), &facts(body), &[], &[place(256, number)]));
    }
    let held = PEAK.load(Relaxed) - before;
    let said = shard.with(|store| store.stats().memory);
    assert!(said.transient > 16 << 20 && said.total() < may_be_held as u64, "the ledger says {said:?}");
    assert!(held < may_be_held, "{held} bytes are held at most, of 600 MB");
}
