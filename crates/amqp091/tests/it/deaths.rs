//! Tests of the headers of dead-lettered messages, and of messages with an address for replies.

use ferrymq_amqp091::{
    DIALECT, FrameEncoder, PropertyList,
    codec::{content::ContentHeader, content::Properties as Parsed, frame::frame},
};
use ferrymq_model::{
    Annotations, BodyRef, DeadLetter, Death, DeathReason, Dialect, DialectId, Dialects, Effect, Head, MessageRef,
    Table, Time, Value,
};
use ferrymq_wire::{Encoded, Encoder, Outbox, Parsed as Frame};

use super::text::hex;

const FRAME_BYTES_MAX: u32 = 131_072;

fn death(queue: &'static str, reason: DeathReason) -> Death<'static> {
    Death { queue, reason, new_key: false, at: Time(1_700_000_000_999) }
}

/// A message that was published to the exchange `shop` with the key `new`.
fn message<'a>(properties: &'a [u8], annotations: &'a [u8]) -> MessageRef<'a> {
    MessageRef {
        dialect: DIALECT,
        exchange: "shop",
        routing_key: b"new",
        properties,
        annotations,
        body: BodyRef::Inline(b""),
    }
}

/// The properties with which a consumer gets a message.
fn delivered(message: MessageRef<'_>, dialects: &[&'static dyn Dialect]) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = FrameEncoder::new(FRAME_BYTES_MAX, true, Dialects::new(dialects.iter().copied()));
    let mut out = Outbox::default();
    let (channel, delivery_tag, attempts) = (1, 1, None);
    let deliver = Effect::Deliver { channel, tag: "t", delivery_tag, redelivered: false, attempts, message };
    assert_eq!(encoder.encode(&deliver, &mut out), Encoded::Whole);
    let frames = out.bytes().clone();
    let Frame::Frame(method, method_bytes) = frame(&frames, FRAME_BYTES_MAX) else { panic!("a method") };
    let Frame::Frame(header, _) = frame(&frames[method_bytes..], FRAME_BYTES_MAX) else { panic!("a header") };
    (ContentHeader::read(header.payload).unwrap().properties.to_vec(), method.payload.to_vec())
}

fn shown(properties: &[u8], annotations: &[u8]) -> Vec<u8> {
    delivered(message(properties, annotations), &[&PropertyList]).0
}

fn reason(name: &str) -> DeathReason {
    match name {
        "rejected" => DeathReason::Rejected,
        "expired" => DeathReason::Expired,
        "maxlen" => DeathReason::MaxLength,
        other => panic!("no reason {other}"),
    }
}

/// The headers that RabbitMQ 3.13 writes and RabbitMQ 3.10 does not. The vectors are from 3.10.
const LATER: [&[u8]; 3] = [b"x-last-death-exchange", b"x-last-death-queue", b"x-last-death-reason"];

#[test]
fn as_recorded_from_rabbitmq() {
    let vectors = include_str!("vectors/deaths.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for vector in vectors {
        let (words, octets) = vector.split_once(" | ").unwrap();
        let (before, after) = octets.split_once(" => ").unwrap();
        let words: Vec<&str> = words.split(' ').collect();
        let [queue, why, exchange, key, kept, seconds] = words[..] else { panic!("{vector}") };
        let at = Time(seconds.parse::<u64>().unwrap() * 1000 + 1);
        let before = hex(before);
        let message = MessageRef { exchange, routing_key: key.as_bytes(), ..message(&before, &[]) };
        let death = Death { queue, reason: reason(why), new_key: kept == "replaced", at };
        let made = DeadLetter::of(&message, &PropertyList, &death);
        let made = shown(&before, &made.annotations);
        let (after, ours) = (hex(after), Parsed::read(&made).unwrap());
        let theirs = Parsed::read(&after).unwrap();
        let headers = ours.headers.unwrap().entries();
        let (later, headers): (Vec<_>, Vec<_>) = headers.partition(|(key, _)| LATER.contains(key));
        assert_eq!(later.len(), LATER.len(), "{vector}");
        assert_eq!(headers, theirs.headers.unwrap().entries().collect::<Vec<_>>(), "{vector}");
        assert_eq!(Parsed { headers: None, ..ours }, Parsed { headers: None, ..theirs }, "{vector}");
        count += 1;
    }
    assert!(count > 0, "the file contains vectors");
}

