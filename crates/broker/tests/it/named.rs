//! Bindings that ask to be named, and long keys: what routing says of them, and what a message has in its queues.

use std::cell::RefCell;

use ferrymq_broker::{Cacheable, Envelope};
use ferrymq_model::{
    Annotations, BindingSpec, BodyRef, Destination, DialectId, Facts, MessageRef, Name, QueueId, Table, Value,
};

use crate::desk::{Desk, check};
use crate::port::Written;
use crate::queues::{Bench, NOW, QUEUE, settings};

fn numbered(number: i64, more: &[(&str, &str)]) -> Table {
    let more = more.iter().map(|(key, text)| ((*key).to_owned(), Value::Text((*text).to_owned())));
    more.chain([(BindingSpec::NUMBER.to_owned(), Value::Int(number))]).collect()
}

impl Desk {
    fn bind_numbered(&mut self, exchange: &str, queue: &str, key: &str, number: i64) {
        let to = Destination::Queue(Name::from(queue));
        self.bind_key(to, exchange, key, numbered(number, &[])).unwrap();
    }

    /// The queues of a message, what is matched, and whether the route holds.
    fn routes(&self, exchange: &str, key: &[u8]) -> (Vec<QueueId>, Vec<(QueueId, u64)>, Cacheable) {
        let (mut targets, found) = (Vec::new(), RefCell::new(Vec::new()));
        let matched = |queue, number| found.borrow_mut().push((queue, number));
        let headers = || Table(vec![("h".to_owned(), Value::Text("v".to_owned()))]);
        let envelope = Envelope { headers: &headers, matched: &matched, ..Envelope::EMPTY };
        let holds = self.catalog.route("/", exchange, key, &[], &envelope, &mut targets).unwrap();
        let mut found = found.into_inner();
        found.sort_unstable();
        (targets, found, holds)
    }
}

#[test]
fn each_kind_names_the_bindings_that_match() {
    let mut desk = Desk::new();
    let (a, b) = (desk.queue("a").unwrap(), desk.queue("b").unwrap());
    desk.exchange("history x-recent-history").unwrap();
    for exchange in ["amq.direct", "amq.topic", "amq.fanout", "history"] {
        desk.bind_numbered(exchange, "a", "k", 7);
        desk.bind_numbered(exchange, "b", "other", 8);
    }
    desk.bind_numbered("amq.topic", "a", "#", 5);
    desk.bind("amq.topic", "b", Table::default()).unwrap();
    assert_eq!(desk.routes("amq.direct", b"k"), (vec![a], vec![(a, 7)], Cacheable::No));
    assert_eq!(desk.routes("amq.topic", b"k"), (vec![a, b], vec![(a, 5), (a, 7)], Cacheable::No));
    assert_eq!(desk.routes("amq.fanout", b"k"), (vec![a, b], vec![(a, 7), (b, 8)], Cacheable::No));
    assert_eq!(desk.routes("history", b"k"), (vec![a, b], vec![(a, 7), (b, 8)], Cacheable::No));
    for (number, value) in [(1, "v"), (2, "w")] {
        let arguments = numbered(number, &[("x-match", "all-with-x"), ("h", value)]);
        desk.bind_to(Destination::Queue(Name::from("a")), "amq.headers", arguments).unwrap();
    }
    assert_eq!(desk.routes("amq.headers", b"k"), (vec![a], vec![(a, 1)], Cacheable::No));
    // Through a second exchange, and after a restart.
    desk.exchange("first fanout durable").unwrap();
    desk.queue("c durable").unwrap();
    desk.bind_numbered("amq.topic", "c", "k", 9);
    desk.bind_exchange("first", "amq.topic").unwrap();
    let desk = desk.restarted();
    let (targets, matched, _) = desk.routes("first", b"k");
    assert_eq!((targets.len(), matched[0].1), (1, 9));
}

#[test]
fn without_such_a_binding_routes_hold_as_ever() {
    let mut desk = Desk::new();
    let a = desk.queue("a").unwrap();
    desk.bind("amq.topic", "a", Table::default()).unwrap();
    assert_eq!(desk.routes("amq.topic", b"k"), (vec![a], vec![], Cacheable::UntilEpoch));
    desk.bind_numbered("amq.topic", "a", "never", 1);
    assert_eq!(desk.routes("amq.topic", b"k"), (vec![a], vec![], Cacheable::No));
    let request = ferrymq_model::BindCommand {
        destination: Destination::Queue(Name::from("a")),
        exchange: Name::from("amq.topic"),
        key: b"never".to_vec(),
        arguments: numbered(1, &[]),
    };
    let mut changes = Vec::new();
    let (vhost, user) = (Name::from("/"), Name::from("guest"));
    let caller = ferrymq_broker::Caller::of_user(&vhost, &user, ferrymq_model::ConnectionId(1));
    desk.catalog.unbind(&caller, &request, &mut changes).unwrap();
    assert_eq!(desk.routes("amq.topic", b"k"), (vec![a], vec![], Cacheable::UntilEpoch));
}

