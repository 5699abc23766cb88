//! Single behaviours of queues with expiry, dead-lettering, limits, priorities or a single active consumer.

use ferrymq_broker::{DeadLettering, DeleteWhen, Got, Overflow, Published, QueueSettings, SequenceRange, Subscriber};
use ferrymq_model::{DeathReason, Facts, Name, QueueId, Settlement, SubscriptionId, Time};

use crate::port::{Event, Port};
use crate::queues::{Bench, NOW, QUEUE, settings};
use crate::random::Random;

/// The target of dead letters.
const DEAD_LETTERS: QueueId = QueueId(512);

/// A queue that dead-letters to another one, with these other settings.
fn with_dead_letters(rest: QueueSettings) -> Bench {
    let dead_letters =
        Some(DeadLettering { exchange: Name::from("dead-letters"), routing_key: None, at_least_once: false });
    let mut bench = Bench::with(QueueSettings { dead_letters, ..rest });
    bench.shard.open(DEAD_LETTERS, settings("dead-letters"), &[], NOW);
    bench.port.queues.insert("dead-letters".to_owned(), DEAD_LETTERS);
    bench
}

fn publish(bench: &mut Bench, messages: usize) {
    (0..messages).for_each(|_| assert!(!bench.publish_to(&[QUEUE], true, Facts::default()).refused));
}

fn settle(bench: &mut Bench, first: u64, last: u64, settlement: Settlement) {
    let range = SequenceRange { queue: QUEUE, first, last, body_bytes: 8 * (last - first + 1) };
    bench.shard.settle(&[range], settlement, NOW, &mut bench.port);
}

/// The dead messages and their reasons, in order.
fn deaths(bench: &mut Bench) -> Vec<(u64, DeathReason)> {
    let take = |event| match event {
        Event::DeadLettered { message, reason, .. } => Some((message, reason)),
        _ => None,
    };
    std::mem::take(&mut bench.port.events).into_iter().filter_map(take).collect()
}

fn ready(bench: &Bench, queue: QueueId) -> u64 {
    bench.shard.counts(queue).unwrap().ready
}

fn subscribe(bench: &mut Bench, id: u64, exclusive: bool, priority: i64) -> Result<bool, ferrymq_model::Refusal> {
    let subscriber = Subscriber { id: SubscriptionId(id), no_ack: true, exclusive, priority };
    bench.shard.consume(QUEUE, subscriber, NOW)
}

#[test]
fn dead_letters_arrive_in_the_order_of_death_some_at_a_time() {
    let mut bench = with_dead_letters(settings("q"));
    publish(&mut bench, 300);
    bench.consume(1, false, 0);
    while bench.dispatch() {}
    bench.delivered();
    // Storage has to read the first of them again.
    bench.port.moody = 1;
    settle(&mut bench, 200, 300, Settlement::Reject);
    settle(&mut bench, 1, 199, Settlement::Reject);
    assert!(!bench.dispatch());
    assert_eq!((ready(&bench, DEAD_LETTERS), bench.shard.counts(QUEUE).unwrap().unacked), (0, 0));
    bench.port.moody = 0;
    bench.shard.loaded(&[QUEUE]);
    assert!(bench.dispatch(), "there is more to do");
    assert_eq!(ready(&bench, DEAD_LETTERS), 128);
    while bench.dispatch() {}
    let dead: Vec<_> = deaths(&mut bench).into_iter().map(|(message, _)| message).collect();
    assert!(dead.iter().copied().eq((200..=300).chain(1..=199)), "{dead:?}");
    let counters = bench.shard.counts(QUEUE).unwrap().counters;
    assert_eq!((counters.rejected, counters.dead_lettered, counters.dead_letters_unroutable), (300, 300, 0));
    assert!(bench.port.messages[&QUEUE].is_empty());
}

