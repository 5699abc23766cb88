//! Random sequences of operations: the broker and the reference must agree after each.
//!
//! `FERRYMQ_SEED=123 cargo test -p ferrymq-broker one_seed -- --nocapture` replays one sequence and names its steps.

use std::collections::BTreeMap;

use ferrymq_model::{
    BindCommand, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Destination, Name, Settlement, Table,
    Value,
};

use crate::random::Random;
use crate::reference::{By, Envelope, POLICIES, Publish, declared};
use crate::world::{Checked, World};

const SEQUENCES: u64 = 10_000;
const STEPS: u64 = 200;

const QUEUES: [&str; 15] =
    ["q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14"];
const EXCHANGES: [&str; 15] = [
    "",
    "x0",
    "x1",
    "x2",
    "x3",
    "x4",
    "hash",
    "modulus",
    "chance",
    "amq.direct",
    "amq.fanout",
    "amq.topic",
    "amq.headers",
    "amq.match",
    "amq.rabbitmq.trace",
];
const KEYS: [&str; 10] = ["a", "b", "a.b", "a.b.c", "a..b", "", "c", "a.c.c", "b.b", "b.a"];
const PATTERNS: [&str; 14] = ["1", "3", "a", "b", "#", "*", "a.#", "*.b", "a.*.c", "#.b", "a.#.b", "", "*.*", "#.#.c"];

/// The operations of a sequence, and how often they are used, in percent.
const STEP_WEIGHTS: [(u64, Step); 21] = [
    (3, Step::DeclareExchange),
    (1, Step::DeleteExchange),
    (10, Step::DeclareQueue),
    (1, Step::DeleteQueue),
    (10, Step::Bind),
    (2, Step::Unbind),
    (30, Step::Publish),
    (8, Step::Consume),
    (3, Step::Cancel),
    (6, Step::Get),
    (17, Step::Settle),
    (1, Step::Purge),
    (1, Step::Disconnect),
    (5, Step::TimePasses),
    (1, Step::Restart),
    (1, Step::Reserved),
    (2, Step::Policy),
    (1, Step::Select),
    (4, Step::Commit),
    (1, Step::Rollback),
    (1, Step::Operator),
];

#[derive(Clone, Copy, Debug)]
enum Step {
    DeclareExchange,
    DeleteExchange,
    DeclareQueue,
    DeleteQueue,
    Bind,
    Unbind,
    Publish,
    Consume,
    Cancel,
    Get,
    Settle,
    Purge,
    Disconnect,
    TimePasses,
    Restart,
    Reserved,
    Policy,
    Select,
    Commit,
    Rollback,
    Operator,
}

struct Sequence {
    world: World,
    random: Random,
    /// What was bound, or refused, so that unbinding can find something.
    bindings: Vec<BindCommand>,
}

/// Plays the sequence of a seed; returns what happened in it, or where the two did not agree.
fn play(seed: u64, tell: bool) -> Result<BTreeMap<String, u64>, String> {
    let mut random = Random::new(seed);
    let shards = if seed.is_multiple_of(2) { 1 } else { 3 };
    let moody = [0, 4, 2][(seed % 3) as usize];
    let mut sequence =
        Sequence { world: World::new(seed, shards, moody), random: Random::new(random.next()), bindings: Vec::new() };
    for name in QUEUES {
        sequence.world.set_policy(name, 0)?;
    }
    for _ in 0..8 {
        sequence.step(Step::DeclareQueue)?;
        sequence.step(Step::DeclareExchange)?;
    }
    for at in 0..STEPS {
        let step = sequence.choose();
        if tell {
            println!("{at:3} {step:?}");
        }
        sequence.step(step).map_err(|why| format!("seed {seed}, step {at} {step:?}: {why}"))?;
    }
    sequence.world.happened.extend(sequence.world.port.settled);
    Ok(sequence.world.happened)
}

impl Sequence {
    fn choose(&mut self) -> Step {
        let mut left = self.random.below(STEP_WEIGHTS.iter().map(|(weight, _)| weight).sum());
        for (weight, step) in STEP_WEIGHTS {
            if left < weight {
                return step;
            }
            left -= weight;
        }
        unreachable!("the weights were added up");
    }

