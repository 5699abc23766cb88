//! What was confirmed is there, whatever clients sent, disks did and restarts came between. Each test shows a fault
//! that storage had once.

use std::path::Path;

use bytes::Bytes;
use ferrymq_model::{BodyRef, QueueId, Sequence, Settled};
use ferrymq_storage::{Backpressure, Next, OpenError, Options};

use crate::rig::{Owned, Shard, facts, message, open_on, place, publish, small, until};
use crate::story::DATA;
use ferrymq_testkit::{Chance, FakeDisk, Faults};

pub const Q: u64 = 256;
/// Groups stand at multiples of this.
const BLOCK: usize = 4096;

pub fn open(disk: &FakeDisk, options: Options) -> (Owned, ferrymq_storage::Recovered) {
    open_on(std::sync::Arc::new(disk.clone()), Path::new(DATA), options).unwrap()
}

fn journal() -> std::path::PathBuf {
    Path::new(DATA).join("journal/00.journal")
}

/// Where groups begin in the first journal file.
fn groups(disk: &FakeDisk) -> Vec<usize> {
    let bytes = disk.bytes(&journal());
    (BLOCK..bytes.len()).step_by(BLOCK).filter(|at| bytes[*at..].starts_with(b"FQgr")).collect()
}

/// Settled transient messages use up sequences that durable ones must not get, or they would be hidden by them.
#[test]
fn settled_transient_messages_hide_nothing_after_a_restart() {
    for orderly in [true, false] {
        let mut disk = FakeDisk::default();
        let (shard, _) = open(&disk, small());
        let body = BodyRef::Inline(b"transient");
        shard.with(|store| {
            store.create_queue(QueueId(Q), true);
            for number in 1..=50 {
                store.enqueue(&message(body), &facts(body), &[], &[place(Q, number)]);
            }
            store.delivered_up_to(QueueId(Q), 50);
            store.settle(QueueId(Q), 1, 50, Settled::Accepted);
        });
        assert!(shard.flush());
        if orderly {
            shard.close();
        } else {
            disk = disk.after_kill();
        }
        drop(shard);
        let (shard, recovered) = open(&disk, small());
        let state = &recovered.queues[0].state;
        assert!(state.head <= state.next, "{state:?}");
        let first = state.next;
        shard.with(|store| (0..60).for_each(|n| publish(store, b"confirmed", &[place(Q, first + n)])));
        assert!(shard.flush());
        drop(shard);
        let (_shard, recovered) = open(&disk.after_kill(), small());
        assert_eq!(recovered.queues[0].messages, 60);
        assert_eq!(recovered.queues[0].state.head, first, "none of them was delivered");
    }
}

/// A mark of delivery in a unit does not survive without it: the rest of the unit may be in a file that is missing.
#[test]
fn a_kill_inside_a_unit_leaves_no_mark_of_it() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, Options { sync_wait_ms: 60_000, ..small() });
    shard.with(|store| store.create_queue(QueueId(Q), true));
    assert!(shard.flush());
    shard.with(|store| {
        store.begin_unit();
        // Over the end of the first file; delivered from the publisher's hands.
        for number in 1..=300 {
            publish(store, &[1; 1000], &[place(Q, number)]);
            store.delivered_up_to(QueueId(Q), number);
        }
        store.end_unit();
    });
    assert!(shard.flush());
    drop(shard);
    // The second file, which finishes the unit, is as it was made.
    let disk = disk.after_kill();
    let second = Path::new(DATA).join("journal/01.journal");
    disk.meddle(&second, |bytes| bytes[BLOCK..].fill(0));
    let (_shard, recovered) = open(&disk, small());
    let state = &recovered.queues[0].state;
    assert_eq!((state.head, state.next), (1, 1), "nothing of the unit is there");
}

/// The bytes of a group that another directory has at this place of the same file.
fn foreign_group(at: usize) -> Vec<u8> {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| store.create_queue(QueueId(Q), true));
    while !groups(&disk).contains(&at) {
        shard
            .with(|store| publish(store, b"foreign", &[place(Q, store.queue_stats(QueueId(Q)).unwrap().messages + 1)]));
        assert!(shard.flush());
    }
    disk.bytes(&journal())[at..at + BLOCK].to_vec()
}

