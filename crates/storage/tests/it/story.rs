//! Random operations on a store, and a simple model that knows what must be there after a power loss at any point.
//!
//! The model records for each outcome the journal position at which it is durable. After a power loss everything up
//! to the last durable position must be there; later outcomes may be there or not, but no unit by half, and nothing
//! may be there that was never written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrymq_model::{BodyRef, CatalogEntry, EntryKind, FiledBody, Position, QueueId, QueueState, Settled, Time};
use ferrymq_storage::{Backpressure, Filing, Next, OpenError, Options, Recovered};

use crate::rig::{Owned, Shard, facts, message, open_on, place, small};
use ferrymq_testkit::{Chance, FakeDisk};

/// Where the data directory is.
pub const DATA: &str = "/data";

#[derive(Clone, Debug)]
struct Kept {
    body: Vec<u8>,
    durable: bool,
    put_at: Position,
    settled_at: Option<Position>,
}

impl Kept {
    /// Its length, when it was put there and when it was settled.
    fn times(&self) -> (usize, Position, Option<Position>) {
        (self.body.len(), self.put_at, self.settled_at)
    }
}

#[derive(Clone, Debug, Default)]
struct Queue {
    next: u64,
    messages: BTreeMap<u64, Kept>,
    created_at: Position,
    deleted_at: Option<Position>,
    delivered: Vec<(u64, Position)>,
    /// How often messages came back, when they may be delivered again, and when that was told.
    attempts: BTreeMap<u64, Vec<(u32, Time, Position)>>,
}

impl Queue {
    /// Attempts are those of messages that are there and were delivered, and none that are durable are lost.
    fn check_attempts(&self, state: &QueueState, found: &BTreeMap<u64, Vec<u8>>, durable: Position) {
        for (sequence, count) in &state.attempts {
            assert!(found.contains_key(sequence), "attempts of {sequence}, which is not there: {state:?}");
            assert!(state.open.contains(*sequence), "attempts of {sequence}, which was not delivered: {state:?}");
            let (told, due) = (self.attempts.get(sequence), due_of(state, *sequence));
            let is_told = told.is_some_and(|told| told.iter().any(|(each, until, _)| (*each, *until) == (*count, due)));
            assert!(is_told, "{sequence} did not come back {count} times, until {due:?}: {told:?}");
        }
        assert!(state.due.iter().all(|(sequence, _)| state.attempts.iter().any(|(other, _)| other == sequence)));
        for (sequence, told) in self.attempts.iter().filter(|(sequence, _)| found.contains_key(sequence)) {
            let Some((least, ..)) = told.iter().filter(|(.., at)| *at <= durable).max() else { continue };
            let kept = state.attempts.iter().find(|(other, _)| other == sequence);
            assert!(kept.is_some_and(|(_, count)| count >= least), "{sequence} came back {least} times: {kept:?}");
        }
    }
}

fn due_of(state: &QueueState, sequence: u64) -> Time {
    state.due.iter().find(|(other, _)| *other == sequence).map_or(Time(0), |(_, due)| *due)
}

/// What an entry was set to, and when.
type Changes = Vec<(Position, Option<Vec<u8>>)>;

/// What must be there.
#[derive(Debug, Default)]
pub struct Model {
    queues: BTreeMap<u64, Queue>,
    entries: BTreeMap<Vec<u8>, Changes>,
    /// Messages that went from one queue to another in one unit.
    moves: Vec<((u64, u64), (u64, u64))>,
    /// Long bodies on their way to their files.
    filing: Vec<(Filing, Bytes)>,
    next_queue: u64,
    told: u64,
}

/// Options with small limits, so that few operations reach them.
pub fn options() -> Options {
    Options {
        sync_wait_ms: 5,
        rest_ms: 20,
        transient_bytes_max: 1 << 20,
        read_bytes_max: 128 << 10,
        merge_bytes: 1,
        extents_max: 3,
        ..small()
    }
}