/// A message of a publisher, and what became of it.
struct Dead {
    properties: Vec<u8>,
    dead_letter: DeadLetter,
}

/// A message dies, again and again.
fn dies(properties: &[u8], deaths: &[Death<'_>]) -> Dead {
    let mut dead_letter = DeadLetter::default();
    for death in deaths {
        dead_letter = DeadLetter::of(&message(properties, &dead_letter.annotations), &PropertyList, death);
    }
    Dead { properties: properties.to_vec(), dead_letter }
}

fn headers(dead: &Dead) -> Table {
    PropertyList.headers(&message(&dead.properties, &dead.dead_letter.annotations))
}

fn header(dead: &Dead, key: &str) -> Value {
    headers(dead).get(key).unwrap_or(&Value::Void).clone()
}

/// The queue, the reason and the count of each entry of x-death.
fn history(dead: &Dead) -> Vec<String> {
    let Value::List(entries) = header(dead, "x-death") else { panic!("x-death is no array") };
    let shown = |entry| {
        let Value::Table(entry) = entry else { panic!("an entry of x-death is no table") };
        let text = |key| entry.get(key).and_then(Value::as_text).unwrap_or("-").to_owned();
        let count = entry.get("count").and_then(Value::as_int).unwrap_or_default();
        format!("{} {} {count}", text("queue"), text("reason"))
    };
    entries.into_iter().map(shown).collect()
}

#[test]
fn an_entry_for_each_queue_and_reason_the_latest_first() {
    use DeathReason::{DeliveryLimit, Expired, Rejected};
    let (a, b) = (death("a", Rejected), death("b", Expired));
    let dead = dies(&hex("0000"), &[a, b, a, death("a", DeliveryLimit)]);
    assert_eq!(history(&dead), ["a delivery_limit 1", "a rejected 2", "b expired 1"]);
    let expected = [("a", false), ("a", true), ("b", false)].map(|(queue, rejected)| (queue.to_owned(), rejected));
    assert_eq!(dead.dead_letter.deaths, expected);
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(header(&dead, "x-first-death-reason"), text("rejected"));
    assert_eq!(header(&dead, "x-last-death-reason"), text("delivery_limit"));
    assert_eq!(header(&dead, "x-last-death-queue"), text("a"));
}

#[test]
fn a_message_dies_as_persistent_as_it_was_and_keeps_its_copies_with_its_key() {
    let properties = hex("3000 0000000F 02 \"CC\" 41 00000007 53 00000002 \"cc\" 02");
    let dead = dies(&properties, &[death("q", DeathReason::Expired)]);
    assert!(dead.dead_letter.persistent);
    assert_eq!(dead.dead_letter.more_keys, [b"cc"]);
    let replaced = Death { new_key: true, ..death("q", DeathReason::Expired) };
    let dead = dies(&properties, &[replaced]);
    assert!(dead.dead_letter.more_keys.is_empty());
    assert_eq!(header(&dead, "CC"), Value::Void);
}

#[test]
fn a_history_that_a_client_wrote_goes_on_as_far_as_it_can_be_read() {
    let rejected = || [death("q", DeathReason::Rejected)];
    let properties = |entries: &str| {
        let entries = hex(entries);
        let mut headers = hex("07 \"x-death\"");
        headers.extend(entries);
        let mut properties = hex("2000");
        properties.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
        properties.extend(headers);
        properties
    };
    let queue = "05 \"queue\" 53 00000001 \"q\"";
    let reason = "06 \"reason\" 53 00000008 \"rejected\"";
    let cases = [
        // A text, from clients that convert all headers to text.
        ("53 00000002 \"[]\"", vec!["q rejected 1"]),
        ("41 00000000", vec!["q rejected 1"]),
        // An array of numbers.
        ("41 00000005 49 00000007", vec!["q rejected 1"]),
        // An array with an empty table, which stays in it.
        ("41 00000005 46 00000000", vec!["q rejected 1", "- - 0"]),
        // No count, a count that is text, a negative count, a usual count, and the largest count.
        (&format!("41 00000025 46 00000020 {queue} {reason}"), vec!["q rejected 1"]),
        (&format!("41 00000031 46 0000002C {queue} {reason} 05 \"count\" 53 00000001 \"7\""), vec!["q rejected 1"]),
        (&format!("41 00000030 46 0000002B {queue} {reason} 05 \"count\" 49 FFFFFFFE"), vec!["q rejected 1"]),
        (&format!("41 00000030 46 0000002B {queue} {reason} 05 \"count\" 49 00000004"), vec!["q rejected 5"]),
        (
            &format!("41 00000034 46 0000002F {queue} {reason} 05 \"count\" 6C 7FFFFFFFFFFFFFFF"),
            vec!["q rejected 9223372036854775807"],
        ),
    ];
    for (entries, expected) in cases {
        let properties = properties(entries);
        Parsed::read(&properties).unwrap_or_else(|why| panic!("{entries}: {why:?}"));
        let dead = dies(&properties, &rejected());
        assert_eq!(history(&dead), expected, "{entries}");
    }
}

#[test]
fn properties_that_cannot_be_read_are_no_reason_to_panic() {
    for octets in ["", "20", "2000 FFFFFFFF", "FFFF"] {
        assert_eq!(history(&dies(&hex(octets), &[death("q", DeathReason::Expired)])), ["q expired 1"], "{octets}");
    }
}

#[test]
fn what_a_client_wrote_into_an_entry_stays_in_it() {
    // An entry for the queue `q` with a short number, a count after it, and a field that nobody knows.
    let entry = "05 \"queue\" 53 00000001 \"q\" 06 \"reason\" 53 00000008 \"rejected\" 01 \"n\" 73 0007 05 \"count\" 49 00000004";
    let (entry, mut headers, mut properties) = (hex(entry), hex("07 \"x-death\" 41"), hex("2000"));
    let long = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend(bytes);
    };
    let mut entries = hex("46");
    long(&mut entries, &entry);
    long(&mut headers, &entries);
    long(&mut properties, &headers);
    // A death in another queue leaves the entry as it is; one in the same queue changes the count.
    let other = dies(&properties, &[death("other", DeathReason::Expired)]);
    let find = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(find(&shown(&properties, &other.dead_letter.annotations), &entry));
    assert_eq!(history(&other), ["other expired 1", "q rejected 4"]);
    let same = dies(&properties, &[death("q", DeathReason::Rejected), death("q", DeathReason::Rejected)]);
    assert_eq!(history(&same), ["q rejected 6"]);
    let rest = hex("05 \"queue\" 53 00000001 \"q\" 06 \"reason\" 53 00000008 \"rejected\" 01 \"n\" 73 0007");
    let counted = [hex("05 \"count\" 6C 0000000000000006"), rest].concat();
    assert!(find(&shown(&properties, &same.dead_letter.annotations), &counted));
    // The client wrote no headers of a first death, so the server does not know it.
    assert_eq!(header(&same, "x-first-death-queue"), Value::Void);
}

