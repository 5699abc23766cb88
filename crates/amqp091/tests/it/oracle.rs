//! Compares the codec with an independent codec: both must give the same results for random methods, tables and
//! properties.
//!
//! The code below builds the random payloads from the table in `spec/`. So three implementations of the definition must
//! agree.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, queue};
use ferrymq_amqp091::codec::{content, frame, frame::FrameKind, methods, methods::Method, table::RawTable};
use ferrymq_wire::{Parsed, Put};
use proptest::{collection::vec, prelude::*};

use super::text::ROWS;

/// A random text. It is made without a regular expression, which would be slower.
fn letters(count_max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(&b"abcxyz09.#*- "[..]), 0..=count_max)
}

/// The entries of a table. The keys ascend and each comes once, because the other codec sorts them.
fn entries(depth: u32) -> BoxedStrategy<Vec<u8>> {
    prop::collection::btree_map(letters(6), value(depth), 0..4)
        .prop_map(|map| {
            let mut bytes = Vec::new();
            for (key, value) in map {
                bytes.put_u8(key.len() as u8);
                bytes.put(&key);
                bytes.put(&value);
            }
            bytes
        })
        .boxed()
}

/// A value with its type octet.
fn value(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let fixed = prop::sample::select(vec![
        (b't', 0_usize),
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'u', 2),
        (b'I', 4),
        (b'i', 4),
        (b'l', 8),
        (b'T', 8),
        (b'D', 5),
        (b'V', 0),
    ])
    .prop_flat_map(|(kind, bytes)| (Just(kind), vec(any::<u8>(), bytes), any::<bool>()))
    .prop_map(|(kind, bytes, bool)| {
        let mut value = vec![kind];
        value.put(&bytes);
        if kind == b't' {
            value.push(bool.into());
        }
        value
    });
    // `any` never gives NaN. NaN is not equal to itself, so it could not be compared.
    let floats = (any::<f32>(), any::<f64>(), any::<bool>()).prop_map(|(single, double, wide)| {
        let mut value = vec![if wide { b'd' } else { b'f' }];
        if wide {
            value.put(&double.to_be_bytes());
        } else {
            value.put(&single.to_be_bytes());
        }
        value
    });
    let strings =
        (prop::sample::select(vec![b'S', b'x']), vec(any::<u8>(), 0..20)).prop_map(|(kind, b)| long(kind, &b));
    if depth == 0 {
        return prop_oneof![fixed, floats, strings].boxed();
    }
    let tables = entries(depth - 1).prop_map(|entries| long(b'F', &entries));
    let arrays = vec(value(depth - 1), 0..4).prop_map(|values| long(b'A', &values.concat()));
    prop_oneof![fixed, floats, strings, tables, arrays].boxed()
}

fn long(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut value = vec![kind];
    value.put_u32(bytes.len() as u32);
    value.put(bytes);
    value
}

/// The bytes of a field. Reserved fields are empty, because a writer must leave them empty.
fn field(name: &str, kind: &str) -> BoxedStrategy<Vec<u8>> {
    let width = match kind {
        "octet" => 1,
        "short" => 2,
        "long" => 4,
        "longlong" | "timestamp" => 8,
        _ => 0,
    };
    // The other codec always writes zero for prefetch-size and 1 for the ticket.
    if name == "ticket" {
        return Just(vec![0, 1]).boxed();
    }
    if name.starts_with('~') || name == "prefetch-size" {
        return Just(vec![
            0;
            match kind {
                "shortstr" => 1,
                "longstr" | "table" => 4,
                _ => width,
            }
        ])
        .boxed();
    }
    match kind {
        "shortstr" => letters(30).prop_map(|text| [&[text.len() as u8], text.as_slice()].concat()).boxed(),
        "longstr" => letters(60).prop_map(|text| long(0, &text)[1..].to_vec()).boxed(),
        "table" => entries(2).prop_map(|entries| long(0, &entries)[1..].to_vec()).boxed(),
        _ => vec(any::<u8>(), width).boxed(),
    }
}

/// The payload of a random method of the table.
pub fn payload() -> impl Strategy<Value = Vec<u8>> {
    (0..ROWS.len()).prop_flat_map(|index| {
        let row = &ROWS[index];
        let mut parts = Vec::new();
        for run in row.fields.chunk_by(|a, b| a.1 == "bit" && b.1 == "bit") {
            if run[0].1 == "bit" {
                let mask = run.iter().enumerate().filter(|(_, bit)| !bit.0.starts_with('~'));
                let mask = mask.fold(0_u8, |mask, (place, _)| mask | 1 << place);
                parts.push(any::<u8>().prop_map(move |bits| vec![bits & mask]).boxed());
            } else {
                parts.push(field(&run[0].0, &run[0].1));
            }
        }
        let ids = [row.class.to_be_bytes(), row.method.to_be_bytes()].concat();
        parts.prop_map(move |parts| [ids.clone(), parts.concat()].concat())
    })
}

fn framed(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_frame(&mut out, kind, 1, payload);
    out
}

fn their_bytes(theirs: &AMQPFrame) -> Vec<u8> {
    gen_frame(theirs)(WriteContext::from(Vec::new())).unwrap().into_inner().0
}

fn their_frame(bytes: &[u8]) -> AMQPFrame {
    let (rest, theirs) = parse_frame(bytes).unwrap();
    assert!(rest.is_empty(), "the whole frame was read");
    theirs
}

