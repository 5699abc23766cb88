//! Topic patterns and header arguments against tables of examples, through the public interface.

use ferrymq_broker::{Caller, Catalog, Envelope, HashKey};
use ferrymq_model::{BindCommand, ConnectionId, DeclareQueue, Destination, Name, QueueId, Table, Value};

use crate::random::Random;

/// A catalog with one queue, bound to one exchange.
struct Bound {
    catalog: Catalog,
    exchange: &'static str,
    queue: QueueId,
}

impl Bound {
    fn new(exchange: &'static str, key: &str, arguments: Table) -> Self {
        let mut changes = Vec::new();
        let mut catalog = Catalog::fresh("", HashKey::known(), &mut changes);
        let (vhost, user) = (Name::from("/"), Name::from("guest"));
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        let declare = DeclareQueue {
            queue: Name::from("q"),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        };
        let queue = catalog.declare_queue(&caller, &declare, 0, &mut changes).unwrap().queue;
        let bind = BindCommand {
            destination: Destination::Queue(Name::from("q")),
            exchange: Name::from(exchange),
            key: key.as_bytes().to_vec(),
            arguments,
        };
        catalog.bind(&caller, &bind, &mut changes).unwrap();
        Self { catalog, exchange, queue }
    }

    fn matches(&self, key: &str, headers: &Table) -> bool {
        let mut targets = vec![QueueId(77)];
        let envelope = Envelope { headers: &|| headers.clone(), ..Envelope::EMPTY };
        self.catalog.route("/", self.exchange, key.as_bytes(), &[], &envelope, &mut targets).unwrap();
        assert!(targets.is_empty() || targets == [self.queue], "{targets:?}");
        !targets.is_empty()
    }
}

/// The lines of a table: what is bound, what it matches, what it does not.
fn lines(text: &'static str) -> impl Iterator<Item = [&'static str; 3]> {
    text.lines().filter(|line| !line.starts_with('#') || line.starts_with("#.") || line.starts_with("#  ")).map(
        |line| {
            let parts: Vec<_> = line.split('|').map(str::trim).collect();
            parts.try_into().unwrap_or_else(|_| panic!("three parts: {line}"))
        },
    )
}

fn key(written: &str) -> &str {
    if written == "\"\"" { "" } else { written }
}

fn table(written: &str) -> Table {
    let value = |text: &str| match text {
        "-" => Value::Void,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Int),
    };
    let entries = written.split_whitespace().filter(|entry| *entry != "\"\"");
    entries.map(|entry| entry.split_once('=').unwrap()).map(|(name, text)| (name.to_owned(), value(text))).collect()
}

#[test]
fn topic_patterns() {
    for [pattern, matching, others] in lines(include_str!("topics.txt")) {
        let bound = Bound::new("amq.topic", key(pattern), Table::default());
        for (keys, expected) in [(matching, true), (others, false)] {
            for written in keys.split_whitespace() {
                assert_eq!(bound.matches(key(written), &Table::default()), expected, "{pattern} on {written}");
            }
        }
    }
}

#[test]
fn header_arguments() {
    for [arguments, matching, others] in lines(include_str!("headers.txt")) {
        let bound = Bound::new("amq.headers", "", table(arguments));
        for (several, expected) in [(matching, true), (others, false)] {
            for headers in several.split(';').map(str::trim).filter(|headers| !headers.is_empty()) {
                assert_eq!(bound.matches("", &table(headers)), expected, "{arguments} on {headers}");
            }
        }
    }
}

/// Whether a pattern matches a key, by its definition.
fn matches_by_definition(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], key) => key.is_empty(),
        (["#", rest @ ..], key) => (0..=key.len()).any(|from| matches_by_definition(rest, &key[from..])),
        ([_, ..], []) => false,
        ([first, rest @ ..], [word, others @ ..]) => {
            (*first == "*" || first == word) && matches_by_definition(rest, others)
        }
    }
}

/// Short and long patterns and keys, of few words, so that many match; keys of more than 63 words take another
/// path.
#[test]
fn topic_patterns_of_any_length_match_as_defined() {
    let (mut random, mut matching) = (Random::new(4), 0);
    for round in 0..3_000 {
        let pattern: Vec<&str> =
            (0..1 + random.below(6)).map(|_| ["#", "*", "a", "b"][random.below(4) as usize]).collect();
        let length = if round % 3 == 0 { 60 + random.below(80) } else { 1 + random.below(8) };
        let key: Vec<&str> = (0..length).map(|_| ["a", "b"][usize::from(random.below(8) == 0)]).collect();
        let bound = Bound::new("amq.topic", &pattern.join("."), Table::default());
        let (pattern, key) = (&pattern[..], &key[..]);
        let expected = matches_by_definition(pattern, key);
        matching += u32::from(expected);
        assert_eq!(bound.matches(&key.join("."), &Table::default()), expected, "{pattern:?} on {key:?}");
    }
    assert!((500..2_500).contains(&matching), "{matching} of 3,000 match");
}