    fn step(&mut self, step: Step) -> Checked {
        let by = self.by();
        match step {
            Step::DeclareExchange => self.declare_exchange(by),
            Step::DeleteExchange => self.delete_exchange(by),
            Step::DeclareQueue => self.declare_queue(by),
            Step::DeleteQueue => {
                let request = DeleteQueue {
                    queue: self.queue(),
                    if_unused: self.random.one_in(2),
                    if_empty: self.random.one_in(2),
                };
                self.world.delete_queue(by, &request)
            }
            Step::Bind => {
                let request = self.binding();
                self.bindings.push(request.clone());
                self.world.bind(by, &request)
            }
            Step::Unbind => {
                let known = self.bindings.len() as u64;
                let request = if known == 0 || self.random.one_in(4) {
                    self.binding()
                } else {
                    self.bindings[self.random.below(known) as usize].clone()
                };
                self.world.unbind(by, &request)
            }
            Step::Publish => self.publish(by),
            Step::Consume => {
                let queue = self.queue();
                let (no_ack, exclusive) = (self.random.one_in(3), self.random.one_in(8));
                let (priority, prefetch) =
                    (self.random.below(3) as i64 / 2, [0, 1, 2, 3, 100][self.random.below(5) as usize]);
                self.world.consume(by, &queue, no_ack, exclusive, priority, prefetch)
            }
            Step::Cancel => match self.any_subscription() {
                Some(subscription) => self.world.cancel(subscription),
                None => Ok(()),
            },
            Step::Get => {
                let (queue, no_ack) = (self.queue(), self.random.one_in(3));
                self.world.get(by, &queue, no_ack)
            }
            Step::Settle => self.settle(),
            Step::Purge => {
                let queue = self.queue();
                self.world.purge(by, &queue)
            }
            Step::Disconnect => self.world.disconnect(by.connection),
            Step::TimePasses => {
                let ms = [1, 10, 50, 200][self.random.below(4) as usize];
                self.world.advance(ms)
            }
            Step::Restart => {
                let by_storage = self.random.one_in(2);
                self.world.restart(by_storage)
            }
            Step::Reserved => self.reserved(by),
            Step::Policy | Step::Operator | Step::Select | Step::Commit | Step::Rollback => self.rarer_step(step, by),
        }
    }

    /// Policies and transactions.
    fn rarer_step(&mut self, step: Step, by: By) -> Checked {
        match step {
            Step::Policy => {
                let (name, number) = (self.queue(), self.random.below(POLICIES));
                self.world.set_policy(&name, number)
            }
            Step::Operator => {
                let there = self.random.one_in(2);
                self.world.set_operators(there)
            }
            Step::Select => self.world.select(by.connection),
            Step::Commit => {
                let power = self.random.one_in(4).then(|| self.random.below(12));
                self.world.commit(by.connection, power)
            }
            Step::Rollback => self.world.rollback(by.connection),
            _ => unreachable!("the others are common"),
        }
    }

    fn by(&mut self) -> By {
        let connection = if self.random.one_in(12) { 3 } else { self.random.below(3) };
        By { connection, limited: connection == 3 }
    }

    /// Any queue; mostly one that exists.
    fn queue(&mut self) -> Name {
        let there: Vec<_> = self.world.reference.queues.keys().map(String::as_str).collect();
        let any = there.is_empty() || self.random.one_in(8);
        Name::from(self.random.of(if any { &QUEUES } else { &there }))
    }

    /// Any exchange; mostly one that exists.
    fn exchange(&mut self) -> Name {
        let there: Vec<_> = self.world.reference.exchanges.keys().map(String::as_str).collect();
        let any = self.random.one_in(8);
        Name::from(self.random.of(if any { &EXCHANGES } else { &there }))
    }

    fn any_subscription(&mut self) -> Option<u64> {
        let subscriptions: Vec<u64> = self.world.subscriptions.keys().copied().collect();
        if subscriptions.is_empty() {
            return None;
        }
        Some(subscriptions[self.random.below(subscriptions.len() as u64) as usize])
    }

