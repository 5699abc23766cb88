//! What is written can be read again, before and after a restart.

use std::fs;
use std::io::IoSlice;

use bytes::Bytes;
use ferrymq_model::{BodyRef, CatalogEntry, EntryKind, MessageRef, QueueId, Settled, Time};
use ferrymq_storage::{Disk, Next, Open, OpenError, Options, RealDisk};

use crate::rig::{Folder, facts, message, place, publish, small};

const Q: u64 = 256;

#[test]
fn a_durable_message_is_there_after_a_restart() {
    let folder = Folder::new("restart");
    let (shard, recovered) = folder.open(Options::default()).unwrap();
    assert!(recovered.queues.is_empty() && recovered.entries.is_empty());
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"Hello World!", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    drop(shard);

    let (shard, recovered) = folder.open(Options::default()).unwrap();
    assert_eq!(recovered.queues.len(), 1);
    let queue = &recovered.queues[0];
    assert_eq!((queue.id, queue.messages, queue.bytes), (QueueId(Q), 1, 12));
    assert_eq!((queue.state.next, queue.state.head), (2, 1));
    assert_eq!(shard.messages(Q), [(1, b"Hello World!".to_vec())]);
}

#[test]
fn every_part_of_a_message_comes_back() {
    let folder = Folder::new("parts");
    let (shard, _) = folder.open(Options::default()).unwrap();
    let long = Bytes::from(vec![7; 100_000]);
    let check = |store: &mut ferrymq_storage::Store| {
        for (sequence, body) in [(1, BodyRef::Inline(b"short")), (2, BodyRef::Shared(&long)), (3, BodyRef::Inline(b""))]
        {
            let Next::Message { sequence: found, handle, facts: back } = store.next(QueueId(Q), sequence) else {
                panic!("message {sequence} is not there");
            };
            assert_eq!((found, back), (sequence, facts(body)));
            let (wanted, found) = (message(body), store.message(handle));
            assert_eq!((found.dialect, found.exchange), (wanted.dialect, wanted.exchange));
            assert_eq!((found.routing_key, found.properties), (wanted.routing_key, wanted.properties));
            assert_eq!(found.body.bytes(), wanted.body.bytes());
            assert_eq!(matches!(found.body, BodyRef::Shared(_)), matches!(body, BodyRef::Shared(_)));
        }
    };
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        for (sequence, body) in [(1, BodyRef::Inline(b"short")), (2, BodyRef::Shared(&long)), (3, BodyRef::Inline(b""))]
        {
            store.enqueue(&message(body), &facts(body), &[place(Q, sequence)], &[]);
        }
        check(store);
    });
    shard.close();
    let (shard, _) = folder.open(Options::default()).unwrap();
    shard.with(check);
}

#[test]
fn settled_messages_stay_settled_and_the_rest_keeps_its_order() {
    let folder = Folder::new("settle");
    let (shard, _) = folder.open(Options::default()).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        (1..=10).for_each(|n| publish(store, &[n as u8], &[place(Q, n)]));
        store.delivered_up_to(QueueId(Q), 6);
        store.settle(QueueId(Q), 1, 2, Settled::Accepted);
        store.settle(QueueId(Q), 4, 4, Settled::Rejected);
        store.attempts(QueueId(Q), 5, 2, Time(0));
    });
    shard.close();
    let (shard, recovered) = folder.open(Options::default()).unwrap();
    let left: Vec<u64> = shard.messages(Q).iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(left, [3, 5, 6, 7, 8, 9, 10]);
    let state = &recovered.queues[0].state;
    assert_eq!((state.next, state.head, state.attempts.as_slice()), (11, 7, &[(5, 2)][..]));
    assert_eq!(state.open.iter().collect::<Vec<_>>(), [(3, 3), (5, 6)]);
}

/// Attempts of transient messages are not stored. What an earlier version stored of them is forgotten.
#[test]
fn transient_messages_leave_no_attempts_behind() {
    let folder = Folder::new("attempts");
    let (shard, _) = folder.open(small()).unwrap();
    let body = BodyRef::Inline(b"x");
    let due = Time(u64::MAX / 2);
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        store.create_queue(QueueId(512), true);
        for sequence in 1..=6 {
            let place = [place(Q, sequence)];
            let (durable, transient) = if sequence % 2 == 0 { (&place[..], &[][..]) } else { (&[][..], &place[..]) };
            store.enqueue(&message(body), &facts(body), durable, transient);
        }
        store.delivered_up_to(QueueId(Q), 6);
        let before = store.position();
        for sequence in [1, 3, 5, 7] {
            store.attempts(QueueId(Q), sequence, 1, due);
        }
        assert_eq!(store.position(), before, "nothing is written");
        for sequence in [2, 4, 6] {
            store.attempts(QueueId(Q), sequence, 1, due);
        }
        store.settle(QueueId(Q), 4, 4, Settled::Accepted);
        store.attempts(QueueId(Q), 4, 1, due);
    });
    // Over several journal files, so that there is a checkpoint.
    for number in 1..=2_000 {
        shard.with(|store| publish(store, &[1; 1_000], &[place(512, number)]));
        if number % 100 == 0 {
            assert!(shard.flush());
        }
    }
    shard.close();
    for _ in 0..2 {
        let (shard, recovered) = folder.open(small()).unwrap();
        let state = &recovered.queues[0].state;
        assert_eq!(state.open.iter().collect::<Vec<_>>(), [(2, 2), (6, 6)]);
        assert_eq!(state.attempts, [(2, 1), (6, 1)]);
        assert_eq!(state.due, [(2, due), (6, due)]);
        shard.close();
    }
}

