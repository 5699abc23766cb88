//! The timers of a shard's queues.

use std::collections::BTreeSet;

use ferrymq_model::{QueueId, Time};

/// At most one time for each queue; the queue stores its own.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Time, QueueId)>,
}

impl Timers {
    /// Moves a queue's timer from `set`, which is updated, to `wanted`.
    pub(crate) fn move_to(&mut self, queue: QueueId, set: &mut Option<Time>, wanted: Option<Time>) {
        if *set == wanted {
            return;
        }
        if let Some(time) = *set {
            self.due.remove(&(time, queue));
        }
        if let Some(time) = wanted {
            self.due.insert((time, queue));
        }
        *set = wanted;
    }

    pub(crate) fn first(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    /// A queue whose time has come; the one that is longest due first.
    pub(crate) fn due(&self, now: Time) -> Option<QueueId> {
        self.due.first().filter(|(time, _)| *time <= now).map(|(_, queue)| *queue)
    }
}
