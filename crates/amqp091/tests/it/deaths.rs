//! Tests of the headers of dead-lettered messages, and of messages with an address for replies.

use ferrymq_amqp091::{PropertyList, codec::content::Properties as Parsed};
use ferrymq_model::{DeadLetter, Death, DeathReason, Properties, Time, Value};

use super::text::hex;

fn death(queue: &'static str, reason: DeathReason) -> Death<'static> {
    let at = Time(1_700_000_000_999);
    Death { queue, reason, exchange: "shop", routing_key: b"new", new_key: false, at }
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
        let (routing_key, new_key) = (key.as_bytes(), kept == "replaced");
        let made = PropertyList
            .dead_letter(&hex(before), &Death { queue, reason: reason(why), exchange, routing_key, new_key, at });
        let (after, ours) = (hex(after), Parsed::read(&made.properties).unwrap());
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

/// Adds one death after the other to a message's headers.
fn dies(properties: &[u8], deaths: &[Death<'_>]) -> DeadLetter {
    let mut letter = DeadLetter { properties: properties.to_vec(), ..DeadLetter::default() };
    for death in deaths {
        letter = PropertyList.dead_letter(&letter.properties, death);
    }
    letter
}

fn header(letter: &DeadLetter, key: &str) -> Value {
    PropertyList.headers(&letter.properties).get(key).unwrap_or(&Value::Void).clone()
}

/// The queue, the reason and the count of each entry of x-death.
fn history(letter: &DeadLetter) -> Vec<String> {
    let Value::List(entries) = header(letter, "x-death") else { panic!("x-death is no array") };
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
    let letter = dies(&hex("0000"), &[a, b, a, death("a", DeliveryLimit)]);
    assert_eq!(history(&letter), ["a delivery_limit 1", "a rejected 2", "b expired 1"]);
    let expected = [("a", false), ("a", true), ("b", false)].map(|(queue, rejected)| (queue.to_owned(), rejected));
    assert_eq!(letter.deaths, expected);
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(header(&letter, "x-first-death-reason"), text("rejected"));
    assert_eq!(header(&letter, "x-last-death-reason"), text("delivery_limit"));
    assert_eq!(header(&letter, "x-last-death-queue"), text("a"));
}

#[test]
fn a_message_dies_as_persistent_as_it_was_and_keeps_its_copies_with_its_key() {
    let properties = hex("3000 0000000F 02 \"CC\" 41 00000007 53 00000002 \"cc\" 02");
    let letter = dies(&properties, &[death("q", DeathReason::Expired)]);
    assert!(letter.persistent);
    assert_eq!(letter.more_keys, [b"cc"]);
    let replaced = Death { new_key: true, ..death("q", DeathReason::Expired) };
    let letter = dies(&properties, &[replaced]);
    assert!(letter.more_keys.is_empty());
    assert_eq!(header(&letter, "CC"), Value::Void);
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
        let letter = dies(&properties, &rejected());
        assert_eq!(history(&letter), expected, "{entries}");
    }
}

#[test]
fn properties_that_cannot_be_read_are_no_reason_to_panic() {
    for octets in ["", "20", "2000 FFFFFFFF", "FFFF"] {
        assert_eq!(history(&dies(&hex(octets), &[death("q", DeathReason::Expired)])), ["q expired 1"], "{octets}");
    }
}

#[test]
fn the_address_for_answers_replaces_the_name_that_stands_for_it() {
    let properties = hex("1200 02 15 \"amq.rabbitmq.reply-to\"");
    let written = PropertyList.with_reply_address(&properties, "there");
    assert_eq!(written, hex("1200 02 05 \"there\""));
}