pub fn open(disk: &FakeDisk) -> Result<(Owned, Recovered), OpenError> {
    open_on(Arc::new(disk.clone()), Path::new(DATA), options())
}

impl Model {
    fn living(&self) -> Vec<u64> {
        self.queues.iter().filter(|(_, queue)| queue.deleted_at.is_none()).map(|(id, _)| *id).collect()
    }

    fn some_queue(&self, chance: &mut Chance) -> Option<u64> {
        let living = self.living();
        if living.is_empty() { None } else { Some(living[chance.below(living.len() as u64) as usize]) }
    }

    fn some_message(&self, queue: u64, chance: &mut Chance) -> Option<u64> {
        let messages = &self.queues[&queue].messages;
        let left: Vec<u64> = messages.iter().filter(|(_, m)| m.settled_at.is_none()).map(|(n, _)| *n).collect();
        // Usually the oldest, as consumers do.
        let limit = if chance.one_in(4) { left.len() } else { left.len().min(3) };
        if limit == 0 { None } else { Some(left[chance.below(limit as u64) as usize]) }
    }

    fn new_body(&mut self, chance: &mut Chance) -> Vec<u8> {
        self.told += 1;
        let length = match chance.below(20) {
            0 => 70_000,
            1..5 => 2_000 + chance.below(6_000),
            _ => chance.below(1_500),
        };
        let mut body = self.told.to_le_bytes().to_vec();
        body.resize(8 + length as usize, self.told as u8);
        body
    }

    /// Does one random thing for which nobody has to wait.
    pub fn decide(&mut self, shard: &Shard, chance: &mut Chance) -> bool {
        match chance.below(16) {
            0 if self.living().len() < 6 => self.create(shard),
            0 if chance.one_in(4) => self.delete(shard, chance),
            1..8 => self.publish(shard, chance),
            8..12 => self.settle(shard, chance),
            12 => self.relocate(shard, chance),
            13 => self.deliver(shard, chance),
            14 => self.put(shard, chance),
            _ => shard.with(|store| store.request_flush()),
        }
        true
    }

    /// Does one random thing; false if the journal has failed.
    pub fn act(&mut self, shard: &Shard, chance: &mut Chance) -> bool {
        match chance.below(20) {
            0 if self.living().len() < 6 => self.create(shard),
            0 if chance.one_in(4) => self.delete(shard, chance),
            1..9 => self.publish(shard, chance),
            9..13 => self.settle(shard, chance),
            13 => self.relocate(shard, chance),
            14 => self.deliver(shard, chance),
            15 => self.put(shard, chance),
            16 => self.read(shard, chance),
            _ => return shard.flush(),
        }
        true
    }

    pub fn create(&mut self, shard: &Shard) {
        self.next_queue += 256;
        let id = self.next_queue;
        let created_at = shard.with(|store| {
            store.create_queue(QueueId(id), true);
            store.position()
        });
        self.queues.insert(id, Queue { next: 1, created_at, ..Queue::default() });
    }

    fn delete(&mut self, shard: &Shard, chance: &mut Chance) {
        let Some(id) = self.some_queue(chance) else { return };
        let deleted_at = shard.with(|store| {
            store.delete_queue(QueueId(id));
            store.position()
        });
        self.queues.get_mut(&id).unwrap().deleted_at = Some(deleted_at);
    }

    fn publish(&mut self, shard: &Shard, chance: &mut Chance) {
        if shard.with(|store| store.backpressure()) != Backpressure::Open {
            return;
        }
        if chance.one_in(3) && self.publish_filed(shard, chance) {
            return;
        }
        let body = Bytes::from(self.new_body(chance));
        let files = shard.with(|store| store.bodies());
        if files.takes(body.len()) && chance.one_in(2) {
            return self.filing.push((files.file(body.clone(), Box::new(|| ())), body));
        }
        self.publish_body(shard, chance, &body, None);
    }

