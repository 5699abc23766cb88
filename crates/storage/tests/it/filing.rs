//! Long bodies that are in their files before their messages are decided.

use bytes::Bytes;
use ferrymq_model::{BodyRef, FiledBody, QueueId, Settled};
use ferrymq_storage::{Backpressure, Filing};

use crate::promises::{Q, open};
use crate::rig::{Shard, facts, message, place, publish, small, until};
use ferrymq_testkit::{FakeDisk, Faults};

const OTHER: u64 = 512;

fn file(shard: &Shard, body: &Bytes) -> Filing {
    shard.with(|store| store.bodies()).file(body.clone(), Box::new(|| ()))
}

fn filed(filing: &mut Filing) -> FiledBody {
    let mut filed = None;
    until(|| {
        filed = filed.take().or_else(|| filing.take());
        filed.is_some()
    });
    filed.unwrap()
}

fn body_files(disk: &FakeDisk) -> usize {
    disk.files().iter().filter(|path| path.to_string_lossy().ends_with(".body")).count()
}

/// While there is no space for a long body, everybody else continues, and later it does, too.
#[test]
fn nobody_waits_for_a_long_body_but_its_publisher() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        publish(store, b"first", &[place(Q, 1)]);
    });
    assert!(shard.flush());
    disk.set_faults(Faults { refuse_open_of: Some("bodies"), ..Faults::default() });
    let body = Bytes::from(vec![7; 100_000]);
    let mut filing = file(&shard, &body);
    until(|| filing.reason().is_some());
    assert!(shard.heard(|heard| heard.long_bodies_wait.is_some()), "an operator is told");
    shard.with(|store| publish(store, b"short", &[place(Q, 2)]));
    assert!(shard.flush());
    assert_eq!(shard.with(|store| store.backpressure()), Backpressure::Open);
    disk.set_faults(Faults::default());
    let filed = filed(&mut filing);
    shard.with(|store| {
        let body = BodyRef::Filed(&filed);
        store.enqueue(&message(body), &facts(body), &[place(Q, 3)], &[]);
    });
    assert!(shard.flush());
    until(|| shard.heard(|heard| heard.long_bodies_wait.is_none()));
    shard.close();
    let (shard, _) = open(&disk.after_kill(), small());
    assert_eq!(shard.messages(Q).last(), Some(&(3, body.to_vec())));
}

/// A file is deleted when nobody will publish its body any more, whether it was written or not.
#[test]
fn a_body_that_is_given_up_leaves_no_file() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    let body = Bytes::from(vec![7; 100_000]);
    let mut written = file(&shard, &body);
    drop(filed(&mut written));
    let mut ready = file(&shard, &body);
    until(|| !ready.waits());
    drop(ready);
    until(|| body_files(&disk) == 0);
    // One that somebody may still publish stays.
    ready = file(&shard, &body);
    let kept = filed(&mut ready);
    drop(ready);
    drop(file(&shard, &body));
    assert!(body_files(&disk) >= 1);
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        let body = BodyRef::Filed(&kept);
        store.enqueue(&message(body), &facts(body), &[place(Q, 1)], &[]);
    });
    drop(kept);
    assert!(shard.flush());
    until(|| body_files(&disk) == 1);
    assert_eq!(shard.messages(Q).len(), 1);
}

/// A message that moves on keeps its body's file, even if it has left its queue first; the file is deleted with the
/// last message.
#[test]
fn a_message_that_moves_keeps_its_file() {
    for settles_first in [true, false] {
        let disk = FakeDisk::default();
        let (shard, _) = open(&disk, small());
        let body = Bytes::from(vec![7; 100_000]);
        let filed = filed(&mut file(&shard, &body));
        shard.with(|store| {
            store.create_queue(QueueId(Q), true);
            store.create_queue(QueueId(OTHER), true);
            let body = BodyRef::Filed(&filed);
            store.enqueue(&message(body), &facts(body), &[place(Q, 1)], &[]);
            let settle = |store: &mut ferrymq_storage::Store| store.settle(QueueId(Q), 1, 1, Settled::DeadLettered);
            store.begin_unit();
            if settles_first {
                settle(store);
            }
            store.enqueue(&message(body), &facts(body), &[place(OTHER, 1)], &[]);
            if !settles_first {
                settle(store);
            }
            store.end_unit();
        });
        assert!(shard.flush());
        shard.close();
        drop(shard);
        let (shard, _) = open(&disk.after_kill(), small());
        assert_eq!(body_files(&disk), 1, "nothing was written twice");
        assert_eq!(shard.messages(OTHER), [(1, body.to_vec())]);
        shard.with(|store| store.settle(QueueId(OTHER), 1, 1, Settled::Accepted));
        assert!(shard.flush());
        shard.close();
    }
}