#[test]
fn dead_letters_that_cause_dead_letters_wait_for_space_and_are_no_more_than_before() {
    const QUEUES: u64 = 50;
    let id = |number| QueueId(256 * (number + 1));
    let name = |number| format!("q{number}");
    let mut bench = Bench { shard: ferrymq_broker::Shard::new(), port: Port::new(Random::new(1), 0) };
    for number in 0..=QUEUES {
        let next = DeadLettering { exchange: Name::from(&*name(number + 1)), routing_key: None, at_least_once: false };
        let passes_on = (number < QUEUES).then_some(0);
        let rest = settings(&name(number));
        let settings = QueueSettings { messages_max: passes_on, dead_letters: Some(next), ..rest };
        bench.shard.open(id(number), settings, &[], NOW);
        bench.port.queues.insert(name(number), id(number));
    }
    bench.port.short = true;
    publish(&mut bench, 100);
    assert!(!bench.dispatch(), "there is no room");
    assert!(bench.shard.is_blocked_on_storage());
    assert_eq!(bench.ready(), 100, "they wait where they are");
    assert_eq!(bench.shard.get(QUEUE, true, NOW, &mut bench.port), Got::Pending);
    bench.port.short = false;
    for _ in 0..3 {
        assert!(!bench.shard.storage_unblocked().is_empty());
        assert!(bench.dispatch());
        // One round moves at most 128.
        let stored = bench.port.messages.values().map(std::collections::BTreeMap::len).sum::<usize>();
        assert_eq!(stored, 100);
        bench.port.short = true;
        while bench.dispatch() {}
        bench.port.short = false;
    }
    bench.shard.storage_unblocked();
    while bench.dispatch() {}
    assert_eq!((ready(&bench, id(QUEUES)), bench.shard.is_blocked_on_storage()), (100, false));
}

#[test]
fn purging_and_deleting_make_no_dead_letters() {
    let mut bench = with_dead_letters(settings("q"));
    publish(&mut bench, 3);
    assert_eq!(bench.shard.purge(QUEUE, &mut bench.port), 3);
    publish(&mut bench, 3);
    assert_eq!(bench.shard.delete(QUEUE, DeleteWhen::default(), &mut bench.port), Ok(3));
    assert!(!bench.dispatch());
    assert_eq!((deaths(&mut bench), ready(&bench, DEAD_LETTERS)), (vec![], 0));
}

#[test]
fn an_unroutable_dead_letter_is_counted() {
    let mut bench = with_dead_letters(QueueSettings { message_ttl_ms: Some(0), ..settings("q") });
    bench.port.queues.clear();
    publish(&mut bench, 1);
    bench.dispatch();
    let counters = bench.shard.counts(QUEUE).unwrap().counters;
    assert_eq!((counters.expired, counters.dead_lettered, counters.dead_letters_unroutable), (1, 0, 1));
    assert_eq!(bench.port.settled["settled: Expired"], 1);
}

#[test]
fn a_full_queue_drops_its_front() {
    let mut bench = with_dead_letters(QueueSettings { messages_max: Some(2), ..settings("q") });
    publish(&mut bench, 5);
    assert!(!bench.dispatch());
    assert_eq!(deaths(&mut bench), [1, 2, 3].map(|message| (message, DeathReason::MaxLength)));
    assert_eq!((bench.ready(), ready(&bench, DEAD_LETTERS)), (2, 3));
}

#[test]
fn a_queue_of_length_0_passes_on_what_a_consumer_takes_at_once() {
    let mut bench = Bench::with(QueueSettings { messages_max: Some(0), ..settings("q") });
    publish(&mut bench, 1);
    bench.dispatch();
    assert_eq!(bench.shard.counts(QUEUE).unwrap().counters.dropped, 1);
    bench.consume(1, false, 0);
    publish(&mut bench, 1);
    bench.dispatch();
    assert_eq!(bench.delivered(), [(1, 2)]);
}

