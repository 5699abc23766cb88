//! Delayed retry: messages that come back and wait before they are ready again.

use ferrymq_broker::{DeleteWhen, QueueSettings, RetryDelay, SequenceRange, Shard};
use ferrymq_model::{DeathReason, Facts, QueueState, Settlement, Time};

use crate::queues::{Bench, NOW, QUEUE, settings};

fn with_retry(failed: bool, returned: bool, settings: QueueSettings) -> Bench {
    let retry = Some(RetryDelay { failed, returned, min_ms: 100, max_ms: 250 });
    Bench::with(QueueSettings { retry, ..settings })
}

fn publish(bench: &mut Bench, messages: usize) {
    (0..messages).for_each(|_| assert_eq!(bench.publish_to(&[QUEUE], true, Facts::default()).queues, 1));
}

fn settle(bench: &mut Bench, first: u64, last: u64, settlement: Settlement, now: Time) {
    let range = SequenceRange { queue: QUEUE, first, last, body_bytes: 8 * (last - first + 1) };
    bench.shard.settle(&[range], settlement, now, &mut bench.port);
}

/// What is delivered at this time.
fn delivered(bench: &mut Bench, now: Time) -> Vec<u64> {
    if bench.shard.deadline().is_some_and(|time| time <= now) {
        bench.shard.timeout(now, &mut bench.port);
    }
    while bench.shard.dispatch(now, &mut bench.port) {}
    bench.delivered().into_iter().map(|(_, message)| message).collect()
}

/// Ready and waiting messages, and the bytes of the ready ones.
fn counts(bench: &Bench) -> (u64, u64, u64) {
    let counts = bench.shard.counts(QUEUE).unwrap();
    (counts.ready, counts.delayed_retries, counts.ready_bytes)
}

#[test]
fn a_retry_is_delayed_longer_each_time() {
    let mut bench = with_retry(true, true, settings("q"));
    bench.consume(1, false, 0);
    publish(&mut bench, 3);
    assert_eq!(delivered(&mut bench, NOW), [1, 2, 3]);
    let mut now = NOW;
    for delay in [100, 200, 250, 250] {
        settle(&mut bench, 2, 2, Settlement::RELEASE, now);
        assert_eq!(counts(&bench), (0, 1, 0));
        assert_eq!(bench.shard.deadline(), Some(now.after_ms(delay)));
        assert_eq!(delivered(&mut bench, now.after_ms(delay - 1)), [] as [u64; 0]);
        now = now.after_ms(delay);
        assert_eq!(delivered(&mut bench, now), [2]);
        assert_eq!(bench.shard.deadline(), None);
    }
    settle(&mut bench, 1, 3, Settlement::Accept, now);
    assert_eq!(bench.shard.state(QUEUE).unwrap().open.len(), 0);
}

#[test]
fn only_failed_or_only_returned_messages_are_delayed() {
    for (failed, returned) in [(true, false), (false, true)] {
        let mut bench = with_retry(failed, returned, settings("q"));
        bench.consume(1, false, 0);
        publish(&mut bench, 2);
        delivered(&mut bench, NOW);
        settle(&mut bench, 1, 1, Settlement::FAIL, NOW);
        settle(&mut bench, 2, 2, Settlement::RELEASE, NOW);
        assert_eq!(delivered(&mut bench, NOW), [if failed { 2 } else { 1 }]);
        assert_eq!(delivered(&mut bench, NOW.after_ms(100)), [if failed { 1 } else { 2 }]);
    }
}

