//! Tests that the work for one object does not grow with the number of objects: with two and four times as many of
//! them, each costs as much as before.
//!
//! The processor time of the test's thread counts, so that a busy machine does not change the result.

use std::time::Duration;

use ferrymq_broker::{Caller, Catalog, Envelope, HashKey};
use ferrymq_model::{
    BindCommand, CatalogEntry, ConnectionId, DeclareExchange, DeclareQueue, DeleteExchange, Destination, Name, QueueId,
    SubscriptionId, Table,
};

use crate::port::Event;
use crate::queues::{Bench, NOW, QUEUE, settings};
use crate::random::Random;

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    // The kernel brings the count up to date when it looks for who is next.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// The time of `work` after `prepare`.
fn time_once<T>(prepare: impl FnOnce() -> T, work: impl FnOnce(&mut T)) -> Duration {
    let mut prepared = prepare();
    let before = processor_time();
    work(&mut prepared);
    processor_time() - before
}

/// The shortest of three times of `work` after `prepare`.
fn time_of<T>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(&mut T)) -> Duration {
    (0..3).map(|_| time_once(&mut prepare, &mut work)).min().unwrap()
}

const FEW: usize = 256;
/// The maximum cost for each of four times as many objects, in per cent of the cost for each of the few.
const GROWTH_MAX: u32 = 130;
/// Other programs may displace data from the processor's caches. So the shortest time of several rounds counts for each
/// size. This is the maximum number of rounds.
const ROUNDS_MAX: usize = 200;

/// Fails if the work for each of four times as many objects costs more than 1.3 times as much. `times(count)` is how
/// often `work` does the measured step after `prepare(count)`.
fn check_growth<T>(
    what: &str,
    times: impl Fn(usize) -> usize,
    prepare: impl Fn(usize) -> T,
    mut work: impl FnMut(&mut T),
) {
    let counts = [FEW, 2 * FEW, 4 * FEW];
    let mut least = [Duration::MAX; 3];
    for _ in 0..ROUNDS_MAX {
        for (least, count) in least.iter_mut().zip(counts) {
            let each = time_once(|| prepare(count), &mut work) * 1_000 / times(count) as u32;
            *least = each.min(*least);
        }
        if least[2] * 100 <= least[0] * GROWTH_MAX {
            return;
        }
    }
    panic!("{what}: a thousand take {least:?}, of {counts:?}");
}

/// Like [`check_growth`], for work on all prepared objects.
fn check_linear<T>(what: &str, prepare: impl Fn(usize) -> T, work: impl FnMut(&mut T)) {
    check_growth(what, |count| count, prepare, work);
}

/// A catalog with one exchange of a type.
struct Bound {
    catalog: Catalog,
    queues: Vec<QueueId>,
}

const NAMES: [&str; 2] = ["/", "guest"];

impl Bound {
    fn new(kind: &str) -> Self {
        let mut catalog = Catalog::fresh("", HashKey::known(), &mut Vec::new());
        let exchange = DeclareExchange {
            exchange: Name::from("x"),
            kind: Name::from(kind),
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Table::default(),
        };
        let [vhost, user] = NAMES.map(Name::from);
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        catalog.declare_exchange(&caller, &exchange, &mut Vec::new()).unwrap();
        Self { catalog, queues: Vec::new() }
    }

    fn declare(&mut self, queue: &str) {
        let [vhost, user] = NAMES.map(Name::from);
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        let declare = DeclareQueue {
            queue: Name::from(queue),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            arguments: Table::default(),
        };
        self.queues.push(self.catalog.declare_queue(&caller, &declare, 0, &mut Vec::new()).unwrap().queue);
    }

    fn bind(&mut self, queue: &str, key: &str) {
        let [vhost, user] = NAMES.map(Name::from);
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        let bind = BindCommand {
            destination: Destination::Queue(Name::from(queue)),
            exchange: Name::from("x"),
            key: key.as_bytes().to_vec(),
            arguments: Table::default(),
        };
        self.catalog.bind(&caller, &bind, &mut Vec::new()).unwrap();
    }

    /// This many queues, each bound once.
    fn queues(kind: &str, count: usize) -> Self {
        let mut bound = Self::new(kind);
        for number in 0..count {
            let name = format!("q{number}");
            bound.declare(&name);
            bound.bind(&name, "1");
        }
        bound
    }

    /// One queue, bound this often.
    fn keys(kind: &str, count: usize) -> Self {
        let mut bound = Self::new(kind);
        bound.declare("q");
        (1..=count).for_each(|key| bound.bind("q", &key.to_string()));
        bound
    }

    fn forget_queues(&mut self) {
        for queue in std::mem::take(&mut self.queues) {
            self.catalog.forget_queue(queue);
            while self.catalog.unbind_some(&mut Vec::new()) {}
        }
    }

    fn delete_exchange(&mut self) {
        let [vhost, user] = NAMES.map(Name::from);
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        let delete = DeleteExchange { exchange: Name::from("x"), if_unused: false };
        self.catalog.delete_exchange(&caller, &delete, &mut Vec::new()).unwrap();
        while self.catalog.unbind_some(&mut Vec::new()) {}
    }

    fn route(&self, key: &str) -> Vec<QueueId> {
        let mut targets = Vec::new();
        self.catalog.route("/", "x", key.as_bytes(), &[], &Envelope::EMPTY, &mut targets).unwrap();
        targets
    }
}