/// A message whose body has `block` where a block of the journal begins.
fn publish_block(shard: &Shard, disk: &FakeDisk, number: Sequence, block: impl FnOnce(usize) -> Vec<u8>) {
    let next = groups(disk).last().unwrap() + BLOCK;
    // A first try shows how far behind its group a body begins.
    shard.with(|store| publish(store, &[0xEE; 64], &[place(Q, number)]));
    assert!(shard.flush());
    let begins = disk.bytes(&journal())[next..].windows(64).position(|bytes| bytes == [0xEE; 64]).unwrap();
    let at = next + 2 * BLOCK;
    let mut body = vec![0; BLOCK - begins];
    body.extend_from_slice(&block(at));
    shard.with(|store| publish(store, &body, &[place(Q, number + 1)]));
    assert!(shard.flush());
    assert!(groups(disk).contains(&at), "what looks like a group stands where one could");
}

fn with_a_first_message() -> (FakeDisk, Owned) {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"first", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    (disk, shard)
}

#[test]
fn no_body_is_ever_taken_for_a_group() {
    for kill in [true, false] {
        let (disk, shard) = with_a_first_message();
        // A complete group of another server's journal, at the place that it names.
        publish_block(&shard, &disk, 2, foreign_group);
        // One of this journal, at another place than its own.
        let own = disk.bytes(&journal())[BLOCK..2 * BLOCK].to_vec();
        publish_block(&shard, &disk, 4, |_| own);
        if !kill {
            shard.close();
        }
        drop(shard);
        let (shard, recovered) = open(&disk.after_kill(), small());
        assert_eq!(recovered.queues[0].messages, 5, "{:?}", recovered.missing);
        assert_eq!(shard.messages(Q).len(), 5);
    }
}

/// The group around such a body may be torn, so that what looks like a group stands behind the journal's end.
#[test]
fn no_body_in_a_torn_end_is_taken_for_a_group() {
    let (disk, shard) = with_a_first_message();
    publish_block(&shard, &disk, 2, foreign_group);
    let disk = disk.copy();
    drop(shard);
    let around = groups(&disk)[groups(&disk).len() - 2];
    disk.meddle(&journal(), |bytes| bytes[around..around + BLOCK].fill(0));
    let (shard, recovered) = open(&disk, small());
    assert_eq!(recovered.queues[0].messages, 2, "{:?}", recovered.missing);
    shard.with(|store| publish(store, b"goes on", &[place(Q, recovered.queues[0].state.next)]));
    assert!(shard.flush());
}

/// After a failed sync the page cache shows what the disk does not have. A restart must not rely on that.
#[test]
fn a_failed_sync_is_not_trusted_after_a_restart() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"before", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    disk.set_faults(Faults { fail_sync_of: Some("journal"), ..Faults::default() });
    shard.with(|store| publish(store, b"never confirmed", &[place(Q, 2)]));
    assert!(!shard.flush());
    drop(shard);
    let disk = disk.after_kill();
    let (shard, recovered) = open(&disk, small());
    let next = recovered.queues[0].state.next;
    shard.with(|store| (next..next + 20).for_each(|number| publish(store, b"after", &[place(Q, number)])));
    assert!(shard.flush());
    drop(shard);
    let (shard, _) = open(&disk.after_power_loss(&mut Chance::new(1)), small());
    let after = shard.messages(Q).iter().filter(|(number, body)| *number >= next && body == b"after").count();
    assert_eq!(after, 20, "what was confirmed after the restart");
}