#[test]
fn a_full_queue_refuses_whoever_waits_and_others_get_the_message() {
    let full = QueueSettings { messages_max: Some(0), overflow: Overflow::RejectPublishDeadLetter, ..settings("q") };
    let mut bench = with_dead_letters(full);
    let other = QueueId(768);
    bench.shard.open(other, settings("other"), &[], NOW);
    bench.consume(1, false, 0);
    let published = bench.publish_to(&[QUEUE, other], true, Facts::default());
    assert_eq!(published, Published { queues: 2, durable: true, refused: true, ..Published::default() });
    assert!(!bench.dispatch());
    assert_eq!(deaths(&mut bench), [(1, DeathReason::MaxLength)]);
    assert_eq!((ready(&bench, other), ready(&bench, DEAD_LETTERS), bench.ready()), (1, 1, 0));
}

/// A rejected message goes to a full queue, which dead-letters it to a third one. All of this is one step.
#[test]
fn what_a_full_queue_refuses_goes_on_with_the_message_that_has_left() {
    let (full, last) = (QueueId(768), QueueId(1024));
    let dead_letters =
        |exchange| Some(DeadLettering { exchange: Name::from(exchange), routing_key: None, at_least_once: false });
    let mut bench = Bench::with(QueueSettings { dead_letters: dead_letters("full"), ..settings("q") });
    let settings_of_full = QueueSettings {
        messages_max: Some(0),
        overflow: Overflow::RejectPublishDeadLetter,
        dead_letters: dead_letters("last"),
        ..settings("full")
    };
    bench.shard.open(full, settings_of_full, &[], NOW);
    bench.shard.open(last, settings("last"), &[], NOW);
    bench.port.queues.extend([("full".to_owned(), full), ("last".to_owned(), last)]);
    bench.consume(1, false, 0);
    publish(&mut bench, 3);
    bench.dispatch();
    settle(&mut bench, 1, 3, Settlement::Reject);
    assert!(!bench.dispatch());
    assert_eq!((ready(&bench, QUEUE), ready(&bench, full), ready(&bench, last)), (0, 0, 3));
    assert!(!bench.shard.is_blocked_on_storage(), "nothing waits in memory");
}

/// Eight full queues dead-letter refused messages to each other. The dead letters become more and more, and other
/// queues are served.
#[test]
fn dead_letters_that_multiply_leave_half_of_a_round_to_others() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..8).map(|number| format!("f{number}")).collect();
    for (number, name) in (2..).zip(&names) {
        let settings = QueueSettings {
            messages_max: Some(0),
            overflow: Overflow::RejectPublishDeadLetter,
            dead_letters: Some(DeadLettering {
                exchange: Name::from(&*names.join(",")),
                routing_key: None,
                at_least_once: false,
            }),
            ..settings(name)
        };
        bench.shard.open(QueueId(256 * number), settings, &[], NOW);
        bench.port.queues.insert(name.clone(), QueueId(256 * number));
    }
    bench.publish_to(&[QueueId(512)], true, Facts::default());
    publish(&mut bench, 100);
    bench.consume(1, true, 0);
    bench.dispatch();
    assert!(bench.shard.has_waiting_dead_letters(), "there are many");
    assert!(bench.delivered().len() >= 32);
}

#[test]
fn a_message_that_may_come_back_twice_is_delivered_three_times() {
    let mut bench = with_dead_letters(QueueSettings { attempts_max: Some(2), ..settings("q") });
    publish(&mut bench, 2);
    bench.consume(1, false, 0);
    for _ in 0..3 {
        bench.dispatch();
        assert_eq!(bench.delivered(), [(1, 1), (1, 2)]);
        settle(&mut bench, 1, 2, Settlement::RELEASE);
    }
    bench.dispatch();
    assert_eq!(deaths(&mut bench), [1, 2].map(|message| (message, DeathReason::DeliveryLimit)));
    let counts = bench.shard.counts(QUEUE).unwrap();
    assert_eq!((counts.ready, counts.ready_bytes, counts.unacked), (0, 0, 0));
}