#[test]
fn the_address_for_answers_replaces_the_name_that_stands_for_it() {
    let properties = hex("1200 02 15 \"amq.rabbitmq.reply-to\"");
    let annotations = Annotations { reply_address: Some(b"there"), ..Annotations::default() }.write();
    assert_eq!(shown(&properties, &annotations), hex("1200 02 05 \"there\""));
}

/// A dialect whose properties are the message's identifier, and nothing else.
struct Plain;

const PLAIN: DialectId = DialectId(200);

impl Dialect for Plain {
    fn id(&self) -> DialectId {
        PLAIN
    }

    fn read<'a>(&self, message: &MessageRef<'a>) -> Head<'a> {
        let headers = Table(vec![("from".to_owned(), Value::Text("elsewhere".to_owned()))]);
        let (message_id, reply_to) = (Some(message.properties.into()), Some(b"back"[..].into()));
        Head { message_id, reply_to, headers, ttl_ms: Some(5_000), persistent: true, ..Head::default() }
    }

    fn write(&self, head: &Head<'_>) -> Option<Vec<u8>> {
        head.message_id.as_ref().map(|id| id.to_vec())
    }
}

const BOTH: [&dyn Dialect; 2] = [&PropertyList, &Plain];

#[test]
fn a_message_of_another_dialect_is_translated_when_it_is_sent() {
    let published = MessageRef { dialect: PLAIN, ..message(b"an identifier", &[]) };
    let (properties, _) = delivered(published, &BOTH);
    let read = Parsed::read(&properties).unwrap();
    assert_eq!(read.message_id, Some(&b"an identifier"[..]));
    assert_eq!(read.reply_to, Some(&b"back"[..]));
    assert_eq!((read.expiration, read.delivery_mode), (Some(&b"5000"[..]), Some(2)));

    let dead = DeadLetter::of(&published, &Plain, &death("q", DeathReason::Expired));
    assert!(dead.persistent);
    let (properties, _) = delivered(MessageRef { annotations: &dead.annotations, ..published }, &BOTH);
    let read = Parsed::read(&properties).unwrap();
    assert_eq!(read.expiration, None);
    let names: Vec<_> = read.headers.unwrap().iter().map(|(key, _)| String::from_utf8_lossy(key)).collect();
    assert_eq!(names[0], "from");
    assert!(names.contains(&"x-death".into()) && names.contains(&"x-first-death-queue".into()));
    let head = PropertyList.read(&message(&properties, &[]));
    assert_eq!((head.deaths[0].ttl_ms, head.deaths[0].count), (Some(5_000), 1));
}