#[test]
fn a_message_for_several_queues_is_settled_in_each() {
    let folder = Folder::new("fanout");
    let (shard, _) = folder.open(Options::default()).unwrap();
    shard.with(|store| {
        for queue in [256, 512, 768] {
            store.create_queue(QueueId(queue), true);
        }
        publish(store, b"x", &[place(256, 1), place(512, 1), place(768, 1)]);
        store.settle(QueueId(512), 1, 1, Settled::Accepted);
        store.delete_queue(QueueId(768));
    });
    shard.close();
    let (shard, recovered) = folder.open(Options::default()).unwrap();
    assert_eq!(recovered.queues.len(), 2);
    assert_eq!([256, 512].map(|queue| shard.messages(queue).len()), [1, 0]);
}

#[test]
fn catalog_entries_are_put_and_deleted() {
    let entry = |key: &[u8], value: Option<&[u8]>| CatalogEntry {
        kind: EntryKind::Exchange,
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    let folder = Folder::new("catalog");
    let (shard, _) = folder.open(Options::default()).unwrap();
    shard.with(|store| {
        store.put(&entry(b"a", Some(b"1")));
        store.put(&entry(b"b", Some(b"2")));
        store.put(&entry(b"a", Some(b"3")));
        store.put(&entry(b"b", None));
    });
    shard.close();
    let (_shard, recovered) = folder.open(Options::default()).unwrap();
    assert_eq!(recovered.entries, [entry(b"a", Some(b"3"))]);
}

#[test]
fn transient_messages_do_not_survive() {
    let folder = Folder::new("transient");
    let (shard, _) = folder.open(Options::default()).unwrap();
    let body = BodyRef::Inline(b"gone tomorrow");
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        store.enqueue(&message(body), &facts(body), &[], &[place(Q, 1)]);
        publish(store, b"stays", &[place(Q, 2)]);
        store.enqueue(&message(body), &facts(body), &[], &[place(Q, 3)]);
    });
    assert_eq!(shard.messages(Q).len(), 3);
    shard.close();
    let (shard, _) = folder.open(Options::default()).unwrap();
    assert_eq!(shard.messages(Q), [(2, b"stays".to_vec())]);
}

#[test]
fn a_second_server_is_turned_away() {
    let folder = Folder::new("locked");
    let (_shard, _) = folder.open(Options::default()).unwrap();
    assert!(matches!(folder.open(Options::default()), Err(OpenError::InUse(_))));
}

#[test]
fn a_unit_longer_than_a_file_holds_together() {
    let folder = Folder::new("unit");
    let (shard, _) = folder.open(small()).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        store.begin_unit();
        (1..=400).for_each(|n| publish(store, &[n as u8; 1000], &[place(Q, n)]));
        store.end_unit();
    });
    assert!(shard.flush());
    drop(shard);
    let (shard, _) = folder.open(small()).unwrap();
    assert_eq!(shard.messages(Q).len(), 400);
}

/// Without its manifest a directory looks new. If it contains messages, creating it again would delete them.
#[test]
fn a_journal_without_its_manifest_is_not_taken_for_a_new_directory() {
    let folder = Folder::new("no-manifest");
    let (shard, _) = folder.open(small()).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"precious", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    drop(shard);
    let manifest = folder.0.join("manifest");
    let kept = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    assert!(matches!(folder.open(small()), Err(OpenError::Missing { file, .. }) if file == manifest));
    std::fs::write(&manifest, kept).unwrap();
    let (shard, _) = folder.open(small()).unwrap();
    assert_eq!(shard.messages(Q), [(1, b"precious".to_vec())]);
}

/// A server that was killed while it created its directory leaves no manifest, and nothing that was confirmed.
#[test]
fn a_directory_that_was_never_finished_is_made_anew() {
    let folder = Folder::new("unfinished");
    drop(folder.open(small()).unwrap());
    std::fs::remove_file(folder.0.join("manifest")).unwrap();
    for file in std::fs::read_dir(folder.0.join("journal")).unwrap() {
        let path = file.unwrap().path();
        std::fs::write(&path, vec![0; std::fs::metadata(&path).unwrap().len() as usize]).unwrap();
    }
    let (_, recovered) = folder.open(small()).unwrap();
    assert!(recovered.queues.is_empty());
}

