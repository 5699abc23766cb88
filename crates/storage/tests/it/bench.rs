//! How long the hot path takes; run by hand (`cargo test --release -- --ignored speed --nocapture`).

use std::time::Instant;

use ferrymq_model::{BodyRef, QueueId, Settled};
use ferrymq_storage::{Next, Options};

use crate::rig::{Folder, facts, message, place};

#[test]
#[ignore = "a measurement"]
fn speed_of_enqueue_and_settle() {
    let folder = Folder::new("speed");
    let (shard, _) = folder.open(Options::default()).unwrap();
    const COUNT: u64 = 300_000;
    let body = [7; 100];
    let body = BodyRef::Inline(&body);
    shard.with(|store| {
        store.create_queue(QueueId(256), true);
        let mut first = 1;
        for (name, durable) in [("durable", true), ("transient", false), ("durable, 1000 behind", true)] {
            let behind = if name.ends_with("behind") { 1000 } else { 0 };
            let begun = Instant::now();
            for n in first..first + COUNT {
                let places = [place(256, n)];
                let (durable, transient) = if durable { (&places[..], &[][..]) } else { (&[][..], &places[..]) };
                store.enqueue(&message(body), &facts(body), durable, transient);
                let oldest = n.saturating_sub(behind).max(first);
                let Next::Message { sequence, handle, .. } = store.next(QueueId(256), oldest) else {
                    panic!("is there")
                };
                std::hint::black_box(store.message(handle));
                if n >= first + behind {
                    store.settle(QueueId(256), sequence, sequence, Settled::Accepted);
                }
            }
            println!("{name}: {} ns", begun.elapsed().as_nanos() as u64 / COUNT);
            store.settle(QueueId(256), 0, first + COUNT - 1, Settled::Purged);
            first += COUNT;
        }
    });
}