/// A database that is read as it was one commit before knows less than the files beside it.
#[test]
fn a_checkpoint_that_has_lost_its_last_commit_is_damaged() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| store.create_queue(QueueId(Q), true));
    let checkpoint = Path::new(DATA).join("checkpoint.redb");
    let before = disk.bytes(&checkpoint);
    for number in 1..=2_000 {
        shard.wait_for_room();
        shard.with(|store| publish(store, &[7; 1000], &[place(Q, number)]));
        assert!(!number.is_multiple_of(100) || shard.flush());
    }
    until(|| shard.with(|store| store.stats().runs) > 2);
    shard.close();
    drop(shard);
    let disk = disk.after_kill();
    disk.meddle(&checkpoint, |bytes| *bytes = before);
    let runs = disk.files();
    let error = open_on(std::sync::Arc::new(disk.clone()), Path::new(DATA), small()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged { file, .. } if *file == checkpoint), "{error}");
    assert_eq!(disk.files(), runs, "nothing was removed");
}

/// A body's file that contains another undamaged body with the right number is not taken for it.
#[test]
fn a_message_never_comes_with_the_body_of_another() {
    let with_body = |fill: u8| {
        let disk = FakeDisk::default();
        let (shard, _) = open(&disk, small());
        let bytes = Bytes::from(vec![fill; 100_000]);
        let body = BodyRef::Shared(&bytes);
        shard.with(|store| {
            store.create_queue(QueueId(Q), true);
            store.enqueue(&message(body), &facts(body), &[place(Q, 1)], &[]);
        });
        assert!(shard.flush());
        shard.close();
        disk.after_kill()
    };
    let (one, other) = (with_body(1), with_body(2));
    let file = one.files().into_iter().find(|path| path.to_string_lossy().ends_with(".body")).unwrap();
    one.meddle(&file, |bytes| *bytes = other.bytes(&file));
    let (shard, _) = open(&one, small());
    assert_eq!(shard.try_next(Q, 1), Err(()), "the queue stops, and says why");
    assert_eq!(shard.heard(|heard| heard.failed.clone()), [QueueId(Q)]);
}

/// Groups that nobody said were synced: a damaged one loses itself, and not those after it.
#[test]
fn a_bit_in_a_group_that_was_not_promised_costs_that_group() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, Options { sync_wait_ms: 60_000, ..small() });
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        (1..=60).for_each(|number| publish(store, b"waits", &[place(Q, number)]));
    });
    assert!(shard.flush());
    let mut acks = Vec::new();
    for number in 1..=40 {
        let before = groups(&disk).len();
        shard.with(|store| store.settle(QueueId(Q), number, number, Settled::Accepted));
        // Written soon, and synced only with what somebody waits for.
        until(|| groups(&disk).len() > before);
        acks.push(*groups(&disk).last().unwrap());
    }
    shard.with(|store| publish(store, b"confirmed", &[place(Q, 61)]));
    assert!(shard.flush());
    let disk = disk.copy();
    drop(shard);
    disk.meddle(&journal(), |bytes| bytes[acks[0] + 130] ^= 1);
    let (shard, recovered) = open(&disk, small());
    let left: Vec<Sequence> = shard.messages(Q).iter().map(|(number, _)| *number).collect();
    assert_eq!(left, std::iter::once(1).chain(41..=61).collect::<Vec<_>>());
    assert!(recovered.missing.iter().any(|line| line.contains("not whole")), "{:?}", recovered.missing);
    // It is the same after another restart, when later groups say that all before them was synced.
    shard.with(|store| publish(store, b"later", &[place(Q, 62)]));
    assert!(shard.flush());
    shard.close();
    drop(shard);
    let (shard, _) = open(&disk.after_kill(), small());
    assert_eq!(shard.messages(Q).len(), 23);
}

/// A seal says that everything before it was synced, so that damage there is not taken for a torn end.
#[test]
fn a_bit_in_the_last_group_stops_the_start_once_the_server_was_idle_or_stopped() {
    for stopped in [true, false] {
        let disk = FakeDisk::default();
        let (shard, _) = open(&disk, Options { sync_wait_ms: if stopped { 60_000 } else { 5 }, ..small() });
        shard.with(|store| {
            store.create_queue(QueueId(Q), true);
            publish(store, b"confirmed", &[place(Q, 1)]);
        });
        assert!(shard.flush());
        let last = *groups(&disk).last().unwrap();
        if stopped {
            shard.close();
        } else {
            until(|| *groups(&disk).last().unwrap() > last);
        }
        let rotten = disk.copy();
        drop(shard);
        rotten.meddle(&journal(), |bytes| bytes[last + 140] ^= 1);
        let again = || std::sync::Arc::new(rotten.clone());
        let error = open_on(again(), Path::new(DATA), small()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Damaged { file, position, .. } if *file == journal() && *position == last as u64)
        );
        // An operator may give it up, and then that is permanent.
        let (shard, recovered) = open_on(again(), Path::new(DATA), Options { repair: true, ..small() }).unwrap();
        assert!(!recovered.missing.is_empty());
        shard.close();
        drop(shard);
        drop(open(&rotten, small()));
    }
}