    /// Publishes the first body that waited for its file, or gives it up; false if there is none.
    fn publish_filed(&mut self, shard: &Shard, chance: &mut Chance) -> bool {
        if self.filing.is_empty() {
            return false;
        }
        if chance.one_in(5) {
            self.filing.remove(0);
            return true;
        }
        let Some(filed) = self.filing[0].0.take() else { return false };
        let (_, body) = self.filing.remove(0);
        assert_eq!(filed.bytes, body);
        self.publish_body(shard, chance, &body, Some(&filed));
        true
    }

    /// Nobody will publish what waits.
    pub fn give_up_filing(&mut self) {
        self.filing.clear();
    }

    fn publish_body(&mut self, shard: &Shard, chance: &mut Chance, body: &Bytes, filed: Option<&FiledBody>) {
        let targets: BTreeSet<u64> = (0..=chance.below(3)).filter_map(|_| self.some_queue(chance)).collect();
        let is_durable = !chance.one_in(5);
        let places: Vec<_> = targets.iter().map(|id| place(*id, self.queues[id].next)).collect();
        let (durable, transient) = if is_durable { (&places[..], &[][..]) } else { (&[][..], &places[..]) };
        let put_at = shard.with(|store| {
            let body = match filed {
                Some(filed) => BodyRef::Filed(filed),
                None if body.len() > 2048 => BodyRef::Shared(body),
                None => BodyRef::Inline(body),
            };
            store.enqueue(&message(body), &facts(body), durable, transient);
            store.position()
        });
        for id in targets {
            self.add(id, body, is_durable, put_at);
        }
    }

    fn add(&mut self, id: u64, body: &[u8], durable: bool, put_at: Position) {
        let queue = self.queues.get_mut(&id).unwrap();
        queue.messages.insert(queue.next, Kept { body: body.to_vec(), durable, put_at, settled_at: None });
        queue.next += 1;
    }

    fn settle(&mut self, shard: &Shard, chance: &mut Chance) {
        let Some(id) = self.some_queue(chance) else { return };
        let Some(first) = self.some_message(id, chance) else { return };
        let last = first + if chance.one_in(3) { chance.below(8) } else { 0 };
        let settled_at = shard.with(|store| {
            store.settle(QueueId(id), first, last, Settled::Accepted);
            store.position()
        });
        for (_, message) in self.queues.get_mut(&id).unwrap().messages.range_mut(first..=last) {
            message.settled_at.get_or_insert(settled_at);
        }
    }

    /// Settles here and enqueues there, in one unit, as a dead letter does.
    fn relocate(&mut self, shard: &Shard, chance: &mut Chance) {
        let (Some(from), Some(to)) = (self.some_queue(chance), self.some_queue(chance)) else { return };
        let Some(number) = self.some_message(from, chance) else { return };
        let kept = self.queues[&from].messages[&number].clone();
        if !kept.durable || shard.with(|store| store.backpressure()) != Backpressure::Open {
            return;
        }
        let target = place(to, self.queues[&to].next);
        let at = shard.with(|store| {
            // Where the body is there, the file that it is in is used again.
            let found = match store.next(QueueId(from), number) {
                Next::Message { sequence, handle, .. } if sequence == number => Some(store.message(handle).owned()),
                _ => None,
            };
            let body = found.as_ref().map_or(BodyRef::Inline(&kept.body), |found| found.borrowed().body);
            store.begin_unit();
            let settles_first = chance.one_in(2);
            if settles_first {
                store.settle(QueueId(from), number, number, Settled::DeadLettered);
            }
            store.enqueue(&message(body), &facts(body), &[target], &[]);
            if !settles_first {
                store.settle(QueueId(from), number, number, Settled::DeadLettered);
            }
            store.end_unit();
            store.position()
        });
        self.queues.get_mut(&from).unwrap().messages.get_mut(&number).unwrap().settled_at = Some(at);
        self.moves.push(((from, number), (to, target.sequence)));
        self.add(to, &kept.body, true, at);
    }

