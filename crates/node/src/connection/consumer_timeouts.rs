//! When to look for channels that hold a delivery for longer than the consumer timeout.

use ferrymq_model::Time;

/// How often the node looks: a channel is closed at most a tenth of its timeout too late, and at most a minute.
const LOOKS_IN_A_TIMEOUT: u64 = 10;
const LOOK_MS_MAX: u64 = 60_000;
const LOOK_MS_MIN: u64 = 100;

/// The node looks at all channels from time to time, and has no timer for each delivery.
#[derive(Debug)]
pub struct ConsumerTimeouts {
    /// The shortest timeout of all consumers; 0 if there is none.
    timeout_ms: u64,
    /// When to look next.
    due: Option<Time>,
}

impl ConsumerTimeouts {
    /// `timeout_ms` is the timeout of all consumers; 0 means none.
    pub fn new(timeout_ms: u64, now: Time) -> Self {
        let mut consumer_timeouts = Self { timeout_ms: 0, due: None };
        consumer_timeouts.watch_for(timeout_ms, now);
        consumer_timeouts
    }

    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// A consumer has this timeout; 0 means none.
    pub fn watch_for(&mut self, timeout_ms: u64, now: Time) {
        if timeout_ms > 0 && (self.timeout_ms == 0 || timeout_ms < self.timeout_ms) {
            self.timeout_ms = timeout_ms;
            self.due = Some(self.next(now));
        }
    }

    /// Whether it is time to look. Sets the time of the next look.
    pub fn is_over(&mut self, now: Time) -> bool {
        let over = self.due.is_some_and(|due| due <= now);
        if over {
            self.due = Some(self.next(now));
        }
        over
    }

    fn next(&self, now: Time) -> Time {
        now.after_ms((self.timeout_ms / LOOKS_IN_A_TIMEOUT).clamp(LOOK_MS_MIN, LOOK_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_follow_the_shortest_timeout() {
        let mut consumer_timeouts = ConsumerTimeouts::new(1_800_000, Time(0));
        assert_eq!(consumer_timeouts.due(), Some(Time(60_000)));
        consumer_timeouts.watch_for(5_000, Time(1_000));
        assert_eq!(consumer_timeouts.due(), Some(Time(1_500)));
        consumer_timeouts.watch_for(1_800_000, Time(1_200));
        assert!(!consumer_timeouts.is_over(Time(1_499)));
        assert!(consumer_timeouts.is_over(Time(1_500)));
        assert_eq!(consumer_timeouts.due(), Some(Time(2_000)));
        assert_eq!(ConsumerTimeouts::new(0, Time(0)).due(), None);
    }
}
