//! The encoding of annotations: it comes back as it was written, and no bytes make the reader panic.

use ferrymq_model::{Annotations, DeathPlace, DeathReason, DeathRecord, Time};
use proptest::{collection::vec, option, prelude::*};

/// Queue, reason, exchange.
type MessageKey = (String, Option<DeathReason>, String);

/// Where, count and time, keys, time to live, place in the publisher's list.
type Record = (MessageKey, [u64; 2], Vec<Vec<u8>>, Option<u64>, Option<u32>);

/// Parts of annotations that own their data.
#[derive(Clone, Debug)]
struct Parts {
    deaths: Vec<Record>,
    first: Option<MessageKey>,
    last: Option<MessageKey>,
    flags: [bool; 3],
    address: Option<Vec<u8>>,
    bindings: Vec<u64>,
}

fn place((queue, reason, exchange): &MessageKey) -> DeathPlace<'_> {
    DeathPlace { queue: queue.into(), reason: *reason, exchange: exchange.into() }
}

impl Parts {
    fn annotations(&self) -> Annotations<'_> {
        let deaths = self.deaths.iter().map(|(at, [count, time], keys, ttl_ms, written)| DeathRecord {
            queue: place(at).queue,
            reason: at.1,
            count: *count,
            at: Time(*time),
            exchange: place(at).exchange,
            routing_keys: keys.iter().map(Vec::as_slice).collect(),
            ttl_ms: *ttl_ms,
            written: *written,
        });
        let deaths: Vec<_> = deaths.collect();
        let latest = deaths.first().map(DeathRecord::place);
        Annotations {
            first_death: self.first.as_ref().map(place),
            last_death: self.last.as_ref().map(place).or(latest),
            deaths,
            new_key: self.flags[0],
            expiration_removed: self.flags[1],
            delay_over: self.flags[2],
            reply_address: self.address.as_deref(),
            bindings: self.bindings.clone(),
        }
    }
}

fn reasons() -> impl Strategy<Value = Option<DeathReason>> {
    use DeathReason::{DeliveryLimit, Expired, MaxLength, Rejected};
    option::of(prop_oneof![Just(Rejected), Just(Expired), Just(MaxLength), Just(DeliveryLimit)])
}

prop_compose! {
    fn parts()(
        deaths in vec(
            ((".{0,300}", reasons(), ".{0,9}"), any::<[u64; 2]>(), vec(vec(any::<u8>(), 0..300), 0..4),
                option::of(any::<u64>()), option::of(any::<u32>())),
            0..5,
        ),
        first in option::of((".{0,9}", reasons(), ".{0,9}")),
        last in option::of((".{0,9}", reasons(), ".{0,9}")),
        flags in any::<[bool; 3]>(),
        address in option::of(vec(any::<u8>(), 0..300)),
        bindings in vec(any::<u64>(), 0..5),
    ) -> Parts {
        Parts { deaths, first, last, flags, address, bindings }
    }
}

proptest! {
    #[test]
    fn what_was_written_comes_back(parts in parts()) {
        let annotations = parts.annotations();
        let written = annotations.write();
        prop_assert_eq!(Annotations::read(&written), annotations);
        prop_assert_eq!(Annotations::is_delay_over(&written), parts.flags[2]);
    }

    #[test]
    fn kinds_and_fields_of_later_versions_are_skipped(parts in parts(), kind in 9_u8.., payload in vec(any::<u8>(), 0..100)) {
        let annotations = parts.annotations();
        let mut written = annotations.write();
        if written.is_empty() {
            written.push(1);
        }
        written.extend([kind, payload.len() as u8]);
        written.extend(&payload);
        prop_assert_eq!(Annotations::read(&written), annotations);
    }

    #[test]
    fn no_bytes_are_a_reason_to_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Annotations::read(&bytes);
        let versioned = [&[1], &bytes[..]].concat();
        let read = Annotations::read(&versioned);
        prop_assert!(Annotations::needed_bytes(&versioned) <= bytes.len() * 17);
        // What was understood comes back.
        let again = read.write();
        prop_assert_eq!(Annotations::read(&again), read);
    }

    #[test]
    fn damage_is_no_reason_to_panic(parts in parts(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut written = parts.annotations().write();
        if !written.is_empty() {
            let at = at.index(written.len());
            written[at] = byte;
            let _ = Annotations::read(&written);
            let _ = Annotations::read(&written[..at]);
        }
    }
}

#[test]
fn without_annotations_there_are_no_bytes() {
    assert_eq!(Annotations::default().write(), []);
    assert_eq!(Annotations::read(&[]), Annotations::default());
    assert_eq!(Annotations::read(&[2, 4, 0]), Annotations::default(), "another version");
}

/// Each kind has its number, which is stored.
#[test]
fn the_numbers_of_the_kinds_stay() {
    let place = || Some(DeathPlace { queue: "q".into(), reason: Some(DeathReason::Expired), exchange: "x".into() });
    let death =
        DeathRecord { queue: "q".into(), reason: Some(DeathReason::Rejected), count: 300, ..Default::default() };
    let all = Annotations {
        deaths: vec![DeathRecord { at: Time(5), routing_keys: vec![b"k"], ttl_ms: Some(7), written: Some(2), ..death }],
        first_death: place(),
        last_death: place(),
        new_key: true,
        expiration_removed: true,
        delay_over: true,
        reply_address: Some(b"r"),
        bindings: vec![9],
    };
    let expected: [&[u8]; 9] = [
        &[1],
        &[1, 13, 3, 1, 0xac, 2, 5, 1, b'q', 0, 1, 1, b'k', 7, 2],
        &[2, 5, 2, 1, b'q', 1, b'x'],
        &[3, 5, 2, 1, b'q', 1, b'x'],
        &[4, 0],
        &[5, 0],
        &[6, 0],
        &[7, 1, b'r'],
        &[8, 1, 9],
    ];
    assert_eq!(all.write(), expected.concat());
    assert_eq!(Annotations::needed_bytes(&all.write()), 33);
}
