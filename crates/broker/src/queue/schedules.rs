//! The shard's schedules: a message waits there for its delay, and then goes to the queues to which its exchange
//! routes it at that time, in one unit.

use ferrymq_model::{Facts, MessageRef, QueueId, Settled, Time};

use super::dispatch::Settling;
use super::shard::Shard;
use super::{DelayedMessage, Ports, Published, Recovered};
use crate::schedule::{Schedule, ScheduleSettings};

impl Shard {
    /// A schedule was made, or recovered.
    pub fn open_schedule(&mut self, id: QueueId, settings: ScheduleSettings, recovered: &[Recovered]) {
        let before = self.schedules.insert(id, Box::new(Schedule::new(id, settings, recovered)));
        debug_assert!(before.is_none(), "ids are never reused");
        self.enqueue_schedule_for_dispatch(id);
    }

    /// A schedule is deleted with all its messages.
    pub fn close_schedule(&mut self, id: QueueId, ports: &mut impl Ports) {
        let Some(mut schedule) = self.schedules.remove(&id) else { return };
        self.timers.move_to(id, &mut schedule.timer, None);
        ports.queue_gone(id, u8::MAX);
    }

    /// How many messages wait in a schedule.
    #[must_use]
    pub fn scheduled(&self, id: QueueId) -> Option<u64> {
        self.schedules.get(&id).map(|schedule| schedule.messages)
    }

    /// Whether any of these is a schedule.
    #[inline]
    pub(super) fn has_schedule(&self, targets: &[QueueId]) -> bool {
        !self.schedules.is_empty() && targets.iter().any(|target| self.schedules.contains_key(target))
    }

    /// A message is published to a schedule, where there is one of that id.
    #[cold]
    pub(super) fn delay(
        &mut self,
        id: QueueId,
        message: &MessageRef<'_>,
        facts: &Facts,
        persistent: bool,
        published: &mut Published,
        ports: &mut impl Ports,
    ) {
        let Some(schedule) = self.schedules.get_mut(&id) else { return };
        let now = facts.arrived;
        let due = now.after_ms(ports.delay_ms(message).max(1));
        let place = [schedule.arrive(due, now, ports)];
        let facts = Facts { expires: Some(due), ..*facts };
        published.queues += 1;
        if persistent && schedule.settings.durable {
            published.durable = true;
            ports.enqueue(message, &facts, &place, &[]);
        } else {
            ports.enqueue(message, &facts, &[], &place);
        }
        self.rouse(id, now);
    }

    /// Sends what is due in a schedule, or moves it nearer to its time.
    #[cold]
    pub(super) fn serve_schedule(&mut self, id: QueueId, now: Time, budget: &mut usize, ports: &mut impl Ports) {
        let mut settled = Settling::default();
        ports.begin_unit();
        while let Some(schedule) = self.schedules.get_mut(&id)
            && let Some(coming) = schedule.step(now, budget, &mut settled, ports)
        {
            let delayed =
                DelayedMessage { schedule: &schedule.settings, handle: coming.handle, facts: &coming.facts, at: now };
            let released = ports.release_delayed(&delayed);
            schedule.leave(&coming);
            let arrived = released.is_some_and(|released| self.publish_routed(&released, budget, ports));
            settled.add(coming.place, if arrived { Settled::Moved } else { Settled::Dropped }, ports);
        }
        settled.flush(ports);
        ports.end_unit();
        if let Some(schedule) = self.schedules.get_mut(&id) {
            schedule.is_runnable = false;
            self.rouse(id, now);
        }
    }

    /// Storage has read for a schedule, or time has passed.
    pub(super) fn enqueue_schedule_for_dispatch(&mut self, id: QueueId) {
        let Some(schedule) = self.schedules.get_mut(&id) else { return };
        schedule.parked = false;
        self.timers.move_to(id, &mut schedule.timer, None);
        if !std::mem::replace(&mut schedule.is_runnable, true) {
            self.runnable.push_back(id);
        }
    }

    /// Lines a schedule up if it has something to do; otherwise sets its timer.
    fn rouse(&mut self, id: QueueId, now: Time) {
        let schedule = self.schedules.get_mut(&id).expect("the schedule was just found");
        if schedule.parked || schedule.is_runnable {
            return;
        }
        if schedule.has_work(now) {
            self.enqueue_schedule_for_dispatch(id);
        } else {
            let deadline = schedule.deadline();
            self.timers.move_to(id, &mut schedule.timer, deadline);
        }
    }
}
