//! Storage and connections for tests: plain maps that sometimes answer "pending" and "no credit", at random.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ferrymq_broker::{Content, Dead, DelayedMessage, Delivery, Next, Ports, Recovered, RoutedMessage, Taken};
use ferrymq_model::{
    CatalogEntry, DeathReason, DialectId, EntryKind, Facts, MessageKey, MessageRef, Name, OwnedBody, OwnedMessage,
    QueueId, QueueState, Sequence, Settled, SubscriptionId, Time,
};

use crate::random::Random;
use crate::reference::{self, Given, goes_in_a_circle};

#[derive(Clone, Copy, Debug)]
pub struct Stored {
    pub message: u64,
    pub facts: Facts,
    pub durable: bool,
}

/// What the broker decided, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// A commit reached its next publish.
    Publishing,
    /// A dead letter was stored.
    Stored {
        message: u64,
    },
    /// A message left a queue with dead-lettering.
    DeadLettered {
        queue: String,
        message: u64,
        reason: DeathReason,
        dead_letter: Option<reference::RoutedMessage>,
    },
    Delivered {
        subscription: u64,
        place: MessageKey,
        body_bytes: u32,
        given: Given,
    },
    Refused {
        subscription: u64,
    },
    Got {
        place: MessageKey,
        body_bytes: u32,
        given: Given,
        remaining: u64,
    },
    Drained {
        subscription: u64,
    },
    Cancelled {
        subscription: u64,
    },
    Gone {
        queue: QueueId,
    },
}

#[derive(Debug)]
pub struct Port {
    random: Random,
    /// One in this many answers is "pending" or "no credit"; 0 means never.
    pub moody: u64,
    /// Subscriptions without credit are reported as lagging.
    pub lags: bool,
    pub messages: BTreeMap<QueueId, BTreeMap<Sequence, Stored>>,
    /// As storage keeps them, from its calls.
    pub states: BTreeMap<QueueId, QueueState>,
    pub catalog: BTreeMap<(EntryKind, Vec<u8>), CatalogEntry>,
    pub events: Vec<Event>,
    /// Messages that were found since the last delivery: they stay in memory meanwhile.
    found: BTreeSet<(QueueId, Sequence)>,
    /// The handle that the next call may use.
    handle: Option<u64>,
    /// Queues that wait for storage.
    pub pending: BTreeSet<QueueId>,
    /// There is no space for dead letters.
    pub short: bool,
    /// Subscriptions that wait for credit.
    pub waiting: BTreeSet<u64>,
    /// How many more deliveries a subscription may hold.
    pub credit: BTreeMap<u64, u64>,
    /// Settled messages by reason.
    pub settled: BTreeMap<String, u64>,
    /// Queues by their names, for dead letters.
    pub queues: BTreeMap<String, QueueId>,
    /// What was published, by number.
    pub written: BTreeMap<u64, Written>,
    /// The annotations of the messages that were put into each queue.
    pub annotations: BTreeMap<QueueId, Vec<Vec<u8>>>,
    /// How many units of the journal have begun and not ended.
    units: u32,
    /// How many publishes a commit has reached so far; and how many of them have an event.
    pub begun: Rc<Cell<u64>>,
    told: u64,
    /// When the power is to fail: after this many more decisions.
    power: Option<u64>,
    /// What was on disk when the open unit began, and when the power failed.
    before_unit: Option<Kept>,
    kept: Option<Kept>,
}

/// What a crash leaves.
#[derive(Clone, Debug)]
struct Kept {
    messages: BTreeMap<QueueId, BTreeMap<Sequence, Stored>>,
    states: BTreeMap<QueueId, QueueState>,
    catalog: BTreeMap<(EntryKind, Vec<u8>), CatalogEntry>,
}

/// What is known of a message besides its stored form.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub persistent: bool,
    /// The latest first: the queue, and whether it was rejected there.
    pub deaths: Vec<(String, bool)>,
    /// Its delay in a schedule.
    pub delay_ms: u64,
}

/// The message's number is its body.
pub fn number_of(message: &MessageRef<'_>) -> u64 {
    u64::from_le_bytes(message.body.bytes()[..8].try_into().unwrap())
}

