//! Heartbeats in both directions (section 4.2.7).

use ferrymq_wire::Moment;

/// When to send a heartbeat, and when the peer has been silent for too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    /// The interval that was agreed on; 0 means no heartbeats.
    interval_ms: u64,
    next_send: Moment,
    last_received: Moment,
    /// The server does not read from the peer, so the peer's silence means nothing.
    paused: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// A heartbeat is to be sent.
    Send,
    /// The peer was silent for two intervals.
    GiveUp,
}

impl Heartbeat {
    /// Starts now, with the interval that the client has chosen.
    pub fn new(interval_ms: u64, now: Moment) -> Self {
        Self { interval_ms, next_send: now.after_ms(interval_ms / 2), last_received: now, paused: false }
    }

    /// The peer has sent something.
    #[inline]
    pub fn received(&mut self, now: Moment) {
        self.last_received = now;
    }

    /// The server stops reading from the peer.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// The server reads from the peer again; the peer's time starts again.
    pub fn resume(&mut self, now: Moment) {
        self.paused = false;
        self.last_received = now;
    }

    /// Whether the server does not read from the peer.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Moment> {
        (self.interval_ms > 0).then(|| self.give_up().map_or(self.next_send, |give_up| give_up.min(self.next_send)))
    }

    /// What is due now. A heartbeat that is due counts as sent.
    pub fn due(&mut self, now: Moment) -> Due {
        if self.interval_ms == 0 {
            Due::Nothing
        } else if self.give_up().is_some_and(|give_up| now >= give_up) {
            Due::GiveUp
        } else if now >= self.next_send {
            self.next_send = now.after_ms(self.interval_ms / 2);
            Due::Send
        } else {
            Due::Nothing
        }
    }

    fn give_up(&self) -> Option<Moment> {
        (!self.paused).then(|| self.last_received.after_ms(2 * self.interval_ms))
    }
}
