//! Credit that lapses: a pull ends when the queue is empty, or after its time.

use std::sync::Arc;

use ferrymq_model::Credit;

use crate::tests::rig::Moving;
use crate::tests::talk::Talk;

const EMPTY: [&str; 0] = [];

fn pull(messages: u32, wait_ms: u64) -> Credit {
    Credit::Pull { messages, wait_ms }
}

#[test]
fn what_is_left_of_a_pull_lapses_when_the_queue_is_empty() {
    for no_ack in [true, false] {
        let mut talk = Talk::new().with_queue();
        talk.publish(b"abc");
        talk.subscribe(no_ack, Some(Credit::Grant(0)));
        talk.set_credit(pull(2, 0));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "1: a", "2: b", "lapsed 0"], "no ack: {no_ack}");
        talk.set_credit(pull(5, 0));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "3: c", "lapsed 4"]);
        talk.set_credit(pull(5, 0));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "lapsed 5"]);
        talk.set_credit(pull(0, 0));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "lapsed 0"]);
        talk.publish(b"d");
        assert_eq!(talk.notes.take(), EMPTY, "it has lapsed");
        talk.set_credit(Credit::Grant(2));
        assert_eq!(talk.notes.take(), ["0 CreditSet", "4: d"]);
        talk.end();
    }
}

#[test]
fn a_subscription_can_begin_with_a_pull() {
    let mut talk = Talk::new().with_queue();
    talk.publish(b"a");
    talk.subscribe_and_see(true, Some(pull(3, 0)));
    assert_eq!(talk.notes.take(), ["0 Subscribed { tag: \"tag\" }", "1: a", "lapsed 2"]);
    talk.end();
}

#[test]
fn other_credit_replaces_a_pull() {
    let host = Arc::new(Moving::default());
    let mut talk = Talk::on(host.clone()).with_queue();
    talk.subscribe(true, Some(pull(3, 1_000)));
    talk.set_credit(Credit::Grant(3));
    host.0.advance_to(1_000);
    talk.node.on_timer();
    talk.publish(b"abcd");
    assert_eq!(talk.notes.take(), ["0 CreditSet", "1: a", "2: b", "3: c"]);
    talk.end();
}

#[test]
fn a_pull_waits_for_its_time() {
    let host = Arc::new(Moving::default());
    let at = |talk: &mut Talk, ms| {
        host.0.advance_to(ms);
        talk.node.on_timer();
        talk.notes.take()
    };
    let mut talk = Talk::on(host.clone()).with_queue();
    talk.subscribe(true, Some(Credit::Grant(0)));
    talk.set_credit(pull(3, 1_000));
    assert_eq!(talk.notes.take(), ["0 CreditSet"]);
    assert_eq!(at(&mut talk, 999), EMPTY);
    talk.publish(b"a");
    assert_eq!(talk.notes.take(), ["1: a"]);
    assert_eq!(at(&mut talk, 1_000), ["lapsed 2"]);
    talk.publish(b"b");
    assert_eq!(talk.notes.take(), EMPTY);

    // A later pull has its own time.
    talk.set_credit(pull(2, 1_000));
    assert_eq!(talk.notes.take(), ["0 CreditSet", "2: b"]);
    assert_eq!(at(&mut talk, 1_500), EMPTY);
    talk.set_credit(pull(2, 1_000));
    assert_eq!(at(&mut talk, 2_000), ["0 CreditSet"]);
    assert_eq!(at(&mut talk, 2_500), ["lapsed 2"]);

    // A subscription that has ended has no timer, and its successor has its own.
    talk.set_credit(pull(2, 1_000));
    talk.unsubscribe();
    talk.notes.take();
    talk.subscribe(true, Some(pull(1, 2_000)));
    assert_eq!(at(&mut talk, 3_500), EMPTY);
    assert_eq!(at(&mut talk, 4_500), ["lapsed 1"]);
    talk.end();
}
