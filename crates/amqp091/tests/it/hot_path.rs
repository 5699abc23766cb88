//! Tests that frequent steps allocate no memory: publishes that are complete in the input, and deliveries into an
//! outbox that has space.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use ferrymq_amqp091::{Connection, FrameEncoder, Greeting};
use ferrymq_model::{Body, BodyRef, Command, Effect, Event, Limits, MessageRef, ServerProperties};
use ferrymq_wire::{Encoded, Encoder, Moment, Outbox, Output, Session, Step, Then};

use super::text;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// A connection with one open channel.
pub fn running() -> Connection {
    let greeting = Arc::new(Greeting::new(&ServerProperties::default(), Limits::default()));
    let (mut session, mut out) = (Connection::new(greeting), Output::default());
    session.opened(Moment(0), &mut out);
    let mut give = |session: &mut Connection, lines: &[&str]| {
        let input: Vec<u8> = lines.iter().flat_map(|line| text::frame(line, 1)).collect();
        assert_eq!(session.receive(&input, Moment(0), &mut out).consumed, input.len());
    };
    give(&mut session, &["header", r#"connection.start-ok mechanism=PLAIN response="\0guest\0guest""#]);
    session.event(Event::LoggedIn, Moment(0), &mut Output::default());
    give(&mut session, &["connection.tune-ok channel-max=1 frame-max=131072", "connection.open virtual-host=/"]);
    session.event(Event::VhostOpened, Moment(0), &mut Output::default());
    give(&mut session, &["channel.open"]);
    session
}

#[test]
fn publishes_become_commands_without_an_allocation() {
    const MESSAGES: usize = 1000;
    let frames = ["basic.publish exchange=ex routing-key=key", "content 16 100002", "body 0123456789abcdef"];
    let one: Vec<u8> = frames.iter().flat_map(|line| text::frame(line, 1)).collect();
    let input = one.repeat(MESSAGES);
    let (mut session, mut out) = (running(), Output::default());
    // The first call grows the list of steps. The output keeps its memory for later calls.
    session.receive(&input, Moment(0), &mut out);
    let (mut consumed, mut portions, mut published) = (0, 0, 0);
    let count = allocations(|| {
        while consumed < input.len() {
            out.clear();
            let rest = &input[consumed..];
            let received = session.receive(rest, Moment(0), &mut out);
            consumed += received.consumed;
            portions += 1;
            published += out.steps.len();
            // A large input is used in portions, so that other clients have their turn in between.
            assert!(out.steps.len() <= Output::STEPS_MAX);
            assert_eq!(received.then == Then::Again, out.is_full());
            for step in &out.steps {
                let Step::Command(Command::Publish(publish)) = step else { panic!("not a publish: {step:?}") };
                let Body::Span(body) = publish.body else { panic!("a small body stays in the input") };
                assert_eq!(body.of(rest), b"0123456789abcdef");
                assert_eq!(publish.routing_key.of(rest), b"key");
            }
        }
    });
    assert_eq!(count, 0);
    assert_eq!((published, portions), (MESSAGES, MESSAGES.div_ceil(Output::STEPS_MAX)));
}

#[test]
fn deliveries_are_appended_without_an_allocation() {
    let mut encoder = FrameEncoder::new(131_072, true, ferrymq_model::Dialects::default());
    let mut outbox = Outbox::default();
    outbox.bytes().reserve(1 << 20);
    let body = BodyRef::Inline(b"0123456789abcdef");
    let (exchange, routing_key, properties) = ("ex", &b"key"[..], &[0x10, 0, 2][..]);
    let message =
        MessageRef { dialect: ferrymq_amqp091::DIALECT, exchange, routing_key, properties, annotations: &[], body };
    let count = allocations(|| {
        for delivery_tag in 1..=1000 {
            let deliver =
                Effect::Deliver { channel: 1, tag: "ctag", delivery_tag, redelivered: false, attempts: None, message };
            let Encoded::Whole = encoder.encode(&deliver, &mut outbox) else { panic!("it never stops") };
        }
    });
    assert_eq!(count, 0);
    assert!(outbox.len() > 1000 * 16);
}
