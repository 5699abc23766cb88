//! Publishers that are ahead of their consumers are read more slowly, so that messages go from socket to socket and not to
//! disk and back.

use ferrymq_model::QueueId;

use super::Client;

/// More than this is ready where a publisher waits for consumers. Several times what the sockets of one hold.
const AHEAD_BYTES: u64 = 2 << 20;

/// Queues that a connection has published to, and whose consumers lag.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    /// One of them, until it is looked at.
    ahead_in: Option<QueueId>,
    /// The one whose consumers are waited for.
    waits_for: Option<QueueId>,
}

impl Pacing {
    /// Something was published, to this queue with consumers that lag if there was one.
    #[inline]
    pub fn published(&mut self, ahead_in: Option<QueueId>) {
        if ahead_in.is_some() {
            self.ahead_in = ahead_in;
        }
    }
}

impl Client {
    /// Whether the rest of the input should wait for consumers: they have credit, their sockets take no more, and much waits
    /// for them. Who takes nothing at all is not waited for.
    pub fn is_ahead(&mut self) -> bool {
        self.pacing.waits_for = self.pacing.ahead_in.take().filter(|queue| self.node.is_ahead(*queue, AHEAD_BYTES));
        self.pacing.waits_for.is_some()
    }

    /// Whether those who are waited for since [`Client::is_ahead`] said so still have much to take.
    #[must_use]
    pub fn is_still_ahead(&self) -> bool {
        self.pacing.waits_for.is_some_and(|queue| self.node.is_ahead(queue, AHEAD_BYTES / 2))
    }
}