#[test]
fn a_head_comes_back_from_its_properties() {
    let record = death("q", DeathReason::MaxLength);
    let dead = DeadLetter::of(&message(&hex("0000"), &[]), &PropertyList, &record);
    let annotations = Annotations::read(&dead.annotations);
    let deaths = annotations.deaths.into_iter().map(|it| ferrymq_model::DeathRecord { at: Time(7_000), ..it });
    let head = Head {
        message_id: Some(b"id"[..].into()),
        correlation_id: Some(b"c"[..].into()),
        reply_to: Some(b"r"[..].into()),
        content_type: Some(b"text/plain"[..].into()),
        content_encoding: Some(b"gzip"[..].into()),
        user: Some(b"guest"[..].into()),
        app: Some(b"app"[..].into()),
        kind: Some(b"kind"[..].into()),
        created: Some(Time(9_000)),
        priority: Some(3),
        persistent: true,
        ttl_ms: Some(60_000),
        delay_ms: Some(50),
        delay_over: true,
        more_keys: vec![b"cc"[..].into()],
        headers: Table(vec![("n".to_owned(), Value::Int(1))]),
        deaths: deaths.collect(),
        first_death: annotations.first_death,
        last_death: annotations.last_death,
    };
    let properties = PropertyList.write(&head).unwrap();
    let mut read = PropertyList.read(&message(&properties, &[]));
    assert_eq!(read.deaths[0].written, Some(0));
    read.deaths[0].written = None;
    assert_eq!(read, head);
}

#[test]
fn what_a_short_string_cannot_carry() {
    let long = [b'i'; 300];
    let head = Head { message_id: Some(long[..].into()), reply_to: Some(long[..].into()), ..Head::default() };
    let properties = PropertyList.write(&head).unwrap();
    let read = Parsed::read(&properties).unwrap();
    assert_eq!((read.message_id, read.reply_to), (None, None));
    assert_eq!(PropertyList.headers(&message(&properties, &[])).0.len(), 1);

    // A routing key is cut between two characters, and a header has all of it.
    let key = [&b"k"[..], &"\u{e4}".repeat(200).into_bytes()].concat();
    let (properties, method) = delivered(MessageRef { routing_key: &key, ..message(&hex("0000"), &[]) }, &BOTH);
    let (key_bytes, cut) = method.split_last_chunk::<256>().map(|(_, cut)| (cut[0], &cut[1..])).unwrap();
    assert_eq!((key_bytes, cut), (255, &key[..255]));
    let headers = PropertyList.headers(&message(&properties, &[]));
    assert_eq!(headers.get("x-routing-key").and_then(Value::as_text).map(str::as_bytes), Some(&key[..]));
}