/// Publishes this many messages of 1,000 bytes, as a publisher does that waits when it is told to.
fn fill(shard: &Shard, queue: u64, numbers: std::ops::RangeInclusive<Sequence>) {
    for number in numbers {
        shard.wait_for_room();
        shard.with(|store| publish(store, &[7; 1000], &[place(queue, number)]));
        assert!(!number.is_multiple_of(100) || shard.flush());
    }
}

/// A queue in which messages are only settled changes, too, and the checkpoint must contain that when the journal
/// file is overwritten.
#[test]
fn what_was_settled_long_ago_stays_settled() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| [Q, 2 * Q].iter().for_each(|queue| store.create_queue(QueueId(*queue), true)));
    fill(&shard, Q, 1..=100);
    // The journal wraps around, and its files with the first queue are overwritten.
    fill(&shard, 2 * Q, 1..=3_000);
    shard.with(|store| store.settle(QueueId(Q), 1, 60, Settled::Accepted));
    fill(&shard, 2 * Q, 3_001..=6_000);
    let disk = disk.after_power_loss(&mut Chance::new(1));
    drop(shard);
    let (shard, _) = open(&disk, small());
    let left: Vec<Sequence> = shard.messages(Q).iter().map(|(number, _)| *number).collect();
    assert_eq!(left, (61..=100).collect::<Vec<_>>());
}

/// A start has synced what it replayed. It says so in the checkpoint, since it may write no group before it ends.
#[test]
fn damage_in_what_a_start_replayed_stops_the_next() {
    let options = || Options { sync_wait_ms: 60_000, ..small() };
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, options());
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"confirmed", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    let disk = disk.after_kill();
    drop(shard);
    let last = *groups(&disk).last().unwrap();
    let (shard, _) = open(&disk, options());
    let rotten = disk.after_kill();
    drop(shard);
    assert_eq!(*groups(&rotten).last().unwrap(), last, "the second life wrote no group");
    rotten.meddle(&journal(), |bytes| bytes[last + 140] ^= 1);
    let error = open_on(std::sync::Arc::new(rotten), Path::new(DATA), options()).expect_err("damage is noticed");
    assert!(matches!(&error, OpenError::Damaged { position, .. } if *position == last as u64), "{error}");
}

/// What is confirmed in a file that was added to the journal is there after a power loss, and so is the file's name.
#[test]
fn a_file_that_was_added_outlives_a_power_loss() {
    for seed in 0..10 {
        let disk = FakeDisk::default();
        let (shard, _) = open(&disk, small());
        shard.with(|store| store.create_queue(QueueId(Q), true));
        assert!(shard.flush());
        // Eight files full, and no run can be written: nothing leaves the journal.
        disk.set_faults(Faults { refuse_open_of: Some("runs"), ..Faults::default() });
        shard.with(|store| (1..=2_000).for_each(|number| publish(store, &[7; 1000], &[place(Q, number)])));
        let added = Path::new(DATA).join("journal/05.journal");
        until(|| disk.files().contains(&added));
        disk.set_faults(Faults::default());
        assert!(shard.flush());
        let disk = disk.after_power_loss(&mut Chance::new(seed));
        drop(shard);
        let (shard, _) = open(&disk, small());
        assert_eq!(shard.messages(Q).len(), 2_000, "seed {seed}");
    }
}