    fn deliver(&mut self, shard: &Shard, chance: &mut Chance) {
        let Some(id) = self.some_queue(chance) else { return };
        let queue = self.queues.get_mut(&id).unwrap();
        let sequence = chance.below(queue.next);
        let at = shard.with(|store| {
            store.delivered_up_to(QueueId(id), sequence);
            store.position()
        });
        queue.delivered.push((sequence, at));
        if !chance.one_in(3) {
            self.give_back(shard, id, sequence, chance);
        }
    }

    /// A message comes back, transient or not, or one that is gone.
    fn give_back(&mut self, shard: &Shard, id: u64, delivered: u64, chance: &mut Chance) {
        let queue = self.queues.get_mut(&id).unwrap();
        let sequence = delivered.saturating_sub(chance.below(4));
        let earlier = queue.attempts.entry(sequence).or_default();
        let (count, due) = (1 + earlier.len() as u32, Time(chance.below(3)));
        let at = shard.with(|store| {
            store.attempts(QueueId(id), sequence, count, due);
            store.position()
        });
        earlier.push((count, due, at));
    }

    fn put(&mut self, shard: &Shard, chance: &mut Chance) {
        self.told += 1;
        let key = vec![chance.below(5) as u8];
        let value = (!chance.one_in(4)).then(|| self.told.to_le_bytes().to_vec());
        let entry = CatalogEntry { kind: EntryKind::Exchange, key: key.clone(), value: value.clone() };
        let at = shard.with(|store| {
            store.put(&entry);
            store.position()
        });
        self.entries.entry(key).or_default().push((at, value));
    }

    /// Before anything fails, what is read equals what was written.
    fn read(&self, shard: &Shard, chance: &mut Chance) {
        let Some(id) = self.some_queue(chance) else { return };
        let from = chance.below(self.queues[&id].next + 1);
        let Ok(found) = shard.try_next(id, from) else { return };
        let mut left = self.queues[&id].messages.range(from..).filter(|(_, message)| message.settled_at.is_none());
        let expected = left.next().map(|(sequence, message)| (*sequence, message.body.clone()));
        assert!(found == expected, "queue {id} from {from}: {:?}", found.map(|(sequence, _)| sequence));
    }

    /// What was recovered must agree with everything up to `durable`; the model continues from there.
    pub fn check(&mut self, shard: &Shard, recovered: &Recovered, durable: Position) {
        let mut there: BTreeMap<u64, BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
        for queue in &recovered.queues {
            let found = shard.messages(queue.id.0);
            assert_eq!(queue.messages, found.len() as u64, "the count of queue {}", queue.id.0);
            assert!(found.iter().all(|(sequence, _)| *sequence < queue.state.next), "next is behind all");
            there.insert(queue.id.0, found.into_iter().collect());
        }
        self.check_queues(recovered, &there, durable);
        for (from, to) in &self.moves {
            let is_there = |(queue, sequence)| there.get(&queue).is_some_and(|q| q.contains_key(&sequence));
            assert!(!(is_there(*from) && is_there(*to)), "a unit by half: {from:?} went to {to:?} and stayed");
            let target = &self.queues[&to.0];
            let (_, kept) = (target.deleted_at, &target.messages[&to.1]);
            let source_was_durable = self.queues[&from.0].messages[&from.1].put_at <= durable;
            if source_was_durable && kept.settled_at.is_none() && [from.0, to.0].iter().all(|id| there.contains_key(id))
            {
                assert!(
                    is_there(*from) || is_there(*to),
                    "a unit by half: {from:?} is gone and {to:?} is not there: {:?} and {:?} of {durable:?}",
                    self.queues[&from.0].messages[&from.1].times(),
                    kept.times()
                );
            }
        }
        self.check_entries(recovered, durable);
        self.go_on(recovered, there);
    }