#[test]
fn what_cannot_be_named_is_refused() {
    let mut desk = Desk::new();
    desk.queue("a").unwrap();
    desk.exchange("chance x-random").unwrap();
    desk.exchange("second fanout").unwrap();
    let queue = || Destination::Queue(Name::from("a"));
    let chooses = "x-binding-number: an exchange that chooses one of its bindings does not name them";
    check(desk.bind_to(queue(), "chance", numbered(1, &[])), chooses);
    let exchange = Destination::Exchange(Name::from("second"));
    check(
        desk.bind_to(exchange, "amq.topic", numbered(1, &[])),
        "x-binding-number: only the binding of a queue can be named",
    );
    let wrong = "x-binding-number: the value is no whole number from 0";
    check(desk.bind_to(queue(), "amq.topic", numbered(-1, &[])), wrong);
    let text = Table(vec![(BindingSpec::NUMBER.to_owned(), Value::Text("1".to_owned()))]);
    check(desk.bind_to(queue(), "amq.topic", text), wrong);
}

#[test]
fn a_message_has_the_numbers_in_the_queues_that_it_reached_through_them() {
    const OTHER: QueueId = QueueId(512);
    const THIRD: QueueId = QueueId(768);
    let mut bench = Bench::new();
    bench.shard.open(OTHER, settings("other"), &[], NOW);
    bench.shard.open(THIRD, settings("third"), &[], NOW);
    let body = bench.port.write(Written { persistent: true, ..Written::default() }).to_le_bytes();
    let before = Annotations { delay_over: true, ..Annotations::default() }.write();
    let message = MessageRef {
        dialect: DialectId(1),
        exchange: "",
        routing_key: b"q",
        properties: &[],
        annotations: &before,
        body: BodyRef::Inline(&body),
    };
    let facts = Facts { body_bytes: 8, arrived: NOW, ..Facts::default() };
    let (targets, matched) = ([QUEUE, OTHER, THIRD], [(OTHER, 9), (OTHER, 3), (THIRD, 3), (OTHER, 9)]);
    let published = bench.shard.publish_matched(&message, &facts, true, &targets, &matched, &mut bench.port);
    assert_eq!((published.queues, published.durable, published.refused), (3, true, false));
    let in_queue =
        |queue| bench.port.annotations[&queue].iter().map(|bytes| Annotations::read(bytes)).collect::<Vec<_>>();
    let expected =
        |bindings: &[u64]| Annotations { delay_over: true, bindings: bindings.to_vec(), ..Annotations::default() };
    assert_eq!(in_queue(QUEUE), [expected(&[])]);
    assert_eq!(in_queue(OTHER), [expected(&[3, 9])]);
    assert_eq!(in_queue(THIRD), [expected(&[3])]);
}

#[test]
fn keys_are_as_long_as_topic_names_of_mqtt() {
    let mut desk = Desk::new();
    let a = desk.queue("a").unwrap();
    let key = |words: usize, last: &str| "word.".repeat(words - 1) + last;
    let longest = key(13_107, "last+");
    assert_eq!(longest.len(), MessageRef::KEY_BYTES_MAX);
    let to = || Destination::Queue(Name::from("a"));
    desk.bind_key(to(), "amq.direct", &longest, Table::default()).unwrap();
    assert_eq!(desk.routes("amq.direct", longest.as_bytes()).0, [a]);
    assert_eq!(desk.routes("amq.direct", key(13_107, "last-").as_bytes()).0, []);
    let too_long = desk.bind_key(to(), "amq.direct", &(longest + "+"), Table::default());
    check(too_long, "a binding key has at most 65535 bytes");

    // Patterns compare at most 256 words, however long these are.
    let words = "a.".repeat(255) + &"w".repeat(60_000);
    desk.bind_key(to(), "amq.topic", &words, Table::default()).unwrap();
    assert_eq!(desk.routes("amq.topic", words.as_bytes()).0, [a]);
    assert_eq!(desk.routes("amq.topic", &words.as_bytes()[..60_000]).0, []);
    let refusal = "a key of a topic exchange has at most 256 words";
    let one_more = words + ".";
    check(desk.bind_key(to(), "amq.topic", &one_more, Table::default()), refusal);
    let key = one_more.as_bytes();
    check(desk.catalog.route("/", "amq.topic", key, &[], &Envelope::EMPTY, &mut Vec::new()), refusal);
    check(desk.catalog.route("/", "amq.topic", b"k", &[key.to_vec()], &Envelope::EMPTY, &mut Vec::new()), refusal);
    desk.catalog.route("/", "amq.fanout", key, &[], &Envelope::EMPTY, &mut Vec::new()).unwrap();
}
