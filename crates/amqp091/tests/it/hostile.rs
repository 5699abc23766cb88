//! Tests with hostile input: the code must not panic, and it must not allocate memory by a length that it has not
//! checked.

use ferrymq_amqp091::codec::{
    Malformed, content::ContentHeader, content::Properties, frame::FrameKind, frame::frame, frame::put_frame,
    methods::Method, table::DEPTH_MAX, table::RawTable,
};
use ferrymq_wire::{Moment, Output, Parsed, Put, Session, Step, Then};
use proptest::{collection::vec, prelude::*};

use super::{hot_path, oracle, show::show, text};

/// `depth` tables, each the only entry of the next outer table.
fn nested_tables(depth: usize) -> Vec<u8> {
    (1..depth).fold(Vec::new(), |inner, _| {
        let mut outer = vec![1, b'k', b'F'];
        outer.put_u32(inner.len() as u32);
        outer.put(&inner);
        outer
    })
}

#[test]
fn tables_nest_up_to_the_limit() {
    assert!(RawTable::check(&nested_tables(DEPTH_MAX)).is_ok());
    assert_eq!(RawTable::check(&nested_tables(DEPTH_MAX + 1)), Err(Malformed::TableDepth));
    // With this depth, code that recurses without a limit would overflow its stack.
    assert_eq!(RawTable::check(&nested_tables(100_000)), Err(Malformed::TableDepth));
}

/// Calls all parsers of the codec with these bytes.
fn read_all(bytes: &[u8]) {
    for limit in [0, 8, 4096, u32::MAX] {
        match frame(bytes, limit) {
            Parsed::Frame(frame, taken) => assert!(taken <= bytes.len() && frame.payload.len() < taken),
            Parsed::Incomplete(needed) => assert!(needed > bytes.len(), "more input is asked for"),
            Parsed::Malformed(_) => {}
        }
    }
    let _ = Method::read(bytes);
    let _ = ContentHeader::read(bytes);
    let _ = Properties::read(bytes);
    if let Ok(table) = RawTable::check(bytes) {
        let mut written = Vec::new();
        for (key, value) in table.iter() {
            written.put_u8(key.len() as u8);
            written.put(key);
            ferrymq_amqp091::codec::table::put_value(&mut written, &value);
        }
        assert!(RawTable::check(&written).is_ok(), "a table that was read and written can be read again");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    /// Bytes in a well-formed frame, so that they reach the parsers of its payload.
    #[test]
    fn any_payload(class in prop_oneof![Just(10_u16), Just(40), Just(50), Just(60), Just(85)], method in 0..121_u16, rest in vec(any::<u8>(), 0..80)) {
        let mut payload = Vec::new();
        payload.put_u16(class);
        payload.put_u16(method);
        payload.put(&rest);
        read_all(&payload);
    }

    /// Bytes that look like a table, with lengths that are often wrong.
    #[test]
    fn any_entries(entries in vec((vec(any::<u8>(), 0..4), prop::sample::select(b"tbBsuIilLfdDSATFVxn?".to_vec()), vec(any::<u8>(), 0..12)), 0..8)) {
        let mut bytes = Vec::new();
        for (key, kind, value) in entries {
            bytes.put_u8(key.len() as u8);
            bytes.put(&key);
            bytes.put_u8(kind);
            bytes.put(&value);
        }
        read_all(&bytes);
    }
}

/// A random input: a well-formed method, content, or arbitrary bytes.
fn move_of_a_client() -> impl Strategy<Value = Vec<u8>> {
    let framed = |kind: FrameKind, channel: u16, payload: &[u8]| {
        let mut out = Vec::new();
        put_frame(&mut out, kind, channel, payload);
        out
    };
    let channel = || prop_oneof![4 => Just(1_u16), 1 => 0..4_u16];
    prop_oneof![
        6 => (channel(), oracle::payload()).prop_map(move |(channel, payload)| framed(FrameKind::Method, channel, &payload)),
        2 => (channel(), 0..20_u64).prop_map(move |(channel, bytes)| {
            let mut payload = vec![0, 60, 0, 0];
            payload.put_u64(bytes);
            payload.put_u16(0);
            framed(FrameKind::Header, channel, &payload)
        }),
        2 => (channel(), vec(any::<u8>(), 0..20)).prop_map(move |(channel, body)| framed(FrameKind::Body, channel, &body)),
        1 => vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    /// For each input on an open connection, the session returns the same steps for all ways to cut the input into
    /// reads, and it never uses more bytes than it has.
    #[test]
    fn any_conversation(moves in vec(move_of_a_client(), 1..20), cut in 1..40_usize) {
        let input = moves.concat();
        let at_once = talk(&input, input.len().max(1));
        let in_pieces = talk(&input, cut);
        prop_assert_eq!(at_once, in_pieces);
    }
}

/// The steps of a session with an open channel when `input` arrives in reads of `cut` octets.
fn talk(input: &[u8], cut: usize) -> Vec<String> {
    let mut session = hot_path::running();
    let (mut kept, mut said) = (Vec::new(), Vec::new());
    for read in input.chunks(cut) {
        kept.extend_from_slice(read);
        loop {
            let mut out = Output::default();
            let received = session.receive(&kept, Moment(0), &mut out);
            assert!(received.consumed <= kept.len());
            for step in &out.steps {
                match step {
                    // One step or several steps may send the same frames.
                    Step::Send(range) => {
                        let lines = text::lines(&out.bytes[range.clone()]);
                        said.extend(lines.into_iter().map(|(channel, line)| format!("{channel}: {line}")));
                    }
                    Step::Command(command) => said.push(show(command, &kept)),
                    other => said.push(format!("{other:?}")),
                }
            }
            kept.drain(..received.consumed);
            if matches!(received.then, Then::More { .. }) || out.steps.is_empty() {
                break;
            }
        }
    }
    said
}
