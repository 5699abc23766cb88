//! Runs with few live messages, and queues that are in many runs: live messages are rewritten, and none is lost.

use bytes::Bytes;
use ferrymq_model::{BodyRef, QueueId, Settled};
use ferrymq_storage::Options;

use crate::rig::{Folder, Shard, facts, message, place, publish, small};
use crate::story::open;
use ferrymq_testkit::{Chance, FakeDisk, Faults};

const Q: u64 = 256;

fn body(number: u64) -> Vec<u8> {
    format!("message {number} {}", "y".repeat((number % 300) as usize)).into_bytes()
}

fn publish_all(shard: &Shard, queues: &[u64], count: u64) {
    shard.with(|store| queues.iter().for_each(|queue| store.create_queue(QueueId(*queue), true)));
    for number in 1..=count {
        shard.wait_for_room();
        shard.with(|store| queues.iter().for_each(|queue| publish(store, &body(number), &[place(*queue, number)])));
        if number % 500 == 0 {
            assert!(shard.flush());
        }
    }
    assert!(shard.flush());
}

/// Settles all but every twentieth message, one at a time and from the back, as no consumer would.
fn settle_most(shard: &Shard, queue: u64, count: u64) {
    for number in (1..=count).rev().filter(|number| number % 20 != 0) {
        shard.with(|store| store.settle(QueueId(queue), number, number, Settled::Accepted));
    }
    assert!(shard.flush());
}

fn left(count: u64) -> Vec<(u64, Vec<u8>)> {
    (1..=count).filter(|number| number % 20 == 0).map(|number| (number, body(number))).collect()
}

/// What was in runs when it was settled is in one run then; what is moved out of the journal later comes to others,
/// from the few generations that were still resident.
fn wait_until_merged(shard: &Shard, queue: u64) {
    while shard.with(|store| store.queue_stats(QueueId(queue)).unwrap().extents) > 5 {
        std::thread::yield_now();
    }
}

#[test]
fn runs_that_are_mostly_settled_become_one() {
    let folder = Folder::new("mostly-settled");
    let options = || Options { merge_bytes: 1, ..small() };
    let (shard, _) = folder.open(options()).unwrap();
    publish_all(&shard, &[Q, 2 * Q], 8_000);
    let bytes = || -> u64 {
        let files = std::fs::read_dir(folder.0.join("runs")).unwrap();
        files.filter_map(|file| file.unwrap().metadata().ok()).map(|file| file.len()).sum()
    };
    let before = bytes();
    settle_most(&shard, Q, 8_000);
    settle_most(&shard, 2 * Q, 8_000);
    // The old runs are deleted after the queues have left them, once a checkpoint says so.
    while bytes() >= before / 4 {
        std::thread::yield_now();
    }
    assert!(shard.messages(Q) == left(8_000), "before the restart");
    shard.close();
    assert!(shard.heard(|heard| heard.merged) > 1, "it is told");
    let (shard, recovered) = folder.open(options()).unwrap();
    assert_eq!(recovered.queues[0].messages, 400);
    assert!([Q, 2 * Q].iter().all(|queue| shard.messages(*queue) == left(8_000)), "after the restart");
}

#[test]
fn a_queue_in_many_runs_is_in_few_again() {
    let folder = Folder::new("crowd");
    let options = || Options { extents_max: 6, ..small() };
    let (shard, _) = folder.open(options()).unwrap();
    publish_all(&shard, &[Q], 20_000);
    let extents = || shard.with(|store| store.queue_stats(QueueId(Q)).unwrap().extents);
    while extents() > 8 {
        std::thread::yield_now();
    }
    let expected: Vec<_> = (1..=20_000).map(|number| (number, body(number))).collect();
    assert!(shard.messages(Q) == expected, "before the restart");
    shard.close();
    let (shard, _) = folder.open(options()).unwrap();
    assert!(shard.messages(Q) == expected, "after the restart");
}

