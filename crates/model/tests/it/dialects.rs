//! Dialects: their table, and what a dialect gets without saying more than how it reads a head.

use ferrymq_model::{
    Annotations, BodyRef, DeadLetter, Death, DeathReason, Dialect, DialectId, Dialects, Head, MessageRef, Property,
    Table, Time, Traced, Value,
};

/// A dialect whose properties are the further routing key; everything else is fixed. It writes the number of bytes that
/// its headers have as text, of which it takes at most so many.
struct Fixed(u8, usize);

impl Dialect for Fixed {
    fn id(&self) -> DialectId {
        DialectId(self.0)
    }

    fn read<'a>(&self, message: &MessageRef<'a>) -> Head<'a> {
        Head {
            message_id: Some(b"id"[..].into()),
            created: Some(Time(7_999)),
            delay_ms: Some(50),
            ttl_ms: Some(60),
            persistent: true,
            more_keys: vec![message.properties.into()],
            headers: Table(vec![("h".to_owned(), Value::Int(1))]),
            ..Head::default()
        }
    }

    fn write(&self, head: &Head<'_>) -> Option<Vec<u8>> {
        let shown = format!("{:?}", head.headers);
        (shown.len() <= self.1).then(|| shown.into_bytes())
    }
}

fn message(annotations: &[u8]) -> MessageRef<'_> {
    MessageRef {
        dialect: DialectId(7),
        exchange: "x",
        routing_key: b"k",
        properties: b"copy",
        annotations,
        body: BodyRef::Inline(b""),
    }
}

#[test]
fn a_table_finds_dialects_and_knows_its_own() {
    let dialects = Dialects::new([&Fixed(7, 0) as &dyn Dialect, &Fixed(3, 0)]);
    assert_eq!(dialects.own().map(Dialect::id), Some(DialectId(7)));
    assert_eq!(dialects.get(DialectId(3)).map(Dialect::id), Some(DialectId(3)));
    assert!(dialects.get(DialectId(4)).is_none());
    let unknown = MessageRef { dialect: DialectId(4), ..message(&[]) };
    assert_eq!(dialects.head(&unknown), Head::default());
    assert!(!dialects.is_persistent(&unknown));
}

#[test]
#[should_panic(expected = "two dialects have the number 7")]
fn a_number_is_not_used_twice() {
    let _ = Dialects::new([&Fixed(7, 0) as &dyn Dialect, &Fixed(8, 0), &Fixed(7, 0)]);
}

#[test]
fn annotations_count_more_than_what_the_publisher_wrote() {
    let dialects = Dialects::new([&Fixed(7, 0) as &dyn Dialect]);
    let plain = message(&[]);
    assert_eq!(dialects.delay_ms(&plain), Some(50));
    assert_eq!(dialects.property(&plain, Property::MessageId).as_deref(), Some(&b"id"[..]));
    assert_eq!(dialects.property(&plain, Property::Timestamp).as_deref(), Some(&b"7"[..]));
    assert_eq!(dialects.property(&plain, Property::CorrelationId), None);
    let waited = Annotations { delay_over: true, reply_address: Some(b"there"), ..Annotations::default() }.write();
    let waited = message(&waited);
    assert_eq!(dialects.delay_ms(&waited), None);
    let head = dialects.head(&waited);
    assert_eq!((head.delay_over, head.reply_to.as_deref()), (true, Some(&b"there"[..])));
    assert_eq!((head.ttl_ms, head.more_keys.len()), (Some(60), 1));
}

