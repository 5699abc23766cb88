//! Exchanges that route each message to one of their targets: refusals, shares, and stability.

use std::collections::BTreeMap;

use ferrymq_broker::{Cacheable, Caller, Envelope};
use ferrymq_model::{BindCommand, ConnectionId, Destination, Name, Property, QueueId, Refusal, Table, Value};

use crate::desk::{Desk, check};

const MESSAGES: u64 = 4_000;

fn bind(desk: &mut Desk, exchange: &str, queue: &str, key: &str) -> Result<(), Refusal> {
    let request = BindCommand {
        destination: Destination::Queue(Name::from(queue)),
        exchange: Name::from(exchange),
        key: key.as_bytes().to_vec(),
        arguments: Table::default(),
    };
    let (user, vhost) = (desk.user.clone(), desk.vhost.clone());
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    desk.catalog.bind(&caller, &request, &mut desk.changes).map(drop)
}

/// The targets of a message, and how long that is valid. Its message id is `header`, too.
fn route(desk: &Desk, exchange: &str, key: &str, header: &str, random: u64) -> (Option<QueueId>, Cacheable) {
    let headers = || Table(vec![("h".to_owned(), Value::Text(header.to_owned()))]);
    let property = |which| (which == Property::MessageId).then(|| header.as_bytes().to_vec());
    let envelope = Envelope { headers: &headers, property: &property, random: &|| random, ..Envelope::EMPTY };
    let mut targets = Vec::new();
    let holds = desk.catalog.route("/", exchange, key.as_bytes(), &[], &envelope, &mut targets).unwrap();
    assert!(targets.len() <= 1, "{targets:?}");
    (targets.first().copied(), holds)
}

fn desk_with(exchange: &str, bindings: &[(&str, &str)]) -> Desk {
    let mut desk = Desk::new();
    desk.exchange(exchange).unwrap();
    for (queue, key) in bindings {
        desk.queue(&format!("{queue} durable")).unwrap();
        bind(&mut desk, "x", queue, key).unwrap();
    }
    desk
}

/// How many messages each queue gets, by name.
fn shares(desk: &Desk, route: impl Fn(u64) -> Option<QueueId>) -> BTreeMap<String, u64> {
    let mut shares = BTreeMap::new();
    for number in 0..MESSAGES {
        let queue = desk.catalog.queue_by_id(route(number).unwrap()).unwrap();
        *shares.entry(queue.settings.name.to_string()).or_default() += 1;
    }
    shares
}

#[test]
fn a_consistent_hash_gives_each_binding_its_weight_and_keeps_to_it() {
    let desk = desk_with("x x-consistent-hash durable", &[("a", "1"), ("b", "3")]);
    let by_key = |desk: &Desk, number: u64| route(desk, "x", &format!("key-{number}"), "", 0).0;
    let before = shares(&desk, |number| by_key(&desk, number));
    assert!((900..1_100).contains(&before["a"]), "a quarter: {before:?}");
    assert_eq!(route(&desk, "x", "k", "", 0).1, Cacheable::UntilEpoch);
    let owners: Vec<_> = (0..MESSAGES).map(|number| by_key(&desk, number)).collect();
    let mut desk = desk.restarted();
    assert!((0..MESSAGES).map(|number| by_key(&desk, number)).eq(owners.iter().copied()), "after a restart");
    // A new binding takes messages from others, and moves nothing between them.
    let c = desk.queue("c").unwrap();
    bind(&mut desk, "x", "c", "4").unwrap();
    for (number, before) in owners.into_iter().enumerate() {
        let now = by_key(&desk, number as u64);
        assert!(now == before || now == Some(c), "message {number}");
    }
}

#[test]
fn a_consistent_hash_may_look_at_a_header() {
    let mut desk = desk_with("x x-consistent-hash hash-header=h", &[("a", "1"), ("b", "1")]);
    let shares = shares(&desk, |number| route(&desk, "x", "same", &format!("value-{number}"), 0).0);
    assert!(shares["a"] > 1_800 && shares["b"] > 1_800, "{shares:?}");
    assert_eq!(route(&desk, "x", "k", "v", 0).1, Cacheable::No);
    check(bind(&mut desk, "x", "a", "0"), "The binding key must be greater than 0");
    check(bind(&mut desk, "x", "a", "-5"), "The binding key must be greater than 0");
    check(bind(&mut desk, "x", "a", "many"), "The binding key must be an integer: <<\"many\">>");
    check(
        desk.exchange("y x-consistent-hash hash-header=h hash-property=message_id"),
        "hash-header and hash-property are mutually exclusive",
    );
    check(desk.exchange("y x-consistent-hash hash-property=app_id"), "Unsupported property: app_id");
}

#[test]
fn a_consistent_hash_may_look_at_what_a_message_says_of_itself() {
    let desk = desk_with("x x-consistent-hash hash-property=message_id", &[("a", "1"), ("b", "1")]);
    let by_id = shares(&desk, |number| route(&desk, "x", "same", &format!("id-{number}"), 0).0);
    assert!(by_id["a"] > 1_800 && by_id["b"] > 1_800, "{by_id:?}");
    assert_eq!(route(&desk, "x", "k", "id", 0).1, Cacheable::No);
    let desk = desk_with("x x-consistent-hash hash-property=timestamp", &[("a", "1"), ("b", "1")]);
    let owner = |number| route(&desk, "x", &format!("key-{number}"), &format!("id-{number}"), 0).0;
    assert!((0..100).all(|number| owner(number) == owner(0)), "messages without it are all the same one's");
}