const KINDS: [&str; 7] =
    ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-modulus-hash", "x-recent-history"];

#[test]
fn queues_go_in_linear_time_however_they_are_bound() {
    for kind in KINDS {
        let prepare = |count| Bound::queues(kind, count);
        check_linear(&format!("queues bound to a {kind} exchange"), prepare, Bound::forget_queues);
    }
}

#[test]
fn a_queue_goes_in_linear_time_however_often_it_is_bound() {
    for kind in KINDS {
        let prepare = |count| Bound::keys(kind, count);
        check_linear(&format!("bindings of a queue to a {kind} exchange"), prepare, Bound::forget_queues);
    }
}

#[test]
fn an_exchange_goes_in_linear_time_however_much_is_bound_to_it() {
    for kind in KINDS {
        let prepare = |count| Bound::queues(kind, count);
        check_linear(&format!("a {kind} exchange"), prepare, Bound::delete_exchange);
    }
}

/// 128 bindings are removed while the catalog is locked once. The time does not depend on how many are left.
#[test]
fn bindings_go_in_portions() {
    for kind in KINDS {
        let mut bound = Bound::keys(kind, 1_000);
        bound.catalog.forget_queue(bound.queues[0]);
        let (mut portions, mut is_more) = (0, true);
        while is_more {
            let mut changes: Vec<CatalogEntry> = Vec::new();
            is_more = bound.catalog.unbind_some(&mut changes);
            portions += 1;
            assert!(changes.is_empty(), "none of them is durable");
        }
        assert_eq!(portions, 1_000_usize.div_ceil(128), "{kind}");
    }
    let prepare = |count| {
        let mut bound = Bound::keys("headers", count);
        bound.catalog.forget_queue(bound.queues[0]);
        bound
    };
    let portion = |bound: &mut Bound| {
        bound.catalog.unbind_some(&mut Vec::new());
    };
    check_growth("one portion", |_| 128, prepare, portion);
}

#[test]
fn a_publish_to_a_consistent_hash_hardly_depends_on_the_number_of_bindings() {
    const PUBLISHES: u64 = 2_000;
    for weight in ["1", "3"] {
        let prepare = |count| {
            let mut bound = Bound::new("x-consistent-hash");
            for number in 0..count {
                let name = format!("q{number}");
                bound.declare(&name);
                bound.bind(&name, weight);
            }
            bound
        };
        let work = |bound: &mut Bound| {
            for number in 0..PUBLISHES {
                assert_eq!(bound.route(&number.to_string()).len(), 1);
            }
        };
        check_growth(&format!("publishes, bindings of weight {weight}"), |_| PUBLISHES as usize, prepare, work);
    }
}

#[test]
fn queues_are_bound_in_linear_time() {
    for kind in KINDS {
        let work = |count: &mut usize| drop(Bound::queues(kind, *count));
        check_linear(&format!("bindings to a {kind} exchange"), |count| count, work);
    }
}

#[test]
fn subscriptions_of_one_queue_come_and_go_in_linear_time() {
    for single_active in [false, true] {
        let bench = |count| {
            let mut settings = settings("q");
            settings.single_active = single_active;
            (Bench::with(settings), count as u64)
        };
        let work = |(bench, count): &mut (Bench, u64)| {
            // Priorities that are all different, and all equal.
            for of_each in [|number| number as i64, |_| 0_i64] {
                (0..*count).for_each(|id| bench.consume(id, true, of_each(id)));
                bench.publish_to(&[QUEUE], false, Default::default());
                bench.dispatch();
                (0..*count).for_each(|id| bench.shard.cancel(SubscriptionId(id), NOW, &mut bench.port));
            }
            let delivered = |event: &&Event| matches!(event, Event::Delivered { .. });
            assert_eq!(bench.port.events.iter().filter(delivered).count(), 2);
        };
        check_linear(&format!("subscriptions, single active: {single_active}"), bench, work);
    }
}

/// Patterns for which there are as many ways to reach a position of a key as possible: matching costs no more than
/// making them.
#[test]
fn a_topic_match_costs_at_most_what_its_patterns_have_cost() {
    const WORDS: usize = 120;
    let mut random = Random::new(1);
    let mut bound = Bound::new("topic");
    bound.declare("q");
    let patterns: Vec<String> = (0..1_000)
        .map(|_| (0..WORDS).map(|_| ["#", "*", ""][random.below(3) as usize]).collect::<Vec<_>>().join("."))
        .collect();
    let before = processor_time();
    patterns.iter().for_each(|pattern| bound.bind("q", pattern));
    let made = processor_time() - before;
    let key = ".".repeat(WORDS - 1);
    let matched = time_of(|| (), |()| assert_eq!(bound.route(&key), bound.queues));
    assert!(matched <= made, "made in {made:?}, matched in {matched:?}");
}

#[test]
fn a_chain_of_wildcards_costs_no_search() {
    const WORDS: usize = 120;
    let time_of_chain = |word: &str| {
        let mut bound = Bound::new("topic");
        bound.declare("q");
        bound.bind("q", &vec![word; WORDS].join("."));
        let key = ".".repeat(WORDS - 1);
        let work = |(): &mut ()| (0..100).for_each(|_| assert_eq!(bound.route(&key), bound.queues));
        time_of(|| (), work)
    };
    let [any_number, one] = ["#", "*"].map(time_of_chain);
    assert!(any_number <= 8 * one, "{any_number:?} for any number of words each, {one:?} for one each");
}