#[test]
fn higher_priorities_go_first_and_each_in_its_order() {
    let mut bench = Bench::with(QueueSettings { priority_max: 5, ..settings("q") });
    for priority in [0, 5, 2, 200, 0, 2] {
        bench.publish_to(&[QUEUE], true, Facts { priority, ..Facts::default() });
    }
    bench.consume(1, false, 0);
    bench.dispatch();
    let order: Vec<_> = bench.delivered().into_iter().map(|(_, message)| message).collect();
    assert_eq!(order, [2, 4, 3, 6, 1, 5]);
    assert!(bench.port.states.keys().eq([0, 2, 5].map(|lane| QUEUE.lane(lane)).iter()));
    assert_eq!(bench.shard.state(QUEUE.lane(2)).as_ref(), bench.port.states.get(&QUEUE.lane(2)));
    assert_eq!(bench.shard.state(QUEUE.lane(1)), None, "nothing is kept for priorities that never came");
}

#[test]
fn one_subscription_is_active_and_the_next_takes_over() {
    let mut bench = Bench::with(QueueSettings { single_active: true, ..settings("q") });
    let refused = subscribe(&mut bench, 1, true, 0).unwrap_err();
    assert_eq!(refused.to_string(), "queue 'q' in vhost '/' in exclusive use");
    for (id, priority) in [(1, 0), (2, 0), (3, 7), (4, 7)] {
        assert_eq!(subscribe(&mut bench, id, false, priority), Ok(true));
    }
    for expected in [1, 3, 4, 2] {
        publish(&mut bench, 2);
        bench.dispatch();
        let takers: Vec<_> = bench.delivered().into_iter().map(|(subscription, _)| subscription).collect();
        assert_eq!(takers, [expected, expected]);
        assert_eq!(bench.shard.counts(QUEUE).unwrap().active, Some(SubscriptionId(expected)));
        bench.shard.cancel(SubscriptionId(expected), NOW, &mut bench.port);
    }
    assert_eq!(bench.shard.counts(QUEUE).unwrap().active, None);
}

#[test]
fn new_settings_hold_at_once() {
    let mut bench = with_dead_letters(settings("q"));
    publish(&mut bench, 4);
    let later = Time(NOW.0 + 50);
    // What never changes is not applied.
    let shorter = QueueSettings { messages_max: Some(3), durable: false, priority_max: 9, ..settings("q") };
    bench.shard.configure(QUEUE, shorter, NOW);
    bench.dispatch();
    assert_eq!((bench.ready(), deaths(&mut bench)), (3, vec![]), "it has no dead-lettering any more");
    assert!(bench.publish_to(&[QUEUE], true, Facts { priority: 9, ..Facts::default() }).durable);
    let shorter_lived = QueueSettings { message_ttl_ms: Some(60), unused_ms_max: Some(100), ..settings("q") };
    bench.shard.configure(QUEUE, shorter_lived, later);
    bench.shard.dispatch(later, &mut bench.port);
    assert_eq!(bench.shard.deadline(), Some(Time(NOW.0 + 60)), "reckoned from the messages' arrival");
    bench.shard.timeout(Time(NOW.0 + 60), &mut bench.port);
    bench.shard.dispatch(Time(NOW.0 + 60), &mut bench.port);
    assert_eq!(bench.ready(), 0);
    assert_eq!(bench.shard.deadline(), Some(Time(later.0 + 100)), "the queue was used when it was configured");
}

#[test]
fn a_get_waits_until_dispatch_has_dead_lettered() {
    let mut bench = with_dead_letters(QueueSettings { message_ttl_ms: Some(10), ..settings("q") });
    publish(&mut bench, 1);
    let later = Time(NOW.0 + 10);
    assert_eq!(bench.shard.get(QUEUE, true, later, &mut bench.port), Got::Busy);
    bench.shard.dispatch(later, &mut bench.port);
    assert_eq!(bench.shard.get(QUEUE, true, later, &mut bench.port), Got::Empty);
    assert_eq!(ready(&bench, DEAD_LETTERS), 1);
}

/// A queue with at-least-once dead-lettering, as it is recovered.
fn at_least_once() -> QueueSettings {
    let address = DeadLettering { exchange: Name::from("dead-letters,more"), routing_key: None, at_least_once: true };
    QueueSettings { dead_letters: Some(address), overflow: Overflow::RejectPublish, ..settings("q") }
}