proptest! {
    #[test]
    fn methods_agree(payload in payload()) {
        let ours = Method::read(&payload).unwrap();
        let mut written = Vec::new();
        ours.write(&mut written);
        prop_assert_eq!(&written, &payload, "{}", ours.name());

        let bytes = framed(FrameKind::Method, &payload);
        let theirs = their_frame(&bytes);
        let AMQPFrame::Method(1, class) = &theirs else { panic!("not a method on channel 1: {theirs}") };
        prop_assert_eq!((class.get_amqp_class_id(), class.get_amqp_method_id()), ours.id());
        prop_assert_eq!(their_bytes(&theirs), bytes);
    }

    #[test]
    fn publish_has_the_same_fields(exchange in "[a-z]{0,9}", key in "[a-z.]{0,200}", mandatory: bool, immediate: bool) {
        let (theirs_exchange, theirs_key) = (exchange.as_str().into(), key.as_str().into());
        let publish = basic::Publish { exchange: theirs_exchange, routing_key: theirs_key, mandatory, immediate };
        let bytes = their_bytes(&AMQPFrame::Method(7, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))));
        let Parsed::Frame(read, taken) = frame::frame(&bytes, 4096) else { panic!("not a frame") };
        prop_assert_eq!((read.kind, read.channel, taken), (FrameKind::Method, 7, bytes.len()));
        let (exchange, routing_key) = (exchange.as_bytes(), key.as_bytes());
        let expected = methods::BasicPublish { exchange, routing_key, mandatory, immediate };
        prop_assert_eq!(Method::read(read.payload), Ok(Method::BasicPublish(expected)));
    }

    #[test]
    fn declare_has_the_same_fields(name in "[a-z]{0,9}", passive: bool, durable: bool, exclusive: bool, auto_delete: bool, no_wait: bool) {
        let queue = name.as_str().into();
        let declare = queue::Declare { queue, passive, durable, exclusive, auto_delete, nowait: no_wait, arguments: Default::default() };
        let bytes = their_bytes(&AMQPFrame::Method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare))));
        let Parsed::Frame(read, _) = frame::frame(&bytes, 4096) else { panic!("not a frame") };
        let arguments = RawTable::default();
        let expected = methods::QueueDeclare { queue: &name, passive, durable, exclusive, auto_delete, no_wait, arguments };
        prop_assert_eq!(Method::read(read.payload), Ok(Method::QueueDeclare(expected)));
    }

    #[test]
    fn deliver_is_written_the_same(tag in "[a-z]{0,9}", delivery_tag: u64, redelivered: bool, exchange in "[a-z]{0,9}", key in "[a-z]{0,9}") {
        let ours = methods::BasicDeliver {
            consumer_tag: tag.as_bytes(),
            delivery_tag,
            redelivered,
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
        };
        let mut bytes = Vec::new();
        frame::put_method(&mut bytes, 3, &ours);
        let (exchange, routing_key) = (exchange.as_str().into(), key.as_str().into());
        let theirs = basic::Deliver { consumer_tag: tag.as_str().into(), delivery_tag, redelivered, exchange, routing_key };
        let expected = AMQPFrame::Method(3, AMQPClass::Basic(basic::AMQPMethod::Deliver(theirs)));
        prop_assert_eq!(their_frame(&bytes), expected);
    }

    #[test]
    fn properties_agree(flags: u16, strings in vec("[a-z0-9]{0,20}", 10), headers in entries(2), numbers: (u8, u8, u64)) {
        let text = |flag: u16, index: usize| (flags & 1 << flag != 0).then(|| strings[index].as_bytes());
        let ours = content::Properties {
            content_type: text(15, 0),
            content_encoding: text(14, 1),
            headers: (flags & 1 << 13 != 0).then(|| RawTable::check(&headers).unwrap()),
            delivery_mode: (flags & 1 << 12 != 0).then_some(numbers.0),
            priority: (flags & 1 << 11 != 0).then_some(numbers.1),
            correlation_id: text(10, 2),
            reply_to: text(9, 3),
            expiration: text(8, 4),
            message_id: text(7, 5),
            timestamp: (flags & 1 << 6 != 0).then_some(numbers.2),
            kind: text(5, 6),
            user_id: text(4, 7),
            app_id: text(3, 8),
            cluster_id: text(2, 9),
        };
        let mut properties = Vec::new();
        ours.write(&mut properties);
        prop_assert_eq!(content::Properties::read(&properties), Ok(ours));
        let mut payload = Vec::new();
        content::ContentHeader { class: 60, body_bytes: 5, properties: &properties }.write(&mut payload);
        let bytes = framed(FrameKind::Header, &payload);
        let theirs = their_frame(&bytes);
        let AMQPFrame::Header(1, header) = &theirs else { panic!("not a header on channel 1: {theirs}") };
        prop_assert_eq!(header.properties.expiration().as_ref().map(|text| text.as_str().as_bytes()), ours.expiration);
        prop_assert_eq!(header.properties.reply_to().as_ref().map(|text| text.as_str().as_bytes()), ours.reply_to);
        prop_assert_eq!(*header.properties.priority(), ours.priority);
        prop_assert_eq!(their_bytes(&theirs), bytes);
    }
}
