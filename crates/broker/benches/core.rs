//! The cost of the core alone: nanoseconds per message, with ports that do almost nothing.
//!
//! `cargo bench -p ferrymq-broker`, on an otherwise idle machine. Each line is the best of seven rounds, because
//! disturbances only make a round slower.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use ferrymq_broker::{
    Caller, Catalog, Dead, DelayedMessage, Delivery, Envelope, HashKey, Next, Ports, QueueSettings, RoutedMessage,
    SequenceRange, Shard, Subscriber, Taken,
};
use ferrymq_model::{
    BindCommand, BodyRef, CatalogEntry, ConnectionId, DeclareQueue, Destination, DialectId, Facts, MessageKey,
    MessageRef, Name, OwnedMessage, QueueId, Sequence, Settled, Settlement, SubscriptionId, Table, Time, Value,
};

const MESSAGES: u64 = 1 << 16;
const ROUNDS: usize = 7;
const QUEUE: QueueId = QueueId(QueueId::LANES);
const NOW: Time = Time(1);

fn main() {
    let line = |what: &str, ns: f64| println!("{what:<72} {ns:8.1} ns");
    line("publish, deliver: transient, auto ack", per_message(|| auto_ack(false)));
    line("publish, deliver, settle: persistent, auto ack", per_message(|| auto_ack(true)));
    line("publish, deliver, settle: persistent, acks by 50", per_message(|| acknowledged(1, 50)));
    line("publish, deliver, settle: persistent, three consumers, single acks", per_message(|| acknowledged(3, 1)));
    line("publish, wait, deliver, settle: transient, auto ack", per_message(backlog));
    for queues in [1, 10, 1_000] {
        line(&format!("route: default exchange, {queues} queues"), routes("", queues, |n| format!("q{n}")));
        line(&format!("route: direct, {queues} bindings"), routes("amq.direct", queues, |n| format!("key.{n}")));
    }
    line("route: fanout to 10 queues", routes("amq.fanout", 10, |_| String::new()));
    for bindings in [10, 100, 1_000, 10_000] {
        let pattern = |n: usize| match n % 4 {
            _ if n < 4 => ["stock.#", "*.*.nyse", "#.b.#", "a.*.c"][n].to_owned(),
            0 => format!("stock.s{n}.nyse"),
            1 => format!("stock.*.s{n}"),
            2 => format!("*.s{n}.nyse"),
            _ => format!("a.#.s{n}"),
        };
        let ns = routes("amq.topic", bindings, pattern);
        line(&format!("route: topic, {bindings} bindings, 3 words"), ns);
        line("  the same with a list of patterns", list_of_patterns(bindings, pattern));
    }
    line("route: headers, 100 bindings, 3 headers", routes("amq.headers", 100, |_| String::new()));
}