fn open(bench: &mut Bench, name: &str, id: QueueId, messages_max: Option<u64>) {
    bench.shard.open(id, QueueSettings { messages_max, overflow: Overflow::RejectPublish, ..settings(name) }, &[], NOW);
    bench.port.queues.insert(name.to_owned(), id);
    bench.shard.routes_changed();
    while bench.dispatch() {}
}

#[test]
fn an_at_least_once_dead_letter_waits_for_a_target() {
    let mut bench = Bench::with(at_least_once());
    publish(&mut bench, 3);
    bench.consume(1, false, 0);
    bench.dispatch();
    settle(&mut bench, 1, 2, Settlement::Reject);
    assert!(!bench.dispatch(), "it waits, and is not retried again and again");
    assert_eq!(deaths(&mut bench), [(1, DeathReason::Rejected), (2, DeathReason::Rejected)]);
    assert_eq!(bench.port.messages[&QUEUE].len(), 3, "nothing is lost");
    let counts = bench.shard.counts(QUEUE).unwrap();
    assert_eq!(
        (counts.ready, counts.unacked, counts.pending_dead_letters, counts.pending_dead_letter_bytes),
        (0, 1, 2, 16)
    );
    // What is not dead-lettered continues meanwhile.
    publish(&mut bench, 1);
    assert_eq!(bench.delivered(), [(1, 4)]);

    open(&mut bench, "dead-letters", DEAD_LETTERS, Some(1));
    assert_eq!((ready(&bench, DEAD_LETTERS), bench.port.messages[&QUEUE].len()), (1, 3), "it is full then");
    assert_eq!(bench.shard.get(DEAD_LETTERS, true, NOW, &mut bench.port), Got::Message);
    assert!(!bench.dispatch());
    assert_eq!((ready(&bench, DEAD_LETTERS), bench.port.messages[&QUEUE].len()), (1, 2), "there was room");
    assert_eq!(bench.shard.counts(QUEUE).unwrap().counters.dead_lettered, 2);
    assert!(!bench.shard.has_unconfirmed_dead_letters());
}

#[test]
fn a_target_with_space_gets_a_dead_letter_before_full_ones() {
    let mut bench = Bench::with(at_least_once());
    let more = QueueId(768);
    open(&mut bench, "dead-letters", DEAD_LETTERS, Some(0));
    open(&mut bench, "more", more, None);
    publish(&mut bench, 1);
    bench.consume(1, false, 0);
    bench.dispatch();
    settle(&mut bench, 1, 1, Settlement::Reject);
    bench.dispatch();
    bench.shard.routes_changed();
    bench.dispatch();
    assert_eq!((ready(&bench, DEAD_LETTERS), ready(&bench, more)), (0, 1), "once");
    let roomier =
        QueueSettings { messages_max: Some(5), overflow: Overflow::RejectPublish, ..settings("dead-letters") };
    bench.shard.configure(DEAD_LETTERS, roomier, NOW);
    bench.dispatch();
    assert_eq!((ready(&bench, DEAD_LETTERS), ready(&bench, more), bench.port.messages[&QUEUE].len()), (1, 1, 0));
}

