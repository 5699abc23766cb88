//! Messages that wait for long leave memory and the journal, and come back in order.

use std::path::Path;
use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use ferrymq_model::{BodyRef, QueueId, Settled, Time};
use ferrymq_storage::{Backpressure, Options, Store};

use crate::rig::{Folder, Shard, facts, message, open_on, place, publish, small, until};
use ferrymq_testkit::{FakeDisk, Faults};

const Q: u64 = 256;

fn body(number: u64) -> Vec<u8> {
    format!("message {number} {}", "x".repeat((number % 200) as usize)).into_bytes()
}

/// Publishes durable messages, as a publisher does that waits when it is told to.
fn publish_patiently(shard: &Shard, numbers: std::ops::RangeInclusive<u64>, places: impl Fn(u64) -> (u64, u64)) {
    for number in numbers {
        shard.wait_for_room();
        let (queue, sequence) = places(number);
        shard.with(|store| publish(store, &body(number), &[place(queue, sequence)]));
        if number % 500 == 0 {
            assert!(shard.flush());
        }
    }
    assert!(shard.flush());
}

#[test]
fn a_long_queue_leaves_the_journal_and_comes_back_in_order() {
    let folder = Folder::new("long");
    let (shard, _) = folder.open(small()).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    publish_patiently(&shard, 1..=30_000, |number| (Q, number));
    assert!(shard.with(|store| store.stats().journal_files_resident) <= 4);
    let expected: Vec<_> = (1..=30_000).map(|number| (number, body(number))).collect();
    assert!(shard.messages(Q) == expected, "before the restart");
    shard.close();
    let (shard, recovered) = folder.open(small()).unwrap();
    assert_eq!(recovered.queues[0].messages, 30_000);
    assert!(shard.messages(Q) == expected, "after the restart");
}

/// The records of a unit that continues in the next file are replayed when its end is found there, and still belong
/// to their own file.
#[test]
fn a_unit_over_two_files_is_moved_after_a_restart() {
    let folder = Folder::new("unit-moved");
    let (shard, _) = folder.open(small()).unwrap();
    shard.with(|store| [Q, 2 * Q].iter().for_each(|queue| store.create_queue(QueueId(*queue), true)));
    // Into a file that knows the first queue from the unit alone.
    publish_patiently(&shard, 1..=3_000, |number| (2 * Q, number));
    shard.with(|store| {
        store.begin_unit();
        (1..=300).for_each(|n| publish(store, &body(n), &[place(Q, n)]));
        (3_001..=3_300).for_each(|n| publish(store, &[7; 1000], &[place(2 * Q, n)]));
        store.end_unit();
    });
    assert!(shard.flush());
    drop(shard);
    let (shard, _) = folder.open(small()).unwrap();
    publish_patiently(&shard, 3_301..=9_000, |number| (2 * Q, number));
    let expected: Vec<_> = (1..=300).map(|number| (number, body(number))).collect();
    assert!(shard.messages(Q) == expected, "before the second restart");
    shard.close();
    let (shard, _) = folder.open(small()).unwrap();
    assert!(shard.messages(Q) == expected, "and after it");
}

/// Publishers who are told to wait have sent much already. The journal stores it in added files, and does not
/// become longer each time.
#[test]
fn files_that_are_added_are_used_again_and_given_up() {
    let folder = Folder::new("added");
    let (shard, _) = folder.open(small()).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    let files = || {
        let names = std::fs::read_dir(folder.0.join("journal")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".journal")).count()
    };
    const AT_ONCE: u64 = 2_000;
    let mut most = 0;
    for turn in 0..25 {
        shard.wait_for_room();
        // Eight files full.
        let first = turn * AT_ONCE + 1;
        shard.with(|store| (first..first + AT_ONCE).for_each(|n| publish(store, &[7; 1_000], &[place(Q, n)])));
        assert!(shard.flush());
        most = most.max(files());
    }
    assert!((9..=20).contains(&most), "there were {most} files");
    let mut next = 25 * AT_ONCE + 1;
    while files() > 5 {
        // They are removed one after the other, the last one first, when it is not in use.
        shard.wait_for_room();
        shard.with(|store| (next..next + 100).for_each(|n| publish(store, &[7; 1_000], &[place(Q, n)])));
        assert!(shard.flush());
        next += 100;
    }
    shard.close();
    let (_shard, recovered) = folder.open(small()).unwrap();
    assert_eq!(recovered.queues[0].messages, next - 1);
}