/// The best of several rounds of [`MESSAGES`] messages.
fn per_message(mut round: impl FnMut()) -> f64 {
    let mut once = || {
        let start = Instant::now();
        round();
        start.elapsed().as_nanos() as f64 / MESSAGES as f64
    };
    (0..ROUNDS).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Storage that is a ring, and consumers that only count.
#[derive(Default)]
struct Trivial {
    stored: VecDeque<(Sequence, Facts)>,
    places: VecDeque<MessageKey>,
}

impl Ports for Trivial {
    fn enqueue(&mut self, _: &MessageRef<'_>, facts: &Facts, durable: &[MessageKey], transient: &[MessageKey]) {
        self.stored.extend(durable.iter().chain(transient).map(|place| (place.sequence, *facts)));
    }

    fn next(&mut self, _: QueueId, from: Sequence) -> Next {
        let Some((first, _)) = self.stored.front() else { return Next::End };
        match self.stored.get((from - first) as usize) {
            Some((sequence, facts)) => Next::Message { sequence: *sequence, handle: *sequence, facts: *facts },
            None => Next::End,
        }
    }

    fn settle(&mut self, _: QueueId, first: Sequence, last: Sequence, _: Settled) {
        // Acks of several consumers arrive out of order; the ring removes what the oldest one leaves.
        while self.stored.front().is_some_and(|(sequence, _)| (first..=last).contains(sequence) || *sequence < first) {
            self.stored.pop_front();
        }
    }

    fn delivered_up_to(&mut self, _: QueueId, sequence: Sequence) {
        black_box(sequence);
    }

    fn attempts(&mut self, _: QueueId, _: Sequence, _: Sequence, _: u32, _: Option<Time>) {}

    fn accepts_dead_letters(&mut self) -> bool {
        true
    }

    fn put(&mut self, _: CatalogEntry) {}

    fn deliver(&mut self, _: SubscriptionId, delivery: &Delivery<'_>) -> Taken {
        if !delivery.settled {
            self.places.push_back(delivery.from);
        }
        black_box(delivery);
        Taken::Yes
    }

    fn got(&mut self, _: &Delivery<'_>, _: u64) {}

    fn fits(&mut self, _: &Delivery<'_>) -> bool {
        true
    }

    fn drained(&mut self, _: SubscriptionId) {}

    fn cancelled(&mut self, _: SubscriptionId) {}

    fn queue_gone(&mut self, _: QueueId, _: u8) {}

    fn dead_letter(&mut self, _: &Dead<'_>) -> Option<RoutedMessage> {
        None
    }

    fn create_lane(&mut self, _: QueueId, _: bool) {}

    fn delay_ms(&self, _: &MessageRef<'_>) -> u64 {
        0
    }

    fn copy(&mut self, _: u64) -> (OwnedMessage, bool) {
        unreachable!("there is no schedule")
    }

    fn release_delayed(&mut self, _: &DelayedMessage<'_>) -> Option<RoutedMessage> {
        None
    }

    fn begin_unit(&mut self) {}

    fn end_unit(&mut self) {}
}

fn shard_with(subscriptions: u64, no_ack: bool) -> Shard {
    let mut shard = Shard::new();
    let settings =
        QueueSettings { vhost: Name::from("/"), name: Name::from("q"), durable: true, ..QueueSettings::default() };
    shard.open(QUEUE, settings, &[], NOW);
    subscribe(&mut shard, subscriptions, no_ack);
    shard
}

fn subscribe(shard: &mut Shard, subscriptions: u64, no_ack: bool) {
    for id in 0..subscriptions {
        let subscriber = Subscriber { id: SubscriptionId(id), no_ack, exclusive: false, priority: 0 };
        shard.consume(QUEUE, subscriber, NOW).expect("nothing stands against it");
    }
}

fn publish(shard: &mut Shard, ports: &mut Trivial, persistent: bool) {
    let message = MessageRef {
        dialect: DialectId(1),
        exchange: "",
        routing_key: b"q",
        properties: &[0, 0],
        annotations: &[],
        body: BodyRef::Inline(b"sixteen bytes ok"),
    };
    let facts = Facts { body_bytes: 16, arrived: NOW, ..Facts::default() };
    black_box(shard.publish(&message, &facts, persistent, &[QUEUE], ports));
}

fn auto_ack(persistent: bool) {
    let (mut shard, mut ports) = (shard_with(1, true), Trivial::default());
    for _ in 0..MESSAGES {
        publish(&mut shard, &mut ports, persistent);
    }
}

fn acknowledged(subscriptions: u64, at_once: u64) {
    let (mut shard, mut ports) = (shard_with(subscriptions, false), Trivial::default());
    for number in 1..=MESSAGES {
        publish(&mut shard, &mut ports, true);
        if number % at_once == 0 {
            let first = ports.places.front().expect("it was delivered").sequence;
            let last = ports.places.back().expect("it was delivered").sequence;
            ports.places.clear();
            let range = SequenceRange { queue: QUEUE, first, last, body_bytes: 16 * (last - first + 1) };
            shard.settle(&[range], Settlement::Accept, NOW, &mut ports);
        }
    }
}

fn backlog() {
    let (mut shard, mut ports) = (shard_with(0, true), Trivial::default());
    for _ in 0..MESSAGES {
        publish(&mut shard, &mut ports, false);
    }
    subscribe(&mut shard, 1, true);
    while shard.dispatch(NOW, &mut ports) {}
}

fn routes(exchange: &str, queues: usize, key: impl Fn(usize) -> String) -> f64 {
    let catalog = catalog(exchange, queues, key);
    let keys = ["stock.ibm.nyse", "key.5", "q5", "a.b.c"].map(str::as_bytes);
    let text = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
    let headers = Table(vec![text("format", "pdf"), text("type", "report"), ("n".to_owned(), Value::Int(5))]);
    let mut targets = Vec::new();
    per_message(|| {
        for number in 0..MESSAGES as usize {
            let envelope = Envelope { headers: &|| headers.clone(), random: &|| number as u64, ..Envelope::EMPTY };
            let found = catalog.route("/", exchange, keys[number % 4], &[], &envelope, &mut targets);
            found.expect("the exchange is there");
            black_box(&targets);
        }
    })
}

fn catalog(exchange: &str, queues: usize, key: impl Fn(usize) -> String) -> Catalog {
    let mut changes = Vec::new();
    let mut catalog = Catalog::fresh("", HashKey::known(), &mut changes);
    let (vhost, user) = (Name::from("/"), Name::from("guest"));
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    for number in 0..queues {
        // A few queues with many bindings each, at the larger numbers.
        let queue = Name::from(&*format!("q{}", number % 100));
        let declare = DeclareQueue {
            queue: queue.clone(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        };
        catalog.declare_queue(&caller, &declare, 0, &mut changes).expect("nothing stands against it");
        if !exchange.is_empty() {
            let bind = BindCommand {
                destination: Destination::Queue(queue),
                exchange: Name::from(exchange),
                key: key(number).into_bytes(),
                arguments: Table(vec![("n".to_owned(), Value::Int(number as i64))]),
            };
            catalog.bind(&caller, &bind, &mut changes).expect("nothing stands against it");
        }
    }
    catalog
}

/// The other way to match topics: try all patterns, split in advance.
fn list_of_patterns(bindings: usize, pattern: impl Fn(usize) -> String) -> f64 {
    fn matches(pattern: &[Vec<u8>], key: &[&[u8]]) -> bool {
        match (pattern, key) {
            ([], key) => key.is_empty(),
            ([word, rest @ ..], key) if word == b"#" => (0..=key.len()).any(|from| matches(rest, &key[from..])),
            (_, []) => false,
            ([word, rest @ ..], [first, others @ ..]) => (word == b"*" || word == first) && matches(rest, others),
        }
    }
    let split = |number| pattern(number).split('.').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    let patterns: Vec<_> = (0..bindings).map(|number| (split(number), QueueId(number as u64 % 100))).collect();
    let keys = ["stock.ibm.nyse", "key.5", "q5", "a.b.c"].map(str::as_bytes);
    let mut targets = Vec::new();
    let rounds = MESSAGES as usize / bindings.max(16) * 16;
    let scale = MESSAGES as f64 / rounds as f64;
    scale
        * per_message(|| {
            for number in 0..rounds {
                targets_of(&patterns, keys[number % 4], &mut targets, matches);
                black_box(&targets);
            }
        })
}

fn targets_of(
    patterns: &[(Vec<Vec<u8>>, QueueId)],
    key: &[u8],
    targets: &mut Vec<QueueId>,
    matches: impl Fn(&[Vec<u8>], &[&[u8]]) -> bool,
) {
    targets.clear();
    let mut words = [&[][..]; 256];
    let mut count = 0;
    for word in key.split(|byte| *byte == b'.') {
        words[count] = word;
        count += 1;
    }
    targets.extend(patterns.iter().filter(|(pattern, _)| matches(pattern, &words[..count])).map(|(_, queue)| *queue));
    targets.sort_unstable();
    targets.dedup();
}