/// A body that several queues share is in the merged run once, too, and what was read from the old runs is removed.
#[test]
fn shared_bodies_are_found_in_the_merged_run() {
    let folder = Folder::new("merged-bodies");
    let options = || Options { merge_bytes: 1, ..small() };
    let (shard, _) = folder.open(options()).unwrap();
    let queues = [Q, 2 * Q, 3 * Q];
    shard.with(|store| queues.iter().for_each(|queue| store.create_queue(QueueId(*queue), true)));
    let long = |number: u64| Bytes::from(vec![number as u8; 3000]);
    for number in 1..=1_200 {
        shard.wait_for_room();
        let (body, places) = (long(number), queues.map(|queue| place(queue, number)));
        let body = BodyRef::Shared(&body);
        shard.with(|store| store.enqueue(&message(body), &facts(body), &places, &[]));
    }
    assert!(shard.flush());
    // Read a little of each, so that blocks and bodies of the old runs are in memory.
    queues.iter().for_each(|queue| drop(shard.next(*queue, 20)));
    queues.iter().for_each(|queue| settle_most(&shard, *queue, 1_200));
    // Only further writes to the journal wake the thread that merges.
    publish_all(&shard, &[4 * Q], 4_000);
    queues.iter().for_each(|queue| wait_until_merged(&shard, *queue));
    let expected: Vec<_> =
        (1..=1_200).filter(|number| number % 20 == 0).map(|number| (number, long(number).to_vec())).collect();
    assert!(queues.iter().all(|queue| shard.messages(*queue) == expected), "before the restart");
    shard.close();
    let (shard, _) = folder.open(options()).unwrap();
    assert!(queues.iter().all(|queue| shard.messages(*queue) == expected), "after the restart");
}

/// The old runs may be deleted only when the checkpoint refers to the new one.
#[test]
fn a_kill_behind_a_merge_loses_nothing() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk).unwrap();
    publish_all(&shard, &[Q], 16_000);
    settle_most(&shard, Q, 16_000);
    wait_until_merged(&shard, Q);
    let killed = disk.after_kill();
    drop(shard);
    let (shard, _) = open(&killed).unwrap();
    let mut from = 0;
    for (number, body) in left(16_000) {
        let found = shard.try_next(Q, from).unwrap_or_else(|()| panic!("the queue failed at {number}"));
        assert!(found == Some((number, body)), "{number} is found");
        from = number + 1;
    }
}

/// Power fails at one operation after the other while runs are merged.
#[test]
fn power_fails_while_runs_are_merged() {
    for seed in 0..60 {
        let mut chance = Chance::new(7_000 + seed);
        let disk = FakeDisk::default();
        disk.set_faults(Faults { stop_at: Some(40 + chance.below(1_200)), ..Faults::default() });
        let Ok((shard, _)) = open(&disk) else { continue };
        let told = merge_story(&shard);
        let durable = shard.with(|store| store.durable_position());
        let disk = disk.after_power_loss(&mut chance);
        drop(shard);
        let Ok((shard, _)) = open(&disk) else { panic!("seed {seed}: it does not open") };
        let found = shard.messages(Q);
        for (number, put_at, settled_at) in told {
            let is_there = found.iter().any(|(sequence, _)| *sequence == number);
            assert!(is_there || put_at > durable || settled_at.is_some(), "seed {seed}: {number} is lost");
            assert!(!is_there || settled_at.is_none_or(|at| at > durable), "seed {seed}: {number} is back");
        }
        assert!(found.iter().all(|(number, bytes)| *bytes == body(*number)), "seed {seed}: another body");
    }
}

type Told = Vec<(u64, ferrymq_model::Position, Option<ferrymq_model::Position>)>;

fn merge_story(shard: &Shard) -> Told {
    let mut told = Told::new();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    for number in 1..=6_000 {
        let put_at = shard.with(|store| {
            publish(store, &body(number), &[place(Q, number)]);
            store.position()
        });
        told.push((number, put_at, None));
        if number > 300 && number % 20 != 0 {
            let old = number - 300;
            let settled_at = shard.with(|store| {
                store.settle(QueueId(Q), old, old, Settled::Accepted);
                store.position()
            });
            told[old as usize - 1].2 = Some(settled_at);
        }
        if number % 200 == 0 && !shard.flush() {
            break;
        }
    }
    told
}
