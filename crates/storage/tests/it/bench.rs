//! How long the hot path takes and how much memory long queues take. Run by hand, one at a time:
//! `cargo test --release -p ferrymq-storage -- --ignored --nocapture speed` (or `memory`).

use std::time::Instant;

use ferrymq_model::{BodyRef, QueueId, Settled};
use ferrymq_storage::{Next, Options};

use crate::rig::{Folder, facts, message, place};

#[test]
#[ignore = "a measurement"]
fn speed_of_enqueue_and_settle() {
    for (name, durable, behind) in [
        ("durable", true, 0),
        ("durable, 1000 behind", true, 1000),
        ("transient", false, 0),
        ("transient, 1000 behind", false, 1000),
    ] {
        let folder = Folder::new("speed");
        let (shard, _) = folder.open(Options::default()).unwrap();
        shard.with(|store| store.create_queue(QueueId(256), true));
        let body = [7; 100];
        let body = BodyRef::Inline(&body);
        const BATCH: u64 = 100;
        const BATCHES: u64 = 10_000;
        let (mut spent, mut longest) = (0, 0);
        for batch in 0..BATCHES {
            shard.wait_for_room();
            let took = shard.with(|store| {
                let begun = Instant::now();
                for n in batch * BATCH + 1..=(batch + 1) * BATCH {
                    let places = [place(256, n)];
                    let (durable, transient) = if durable { (&places[..], &[][..]) } else { (&[][..], &places[..]) };
                    store.enqueue(&message(body), &facts(body), durable, transient);
                    if n <= behind {
                        continue;
                    }
                    let Next::Message { sequence, handle, .. } = store.next(QueueId(256), n - behind) else {
                        panic!("it is there")
                    };
                    std::hint::black_box(store.message(handle));
                    store.settle(QueueId(256), sequence, sequence, Settled::Accepted);
                }
                begun.elapsed().as_nanos() as u64
            });
            spent += took;
            longest = longest.max(took);
        }
        println!("{name}: {} ns a message, longest batch {} us", spent / BATCH / BATCHES, longest / 1000);
        shard.close();
    }
}

#[test]
#[ignore = "a measurement"]
fn memory_of_five_million_messages() {
    const COUNT: u64 = 5_000_000;
    for (durable, queues) in [(true, 1), (true, 1000), (false, 1), (false, 1000)] {
        let folder = Folder::new("memory");
        let (shard, _) = folder.open(Options::default()).unwrap();
        shard.with(|store| (1..=queues).for_each(|queue| store.create_queue(QueueId(queue * 256), true)));
        let body = [7; 100];
        let body = BodyRef::Inline(&body);
        let mut peak = Peak::default();
        let begun = Instant::now();
        for batch in 0..COUNT / 100 {
            shard.wait_for_room();
            shard.with(|store| {
                for number in batch * 100..(batch + 1) * 100 {
                    let places = [place((number % queues + 1) * 256, number / queues + 1)];
                    let (durable, transient) = if durable { (&places[..], &[][..]) } else { (&[][..], &places[..]) };
                    store.enqueue(&message(body), &facts(body), durable, transient);
                }
            });
            peak.look(batch);
        }
        let published = begun.elapsed();
        let mut drained = 0;
        // Consumers take what their prefetch allows, one queue after the other.
        const PREFETCH: u64 = 100;
        for turn in 0..COUNT / queues / PREFETCH {
            for queue in 1..=queues {
                for sequence in turn * PREFETCH + 1..=(turn + 1) * PREFETCH {
                    let (found, _) = shard.next(queue * 256, sequence).expect("it is there");
                    assert_eq!(found, sequence);
                    shard.with(|store| store.settle(QueueId(queue * 256), found, found, Settled::Accepted));
                }
                drained += 1;
                peak.look(drained);
            }
        }
        let drained = begun.elapsed() - published;
        println!("durable {durable}, {queues} queues: peak {} KiB, {published:?} in, {drained:?} out", peak.kib);
        shard.close();
    }
}

/// The most anonymous memory that was seen.
#[derive(Default)]
struct Peak {
    kib: u64,
}

impl Peak {
    fn look(&mut self, turn: u64) {
        if !turn.is_multiple_of(500) {
            return;
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        self.kib = self.kib.max(line.split_whitespace().nth(1).unwrap().parse().unwrap());
    }
}