    fn declare_exchange(&mut self, by: By) -> Checked {
        // Each name mostly has the same kind and alternate exchange, so that most declarations are equivalent.
        let name = Name::from(self.random.of(&EXCHANGES));
        let mut arguments = Table::default();
        let alternate = match &*name {
            "x0" | "x3" => Some("x4"),
            "x4" => Some("x0"),
            _ => None,
        };
        if let Some(alternate) = alternate.filter(|_| !self.random.one_in(10)) {
            arguments.0.push(("alternate-exchange".to_owned(), Value::Text(alternate.to_owned())));
        } else if self.random.one_in(20) {
            arguments.0.push(("alternate-exchange".to_owned(), Value::Int(5)));
        }
        let usual = match &*name {
            "hash" => "x-consistent-hash",
            "modulus" => "x-modulus-hash",
            "chance" => "x-random",
            _ => ["direct", "fanout", "topic", "headers"][name.bytes().map(usize::from).sum::<usize>() % 4],
        };
        let kind = if self.random.one_in(8) { self.random.of(&["topic", "fanout", "strange"]) } else { usual };
        let request = DeclareExchange {
            kind: Name::from(kind),
            passive: self.random.one_in(5),
            durable: !self.random.one_in(4),
            auto_delete: name.ends_with('3'),
            internal: self.random.one_in(20),
            arguments,
            exchange: name,
        };
        self.world.declare_exchange(by, &request)
    }

    fn delete_exchange(&mut self, by: By) -> Checked {
        let request = DeleteExchange { exchange: self.exchange(), if_unused: self.random.one_in(2) };
        self.world.delete_exchange(by, &request)
    }

    fn declare_queue(&mut self, by: By) -> Checked {
        let name = Name::from(self.random.of(&QUEUES));
        let kind = name.bytes().map(u64::from).sum::<u64>() % 8;
        let odd = self.random.one_in(12);
        let own = declared(&name);
        let mut arguments: Table =
            own.definition().0.into_iter().map(|(key, value)| (format!("x-{key}"), value)).collect();
        let mut put = |key: &str, number| {
            arguments.0.retain(|(other, _)| other != key);
            arguments.0.push((key.to_owned(), Value::Int(number)));
        };
        match kind {
            1 => put("x-message-ttl", 30),
            2 => put("x-message-ttl", 0),
            3 => put("x-expires", 100),
            _ => {}
        }
        if odd {
            match self.random.below(3) {
                0 => put("x-expires", 0),
                1 => put("x-message-ttl", -1),
                _ => put("x-max-length", -1),
            }
        }
        let request = DeclareQueue {
            queue: name,
            passive: self.random.one_in(6),
            durable: (kind != 4 || own.quorum) ^ self.random.one_in(20),
            exclusive: (kind == 5 && !own.quorum) ^ self.random.one_in(20),
            auto_delete: (kind == 6 && !own.quorum) ^ self.random.one_in(20),
            arguments,
        };
        self.world.declare_queue(by, &request)
    }

    fn binding(&mut self) -> BindCommand {
        let mut arguments = Table::default();
        for key in ["x-match", "h", "x-h"] {
            if self.random.one_in(3) {
                let value = match key {
                    "x-match" => {
                        Value::Text(self.random.of(&["all", "any", "all-with-x", "any-with-x", "some"]).to_owned())
                    }
                    _ => self.header(),
                };
                arguments.0.push((key.to_owned(), value));
            }
        }
        if self.random.one_in(2) {
            arguments.0.reverse();
        }
        BindCommand {
            destination: if self.random.one_in(4) {
                Destination::Exchange(self.exchange())
            } else {
                Destination::Queue(self.queue())
            },
            exchange: self.exchange(),
            key: self.random.of(&PATTERNS).as_bytes().to_vec(),
            arguments,
        }
    }

    fn header(&mut self) -> Value {
        match self.random.below(4) {
            0 => Value::Void,
            1 => Value::Int(1),
            2 => Value::Bool(true),
            _ => Value::Text("v".to_owned()),
        }
    }

