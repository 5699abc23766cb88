//! The server reads more slowly from publishers that are ahead of their consumers. So messages go from socket to
//! socket, and not to disk and back.

use ferrymq_model::QueueId;

use super::Client;

/// A publisher waits for consumers if a queue has more ready bytes than this. It is several times the length of a
/// connection's socket buffers.
const AHEAD_BYTES: u64 = 2 << 20;

/// The queues to which a connection has published and whose consumers lag.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// One of these queues, until it is checked.
    ahead_in: Option<QueueId>,
    /// The queue for whose consumers the publisher waits.
    waits_for: Option<QueueId>,
}

impl Pacing {
    /// Records a publish. `ahead_in` is one of its queues whose consumers lag, if there is one.
    #[inline]
    pub fn published(&mut self, ahead_in: Option<QueueId>) {
        if ahead_in.is_some() {
            self.ahead_in = ahead_in;
        }
    }
}

impl Client {
    /// Whether the rest of the input must wait for consumers: they have credit, their sockets take no more, and many
    /// bytes wait for them. Consumers that take nothing at all do not count.
    pub fn is_ahead(&mut self) -> bool {
        self.pacing.waits_for = self.pacing.ahead_in.take().filter(|queue| self.node.is_ahead(*queue, AHEAD_BYTES));
        self.pacing.waits_for.is_some()
    }

    /// Whether many bytes still wait for the consumers for which the publisher waits since [`Client::is_ahead`].
    #[must_use]
    pub fn is_still_ahead(&self) -> bool {
        self.pacing.waits_for.is_some_and(|queue| self.node.is_ahead(queue, AHEAD_BYTES / 2))
    }
}
