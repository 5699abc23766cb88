//! Publishers wait for a short time for consumers that have credit and whose sockets take no more, and for no other
//! consumers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ferrymq_model::{Arguments, Ask, Body, Command, Name, Publish, Span, Subscribe};

use crate::tests::rig::{Folder, Gate, Moving, Nobody, carry_out, declaration, login, open, publish, request};
use crate::{Client, Effects, Node, Peer};

/// A peer whose socket takes as much as the test says.
#[derive(Default)]
struct Slow {
    waiting: AtomicUsize,
}

impl Peer for Slow {
    fn send(&self, _: &Effects) {
        self.waiting.store(BODY_BYTES * MESSAGES, Ordering::Relaxed);
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn wake(&self) {}
}

const BODY_BYTES: usize = 64 << 10;
/// More than twice the bytes by which publishers may be ahead.
const MESSAGES: usize = 80;

struct Bench {
    node: Arc<Node>,
    clock: Arc<Moving>,
    socket: Arc<Slow>,
    consumer: Client,
    publisher: Client,
    _folder: Folder,
}

impl Bench {
    fn new() -> Self {
        let (folder, clock, socket) = (Folder::new(), Arc::new(Moving::default()), Arc::new(Slow::default()));
        let node = open(&folder, Arc::<Gate>::default(), clock.clone());
        let mut consumer = node.connect(socket.clone(), "consumer".to_owned(), true).unwrap();
        let mut publisher = node.connect(Arc::new(Nobody), "publisher".to_owned(), true).unwrap();
        carry_out(&mut publisher, b"", login());
        let declare = request(Ask::DeclareQueue(declaration("q")));
        carry_out(&mut consumer, b"", [login(), vec![declare]].concat());
        Self { node, clock, socket, consumer, publisher, _folder: folder }
    }

    fn consume(&mut self) {
        let consume = request(Ask::Subscribe(Subscribe {
            queue: Name::from("q"),
            tag: Name::from("c"),
            no_ack: true,
            exclusive: false,
            credit: None,
            arguments: Arguments::default(),
        }));
        carry_out(&mut self.consumer, b"", vec![consume]);
    }

    fn publish(&mut self) {
        let mut input = vec![0; BODY_BYTES];
        input[0] = b'q';
        let body = Body::Span(Span { start: 0, len: BODY_BYTES as u32 });
        let one = Publish { routing_key: Span { start: 0, len: 1 }, ..publish(body) };
        carry_out(&mut self.publisher, &input, vec![Command::Publish(one); MESSAGES]);
    }

    /// The consumer's socket takes everything, and the waiting messages are delivered.
    fn catch_up(&mut self) {
        for _ in 0..2 * MESSAGES {
            self.socket.waiting.store(0, Ordering::Relaxed);
            self.consumer.written();
        }
    }

    fn end(self) {
        let Self { node, consumer, publisher, .. } = self;
        drop((consumer, publisher));
        node.stop().unwrap();
    }
}

#[test]
fn a_publisher_waits_until_its_consumer_has_caught_up() {
    let mut bench = Bench::new();
    bench.consume();
    bench.publish();
    assert!(bench.publisher.is_ahead());
    assert!(bench.publisher.is_still_ahead());
    bench.catch_up();
    assert!(!bench.publisher.is_still_ahead());
    assert!(!bench.publisher.is_ahead(), "nothing was published since");
    bench.end();
}

#[test]
fn nobody_waits_long_for_a_consumer_that_does_not_read() {
    let mut bench = Bench::new();
    bench.consume();
    bench.publish();
    assert!(bench.publisher.is_ahead());
    bench.clock.0.advance_to(100);
    assert!(!bench.publisher.is_still_ahead());
    bench.publish();
    assert!(!bench.publisher.is_ahead());
    bench.end();
}

#[test]
fn nobody_waits_where_nobody_consumes() {
    let mut bench = Bench::new();
    bench.publish();
    assert!(!bench.publisher.is_ahead());
    bench.end();
}
