//! Input from someone who means harm: nothing may panic, nothing may be allocated by a length that was only claimed.

use ferrymq_amqp091::codec::{
    Malformed, content::ContentHeader, content::Properties, frame::frame, methods::Method, table::DEPTH_MAX,
    table::RawTable,
};
use ferrymq_wire::{Parsed, Put};
use proptest::{collection::vec, prelude::*};

/// `depth` tables, each the only entry of the one around it.
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
    // Deep enough to overflow the stack of whoever recurses without a limit.
    assert_eq!(RawTable::check(&nested_tables(100_000)), Err(Malformed::TableDepth));
}

/// Everything the codec can be asked about some bytes.
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
        assert!(RawTable::check(&written).is_ok(), "what was read can be written and read again");
    }
}

/// Inputs that once went wrong, or that are known to be nasty; each is a file of raw bytes.
#[test]
fn the_corpus_replays() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/corpus");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        read_all(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus has files");
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    /// Bytes that look like a frame, so that the parsers behind the frame are reached.
    #[test]
    fn any_payload(class in prop_oneof![Just(10_u16), Just(40), Just(50), Just(60), Just(85)], method in 0..121_u16, rest in vec(any::<u8>(), 0..80)) {
        let mut payload = Vec::new();
        payload.put_u16(class);
        payload.put_u16(method);
        payload.put(&rest);
        read_all(&payload);
    }

    /// Bytes that look like a table, with claimed lengths that are often wrong.
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