#[test]
fn consumed_runs_are_removed() {
    let folder = Folder::new("consumed");
    let (shard, _) = folder.open(small()).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    publish_patiently(&shard, 1..=20_000, |number| (Q, number));
    let runs = || std::fs::read_dir(folder.0.join("runs")).unwrap().count();
    assert!(runs() > 2);
    // Backwards and with holes first, so that nothing depends on the order.
    shard.with(|store| {
        (1..=20_000).rev().filter(|n| n % 3 == 0).for_each(|n| store.settle(QueueId(Q), n, n, Settled::Accepted));
        store.settle(QueueId(Q), 1, 19_998, Settled::Purged);
    });
    assert_eq!(shard.messages(Q), [(19_999, body(19_999)), (20_000, body(20_000))]);
    assert!(shard.flush());
    // Only the run of the last two may be left.
    until(|| runs() <= 1);
    shard.close();
    let (shard, recovered) = folder.open(small()).unwrap();
    assert_eq!(recovered.queues[0].messages, 2);
    assert_eq!(shard.messages(Q), [(19_999, body(19_999)), (20_000, body(20_000))]);
}

#[test]
fn many_queues_share_runs() {
    let folder = Folder::new("many");
    let (shard, _) = folder.open(small()).unwrap();
    const QUEUES: u64 = 100;
    shard.with(|store| (1..=QUEUES).for_each(|queue| store.create_queue(QueueId(queue * 256), true)));
    publish_patiently(&shard, 0..=19_999, |number| ((number % QUEUES + 1) * 256, number / QUEUES + 1));
    shard.close();
    assert!(std::fs::read_dir(folder.0.join("runs")).unwrap().count() < 40);
    let (shard, _) = folder.open(small()).unwrap();
    for queue in 0..QUEUES {
        let expected: Vec<_> = (0..200).map(|turn| (turn + 1, body(turn * QUEUES + queue))).collect();
        let found = shard.messages((queue + 1) * 256);
        let first = found.iter().zip(&expected).position(|(a, b)| a != b);
        assert!(found == expected, "queue {queue}: {} of {}, differs at {first:?}", found.len(), expected.len());
    }
}

#[test]
fn transient_messages_leave_memory_too() {
    let folder = Folder::new("transient-spill");
    let options = Options { transient_bytes_max: 4 << 20, ..small() };
    let (shard, _) = folder.open(options.clone()).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), false));
    let expected: Vec<_> = (1..=100_000).map(|number| (number, body(number))).collect();
    for (number, body) in &expected {
        shard.wait_for_room();
        let body = BodyRef::Inline(body);
        shard.with(|store| store.enqueue(&message(body), &facts(body), &[], &[place(Q, *number)]));
    }
    assert!(shard.with(|store| store.stats().transient_bytes) <= options.transient_bytes_max + 1000);
    assert!(shard.messages(Q) == expected);
    shard.with(|store| store.settle(QueueId(Q), 1, 100_000, Settled::Accepted));
    shard.close();
    let (shard, recovered) = folder.open(options).unwrap();
    assert!(recovered.queues.is_empty());
    assert_eq!(std::fs::read_dir(folder.0.join("transient")).unwrap().count(), 0);
    drop(shard);
}

/// Publishers wait because of the messages of a queue. When it is deleted, nothing else may ever happen.
#[test]
fn publishers_go_on_when_the_queue_that_fills_the_memory_is_deleted() {
    let folder = Folder::new("deleted-while-full");
    let (shard, _) = folder.open(Options { transient_bytes_max: 2 << 20, ..small() }).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(Q), false);
        let body = vec![b'x'; 1 << 20];
        for number in 1..=4 {
            let body = BodyRef::Inline(&body);
            store.enqueue(&message(body), &facts(body), &[], &[place(Q, number)]);
        }
        assert!(store.backpressure() != Backpressure::Open);
        store.delete_queue(QueueId(Q));
        assert_eq!(store.backpressure(), Backpressure::Open);
    });
    shard.close();
}

#[test]
fn durable_and_transient_messages_of_one_queue_keep_their_order() {
    let folder = Folder::new("mixed");
    let options = Options { transient_bytes_max: 2 << 20, ..small() };
    let (shard, _) = folder.open(options.clone()).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    let expected: Vec<_> = (1..=40_000).map(|number| (number, body(number))).collect();
    let is_durable = |number: u64| (number / 100).is_multiple_of(3);
    for (number, body) in &expected {
        shard.wait_for_room();
        let (body, places) = (BodyRef::Inline(body), [place(Q, *number)]);
        let (durable, transient) = if is_durable(*number) { (&places[..], &[][..]) } else { (&[][..], &places[..]) };
        shard.with(|store| store.enqueue(&message(body), &facts(body), durable, transient));
    }
    assert!(shard.flush());
    assert!(shard.messages(Q) == expected, "all of them before the restart");
    shard.close();
    let (shard, recovered) = folder.open(options).unwrap();
    let durable: Vec<_> = expected.into_iter().filter(|(number, _)| is_durable(*number)).collect();
    assert_eq!(recovered.queues[0].messages, durable.len() as u64);
    assert!(shard.messages(Q) == durable, "the durable ones after it");
}

