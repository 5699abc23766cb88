//! Schedules against a simple model: a list of messages sorted by their times.

use std::collections::BTreeSet;

use ferrymq_broker::{Published, ScheduleSettings, Shard};
use ferrymq_model::{BodyRef, DialectId, Facts, MessageRef, Name, QueueId, Time};

use crate::port::{Port, Written};
use crate::queues::settings;
use crate::random::Random;

const SCHEDULE: QueueId = QueueId(256);
const QUEUE: QueueId = QueueId(512);

struct Bench {
    shard: Shard,
    port: Port,
    now: Time,
    random: Random,
    /// What waits: due time, number, and whether it is persistent.
    expected: BTreeSet<(Time, u64, bool)>,
}

impl Bench {
    fn new(seed: u64, moody: u64) -> Self {
        let mut bench = Self {
            shard: Shard::new(),
            port: Port::new(Random::new(seed), moody),
            now: Time(1_700_000_000_000),
            random: Random::new(seed + 1),
            expected: BTreeSet::new(),
        };
        bench.port.queues.insert("q".to_owned(), QUEUE);
        bench.shard.open(QUEUE, settings("q"), &[], bench.now);
        bench.shard.open_schedule(SCHEDULE, schedule("q"), &[]);
        bench
    }

    fn publish(&mut self, delay_ms: u64, persistent: bool) -> Published {
        let number = self.port.write(Written { persistent, delay_ms, ..Written::default() });
        self.expected.insert((self.now.after_ms(delay_ms), number, persistent));
        let body = number.to_le_bytes();
        let message = MessageRef {
            dialect: DialectId(1),
            exchange: "x",
            routing_key: b"q",
            properties: &[],
            annotations: &[],
            body: BodyRef::Inline(&body),
        };
        let facts = Facts { body_bytes: 8, arrived: self.now, ..Facts::default() };
        self.shard.publish(&message, &facts, persistent, &[SCHEDULE], &mut self.port)
    }

    /// Dispatches until nothing more is to be done at this time, and compares what has arrived in the queue.
    fn come_to(&mut self, now: Time) {
        self.now = now;
        loop {
            while self.shard.deadline().is_some_and(|time| time <= now) {
                self.shard.timeout(now, &mut self.port);
            }
            if self.shard.dispatch(now, &mut self.port) {
                continue;
            }
            let read: Vec<_> = std::mem::take(&mut self.port.pending).into_iter().collect();
            if read.is_empty() {
                break;
            }
            self.shard.loaded(&read);
        }
        let rest = self.expected.split_off(&(now.after_ms(1), 0, false));
        let due: Vec<u64> =
            std::mem::replace(&mut self.expected, rest).into_iter().map(|(_, number, _)| number).collect();
        assert_eq!(self.arrived(), due);
        assert_eq!(self.shard.scheduled(SCHEDULE), Some(self.expected.len() as u64));
        if let (Some(deadline), Some((first, ..))) = (self.shard.deadline(), self.expected.first()) {
            assert!(now < deadline && deadline <= *first, "{deadline:?} is not between {now:?} and {first:?}");
        }
        assert_eq!(self.shard.deadline().is_some(), !self.expected.is_empty());
    }

    /// The numbers of the messages in the queue, in order; it is empty then.
    fn arrived(&mut self) -> Vec<u64> {
        let stored = self.port.messages.get(&QUEUE).into_iter().flat_map(|stored| stored.values());
        let arrived = stored.map(|stored| stored.message).collect();
        self.shard.purge(QUEUE, &mut self.port);
        arrived
    }

    fn restart(&mut self) {
        self.port.restart(|_| true);
        self.expected.retain(|(.., persistent)| *persistent);
        self.shard = Shard::new();
        let states = self.port.states.clone();
        let found = |queue: QueueId| -> Vec<_> {
            let lanes = states.iter().filter(|(lane, _)| lane.queue() == queue);
            lanes.map(|(lane, state)| self.port.recovered(*lane, state.clone())).collect()
        };
        self.shard.open(QUEUE, settings("q"), &found(QUEUE), self.now);
        self.shard.open_schedule(SCHEDULE, schedule("q"), &found(SCHEDULE));
    }
}

fn schedule(exchange: &str) -> ScheduleSettings {
    ScheduleSettings { vhost: Name::from("/"), exchange: Name::from(exchange), durable: true }
}

