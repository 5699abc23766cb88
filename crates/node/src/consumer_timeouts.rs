//! When to look for channels that hold a delivery for too long.

use ferrymq_model::Time;

/// Looks are spread so that a channel is ended at most a tenth of its time too late, and at most a minute.
const LOOKS_IN_A_TIMEOUT: u64 = 10;
const LOOK_MS_MAX: u64 = 60_000;
const LOOK_MS_MIN: u64 = 100;

/// The node looks at all channels from time to time, instead of keeping a timer for each delivery.
#[derive(Debug)]
pub struct ConsumerTimeouts {
    /// The shortest timeout that anybody has; 0 where nobody has one.
    timeout_ms: u64,
    /// When to look next.
    due: Option<Time>,
}

impl ConsumerTimeouts {
    /// `timeout_ms` is everybody's timeout, unless it is 0.
    pub fn new(timeout_ms: u64, now: Time) -> Self {
        let mut consumer_timeouts = Self { timeout_ms: 0, due: None };
        consumer_timeouts.watch_for(timeout_ms, now);
        consumer_timeouts
    }

    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// Somebody has this timeout; 0 is none.
    pub fn watch_for(&mut self, timeout_ms: u64, now: Time) {
        if timeout_ms > 0 && (self.timeout_ms == 0 || timeout_ms < self.timeout_ms) {
            self.timeout_ms = timeout_ms;
            self.due = Some(self.next(now));
        }
    }

    /// Whether it is time to look; the next look is set then.
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