/// Persistent and transient messages in turn come to different runs, whose stretches overlap: each block is read once.
#[test]
fn durable_and_transient_messages_in_turn_are_read_once() {
    const MESSAGES: u64 = 40_000;
    let folder = Folder::new("in-turn");
    let (shard, _) = folder.open(Options { transient_bytes_max: 2 << 20, ..small() }).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    let expected: Vec<_> = (1..=MESSAGES).map(|number| (number, body(number))).collect();
    for (number, body) in &expected {
        shard.wait_for_room();
        let (body, places) = (BodyRef::Inline(body), [place(Q, *number)]);
        let (durable, transient) = if number % 2 == 0 { (&places[..], &[][..]) } else { (&[][..], &places[..]) };
        shard.with(|store| store.enqueue(&message(body), &facts(body), durable, transient));
    }
    assert!(shard.flush());
    let before = shard.heard(|heard| heard.loads);
    assert!(shard.messages(Q) == expected);
    let loads = shard.heard(|heard| heard.loads) - before;
    assert!(loads > 50, "what is tested is the way over the disk: {loads}");
    assert!(loads < MESSAGES / 20, "{loads} reads of {MESSAGES} messages");
}

/// One transient message takes more memory than all transient messages may. It moves to disk or is deleted, and others
/// go on.
#[test]
fn nobody_waits_for_ever_for_one_long_transient_message() {
    let folder = Folder::new("one-long");
    let (shard, _) = folder.open(Options { transient_bytes_max: 2 << 20, ..small() }).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    let long = Bytes::from(vec![7; 3 << 20]);
    for (number, settled) in [(1, true), (2, false), (3, true), (4, false)] {
        let body = if number < 3 { BodyRef::Inline(&long) } else { BodyRef::Shared(&long) };
        shard.with(|store| {
            store.enqueue(&message(body), &facts(body), &[], &[place(Q, number)]);
            if settled {
                store.settle(QueueId(Q), number, number, Settled::Accepted);
            }
        });
        shard.wait_for_room();
    }
    let left = shard.messages(Q);
    assert!(left == [(2, long.to_vec()), (4, long.to_vec())]);
}

#[test]
fn long_bodies_are_stored_once_and_come_back() {
    let folder = Folder::new("bodies");
    let (shard, _) = folder.open(small()).unwrap();
    let queues = [256, 512, 768];
    shard.with(|store| queues.iter().for_each(|queue| store.create_queue(QueueId(*queue), true)));
    // 3 KiB are shared in the journal, 100 KiB have a file of their own with such small journal files.
    let long =
        |number: u64| Bytes::from(vec![number as u8; if number.is_multiple_of(20) { 100 << 10 } else { 3 << 10 }]);
    for number in 1..=400 {
        shard.wait_for_room();
        let bytes = long(number);
        let body = BodyRef::Shared(&bytes);
        let places = queues.map(|queue| place(queue, number));
        shard.with(|store| store.enqueue(&message(body), &facts(body), &places, &[]));
        assert!(shard.flush());
    }
    let expected: Vec<_> = (1..=400).map(|number| (number, long(number).to_vec())).collect();
    let check = |shard: &Shard| queues.iter().for_each(|queue| assert!(shard.messages(*queue) == expected));
    check(&shard);
    let stored: u64 =
        std::fs::read_dir(folder.0.join("runs")).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(stored < 380 * 4096, "{stored} bytes for 380 bodies of 3 KiB: each once");
    shard.close();
    let (shard, _) = folder.open(small()).unwrap();
    check(&shard);
    shard.with(|store: &mut Store| {
        queues.iter().for_each(|queue| store.settle(QueueId(*queue), 1, 400, Settled::Accepted));
    });
    assert!(shard.flush());
    until(|| std::fs::read_dir(folder.0.join("bodies")).unwrap().count() == 0);
    shard.close();
    let (shard, _) = folder.open(small()).unwrap();
    assert_eq!(shard.with(|store| store.backpressure()), Backpressure::Open);
}