/// The file of a body stays as long as somebody has kept the body to publish it again, and is not written again.
#[test]
fn a_body_that_is_kept_keeps_its_file() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    let body = Bytes::from(vec![7; 100_000]);
    let filed = filed(&mut file(&shard, &body));
    shard.with(|store| store.create_queue(QueueId(Q), true));
    for sequence in [1, 2] {
        shard.with(|store| {
            let body = BodyRef::Filed(&filed);
            store.enqueue(&message(body), &facts(body), &[place(Q, sequence)], &[]);
        });
        assert!(shard.flush());
        assert_eq!(shard.messages(Q), [(sequence, body.to_vec())]);
        shard.with(|store| store.settle(QueueId(Q), sequence, sequence, Settled::Accepted));
        assert!(shard.flush());
    }
    // A checkpoint's visit has seen that no message refers to it any more.
    shard.with(|store| publish(store, b"more", &[place(Q, 3)]));
    assert!(shard.flush());
    until(|| shard.with(|store| store.stats().blob_files) == 0);
    assert_eq!(body_files(&disk), 1, "one file, written once");
    drop(filed);
    until(|| body_files(&disk) == 0);
}

/// A stored message's body can be kept for another publish, too; the claim outlives the message.
#[test]
fn a_stored_body_can_be_kept() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    let body = Bytes::from(vec![7; 100_000]);
    let mut filed = filed(&mut file(&shard, &body));
    shard.with(|store| {
        store.create_queue(QueueId(Q), true);
        let body = BodyRef::Filed(&filed);
        store.enqueue(&message(body), &facts(body), &[place(Q, 1)], &[]);
    });
    filed.claim = None;
    shard.with(|store| store.claim_body(&mut filed));
    let mut second = filed.clone();
    second.claim = None;
    shard.with(|store| store.claim_body(&mut second));
    shard.with(|store| store.settle(QueueId(Q), 1, 1, Settled::Accepted));
    assert!(shard.flush());
    drop(filed);
    shard.with(|store| {
        let body = BodyRef::Filed(&second);
        store.enqueue(&message(body), &facts(body), &[place(Q, 2)], &[]);
    });
    assert!(shard.flush());
    drop(second);
    assert_eq!(body_files(&disk), 1);
    assert_eq!(shard.messages(Q), [(2, body.to_vec())]);
    shard.with(|store| store.settle(QueueId(Q), 2, 2, Settled::Accepted));
    assert!(shard.flush());
    until(|| body_files(&disk) == 0);
}

/// A body whose file is gone is not kept, and is written again when it is published.
#[test]
fn a_body_whose_file_is_gone_cannot_be_claimed() {
    let disk = FakeDisk::default();
    let (shard, _) = open(&disk, small());
    let body = Bytes::from(vec![7; 100_000]);
    let mut filed = filed(&mut file(&shard, &body));
    let publish_it = |filed: &FiledBody, sequence| {
        shard.with(|store| {
            let body = BodyRef::Filed(filed);
            store.enqueue(&message(body), &facts(body), &[place(Q, sequence)], &[]);
        });
        assert!(shard.flush());
    };
    shard.with(|store| store.create_queue(QueueId(Q), true));
    publish_it(&filed, 1);
    filed.claim = None;
    shard.with(|store| store.settle(QueueId(Q), 1, 1, Settled::Accepted));
    assert!(shard.flush());
    until(|| body_files(&disk) == 0);
    shard.with(|store| store.claim_body(&mut filed));
    assert!(filed.claim.is_none());
    publish_it(&filed, 2);
    assert_eq!(body_files(&disk), 1);
    shard.close();
    drop(shard);
    let (shard, _) = open(&disk.after_kill(), small());
    assert_eq!(shard.messages(Q), [(2, body.to_vec())]);
}