/// It returns to its old place, those with equal counts together, and others overtake it meanwhile.
#[test]
fn a_delayed_retry_goes_first() {
    let mut bench = with_retry(true, true, settings("q"));
    publish(&mut bench, 5);
    bench.consume(1, false, 0);
    delivered(&mut bench, NOW);
    settle(&mut bench, 2, 2, Settlement::RELEASE, NOW);
    assert_eq!(delivered(&mut bench, NOW.after_ms(100)), [2]);
    bench.shard.cancel(ferrymq_model::SubscriptionId(1), NOW, &mut bench.port);
    settle(&mut bench, 1, 5, Settlement::RELEASE, NOW);
    publish(&mut bench, 1);
    assert_eq!(counts(&bench), (1, 5, 8));
    bench.shard.timeout(NOW.after_ms(100), &mut bench.port);
    assert_eq!(counts(&bench), (5, 1, 40));
    bench.shard.timeout(NOW.after_ms(200), &mut bench.port);
    assert_eq!(counts(&bench), (6, 0, 48));
    bench.consume(2, false, 0);
    assert_eq!(delivered(&mut bench, NOW.after_ms(200)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn there_is_no_retry_beyond_the_delivery_limit() {
    let mut bench = with_retry(true, true, QueueSettings { attempts_max: Some(1), ..settings("q") });
    bench.consume(1, false, 0);
    publish(&mut bench, 1);
    delivered(&mut bench, NOW);
    settle(&mut bench, 1, 1, Settlement::FAIL, NOW);
    assert_eq!(delivered(&mut bench, NOW.after_ms(100)), [1]);
    settle(&mut bench, 1, 1, Settlement::FAIL, NOW.after_ms(100));
    assert_eq!(delivered(&mut bench, NOW.after_ms(1_000)), [] as [u64; 0]);
    assert_eq!((counts(&bench), bench.shard.deadline()), ((0, 0, 0), None));
    assert_eq!(bench.port.settled.get("settled: Dropped"), Some(&1));
}

/// Its TTL continues while it waits, and is checked when it is ready.
#[test]
fn a_delayed_retry_expires_afterwards() {
    let mut bench = with_retry(true, true, QueueSettings { message_ttl_ms: Some(50), ..settings("q") });
    bench.consume(1, false, 0);
    publish(&mut bench, 1);
    delivered(&mut bench, NOW);
    settle(&mut bench, 1, 1, Settlement::FAIL, NOW);
    assert_eq!(delivered(&mut bench, NOW.after_ms(60)), [] as [u64; 0]);
    assert_eq!(counts(&bench), (0, 1, 0));
    assert_eq!(delivered(&mut bench, NOW.after_ms(100)), [] as [u64; 0]);
    assert_eq!((counts(&bench), bench.port.expired()), ((0, 0, 0), 1));
}

#[test]
fn delayed_retries_are_due_at_their_time_also_after_a_restart() {
    let mut bench = with_retry(true, true, settings("q"));
    bench.consume(1, false, 0);
    publish(&mut bench, 5);
    delivered(&mut bench, NOW);
    settle(&mut bench, 2, 3, Settlement::FAIL, NOW);
    delivered(&mut bench, NOW.after_ms(100));
    settle(&mut bench, 3, 3, Settlement::FAIL, NOW.after_ms(110));
    settle(&mut bench, 2, 2, Settlement::FAIL, NOW.after_ms(120));
    settle(&mut bench, 4, 4, Settlement::Accept, NOW.after_ms(120));
    let state = bench.shard.state(QUEUE).unwrap();
    assert_eq!(state, bench.port.states[&QUEUE], "the outcome says when each is due");
    assert_eq!(state.due, [(2, NOW.after_ms(320)), (3, NOW.after_ms(310))]);
    let found = bench.port.recovered(QUEUE, state);
    let retry = Some(RetryDelay { failed: true, returned: false, min_ms: 100, max_ms: 250 });
    let settings = QueueSettings { retry, ..settings("q") };
    let mut restarted = |messages: u64, at: Time| {
        bench.shard = Shard::new();
        let found = ferrymq_broker::Recovered { messages, ..found.clone() };
        bench.shard.open(QUEUE, settings.clone(), &[found], at);
        counts(&bench)
    };
    assert_eq!(restarted(4, NOW.after_ms(315)), (3, 1, 24), "what was due meanwhile is ready at once");
    // With a transient message among them that is lost, nobody knows which.
    assert_eq!(restarted(3, NOW.after_ms(150)), (3, 0, 32));
    // The clock was set back: nothing waits longer than its delay.
    assert_eq!(restarted(4, Time(NOW.0 / 2)), (2, 2, 16));
    assert_eq!(bench.shard.deadline(), Some(Time(NOW.0 / 2 + 250)));

    bench.shard = Shard::new();
    bench.shard.open(QUEUE, settings, std::slice::from_ref(&found), NOW.after_ms(150));
    bench.consume(2, false, 0);
    assert_eq!(delivered(&mut bench, NOW.after_ms(309)), [1, 5]);
    assert_eq!(delivered(&mut bench, NOW.after_ms(310)), [3]);
    assert_eq!(delivered(&mut bench, NOW.after_ms(320)), [2]);
}

/// Storage may have attempts of messages that are gone: transient ones, which no restart brings back.
#[test]
fn delayed_retries_of_lost_messages_do_not_count_after_a_restart() {
    let retry = Some(RetryDelay { failed: true, returned: true, min_ms: 100, max_ms: 250 });
    let settings = QueueSettings { retry, ..settings("q") };
    // Of five delivered messages, some are there.
    for there in [&[][..], &[1], &[3], &[5], &[1, 4, 5], &[1, 2, 3, 4, 5]] {
        let mut bench = Bench::with(settings.clone());
        publish(&mut bench, 5);
        let messages = bench.port.messages.get_mut(&QUEUE).unwrap();
        messages.retain(|sequence, _| there.contains(sequence));
        let mut state = QueueState { next: 6, head: 6, ..QueueState::new() };
        for sequence in there {
            state.open.insert(*sequence, *sequence);
        }
        // Some were given up, and some sequences never were.
        let named = [0, 1, 2, 2, 4, 5, 6, 7, u64::MAX];
        let pending = DeathReason::Rejected.as_attempts();
        state.attempts =
            named.iter().map(|sequence| (*sequence, if *sequence % 4 == 1 { pending } else { 1 })).collect();
        state.due = named.iter().map(|sequence| (*sequence, NOW.after_ms(50))).collect();
        let found = bench.port.recovered(QUEUE, state);
        bench.shard = Shard::new();
        bench.shard.open(QUEUE, settings.clone(), &[found], NOW);
        let counts = bench.shard.counts(QUEUE).unwrap();
        let count = |wanted: &[u64]| wanted.iter().filter(|sequence| there.contains(sequence)).count() as u64;
        assert_eq!(counts.pending_dead_letters, count(&[1, 5]), "{there:?}");
        assert_eq!(counts.delayed_retries, count(&[2, 4]), "{there:?}");
        assert_eq!(counts.ready, count(&[3]), "{there:?}");
        let attempts = bench.shard.state(QUEUE).unwrap().attempts;
        assert_eq!(attempts.len() as u64, count(&[1, 2, 4, 5]), "{there:?}");
        bench.consume(1, true, 0);
        let mut seen = delivered(&mut bench, NOW);
        seen.extend(delivered(&mut bench, NOW.after_ms(50)));
        seen.sort_unstable();
        let expected: Vec<u64> = there.iter().copied().filter(|sequence| [2, 3, 4].contains(sequence)).collect();
        assert_eq!(seen, expected, "{there:?}");
    }
}

/// A prepared transaction settles a message that came back before. After a restart with a clock that was set back, the
/// delay of that time is not over.
#[test]
fn a_prepared_transaction_holds_a_message_whose_delay_is_not_over() {
    let retry = Some(RetryDelay { failed: true, returned: true, min_ms: 100, max_ms: 250 });
    let settings = QueueSettings { retry, ..settings("q") };
    let mut bench = Bench::with(settings.clone());
    publish(&mut bench, 4);
    let mut state = QueueState { next: 5, head: 5, ..QueueState::new() };
    state.open.insert(1, 4);
    state.due = (2..=4).map(|sequence| (sequence, NOW.after_ms(50))).collect();
    let found = bench.port.recovered(QUEUE, state);
    bench.shard = Shard::new();
    bench.shard.open(QUEUE, settings, &[found], NOW);
    assert_eq!(counts(&bench), (1, 3, 8));
    let asked = SequenceRange { queue: QUEUE, first: 3, last: 3, body_bytes: 8 };
    assert_eq!(bench.shard.hold(asked), [asked]);
    assert_eq!((counts(&bench), bench.shard.counts(QUEUE).unwrap().unacked), ((3, 0, 24), 1));
    bench.shard.settle(&[asked], Settlement::Accept, NOW, &mut bench.port);
    bench.consume(1, true, 0);
    assert_eq!(delivered(&mut bench, NOW), [1, 2, 4]);
}

#[test]
fn a_purge_drops_delayed_retries_and_if_empty_counts_them() {
    let mut bench = with_retry(true, true, settings("q"));
    bench.consume(1, false, 0);
    publish(&mut bench, 3);
    delivered(&mut bench, NOW);
    settle(&mut bench, 1, 2, Settlement::FAIL, NOW);
    let empty = DeleteWhen { empty: true, ..DeleteWhen::default() };
    assert!(bench.shard.delete(QUEUE, empty, &mut bench.port).is_err());
    assert_eq!(bench.shard.purge(QUEUE, &mut bench.port), 2);
    assert_eq!((counts(&bench), bench.shard.deadline()), ((0, 0, 0), None));
    assert_eq!(bench.port.messages[&QUEUE].len(), 1, "the one that is out stays");
    settle(&mut bench, 3, 3, Settlement::Accept, NOW);
    assert!(bench.shard.delete(QUEUE, empty, &mut bench.port).is_ok());
}

#[test]
fn a_consumer_can_ask_for_a_delay() {
    for (mut bench, waits) in [(Bench::new(), [500, 80]), (with_retry(true, true, settings("q")), [500, 100])] {
        bench.consume(1, false, 0);
        publish(&mut bench, 2);
        assert_eq!(delivered(&mut bench, NOW), [1, 2]);
        settle(&mut bench, 1, 1, Settlement::Fail { delay_ms: 500 }, NOW);
        settle(&mut bench, 2, 2, Settlement::Release { delay_ms: 80 }, NOW);
        let [first, second] = waits.map(|ms| NOW.after_ms(ms));
        assert_eq!(bench.shard.deadline(), Some(second), "the longer delay counts");
        assert_eq!(delivered(&mut bench, second), [2]);
        assert_eq!(bench.shard.deadline(), Some(first));
        assert_eq!(delivered(&mut bench, first), [1]);
    }
}