#[test]
fn whatever_happens_messages_come_at_their_times_in_order() {
    for seed in 0..200 {
        let mut bench = Bench::new(seed, if seed % 2 == 0 { 0 } else { 7 });
        for _ in 0..200 {
            match bench.random.below(10) {
                0..6 => {
                    let horizon = 1 << bench.random.below(36);
                    let (delay, persistent) = (1 + bench.random.below(horizon), bench.random.below(4) > 0);
                    for _ in 0..=bench.random.below(4) {
                        let published = bench.publish(delay, persistent);
                        assert_eq!((published.queues, published.durable), (1, persistent));
                    }
                }
                6..9 => {
                    let horizon = 1 << bench.random.below(34);
                    let passed = bench.random.below(horizon);
                    bench.come_to(bench.now.after_ms(passed));
                }
                _ => {
                    bench.restart();
                    bench.come_to(bench.now);
                }
            }
        }
        bench.come_to(bench.now.after_ms(1 << 40));
        assert!(bench.expected.is_empty());
    }
}

/// More than are held in memory at once: they move from lane to lane.
#[test]
fn very_many_messages_keep_their_order() {
    for moody in [0, 50] {
        let mut bench = Bench::new(3, moody);
        for number in 0..20_000 {
            let delay = if number % 3 == 0 { 7_000 } else { 1 + bench.random.below(100_000) };
            bench.publish(delay, true);
        }
        for step in [0, 1, 500, 6_498, 1, 100, 2_900] {
            bench.come_to(bench.now.after_ms(step));
            bench.publish(20, true);
            bench.publish(3_000, true);
        }
        bench.restart();
        bench.come_to(bench.now.after_ms(30_000));
        bench.come_to(bench.now.after_ms(100_000));
    }
}

/// A kill between two rounds leaves a lane that was moved partly.
#[test]
fn a_restart_in_the_middle_of_a_move_changes_nothing() {
    let mut bench = Bench::new(5, 0);
    for _ in 0..10_000 {
        let delay = 1_000 + bench.random.below(200_000);
        bench.publish(delay, true);
    }
    for rounds in 0..300 {
        bench.now = bench.now.after_ms(1_000);
        bench.shard.timeout(bench.now, &mut bench.port);
        for _ in 0..rounds % 40 {
            bench.shard.dispatch(bench.now, &mut bench.port);
        }
        // What has arrived already is compared with what arrives in the end.
        bench.restart();
    }
    bench.come_to(bench.now);
    assert!(bench.expected.is_empty());
}

#[test]
fn a_clock_that_is_set_back_delays_nothing_for_good() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed, 0);
        let start = bench.now;
        let mut published = 0;
        for _ in 0..300 {
            match bench.random.below(3) {
                0 => {
                    let horizon = 1 << bench.random.below(24);
                    let delay = 1 + bench.random.below(horizon);
                    bench.publish(delay, true);
                    published += 1;
                }
                1 => bench.now = Time(bench.now.0 - bench.random.below(100_000)),
                _ => {
                    bench.now = bench.now.after_ms(bench.random.below(100_000));
                    bench.shard.timeout(bench.now, &mut bench.port);
                    while bench.shard.dispatch(bench.now, &mut bench.port) {}
                }
            }
        }
        bench.now = start.after_ms(1 << 40);
        bench.shard.timeout(bench.now, &mut bench.port);
        while bench.shard.dispatch(bench.now, &mut bench.port) {}
        assert_eq!(bench.arrived().len(), published);
    }
}

#[test]
fn a_schedule_that_goes_takes_all_with_it() {
    let mut bench = Bench::new(1, 0);
    bench.publish(5, true);
    bench.publish(50_000, false);
    bench.shard.close_schedule(SCHEDULE, &mut bench.port);
    assert_eq!(bench.shard.scheduled(SCHEDULE), None);
    assert_eq!(bench.shard.deadline(), None);
    assert_eq!(bench.publish(5, true).queues, 0, "there is nothing to put it into");
    assert!(bench.port.messages.keys().all(|lane| lane.queue() != SCHEDULE));
}

/// A message without a target is dropped; one for a full queue is refused there.
#[test]
fn what_goes_nowhere_is_dropped() {
    let mut bench = Bench::new(1, 0);
    bench.shard.close_schedule(SCHEDULE, &mut bench.port);
    bench.shard.open_schedule(SCHEDULE, schedule("missing"), &[]);
    bench.publish(5, true);
    bench.expected.clear();
    bench.come_to(bench.now.after_ms(5));
    assert_eq!(bench.port.settled.get("settled: Dropped"), Some(&1));
}