#[test]
fn a_transient_message_with_a_long_body_is_read_from_beside_it() {
    let folder = Folder::new("beside");
    let (shard, _) = folder.open(small()).unwrap();
    let long = Bytes::from(vec![9; 4_089]);
    shard.with(|store| {
        store.create_queue(QueueId(Q), false);
        store.enqueue(&message(BodyRef::Shared(&long)), &facts(BodyRef::Shared(&long)), &[], &[place(Q, 1)]);
    });
    assert_eq!(shard.messages(Q), [(1, long.to_vec())]);
}

#[test]
fn whole_blocks_and_other_bytes_go_into_the_same_file() {
    const BLOCK: usize = 4096;
    let folder = Folder::new("blocks");
    let path = folder.0.join("blocks");
    RealDisk.create_folder(&folder.0).unwrap();
    fs::write(&path, [1; 3 * BLOCK]).unwrap();
    let file = RealDisk.open(&path, Open::Blocks).unwrap();
    let memory = vec![2; 3 * BLOCK];
    let begin = memory.as_ptr().align_offset(BLOCK);
    file.write_at(BLOCK as u64, &[IoSlice::new(&memory[begin..][..BLOCK])]).unwrap();
    file.write_at(5, &[IoSlice::new(b"other")]).unwrap();
    file.write_at(2 * BLOCK as u64, &[IoSlice::new(&memory[begin + 1..][..BLOCK])]).unwrap();
    file.sync_data().unwrap();
    let mut expected = [vec![1; BLOCK], vec![2; 2 * BLOCK]].concat();
    expected[5..10].copy_from_slice(b"other");
    assert!(fs::read(&path).unwrap() == expected);
}

/// The memory of a long persistent body is free when its last queue has released it, long before its journal file is
/// used again.
#[test]
fn a_settled_long_body_does_not_wait_for_its_journal_file() {
    let folder = Folder::new("settled-bodies");
    let (shard, _) = folder.open(Options::default()).unwrap();
    let long = Bytes::from(vec![9; 10_000]);
    let body = BodyRef::Shared(&long);
    let held = |store: &ferrymq_storage::Store| store.stats().memory.journal_bodies / 10_000;
    shard.with(|store| {
        for queue in [Q, Q + 1] {
            store.create_queue(QueueId(queue), true);
        }
        for number in 1..=9 {
            store.enqueue(&message(body), &facts(body), &[place(Q, number), place(Q + 1, number)], &[]);
        }
        assert_eq!(held(store), 9);
        store.settle(QueueId(Q), 1, 7, Settled::Accepted);
        store.settle(QueueId(Q), 9, 9, Settled::Accepted);
        assert_eq!(held(store), 9, "the other queue has them");
        assert_eq!(store.take_freed().len(), 0);
        store.settle(QueueId(Q + 1), 2, 8, Settled::Accepted);
        assert_eq!((held(store), store.take_freed().len()), (3, 6));
    });
    assert_eq!(shard.messages(Q), [(8, long.to_vec())]);
    assert_eq!(shard.messages(Q + 1), [(1, long.to_vec()), (9, long.to_vec())]);
    shard.with(|store| {
        store.delete_queue(QueueId(Q + 1));
        assert_eq!(held(store), 1);
        store.settle(QueueId(Q), 8, 8, Settled::Accepted);
        assert_eq!(held(store), 0);
    });
    assert!(shard.flush());
    drop(shard);
    let (shard, _) = folder.open(Options::default()).unwrap();
    assert_eq!(shard.messages(Q), []);
}

/// The longest head, the longest body without a file of its own, and many queues.
#[test]
fn the_longest_record_fits_the_smallest_journal_file() {
    const QUEUES: u64 = 1_024;
    let folder = Folder::new("longest");
    let options = Options { file_bytes: 256 << 10, ..Options::default() };
    let (shard, _) = folder.open(options).unwrap();
    let (properties, body) = (vec![1; MessageRef::HEAD_BYTES_MAX - 1], Bytes::from(vec![2; 64 << 10]));
    let long = MessageRef { properties: &properties, routing_key: b"k", ..message(BodyRef::Shared(&body)) };
    assert!(long.fits());
    let places: Vec<_> = (0..QUEUES).map(|queue| place(Q * (1 + queue), 1)).collect();
    shard.with(|store| {
        (0..QUEUES).for_each(|queue| store.create_queue(QueueId(Q * (1 + queue)), true));
        store.enqueue(&long, &facts(long.body), &places, &[]);
    });
    assert!(shard.flush());
    assert_eq!(shard.messages(Q * QUEUES), [(1, body.to_vec())]);
}
