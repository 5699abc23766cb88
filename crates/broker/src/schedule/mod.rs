//! A schedule: messages with delays, each until its own time.
//!
//! It is a radix heap over the lanes that its id owns in storage, so that waiting messages need no memory and no
//! own format. A message that is due much later goes to a coarse lane (see [`digits`]). When the first time of a
//! lane comes, its messages move to finer lanes, the last of which are a millisecond wide. A lane that has few
//! messages by then is not moved but *opened*: their times are held in memory ([`DueTimes`]), and they leave from
//! where they are. So one of few messages is written once, and one of very many as often as its delay has
//! hexadecimal digits.
//!
//! Messages with equal times leave in the order in which they arrived: the base only increases, so earlier ones are
//! in the same lane or in one that is moved earlier, and new messages for a lane that is being moved go behind its
//! last one. (Only messages that arrive after a restart, before all lanes have been read, may overtake others of
//! the same millisecond.)

mod digits;
mod due_times;

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_model::{Facts, MessageKey, Name, QueueId, Sequence, Settled, Time};

use crate::queue::{Next, Ports, Recovered, Settling};
use digits::{end_of, is_finest, lane_of, start_of};
use due_times::{DUE_TIMES_MAX, DueTimes};

/// The settings of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// The vhost of its messages.
    pub vhost: Name,
    /// The exchange that routes them when they are due.
    pub exchange: Name,
    /// Whether it survives a restart, with its persistent messages.
    pub durable: bool,
}

/// Invariants: no message of a lane is due before the lane's start; `starts` contains the lanes with messages,
/// except those that were recovered and not read yet.
#[derive(Debug)]
pub(crate) struct Schedule {
    id: QueueId,
    pub(crate) settings: ScheduleSettings,
    /// Each lane that was ever used.
    lanes: BTreeMap<u8, Lane>,
    /// Lanes with messages, by their first times.
    starts: BTreeSet<(Time, u8)>,
    /// Lanes that were recovered: nothing of them has been read.
    unknown: Vec<u8>,
    due_times: Option<DueTimes>,
    /// How many messages all lanes have.
    pub(crate) messages: u64,
    /// Storage was asked for a message and reads it.
    pub(crate) parked: bool,
    /// It is enqueued for dispatch.
    pub(crate) is_runnable: bool,
    pub(crate) timer: Option<Time>,
}

#[derive(Debug)]
struct Lane {
    /// There is no message before this one.
    from: Sequence,
    /// The sequence of the next message.
    next: Sequence,
    messages: u64,
    /// No known message is due before this time.
    start: Option<Time>,
}

/// A message whose delay is over.
#[derive(Debug)]
pub(crate) struct Coming {
    pub(crate) place: MessageKey,
    pub(crate) handle: u64,
    pub(crate) facts: Facts,
    lane: u8,
}

/// The message to look at next.
#[derive(Clone, Copy, Debug)]
struct Task {
    lane: u8,
    from: Sequence,
    what: What,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug)]
enum What {
    /// It shows when its lane begins.
    FindStart,
    /// Its time is held in memory.
    Read,
    /// It is the first in memory, and its delay is over.
    Take,
    /// It moves to a finer lane, unless its delay is over.
    Sort { start: Time },
}

impl Schedule {
    /// A new one, or one that was recovered.
    pub(crate) fn new(id: QueueId, settings: ScheduleSettings, recovered: &[Recovered]) -> Self {
        let lane = |found: &Recovered| Lane { from: 0, next: found.state.next, messages: found.messages, start: None };
        Self {
            id,
            settings,
            lanes: recovered.iter().map(|found| (found.lane, lane(found))).collect(),
            starts: BTreeSet::new(),
            unknown: recovered.iter().filter(|found| found.messages > 0).map(|found| found.lane).collect(),
            due_times: None,
            messages: recovered.iter().map(|found| found.messages).sum(),
            parked: false,
            is_runnable: false,
            timer: None,
        }
    }

    /// A message arrives that is due after `now`; returns its place.
    pub(crate) fn arrive(&mut self, due: Time, now: Time, ports: &mut impl Ports) -> MessageKey {
        // No lane begins before the base, so existing messages stay in the right lanes.
        let base = self.starts.first().map_or(now, |(start, _)| now.min(Time(start.0.saturating_sub(1))));
        self.put(lane_of(base, due), due, ports)
    }

    fn put(&mut self, number: u8, due: Time, ports: &mut impl Ports) -> MessageKey {
        let queue = self.id.lane(number);
        let lane = self.lanes.entry(number).or_insert_with(|| {
            ports.create_lane(queue, self.settings.durable);
            Lane { from: 1, next: 1, messages: 0, start: None }
        });
        let sequence = lane.next;
        if let Some(due_times) = &mut self.due_times
            && due_times.lane == number
            && due_times.unread(lane.next).is_none()
        {
            due_times.read(due, sequence);
        }
        lane.next += 1;
        lane.messages += 1;
        self.messages += 1;
        self.begins(number, start_of(number, due));
        MessageKey { queue, sequence }
    }

    /// A lane has a message that is due at this time or soon after it.
    fn begins(&mut self, number: u8, start: Time) {
        let lane = self.lanes.get_mut(&number).expect("a lane with a message is there");
        if lane.start.is_none_or(|before| start < before) {
            if let Some(before) = lane.start.replace(start) {
                self.starts.remove(&(before, number));
            }
            self.starts.insert((start, number));
        }
    }

    /// A message was moved or sent.
    pub(crate) fn leave(&mut self, coming: &Coming) {
        self.left(coming.lane, coming.place.sequence);
    }