fn numbered(number: u64, bytes: u32) -> OwnedMessage {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(bytes as usize, 0);
    OwnedMessage {
        dialect: DialectId(1),
        exchange: Name::from("dead-letters"),
        routing_key: Box::default(),
        properties: Vec::new(),
        annotations: Box::default(),
        body: OwnedBody::Inline(body.into()),
    }
}

impl Port {
    pub fn new(random: Random, moody: u64) -> Self {
        Self {
            random,
            moody,
            lags: moody > 0,
            messages: BTreeMap::new(),
            states: BTreeMap::new(),
            catalog: BTreeMap::new(),
            events: Vec::new(),
            found: BTreeSet::new(),
            handle: None,
            pending: BTreeSet::new(),
            short: false,
            waiting: BTreeSet::new(),
            credit: BTreeMap::new(),
            settled: BTreeMap::new(),
            queues: BTreeMap::new(),
            written: BTreeMap::new(),
            annotations: BTreeMap::new(),
            units: 0,
            begun: Rc::default(),
            told: 0,
            power: None,
            before_unit: None,
            kept: None,
        }
    }

    /// A commit has come to an end.
    pub fn tell_begun(&mut self) {
        while self.told < self.begun.get() {
            self.told += 1;
            self.events.push(Event::Publishing);
        }
    }

    fn tell(&mut self, event: Event) {
        self.tell_begun();
        self.events.push(event);
    }

    /// The power fails after this many decisions, or when it is restored.
    pub fn lose_power_after(&mut self, decisions: Option<u64>) {
        self.power = decisions;
    }

    /// What was decided after the power failed is lost, and so is what was decided before in a unit that had not
    /// ended. Returns whether everything had been decided.
    pub fn restore_power(&mut self) -> bool {
        if let Some(kept) = self.kept.take() {
            (self.messages, self.states, self.catalog) = (kept.messages, kept.states, kept.catalog);
        }
        self.power.take().is_some()
    }

    fn on_disk(&self) -> Kept {
        Kept { messages: self.messages.clone(), states: self.states.clone(), catalog: self.catalog.clone() }
    }

