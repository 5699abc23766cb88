//! Tests that the work for one object does not grow with the number of objects: with four times as many of them, each
//! costs as much as before. The instructions are counted.

use ferrymq_broker::{Caller, Catalog, Envelope, HashKey};
use ferrymq_model::{
    BindCommand, CatalogEntry, ConnectionId, DeclareExchange, DeclareQueue, DeleteExchange, Destination, Name, QueueId,
    SubscriptionId, Table,
};
use ferrymq_testkit::{Callgrind, counting};

use crate::port::Event;
use crate::queues::{Bench, NOW, QUEUE, settings};
use crate::random::Random;

/// Fails if the work for one object grows with the number of objects. `prepare` makes this many.
fn check_linear<T>(
    callgrind: &mut Callgrind,
    (what, percent_max): (&str, u64),
    prepare: impl Fn(usize) -> T,
    mut work: impl FnMut(&mut T),
) {
    callgrind.check_linear(what, percent_max, |callgrind, count| {
        let mut prepared = prepare(count);
        callgrind.instructions(|| work(&mut prepared))
    });
}

/// Fails if work grows with the number of objects. `prepare` makes this many.
fn check_constant<T>(
    callgrind: &mut Callgrind,
    (what, percent_max): (&str, u64),
    prepare: impl Fn(usize) -> T,
    mut work: impl FnMut(&mut T),
) {
    callgrind.check_constant(what, percent_max, |callgrind, count| {
        let mut prepared = prepare(count);
        callgrind.instructions(|| work(&mut prepared))
    });
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

/// The growth that is allowed where many queues are bound to an exchange, in percent. Most kinds keep their targets in
/// chunks of up to 512, and move a part of one for each binding.
fn percent_max(kind: &str) -> u64 {
    if ["headers", "x-consistent-hash"].contains(&kind) { 105 } else { 130 }
}

#[test]
fn queues_go_in_linear_time_however_they_are_bound() {
    counting(|callgrind| {
        for kind in KINDS {
            let prepare = |count| Bound::queues(kind, count);
            let what = format!("queues bound to a {kind} exchange");
            check_linear(callgrind, (&what, percent_max(kind)), prepare, Bound::forget_queues);
        }
    });
}

#[test]
fn a_queue_goes_in_linear_time_however_often_it_is_bound() {
    counting(|callgrind| {
        for kind in KINDS {
            let prepare = |count| Bound::keys(kind, count);
            let what = format!("bindings of a queue to a {kind} exchange");
            check_linear(callgrind, (&what, 105), prepare, Bound::forget_queues);
        }
    });
}

#[test]
fn an_exchange_goes_in_linear_time_however_much_is_bound_to_it() {
    counting(|callgrind| {
        for kind in KINDS {
            let prepare = |count| Bound::queues(kind, count);
            check_linear(
                callgrind,
                (&format!("a {kind} exchange"), percent_max(kind)),
                prepare,
                Bound::delete_exchange,
            );
        }
    });
}

/// 128 bindings are removed while the catalog is locked once.
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
}

#[test]
fn a_portion_of_bindings_does_not_depend_on_how_many_are_left() {
    let prepare = |count| {
        let mut bound = Bound::keys("headers", count);
        bound.catalog.forget_queue(bound.queues[0]);
        bound
    };
    let portion = |bound: &mut Bound| {
        bound.catalog.unbind_some(&mut Vec::new());
    };
    counting(|callgrind| check_constant(callgrind, ("one portion", 105), prepare, portion));
}

#[test]
fn a_publish_to_a_consistent_hash_hardly_depends_on_the_number_of_bindings() {
    const PUBLISHES: u64 = 2_000;
    counting(|callgrind| {
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
            check_constant(callgrind, (&format!("publishes, bindings of weight {weight}"), 105), prepare, work);
        }
    });
}

#[test]
fn queues_are_bound_in_linear_time() {
    counting(|callgrind| {
        for kind in KINDS {
            let work = |count: &mut usize| drop(Bound::queues(kind, *count));
            check_linear(callgrind, (&format!("bindings to a {kind} exchange"), 105), |count| count, work);
        }
    });
}

#[test]
fn subscriptions_of_one_queue_come_and_go_in_linear_time() {
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
    counting(|callgrind| {
        for single_active in [false, true] {
            let bench = |count| {
                let mut settings = settings("q");
                settings.single_active = single_active;
                (Bench::with(settings), count as u64)
            };
            check_linear(callgrind, (&format!("subscriptions, single active: {single_active}"), 112), bench, work);
        }
    });
}

/// Patterns for which there are as many ways to reach a position of a key as possible: a match costs about as much as
/// making them (1.7 times as many instructions), and not as much as trying all these ways.
#[test]
fn a_topic_match_costs_at_most_twice_what_its_patterns_have_cost() {
    const WORDS: usize = 120;
    let mut random = Random::new(1);
    let patterns: Vec<String> = (0..1_000)
        .map(|_| (0..WORDS).map(|_| ["#", "*", ""][random.below(3) as usize]).collect::<Vec<_>>().join("."))
        .collect();
    let key = ".".repeat(WORDS - 1);
    counting(|callgrind| {
        let mut bound = Bound::new("topic");
        bound.declare("q");
        let made = callgrind.instructions(|| patterns.iter().for_each(|pattern| bound.bind("q", pattern)));
        let matched = callgrind.instructions(|| assert_eq!(bound.route(&key), bound.queues));
        let counted = format!("made with {made} instructions, matched with {matched}");
        println!("{counted}");
        assert!(matched <= 2 * made, "{counted}");
    });
}

#[test]
fn a_chain_of_wildcards_costs_no_search() {
    const WORDS: usize = 120;
    counting(|callgrind| {
        let [any_number, one] = ["#", "*"].map(|word| {
            let mut bound = Bound::new("topic");
            bound.declare("q");
            bound.bind("q", &vec![word; WORDS].join("."));
            let key = ".".repeat(WORDS - 1);
            callgrind.instructions(|| assert_eq!(bound.route(&key), bound.queues))
        });
        let counted = format!("{any_number} instructions for any number of words each, {one} for one each");
        println!("{counted}");
        assert!(any_number <= 2 * one, "{counted}");
    });
}