#[test]
fn a_modulus_hash_spreads_by_key_and_chance_by_chance() {
    let desk = desk_with("x x-modulus-hash", &[("a", ""), ("b", "any"), ("b", "other")]);
    let spread = shares(&desk, |number| route(&desk, "x", &format!("key-{number}"), "", 0).0);
    assert!(spread["a"] > 1_800 && spread["b"] > 1_800, "two queues, whatever their bindings: {spread:?}");
    assert_eq!(route(&desk, "x", "k", "", 0).1, Cacheable::UntilEpoch);
    let desk = desk_with("x x-random", &[("a", ""), ("b", ""), ("c", "")]);
    let spread = shares(&desk, |number| route(&desk, "x", "same", "", number).0);
    assert!(spread.values().all(|share| *share >= MESSAGES / 3), "{spread:?}");
    assert_eq!(route(&desk, "x", "k", "", 0).1, Cacheable::No);
    let desk = desk_with("x x-local-random", &[("a", ""), ("b", "")]);
    let spread = shares(&desk, |number| route(&desk, "x", "same", "", number).0);
    assert!(spread.values().all(|share| *share == MESSAGES / 2), "{spread:?}");
    let desk = desk_with("x x-random", &[]);
    assert_eq!(route(&desk, "x", "k", "", 7).0, None);
}

#[test]
fn a_local_random_exchange_takes_classic_queues_without_a_key() {
    let mut desk = desk_with("x x-local-random", &[("a", "")]);
    check(bind(&mut desk, "x", "a", "k"), "Non empty binding 'k' key not permitted");
    desk.queue("big durable x-queue-type=quorum").unwrap();
    check(bind(&mut desk, "x", "big", ""), "Queue type rabbit_quorum_queue not valid for this exchange type");
    desk.exchange("y fanout").unwrap();
    // Bound with a key, which is checked first.
    check(desk.bind_exchange("x", "y"), "Non empty binding 'k' key not permitted");
}

/// Bindings with different weights are added and removed. Each queue gets about its share, and only the messages move
/// that a binding gains or loses.
#[test]
fn shares_follow_weights_among_many() {
    const WEIGHTS: [&str; 6] = ["1", "2", "3", "5", "10", "21"];
    let mut desk = desk_with("x x-consistent-hash", &[]);
    for number in 0..60 {
        desk.queue(&format!("q{number}")).unwrap();
        bind(&mut desk, "x", &format!("q{number}"), WEIGHTS[number % WEIGHTS.len()]).unwrap();
    }
    let owner = |desk: &Desk, number: u64| route(desk, "x", &format!("key-{number}"), "", 0).0.unwrap();
    let mut by_weight = [0_u64; WEIGHTS.len()];
    let owners: Vec<QueueId> = (0..20_000).map(|number| owner(&desk, number)).collect();
    for queue in &owners {
        let name = desk.catalog.queue_by_id(*queue).unwrap().settings.name.to_string();
        by_weight[name[1..].parse::<usize>().unwrap() % WEIGHTS.len()] += 1;
    }
    let all: u64 = WEIGHTS.iter().map(|weight| weight.parse::<u64>().unwrap()).sum();
    for (found, weight) in by_weight.iter().zip(WEIGHTS) {
        let expected = 20_000 * weight.parse::<u64>().unwrap() / all;
        assert!((expected * 8 / 10..expected * 12 / 10).contains(found), "weight {weight}: {found} for {expected}");
    }
    let gone = owners[0];
    desk.catalog.forget_queue(gone);
    while desk.catalog.unbind_some(&mut desk.changes) {}
    for (number, before) in owners.into_iter().enumerate() {
        assert!((owner(&desk, number as u64) == before) == (before != gone), "message {number}");
    }
}

/// The same queue is bound several times. Its weights count once for each power of two, and it gets messages until its
/// last binding is removed.
#[test]
fn a_queue_may_be_bound_to_a_consistent_hash_often() {
    let mut desk = desk_with("x x-consistent-hash", &[("a", "1"), ("a", "3"), ("a", "4"), ("b", "2")]);
    let (user, vhost) = (desk.user.clone(), desk.vhost.clone());
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    let to_a =
        |desk: &Desk| shares(desk, |number| route(desk, "x", &format!("key-{number}"), "", 0).0).get("a").copied();
    assert!(to_a(&desk).unwrap() > MESSAGES * 6 / 10, "7 of 9");
    for key in ["3", "4", "1"] {
        assert!(to_a(&desk).is_some(), "before {key} goes");
        let request = BindCommand {
            destination: Destination::Queue(Name::from("a")),
            exchange: Name::from("x"),
            key: key.as_bytes().to_vec(),
            arguments: Table::default(),
        };
        desk.catalog.unbind(&caller, &request, &mut desk.changes).unwrap();
    }
    assert_eq!(to_a(&desk), None);
}
