//! Tests with bytes that were written by hand, and the result that the codec must give. The vectors are data in
//! `vectors/`.
//!
//! A vector is one line: octets in hexadecimal (with any spaces), `=>`, and the result as `Debug` prints it.

use ferrymq_amqp091::codec::{
    content::ContentHeader, content::Properties, frame::frame, methods::Method, table::RawTable,
};

use super::text::hex;

fn check(vectors: &str, answer: impl Fn(&[u8]) -> String) {
    let mut count = 0;
    for line in vectors.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (octets, expected) = line.split_once(" => ").expect("a vector contains =>");
        assert_eq!(answer(&hex(octets)), expected, "{line}");
        count += 1;
    }
    assert!(count > 0, "the file contains vectors");
}

fn show<T: std::fmt::Debug, E: std::fmt::Debug>(answer: Result<T, E>) -> String {
    answer.map_or_else(|why| format!("{why:?}"), |answer| format!("{answer:?}"))
}

#[test]
fn frames() {
    check(include_str!("vectors/frames.txt"), |input| format!("{:?}", frame(input, 4096)));
}

#[test]
fn methods() {
    check(include_str!("vectors/methods.txt"), |payload| show(Method::read(payload)));
}

#[test]
fn tables() {
    check(include_str!("vectors/tables.txt"), |entries| {
        show(RawTable::check(entries).map(|t| t.iter().collect::<Vec<_>>()))
    });
}

#[test]
fn properties() {
    check(include_str!("vectors/properties.txt"), |bytes| {
        let properties = match Properties::read(bytes) {
            Ok(properties) => properties,
            Err(why) => return format!("{why:?}"),
        };
        let mut written = Vec::new();
        properties.write(&mut written);
        assert_eq!(written, bytes, "properties are written with the bytes that were read");
        format!("{properties:?}").replace("None", "-")
    });
}

#[test]
fn content_headers() {
    check(include_str!("vectors/content_headers.txt"), |payload| show(ContentHeader::read(payload)));
}