#[test]
fn folders_that_are_missing_because_they_were_empty_are_made() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| store.create_queue(QueueId(Q), true));
    shard.close();
    drop(shard);
    ["runs", "transient", "bodies"].iter().for_each(|folder| disk.lose_folder(&Path::new(DATA).join(folder)));
    let (shard, _) = open(&disk, small());
    shard.with(|store| publish(store, b"works", &[place(Q, 1)]));
    assert!(shard.flush());
}

/// A store of which a part of the thousand messages of [`Q`] is in runs.
fn with_runs(disk: &FakeDisk) -> Owned {
    let (shard, _) = open(disk, small());
    shard.with(|store| store.create_queue(QueueId(Q), true));
    for number in 1..=1_000 {
        shard.wait_for_room();
        shard.with(|store| publish(store, &[7; 1000], &[place(Q, number)]));
        assert!(!number.is_multiple_of(100) || shard.flush());
    }
    until(|| shard.with(|store| store.stats().runs) > 0);
    shard
}

/// If no reader has waited for a read, the next reader does not wait for ever.
#[test]
fn what_was_read_for_nobody_is_found() {
    let shard = with_runs(&FakeDisk::default());
    assert!(matches!(shard.with(|store| store.next(QueueId(Q), 1)), Next::Pending));
    until(|| shard.heard(|heard| heard.loads > 0));
    assert_eq!(shard.messages(Q).len(), 1_000);
}

/// A temporary lack of descriptors stops no queue: undamaged data is read later.
#[test]
fn a_queue_waits_while_there_are_no_descriptors() {
    let disk = FakeDisk::default();
    let shard = with_runs(&disk);
    disk.set_faults(Faults { refuse_open_of: Some("runs"), ..Faults::default() });
    assert!(matches!(shard.with(|store| store.next(QueueId(Q), 1)), Next::Pending));
    until(|| disk.refused() > 2);
    disk.set_faults(Faults::default());
    assert_eq!(shard.messages(Q).len(), 1_000);
    assert!(shard.heard(|heard| heard.failed.is_empty()));
}

/// Messages with long keys and with words of the server's own beside them, as other protocols have them.
#[test]
fn long_keys_and_annotations_come_back() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    let (key, body) = (vec![b'k'; 65_535], BodyRef::Inline(b"body"));
    let written = ferrymq_model::MessageRef { routing_key: &key, annotations: b"said beside it", ..message(body) };
    let check = |shard: &Shard| {
        shard.with(|store| {
            let Next::Message { handle, .. } = store.next(QueueId(Q), 1) else { panic!("it is there") };
            let found = store.message(handle);
            assert_eq!((found.routing_key, found.annotations), (&key[..], &b"said beside it"[..]));
            assert_eq!((found.properties, found.body.bytes()), (written.properties, &b"body"[..]));
        });
    };
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        store.enqueue(&written, &facts(body), &[place(Q, 1)], &[]);
    });
    assert!(shard.flush());
    check(&shard);
    drop(shard);
    let (shard, _) = open(&disk.after_kill(), small());
    check(&shard);
}

/// Publishers wait from the first long body without space until it has some, and do not continue in between.
#[test]
fn a_long_body_without_room_holds_publishers_until_it_has_some() {
    let (disk, shard) = with_a_first_message();
    disk.set_faults(Faults { space_left: Some(0), ..Faults::default() });
    let bytes = Bytes::from(vec![7; 100_000]);
    let body = BodyRef::Shared(&bytes);
    let before = disk.operations();
    shard.with(|store| store.enqueue(&message(body), &facts(body), &[place(Q, 2)], &[]));
    // A try makes the file, writes to it and takes it away.
    until(|| disk.operations() >= before + 9);
    assert_eq!(
        shard.heard(|heard| heard
            .backpressures
            .iter()
            .filter(|backpressure| **backpressure == Backpressure::Open)
            .count()),
        0
    );
    assert!(matches!(shard.with(|store| store.backpressure()), Backpressure::Stalled(_)));
    disk.set_faults(Faults::default());
    shard.wait_for_room();
    assert!(shard.flush());
    assert_eq!(shard.messages(Q).len(), 2);
}
