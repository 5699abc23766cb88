//! Numbers that identify queues, messages, connections, channels and subscriptions.

/// A queue, for the life of the data directory. An id is never used twice; a queue that is deleted and declared again
/// gets a new one.
///
/// For storage each id is a plain first-in-first-out sequence. A queue may have several lanes (one for each priority),
/// and each lane has an id. So every queue owns a block of 256 ids, and the ids of queues are multiples of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct QueueId(pub u64);

impl QueueId {
    /// How many ids a queue owns: one for each possible lane.
    pub const LANES: u64 = 256;

    /// The id under which this queue's lane number `lane` is stored.
    #[must_use]
    pub fn lane(self, lane: u8) -> Self {
        Self(self.0 | u64::from(lane))
    }

    /// The queue that owns this id.
    #[must_use]
    pub fn queue(self) -> Self {
        Self(self.0 & !(Self::LANES - 1))
    }
}

/// A message's number in its queue (or lane). The first message has number 1, each further message the next number. A
/// number is never used again.
pub type Sequence = u64;

/// A message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// The queue, or the lane of one.
    pub queue: QueueId,
    /// The message.
    pub sequence: Sequence,
}

/// A position in the journal: the number of bytes written since the data directory was created. It never goes back. A
/// record is durable when the durable position has reached or passed its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// A client's connection, for the life of the process. The low 32 bits are a slot, which is used again by later
/// connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A subscription, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);