    /// A decision that changes what is on disk next.
    fn decided(&mut self) {
        self.handle = None;
        match &mut self.power {
            Some(0) => {
                self.kept = self.before_unit.take().or_else(|| Some(self.on_disk()));
                self.power = None;
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    /// The number of a new message.
    pub fn write(&mut self, written: Written) -> u64 {
        let number = self.written.len() as u64 + 1;
        self.written.insert(number, written);
        number
    }

    pub fn keep(&mut self, changes: &mut Vec<CatalogEntry>) {
        for entry in changes.drain(..) {
            self.put(entry);
        }
    }

    /// A crash: transient messages are lost. Their sequences count as settled, as in storage.
    pub fn restart(&mut self, durable: impl Fn(QueueId) -> bool) {
        self.messages.retain(|lane, _| durable(lane.queue()));
        self.states.retain(|lane, _| durable(lane.queue()));
        self.messages.values_mut().for_each(|stored| stored.retain(|_, stored| stored.durable));
        self.pending.clear();
        self.waiting.clear();
        self.credit.clear();
    }

    pub fn recovered(&self, queue: QueueId, state: QueueState) -> Recovered {
        let none = BTreeMap::new();
        let stored = self.messages.get(&queue).unwrap_or(&none);
        Recovered {
            lane: (queue.0 - queue.queue().0) as u8,
            state,
            messages: stored.len() as u64,
            body_bytes: stored.values().map(|stored| u64::from(stored.facts.body_bytes)).sum(),
            expiring: stored.values().any(|stored| stored.facts.expires.is_some()),
        }
    }

    /// The target of a dead letter, and what is known of it.
    pub fn dead_letter_targets(
        &self,
        queue: &str,
        names: &[&str],
        message: u64,
        reason: DeathReason,
    ) -> (Vec<String>, Written) {
        let mut written = self.written[&message].clone();
        written.deaths.insert(0, (queue.to_owned(), reason == DeathReason::Rejected));
        let live = |name: &&str| self.queues.contains_key(*name) && !goes_in_a_circle(&written.deaths, name);
        (names.iter().copied().filter(live).map(str::to_owned).collect(), written)
    }

    /// How many messages have expired so far.
    pub fn expired(&self) -> u64 {
        self.settled.get("settled: Expired").copied().unwrap_or(0)
    }

    fn state(&mut self, queue: QueueId) -> &mut QueueState {
        self.states.entry(queue).or_default()
    }

    fn is_moody(&mut self) -> bool {
        self.moody > 0 && self.random.one_in(self.moody)
    }

    fn message(&self, content: Content<'_>) -> u64 {
        if let Content::Stored(handle) = content {
            assert_eq!(self.handle, Some(handle), "a handle holds for the next call only");
        }
        match content {
            Content::Stored(handle) => handle,
            Content::Passing(message) => number_of(message),
        }
    }

    fn given(&self, delivery: &Delivery<'_>) -> Given {
        let message = self.message(delivery.content);
        Given { message, redelivered: delivery.redelivered, attempts: delivery.attempts, settled: delivery.settled }
    }
}

impl Ports for Port {
    fn enqueue(&mut self, message: &MessageRef<'_>, facts: &Facts, durable: &[MessageKey], transient: &[MessageKey]) {
        self.decided();
        let number = number_of(message);
        if self.written.get(&number).is_some_and(|written| !written.deaths.is_empty()) {
            self.tell(Event::Stored { message: number });
        }
        let kept = |durable| Stored { message: number_of(message), facts: *facts, durable };
        let places =
            durable.iter().map(|place| (place, kept(true))).chain(transient.iter().map(|place| (place, kept(false))));
        for (place, stored) in places {
            self.annotations.entry(place.queue.queue()).or_default().push(message.annotations.to_vec());
            let state = self.state(place.queue);
            assert_eq!(place.sequence, state.next, "sequences ascend by one");
            state.next = place.sequence + 1;
            self.messages.entry(place.queue).or_default().insert(place.sequence, stored);
        }
    }

    fn next(&mut self, queue: QueueId, from: Sequence) -> Next {
        self.handle = None;
        if !self.found.contains(&(queue, from)) && self.is_moody() {
            self.pending.insert(queue);
            return Next::Pending;
        }
        let found = self.messages.get(&queue).and_then(|stored| stored.range(from..).next());
        let Some((sequence, stored)) = found else { return Next::End };
        self.found.insert((queue, *sequence));
        self.handle = Some(stored.message);
        Next::Message { sequence: *sequence, handle: stored.message, facts: stored.facts }
    }

    fn settle(&mut self, queue: QueueId, first: Sequence, last: Sequence, why: Settled) {
        self.decided();
        if let Some(stored) = self.messages.get_mut(&queue) {
            stored.retain(|sequence, _| !(first..=last).contains(sequence));
        }
        self.state(queue).settle(first, last);
        assert!(
            ![Settled::DeadLettered, Settled::Moved].contains(&why) || self.units > 0,
            "a dead letter and its original hold together"
        );
        *self.settled.entry(format!("settled: {why:?}")).or_default() += last - first + 1;
    }

    fn delivered_up_to(&mut self, queue: QueueId, sequence: Sequence) {
        self.decided();
        self.state(queue).delivered_up_to(sequence);
    }

    fn attempts(&mut self, queue: QueueId, first: Sequence, last: Sequence, attempts: u32, due: Option<Time>) {
        self.decided();
        let state = self.state(queue);
        state.attempts.retain(|(sequence, _)| !(first..=last).contains(sequence));
        state.attempts.extend((first..=last).map(|sequence| (sequence, attempts)));
        state.attempts.sort_unstable();
        state.due.retain(|(sequence, _)| !(first..=last).contains(sequence));
        state.due.extend(due.into_iter().flat_map(|due| (first..=last).map(move |sequence| (sequence, due))));
        state.due.sort_unstable();
    }

    fn accepts_dead_letters(&mut self) -> bool {
        // If it always refused, there would never be space.
        self.short |= self.moody > 1 && self.is_moody();
        !self.short
    }

    fn put(&mut self, entry: CatalogEntry) {
        self.decided();
        self.catalog.insert((entry.kind, entry.key.clone()), entry);
    }

    fn deliver(&mut self, to: SubscriptionId, delivery: &Delivery<'_>) -> Taken {
        self.found.clear();
        let credit = *self.credit.get(&to.0).unwrap_or(&u64::MAX);
        if credit == 0 || self.is_moody() {
            self.waiting.insert(to.0);
            self.tell(Event::Refused { subscription: to.0 });
            return if self.lags { Taken::Lags } else { Taken::NoCredit };
        }
        if !delivery.settled
            && let Some(credit) = self.credit.get_mut(&to.0)
        {
            *credit -= 1;
        }
        let given = self.given(delivery);
        let body_bytes = delivery.facts.body_bytes;
        self.tell(Event::Delivered { subscription: to.0, place: delivery.from, body_bytes, given });
        Taken::Yes
    }

    fn fits(&mut self, _: &Delivery<'_>) -> bool {
        true
    }

    fn got(&mut self, delivery: &Delivery<'_>, remaining: u64) {
        self.found.clear();
        let given = self.given(delivery);
        let body_bytes = delivery.facts.body_bytes;
        self.tell(Event::Got { place: delivery.from, body_bytes, given, remaining });
    }

    fn drained(&mut self, subscription: SubscriptionId) {
        self.tell(Event::Drained { subscription: subscription.0 });
    }

    fn cancelled(&mut self, subscription: SubscriptionId) {
        self.tell(Event::Cancelled { subscription: subscription.0 });
    }

    /// The exchange's name is the list of the target queues of dead letters.
    fn dead_letter(&mut self, dead: &Dead<'_>) -> Option<RoutedMessage> {
        let message = self.message(dead.content);
        self.handle = None;
        let queue = dead.queue.name.to_string();
        let exchange = &dead.queue.dead_letters.as_ref().expect("it has dead-lettering").exchange;
        let names: Vec<_> = exchange.split(',').collect();
        let (names, written) = self.dead_letter_targets(&queue, &names, message, dead.reason);
        let mut targets: Vec<_> = names.iter().map(|name| self.queues[name]).collect();
        targets.sort_unstable();
        let (persistent, bytes) = (written.persistent, dead.facts.body_bytes);
        let dead_letter = (!names.is_empty()).then(|| {
            let id = self.write(written);
            reference::RoutedMessage {
                id,
                bytes: bytes.into(),
                persistent,
                priority: dead.facts.priority,
                targets: names,
            }
        });
        self.tell(Event::DeadLettered { queue, message, reason: dead.reason, dead_letter: dead_letter.clone() });
        dead_letter.map(|dead_letter| {
            let message = numbered(dead_letter.id, bytes);
            let facts = Facts { arrived: dead.at, expires: None, ..*dead.facts };
            RoutedMessage { message, facts, persistent, targets, matched: Vec::new() }
        })
    }

    fn create_lane(&mut self, lane: QueueId, _: bool) {
        assert!(!self.states.contains_key(&lane), "lanes are made once");
        self.state(lane);
    }

    fn delay_ms(&self, message: &MessageRef<'_>) -> u64 {
        self.written[&number_of(message)].delay_ms
    }

    fn copy(&mut self, handle: u64) -> (OwnedMessage, bool) {
        let number = self.message(Content::Stored(handle));
        (numbered(number, 8), self.written[&number].persistent)
    }

    /// The exchange's name is the list of the target queues.
    fn release_delayed(&mut self, delayed: &DelayedMessage<'_>) -> Option<RoutedMessage> {
        let number = self.message(Content::Stored(delayed.handle));
        self.handle = None;
        let names = delayed.schedule.exchange.split(',');
        let targets: Vec<_> = names.filter_map(|name| self.queues.get(name).copied()).collect();
        let facts = Facts { arrived: delayed.at, expires: None, ..*delayed.facts };
        let persistent = self.written[&number].persistent;
        let message = numbered(number, delayed.facts.body_bytes);
        (!targets.is_empty()).then_some(RoutedMessage { message, facts, persistent, targets, matched: Vec::new() })
    }

    fn begin_unit(&mut self) {
        if self.units == 0 && self.power.is_some() {
            self.before_unit = Some(self.on_disk());
        }
        self.units += 1;
    }

    fn end_unit(&mut self) {
        self.units -= 1;
        if self.units == 0 {
            self.before_unit = None;
        }
    }

    fn queue_gone(&mut self, queue: QueueId, priority_max: u8) {
        for lane in 0..=priority_max {
            self.messages.remove(&queue.lane(lane));
            self.states.remove(&queue.lane(lane));
            self.pending.remove(&queue.lane(lane));
        }
        assert!(self.states.keys().all(|lane| lane.queue() != queue), "it had no other lanes");
        self.tell(Event::Gone { queue });
    }
}
