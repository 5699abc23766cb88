//! Tests that the frames of long bodies are taken as their bytes arrive: the session gets no byte twice, even if the
//! pieces are small.

use ferrymq_model::{Body, Command};
use ferrymq_wire::{Moment, Output, Session, Step};

use super::{hot_path::running, text};

const FRAME_BYTES: usize = 100_000;

/// A publish of this body, in frames with at most `FRAME_BYTES` bytes of payload.
fn publish(body: &[u8]) -> Vec<u8> {
    let lines = ["basic.publish exchange=ex routing-key=key".to_owned(), format!("content {} 100002", body.len())];
    let mut input: Vec<u8> = lines.iter().flat_map(|line| text::frame(line, 1)).collect();
    for part in body.chunks(FRAME_BYTES) {
        input.extend_from_slice(&[3, 0, 1]);
        input.extend_from_slice(&(part.len() as u32).to_be_bytes());
        input.extend_from_slice(part);
        input.push(0xCE);
    }
    input
}

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

/// Gives the session the input in pieces. Returns the published bodies, and how many bytes the session got in all.
fn give(input: &[u8], piece: usize, steps: &mut Vec<String>) -> (Vec<Vec<u8>>, usize) {
    let (mut session, mut published, mut unread, mut offered) = (running(), Vec::new(), Vec::new(), 0);
    for piece in input.chunks(piece) {
        unread.extend_from_slice(piece);
        let mut out = Output::default();
        offered += unread.len();
        let received = session.receive(&unread, Moment(0), &mut out);
        for step in out.steps {
            match step {
                Step::Command(Command::Publish(publish)) => match publish.body {
                    Body::Shared(body) => published.push(body.to_vec()),
                    Body::Span(span) => {
                        let head = publish.rare.and_then(|rare| rare.head);
                        published.push(span.of(head.as_deref().unwrap_or(&unread)).to_vec());
                    }
                    other => panic!("{other:?}"),
                },
                other => steps.push(format!("{other:?}")),
            }
        }
        unread.drain(..received.consumed);
    }
    (published, offered)
}

#[test]
fn a_long_body_arrives_in_pieces_of_any_size() {
    let bodies = [250_000, 100_000, 5_000, 16, 100_001, 0, 70_000].map(body);
    let input: Vec<u8> = bodies.iter().flat_map(|body| publish(body)).collect();
    for piece in [1, 7, 997, 65_536, input.len()] {
        let mut steps = Vec::new();
        let (published, offered) = give(&input, piece, &mut steps);
        assert!(published == bodies, "pieces of {piece}");
        assert_eq!(steps, [""; 0]);
        // Short frames are given again until they are complete.
        assert!(
            piece < 7 || offered < input.len() + input.len() / 10,
            "pieces of {piece}: {offered} of {}",
            input.len()
        );
    }
}

#[test]
fn a_frame_that_was_taken_in_parts_must_end_as_all_do() {
    let mut input = publish(&body(50_000));
    *input.last_mut().unwrap() = 0;
    for piece in [1_000, 1, input.len()] {
        let mut steps = Vec::new();
        let (published, _) = give(&input, piece, &mut steps);
        assert!(published.is_empty());
        assert!(steps.iter().any(|step| step.contains("FRAME_ERROR") || step.contains("501")), "{steps:?}");
    }
}

/// A frame that is longer than the rest of the body is an error. It is not taken in parts.
#[test]
fn a_frame_that_is_too_long_for_its_body_is_refused() {
    let mut input = publish(&body(50_000));
    let end = input.len();
    let frame_at = end - 50_000 - 8;
    input.splice(frame_at + 3..frame_at + 7, 50_001_u32.to_be_bytes());
    input.insert(end - 1, 1);
    let mut steps = Vec::new();
    let (published, _) = give(&input, 1_000, &mut steps);
    assert!(published.is_empty());
    assert!(steps.iter().any(|step| step.contains("content body frame exceeds")), "{steps:?}");
}
