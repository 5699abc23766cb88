//! Heartbeats in both directions (section 4.2.7).

use ferrymq_wire::Moment;

/// The times of the next heartbeat and of the last bytes from the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    /// The interval that both sides agreed on, in milliseconds; 0 means no heartbeats.
    interval_ms: u64,
    next_send: Moment,
    last_received: Moment,
    /// The server does not read from the peer, so it does not know whether the peer sends.
    paused: bool,
}

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// No action.
    Nothing,
    /// Send a heartbeat.
    Send,
    /// Close the connection: the peer has sent nothing for two intervals.
    GiveUp,
}

impl Heartbeat {
    /// Starts now, with the interval that the client has chosen.
    pub fn new(interval_ms: u64, now: Moment) -> Self {
        Self { interval_ms, next_send: now.after_ms(interval_ms / 2), last_received: now, paused: false }
    }

    /// Notes that the peer has sent bytes.
    #[inline]
    pub fn received(&mut self, now: Moment) {
        self.last_received = now;
    }

    /// Notes that the server stops reading from the peer.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Notes that the server reads from the peer again. The peer's two intervals start again.
    pub fn resume(&mut self, now: Moment) {
        self.paused = false;
        self.last_received = now;
    }

    /// Whether the server has stopped reading from the peer.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// When the next action is due.
    pub fn deadline(&self) -> Option<Moment> {
        (self.interval_ms > 0).then(|| self.give_up().map_or(self.next_send, |give_up| give_up.min(self.next_send)))
    }

    /// The action that is due now. The caller must carry it out: a heartbeat counts as sent. (AMQP-5)
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