#[test]
fn a_dead_letter_of_any_dialect_remembers_its_deaths() {
    let fixed = Fixed(7, 0);
    let dialects = Dialects::new([&Fixed(7, 0) as &dyn Dialect]);
    let death = |queue: &'static str, new_key| Death { queue, reason: DeathReason::Expired, new_key, at: Time(9_000) };
    let first = DeadLetter::of(&message(&[]), &fixed, &death("q", false));
    assert_eq!((first.persistent, &first.more_keys[..]), (true, &[b"copy".to_vec()][..]));
    let head = dialects.head(&message(&first.annotations));
    assert_eq!((head.ttl_ms, head.deaths[0].ttl_ms), (None, Some(60)));
    assert_eq!(head.deaths[0].routing_keys, [&b"k"[..], b"copy"]);

    let moved = MessageRef { exchange: "other", ..message(&first.annotations) };
    let second = DeadLetter::of(&moved, &fixed, &death("q", true));
    assert!(second.more_keys.is_empty());
    let head = dialects.head(&message(&second.annotations));
    assert_eq!((head.deaths.len(), head.deaths[0].count, &*head.deaths[0].exchange), (1, 2, "x"));
    assert_eq!(head.deaths[0].ttl_ms, Some(60), "it keeps what it had the first time");
    assert_eq!(head.last_death.unwrap().exchange, "other");
    assert!(head.more_keys.is_empty());

    let third = DeadLetter::of(&message(&second.annotations), &fixed, &death("p", false));
    assert_eq!(third.deaths, [("p".to_owned(), false), ("q".to_owned(), false)]);
    let head = dialects.head(&message(&third.annotations));
    assert_eq!((&*head.first_death.unwrap().queue, &*head.last_death.unwrap().queue), ("q", "p"));
    assert_eq!((head.deaths[0].ttl_ms, &head.deaths[0].routing_keys[..]), (None, &[&b"k"[..]][..]));
}

#[test]
fn a_trace_message_leaves_out_what_does_not_fit() {
    let shown = |bytes_max: usize, more_keys: &[Vec<u8>]| {
        let writer = Fixed(7, bytes_max);
        let dialects = Dialects::new([&Fixed(7, 0) as &dyn Dialect]);
        let traced =
            Traced { message: message(&[]), dialects: &dialects, more_keys, node: "n", more: Table::default() };
        String::from_utf8(writer.trace(&traced)).unwrap()
    };
    let all = shown(10_000, &[]);
    assert!(all.contains("message_id") && all.contains("copy") && all.contains("delivery_mode"));
    let some = shown(all.len() - 1, &[]);
    assert!(!some.contains("message_id") && some.contains("copy"));
    let few = shown(some.len() - 1, &[]);
    assert!(!few.contains("copy") && few.contains("routing_keys"));
    assert_eq!(shown(3, &[]), "");
    let hidden = shown(10_000, &[b"hidden".to_vec()]);
    assert!(hidden.contains("hidden"));
}

/// A message dies in queue after queue.
#[test]
fn the_oldest_deaths_are_left_out_where_there_are_too_many() {
    let mut annotations = Vec::new();
    for number in 0..2_000 {
        let queue = format!("{number}{}", "q".repeat(200));
        let death = Death { queue: &queue, reason: DeathReason::Expired, new_key: false, at: Time(number) };
        annotations = DeadLetter::of(&message(&annotations), &Fixed(7, 0), &death).annotations;
        assert!(annotations.len() <= Annotations::DEATHS_BYTES_MAX + 1_024, "{} bytes", annotations.len());
    }
    let read = Annotations::read(&annotations);
    assert!(read.deaths.len() > 50, "{} are left", read.deaths.len());
    assert!(read.deaths[0].queue.starts_with("1999q"));
    assert!(read.first_death.unwrap().queue.starts_with("0q"), "the first one is known whatever is left out");

    // One death with very long further keys.
    let long = vec![b'k'; 100_000];
    let death = Death { queue: "q", reason: DeathReason::Expired, new_key: false, at: Time(1) };
    let one = DeadLetter::of(&MessageRef { properties: &long, ..message(&[]) }, &Fixed(7, 0), &death).annotations;
    assert_eq!(Annotations::read(&one).deaths[0].routing_keys, [b"k"]);
}