    fn publish(&mut self, by: By) -> Checked {
        let exchange = if self.random.one_in(2) { Name::from("") } else { self.exchange() };
        let mut keys = vec![self.routing_key(&exchange)];
        while self.random.one_in(6) {
            keys.push(self.routing_key(&exchange));
        }
        let mut headers = Table::default();
        for key in ["h", "x-h", "other"] {
            if self.random.one_in(2) {
                headers.0.push((key.to_owned(), self.header()));
            }
        }
        let persistent = !self.random.one_in(3);
        let expiration_ms = self.random.one_in(5).then(|| [0, 10, 60][self.random.below(3) as usize]);
        let priority = [0, 0, 0, 1, 2, 3, 9, 255][self.random.below(8) as usize];
        let envelope = Envelope { persistent, priority, expiration_ms };
        // Sometimes more than one round of dispatch can move.
        let messages = if self.random.one_in(50) { 140 } else { 1 + self.random.below(3) };
        let publish = Publish { exchange: exchange.to_string(), keys, headers, envelope, id: 0, bytes: 0 };
        for _ in 0..messages {
            self.world.publish(by, publish.clone())?;
        }
        Ok(())
    }

    fn routing_key(&mut self, exchange: &str) -> Vec<u8> {
        if exchange.is_empty() && !self.random.one_in(8) {
            return self.queue().as_bytes().to_vec();
        }
        self.random.of(&KEYS).as_bytes().to_vec()
    }

    /// One delivery, or the oldest few of one connection.
    fn settle(&mut self) -> Checked {
        let settlement = match self.random.below(4) {
            0 => Settlement::RELEASE,
            1 => Settlement::Reject,
            _ => Settlement::Accept,
        };
        let Some(last) = self.world.held.len().checked_sub(1) else { return Ok(()) };
        let (chosen, several) = (self.random.below(last as u64 + 1) as usize, self.random.one_in(2));
        let connection = self.world.held[chosen].connection;
        let mut at = 0;
        self.world.settle(settlement, |held| {
            at += 1;
            at == chosen + 1 || (several && at <= chosen && held.connection == connection)
        })
    }

    /// Names that nobody may declare or delete.
    fn reserved(&mut self, by: By) -> Checked {
        let name = Name::from("amq.new");
        let exchange = DeclareExchange {
            exchange: name.clone(),
            kind: Name::from("direct"),
            passive: false,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Table::default(),
        };
        self.world.declare_exchange(by, &exchange)?;
        let queue = DeclareQueue {
            queue: name,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        };
        self.world.declare_queue(by, &queue)
    }
}

/// Everything that must have happened at least once in all sequences together, including each refusal of each
/// operation.
const MUST_HAPPEN: &str = include_str!("must_happen.txt");

#[test]
fn the_broker_agrees_with_the_reference() {
    let halves = [0, 1].map(|half| {
        std::thread::spawn(move || {
            let mut happened = BTreeMap::<String, u64>::new();
            for seed in (half..SEQUENCES).step_by(2) {
                let seen = play(seed, false).unwrap_or_else(|why| panic!("{why}"));
                seen.into_iter().for_each(|(what, times)| *happened.entry(what).or_default() += times);
            }
            happened
        })
    });
    let mut happened = BTreeMap::<String, u64>::new();
    for half in halves {
        let seen = half.join().expect("the sequences agree");
        seen.into_iter().for_each(|(what, times)| *happened.entry(what).or_default() += times);
    }
    println!("{happened:#?}");
    let missing: Vec<_> = MUST_HAPPEN.lines().filter(|what| !happened.contains_key(*what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:#?}");
}

#[test]
fn one_seed() {
    let seed = std::env::var("FERRYMQ_SEED").map_or(0, |seed| seed.parse().expect("a seed is a number"));
    play(seed, true).unwrap_or_else(|why| panic!("{why}"));
}

/// `cargo x sabotage` runs this test with one fault of `sabotages/` after the other, and each must make it fail soon.
#[test]
fn two_hundred_sequences_agree() {
    for seed in 0..200 {
        play(seed, false).unwrap_or_else(|why| panic!("{why}"));
    }
}
