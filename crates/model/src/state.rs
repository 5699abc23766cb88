//! What recovery hands back, and small words that storage and broker share.

use crate::{Intervals, Sequence};

/// A time in milliseconds since 1970. Expiry, leases, time-outs and schedules are kept in it.
///
/// A node takes it from the wall clock once, when it starts, and counts on by the passing of time: so it goes on steadily
/// while the process lives, whatever is done to the wall clock, and means the same to another process. What people or other
/// systems are to read (timestamps, the expiry of tokens) is the wall clock's time in the same unit; it decides nothing that
/// a queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// This time, `ms` milliseconds later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time, 0 if it lies ahead.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Why messages left their queue. Stored in the journal: never change a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Settled {
    /// A consumer accepted them, or they were delivered without acknowledgement.
    Accepted = 1,
    /// A consumer rejected them and they went nowhere else.
    Rejected = 2,
    /// Their time was over.
    Expired = 3,
    /// The queue was over its limit.
    Dropped = 4,
    /// Someone purged the queue.
    Purged = 5,
    /// They went to a dead-letter exchange in the same unit.
    DeadLettered = 6,
    /// They went nearer to their time, or on when it had come, in the same unit.
    Moved = 7,
}

/// What a queue (or a lane of one) must remember over a restart, beside its messages.
///
/// Sequences at or above `head` were never delivered. Below it, those in `open` are not settled; all others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The sequence that the next message gets.
    pub next: Sequence,
    /// The first sequence that was never delivered.
    pub head: Sequence,
    /// Below `head`: delivered and not settled.
    pub open: Intervals,
    /// How often messages in `open` were delivered and came back: sequence and count, ascending; absent means not once.
    /// Of a message whose letter has to wait it says that: [`DeathReason::as_attempts`](crate::DeathReason::as_attempts).
    pub attempts: Vec<(Sequence, u32)>,
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
        Self { next: 1, head: 1, open: Intervals::new(), attempts: Vec::new() }
    }

    /// Everything up to `last` was delivered at least once.
    pub fn delivered_up_to(&mut self, last: Sequence) {
        if last >= self.head {
            self.open.insert(self.head, last);
            self.head = last + 1;
        }
    }

    /// `first..=last` left the queue.
    pub fn settle(&mut self, first: Sequence, last: Sequence) {
        self.delivered_up_to(last);
        self.open.remove(first, last);
        self.attempts.retain(|(sequence, _)| !(first..=last).contains(sequence));
    }
}