/// Requests that need space while publishers wait are delayed too, before the journal grows without limit.
#[test]
fn a_journal_that_nothing_can_be_moved_out_of_holds_everybody_up() {
    let disk = FakeDisk::default();
    let (shard, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), small()).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"waits", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    let overfull = shard.with(|store| store.overfull());
    let is_overfull = || overfull.load(Ordering::Acquire);
    disk.set_faults(Faults { refuse_open_of: Some("runs"), ..Faults::default() });
    // What a client that publishes nothing may request.
    let mut asked = 0_u32;
    while !is_overfull() {
        asked += 1;
        shard.with(|store| store.attempts(QueueId(Q), 1, asked, Time(0)));
        assert!(asked < 200_000, "nobody is held up");
    }
    assert!(!matches!(shard.with(|store| store.backpressure()), Backpressure::Open), "and publishers were before");
    disk.set_faults(Faults::default());
    until(|| !is_overfull());
    until(|| shard.heard(|heard| heard.backpressures.last() == Some(&Backpressure::Open)));
    assert!(shard.flush());
    shard.close();
}

/// When everything is settled and there are no requests any more, the journal takes almost no memory; and it
/// continues from there.
#[test]
fn a_journal_that_rests_gives_its_memory_back() {
    let disk = FakeDisk::default();
    let options = || Options { rest_ms: 50, file_bytes: 4 << 20, ..small() };
    let (shard, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), options()).unwrap();
    shard.with(|store| store.create_queue(QueueId(Q), true));
    let mut next = 1;
    for _ in 0..2 {
        let first = next;
        while next < first + 12_000 {
            shard.wait_for_room();
            shard.with(|store| publish(store, &[7; 1_000], &[place(Q, next)]));
            next += 1;
        }
        assert!(shard.flush());
        shard.with(|store| store.settle(QueueId(Q), first, next - 1, Settled::Accepted));
        until(|| shard.with(|store| store.stats().memory.journal) < 1 << 20);
    }
    shard.with(|store| publish(store, b"last", &[place(Q, next)]));
    assert!(shard.flush());
    shard.close();
    drop(shard);
    let (shard, _) = open_on(Arc::new(disk.after_kill()), Path::new("/data"), options()).unwrap();
    assert_eq!(shard.messages(Q), [(next, b"last".to_vec())]);
}

/// A persistent message that stays does not keep the index of all transient ones in memory that were settled behind it.
#[test]
fn one_message_that_stays_does_not_keep_the_index_of_those_that_went() {
    let folder = Folder::new("sparse");
    let (shard, _) = folder.open(Options::default()).unwrap();
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"stays", &[place(Q, 1)]);
    });
    let (body, mut longest) = (BodyRef::Inline(b"goes"), 0);
    for first in (2..2_000_002).step_by(1_000) {
        shard.with(|store| {
            for number in first..first + 1_000 {
                store.enqueue(&message(body), &facts(body), &[], &[place(Q, number)]);
                store.settle(QueueId(Q), number, number, Settled::Accepted);
            }
            longest = longest.max(store.stats().memory.index);
        });
        if first > 200_000 {
            until(|| shard.with(|store| store.stats().memory.index) < 4 << 20);
        }
    }
    assert!(longest < 8 << 20, "the index took {longest} bytes");
    assert_eq!(shard.messages(Q), [(1, b"stays".to_vec())]);
    assert!(shard.flush());
    drop(shard);
    let (shard, _) = folder.open(Options::default()).unwrap();
    assert_eq!(shard.messages(Q), [(1, b"stays".to_vec())]);
}

/// Where the message that stays is transient itself, nothing in the journal can help, and nothing there is moved.
#[test]
fn a_transient_message_that_stays_does_not_move_the_journal() {
    let folder = Folder::new("sparse-transient");
    let (shard, _) = folder.open(Options::default()).unwrap();
    let body = BodyRef::Inline(b"transient");
    shard.with(|store| {
        store.create_queue(QueueId(Q), false);
        store.create_queue(QueueId(Q + 1), true);
        publish(store, b"durable", &[place(Q + 1, 1)]);
        store.enqueue(&message(body), &facts(body), &[], &[place(Q, 1)]);
    });
    for first in (2..300_002).step_by(1_000) {
        shard.with(|store| {
            for number in first..first + 1_000 {
                store.enqueue(&message(body), &facts(body), &[], &[place(Q, number)]);
                store.settle(QueueId(Q), number, number, Settled::Accepted);
            }
            // Something durable is there for each generation.
            publish(store, b"durable", &[place(Q + 1, first / 1_000 + 2)]);
        });
        assert!(shard.flush());
    }
    assert_eq!(shard.with(|store| store.stats().runs), 0, "nothing was moved");
}
