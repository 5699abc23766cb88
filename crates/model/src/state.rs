//! The result of recovery, and small types that storage and broker share.

use crate::{Intervals, Sequence};

/// A time in milliseconds since 1970. Expiry, timeouts and schedules use it.
///
/// A node reads the wall clock once, when it starts, and then counts the time that passes. So this time advances
/// steadily while the process runs, even if somebody sets the wall clock. It stays valid after a restart. Times for
/// people and for other systems (timestamps, the expiry of tokens) come from the wall clock, in the same unit; no queue
/// depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// This time, `ms` milliseconds later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 if `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The reason why messages left their queue. It is stored in the journal: never change a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Settled {
    /// A consumer accepted them, or they were delivered without acknowledgement.
    Accepted = 1,
    /// A consumer rejected them, and there was no dead-letter exchange for them.
    Rejected = 2,
    /// They expired.
    Expired = 3,
    /// The queue was over its length limit.
    Dropped = 4,
    /// A client purged the queue.
    Purged = 5,
    /// They were dead-lettered in the same unit.
    DeadLettered = 6,
    /// They moved to a finer lane of their schedule, or they were due and were routed, in the same unit.
    Moved = 7,
}

/// The state of a queue (or of one of its lanes) that survives a restart, in addition to its messages.
///
/// Sequences at or above `head` were never delivered. Of the sequences below `head`, those in `open` are not settled,
/// and all others are settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The sequence that the next message gets.
    pub next: Sequence,
    /// The first sequence that was never delivered.
    pub head: Sequence,
    /// The sequences below `head` that were delivered and not settled.
    pub open: Intervals,
    /// How often messages in `open` came back to the queue: sequence and count, ascending. A message that is not here
    /// never came back. For a message that waits as a dead letter the count is
    /// [`DeathReason::as_attempts`](crate::DeathReason::as_attempts).
    pub attempts: Vec<(Sequence, u32)>,
    /// The times at which messages in `open` that wait for a retry may be delivered again: sequence and time,
    /// ascending.
    pub due: Vec<(Sequence, Time)>,
}

impl Default for QueueState {
    fn default() -> Self {
        Self::new()
    }
}

impl QueueState {
    /// A queue that never had a message.
    #[must_use]
    pub fn new() -> Self {
        Self { next: 1, head: 1, open: Intervals::new(), attempts: Vec::new(), due: Vec::new() }
    }

    /// Records that all messages up to `last` were delivered at least once.
    pub fn delivered_up_to(&mut self, last: Sequence) {
        if last >= self.head {
            self.open.insert(self.head, last);
            self.head = last + 1;
        }
    }

    /// Records that the messages `first..=last` left the queue.
    pub fn settle(&mut self, first: Sequence, last: Sequence) {
        self.delivered_up_to(last);
        self.open.remove(first, last);
        self.attempts.retain(|(sequence, _)| !(first..=last).contains(sequence));
        self.due.retain(|(sequence, _)| !(first..=last).contains(sequence));
    }
}