    fn left(&mut self, number: u8, sequence: Sequence) {
        let lane = self.lanes.get_mut(&number).expect("a lane with a message is there");
        lane.messages -= 1;
        self.messages -= 1;
        let open = self.due_times.as_mut().filter(|due_times| due_times.lane == number);
        match open {
            Some(due_times) => due_times.pop(),
            None => lane.from = sequence + 1,
        }
        if lane.messages == 0 {
            self.emptied(number);
        }
    }

    /// A lane has no messages, whatever was assumed before.
    fn emptied(&mut self, number: u8) {
        let lane = self.lanes.get_mut(&number).expect("a lane that was looked into is there");
        self.messages -= std::mem::take(&mut lane.messages);
        lane.from = lane.next;
        if let Some(start) = lane.start.take() {
            self.starts.remove(&(start, number));
        }
        self.due_times.take_if(|due_times| due_times.lane == number);
    }

    /// When there is something to do next, if not now.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let (start, number) = self.starts.first()?;
        let open = self.due_times.as_ref().filter(|due_times| due_times.lane == *number);
        Some(open.and_then(DueTimes::first).map_or(*start, |(due, _)| due))
    }

    /// Whether [`Schedule::step`] would find something to do.
    pub(crate) fn has_work(&mut self, now: Time) -> bool {
        !self.parked && self.task(now).is_some()
    }

    /// Moves messages nearer to their time, until it finds one whose delay is over; `None` if there is none, if
    /// storage has to read first, or if the budget is used up.
    pub(crate) fn step(
        &mut self,
        now: Time,
        budget: &mut usize,
        settled: &mut Settling,
        ports: &mut impl Ports,
    ) -> Option<Coming> {
        while *budget > 0 {
            let task = self.task(now)?;
            *budget -= 1;
            let queue = self.id.lane(task.lane);
            match ports.next(queue, task.from) {
                Next::Pending => {
                    self.parked = true;
                    return None;
                }
                Next::End => self.nothing_behind(task),
                Next::Message { sequence, handle, facts } => {
                    let coming = Coming { place: MessageKey { queue, sequence }, handle, facts, lane: task.lane };
                    if let Some(coming) = self.found(task, coming, settled, ports) {
                        return Some(coming);
                    }
                }
            }
        }
        None
    }

    /// What is to be done next.
    fn task(&mut self, now: Time) -> Option<Task> {
        if let Some(lane) = self.unknown.last() {
            return Some(Task { lane: *lane, from: self.lanes[lane].from, what: What::FindStart });
        }
        loop {
            let (start, lane) = *self.starts.first()?;
            if start > now {
                return None;
            }
            let found = &self.lanes[&lane];
            if !self.can_open(lane, start) {
                self.due_times = None;
                return Some(Task { lane, from: found.from, what: What::Sort { start } });
            }
            let due_times = match &mut self.due_times {
                Some(due_times) if due_times.lane == lane => due_times,
                other => other.insert(DueTimes::new(lane, found.from)),
            };
            if let Some(from) = due_times.unread(found.next) {
                return Some(Task { lane, from, what: What::Read });
            }
            match due_times.first() {
                Some((due, _)) if due > end_of(lane, start) => self.begins_later(lane, start, due),
                Some((due, sequence)) if due <= now => {
                    return Some(Task { lane, from: sequence, what: What::Take });
                }
                Some(_) => return None,
                None => self.emptied(lane),
            }
        }
    }

    /// Whether the lane's messages can leave from where they are: there are not too many, and no others are due
    /// among them.
    fn can_open(&self, lane: u8, start: Time) -> bool {
        let alone = || self.starts.iter().nth(1).is_none_or(|(other, _)| *other > end_of(lane, start));
        !is_finest(lane) && self.lanes[&lane].messages <= DUE_TIMES_MAX && alone()
    }

    /// All messages of the first lane are due later than was assumed; this happens if the clock was set back.
    fn begins_later(&mut self, number: u8, start: Time, due: Time) {
        let lane = self.lanes.get_mut(&number).expect("it was just looked into");
        let later = start_of(number, due);
        lane.start = Some(later);
        self.starts.remove(&(start, number));
        self.starts.insert((later, number));
    }

    fn found(&mut self, task: Task, coming: Coming, settled: &mut Settling, ports: &mut impl Ports) -> Option<Coming> {
        let sequence = coming.place.sequence;
        let due = coming.facts.expires.expect("a message is scheduled with its time");
        match task.what {
            What::FindStart => {
                self.unknown.pop();
                self.lanes.get_mut(&task.lane).expect("it was just looked into").from = sequence;
                self.begins(task.lane, start_of(task.lane, due));
            }
            What::Read => self.due_times.as_mut().expect("a lane is open that is read").read(due, sequence),
            What::Take if sequence != task.from => self.left(task.lane, task.from),
            What::Take => return Some(coming),
            What::Sort { start } if due <= start => return Some(coming),
            What::Sort { start } => {
                let (message, persistent) = ports.copy(coming.handle);
                let to = [self.put(lane_of(start, due), due, ports)];
                let (durable, transient): (&[MessageKey], &[MessageKey]) =
                    if persistent && self.settings.durable { (&to, &[]) } else { (&[], &to) };
                ports.enqueue(&message.borrowed(), &coming.facts, durable, transient);
                settled.add(coming.place, Settled::Moved, ports);
                self.leave(&coming);
            }
        }
        None
    }

    /// Storage has no message where one was assumed: transient ones were lost in a restart.
    fn nothing_behind(&mut self, task: Task) {
        match task.what {
            What::FindStart => {
                self.unknown.pop();
                self.emptied(task.lane);
            }
            What::Read => {
                let next = self.lanes[&task.lane].next;
                self.due_times.as_mut().expect("a lane is open that is read").read_all(next);
            }
            What::Take => self.left(task.lane, task.from),
            What::Sort { .. } => self.emptied(task.lane),
        }
    }
}