#[test]
fn pending_dead_letters_survive_a_restart_and_take_space() {
    let limited =
        QueueSettings { messages_max: Some(3), attempts_max: Some(0), message_ttl_ms: Some(10), ..at_least_once() };
    let mut bench = Bench::with(limited.clone());
    publish(&mut bench, 3);
    bench.consume(1, false, 0);
    bench.port.credit.insert(1, 2);
    bench.dispatch();
    settle(&mut bench, 1, 1, Settlement::Reject);
    settle(&mut bench, 2, 2, Settlement::RELEASE);
    bench.shard.dispatch(Time(NOW.0 + 10), &mut bench.port);
    let reasons = [(1, DeathReason::Rejected), (2, DeathReason::DeliveryLimit), (3, DeathReason::Expired)];
    assert_eq!(deaths(&mut bench), reasons);
    assert!(bench.publish_to(&[QUEUE], true, Facts::default()).refused, "three wait, and there are to be three");
    assert_eq!(bench.shard.state(QUEUE).as_ref(), bench.port.states.get(&QUEUE));

    let recovered = bench.port.recovered(QUEUE, bench.port.states[&QUEUE].clone());
    bench.shard = ferrymq_broker::Shard::new();
    bench.shard.open(QUEUE, limited, &[recovered], NOW);
    bench.dispatch();
    assert_eq!(deaths(&mut bench), reasons, "as before");
    let counts = bench.shard.counts(QUEUE).unwrap();
    assert_eq!((counts.ready, counts.pending_dead_letters, bench.shard.deadline()), (0, 3, None));
    assert!(bench.publish_to(&[QUEUE], true, Facts::default()).refused);
    assert_eq!(bench.shard.purge(QUEUE, &mut bench.port), 3);
    assert!(bench.port.messages[&QUEUE].is_empty());
    let counts = bench.shard.counts(QUEUE).unwrap();
    assert_eq!((counts.pending_dead_letters, counts.ready_bytes, counts.pending_dead_letter_bytes), (0, 0, 0));
}

#[test]
fn an_unconfirmed_dead_letter_does_not_block_others_until_many_wait() {
    let mut bench = Bench::with(at_least_once());
    publish(&mut bench, 40);
    bench.consume(1, false, 0);
    bench.dispatch();
    settle(&mut bench, 1, 40, Settlement::Reject);
    while bench.dispatch() {}
    assert_eq!(deaths(&mut bench).len(), 32, "the others have to wait");
    open(&mut bench, "dead-letters", DEAD_LETTERS, None);
    let arrived: Vec<_> = deaths(&mut bench).into_iter().map(|(message, _)| message).collect();
    assert!(arrived.iter().copied().eq(1..=40), "{arrived:?}");
}

#[test]
fn pending_dead_letters_are_not_published_out_of_turn() {
    let mut bench = Bench::with(QueueSettings { message_ttl_ms: Some(10), ..at_least_once() });
    let more = QueueId(768);
    open(&mut bench, "dead-letters", DEAD_LETTERS, Some(0));
    open(&mut bench, "more", more, None);
    publish(&mut bench, 50);
    let later = Time(NOW.0 + 10);
    bench.shard.timeout(later, &mut bench.port);
    while bench.shard.dispatch(later, &mut bench.port) {}
    let counts = bench.shard.counts(QUEUE).unwrap();
    assert_eq!((ready(&bench, more), counts.ready, counts.pending_dead_letters), (32, 0, 50));
    assert_eq!(bench.shard.state(QUEUE).as_ref(), bench.port.states.get(&QUEUE));
    bench.port.queues.remove("dead-letters");
    bench.shard.delete(DEAD_LETTERS, DeleteWhen::default(), &mut bench.port).unwrap();
    while bench.shard.dispatch(later, &mut bench.port) {}
    assert_eq!((ready(&bench, more), bench.port.messages[&QUEUE].len()), (50, 0), "each once");
}

#[test]
fn no_target_gets_a_dead_letter_twice_when_at_least_once_is_switched_off() {
    let mut bench = Bench::with(at_least_once());
    let more = QueueId(768);
    open(&mut bench, "dead-letters", DEAD_LETTERS, Some(0));
    open(&mut bench, "more", more, None);
    publish(&mut bench, 1);
    bench.consume(1, false, 0);
    bench.dispatch();
    settle(&mut bench, 1, 1, Settlement::Reject);
    bench.dispatch();
    let address = DeadLettering { exchange: Name::from("dead-letters,more"), routing_key: None, at_least_once: false };
    bench.shard.configure(QUEUE, QueueSettings { dead_letters: Some(address), ..settings("q") }, NOW);
    bench.dispatch();
    assert_eq!((ready(&bench, more), bench.port.messages[&QUEUE].len()), (1, 0));
    assert_eq!(bench.port.settled["settled: DeadLettered"], 1);
}