    fn check_queues(&self, recovered: &Recovered, there: &BTreeMap<u64, BTreeMap<u64, Vec<u8>>>, durable: Position) {
        for (id, queue) in &self.queues {
            let Some(found) = there.get(id) else {
                let gone = queue.created_at > durable || queue.deleted_at.is_some();
                assert!(gone, "queue {id} is lost");
                continue;
            };
            assert!(queue.deleted_at.is_none_or(|at| at > durable), "queue {id} is back");
            for (sequence, body) in found {
                let kept = queue.messages.get(sequence).filter(|kept| kept.durable && kept.body == *body);
                let kept = kept.unwrap_or_else(|| panic!("{sequence} of {id} was never put there"));
                assert!(
                    kept.settled_at.is_none_or(|at| at > durable),
                    "the settlement of {sequence} of {id} is incomplete"
                );
            }
            for (sequence, kept) in queue.messages.iter().filter(|(_, kept)| kept.durable && kept.put_at <= durable) {
                let is_there = kept.settled_at.is_some() || found.contains_key(sequence);
                let bytes = kept.body.len();
                assert!(is_there, "{sequence} of {id} is lost: {bytes} bytes, put at {:?} of {durable:?}", kept.put_at);
            }
            let state = &recovered.queues.iter().find(|queue| queue.id.0 == *id).unwrap().state;
            let delivered =
                queue.delivered.iter().filter(|(_, at)| *at <= durable).map(|(sequence, _)| *sequence).max();
            assert!(delivered.is_none_or(|sequence| state.head > sequence), "queue {id} forgot what was delivered");
            assert!(state.head <= state.next, "what comes next to queue {id} would be hidden: {state:?}");
            queue.check_attempts(state, found, durable);
        }
        assert!(there.keys().all(|id| self.queues.contains_key(id)), "a queue that never was");
    }

    fn check_entries(&self, recovered: &Recovered, durable: Position) {
        for (key, changes) in &self.entries {
            let found = recovered.entries.iter().find(|entry| entry.key == *key).and_then(|entry| entry.value.clone());
            let certain = changes.iter().rposition(|(at, _)| *at <= durable);
            let mut possible: Vec<_> = changes[certain.unwrap_or(0)..].iter().map(|(_, value)| value.clone()).collect();
            if certain.is_none() {
                possible.push(None);
            }
            assert!(possible.contains(&found), "entry {key:?} is {found:?}");
        }
    }

    fn go_on(&mut self, recovered: &Recovered, there: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>) {
        self.queues.clear();
        self.moves.clear();
        for (id, messages) in there {
            let state = &recovered.queues.iter().find(|queue| queue.id.0 == id).unwrap().state;
            let old = Position::default();
            let kept = |body| Kept { body, durable: true, put_at: old, settled_at: None };
            let messages = messages.into_iter().map(|(sequence, body)| (sequence, kept(body))).collect();
            let told = |(sequence, count): &(u64, u32)| (*sequence, vec![(*count, due_of(state, *sequence), old)]);
            let attempts = state.attempts.iter().map(told).collect();
            self.queues.insert(id, Queue { next: state.next, messages, attempts, ..Queue::default() });
        }
        self.entries.clear();
        for entry in &recovered.entries {
            self.entries.insert(entry.key.clone(), vec![(Position::default(), entry.value.clone())]);
        }
    }
}

/// Plays a story of `steps` steps, or until the disk fails; returns the position up to which everything was
/// confirmed.
pub fn tell(model: &mut Model, shard: &Shard, chance: &mut Chance, steps: usize) -> Position {
    for _ in 0..3 {
        model.create(shard);
    }
    for _ in 0..steps {
        if !model.act(shard, chance) {
            break;
        }
    }
    shard.with(|store| store.durable_position())
}
