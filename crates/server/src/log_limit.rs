//! Limits the log lines that clients can cause as often as they like, so that they cannot fill the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Allows the first hundred lines, then a number of lines per second, and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    /// What the lines are about, for the line with their number.
    what: &'static str,
    /// Held while a line is counted.
    state: Mutex<State>,
    left_out: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// How many lines are allowed now.
    lines: f64,
    /// When that was computed.
    since: Instant,
}

/// The maximum number of lines at once.
const LINES_MAX: f64 = 100.0;
/// The number of lines per second in the long run.
const LINES_PER_SECOND: f64 = 5.0;

impl LogLimit {
    #[must_use]
    pub fn new(what: &'static str) -> Self {
        Self { what, state: Mutex::new(State { lines: LINES_MAX, since: Instant::now() }), left_out: AtomicU64::new(0) }
    }

    /// Whether one more line may be written now. If not, it is counted.
    pub fn passes(&self) -> bool {
        self.passes_at(Instant::now())
    }

    fn passes_at(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let passed = now.saturating_duration_since(state.since).as_secs_f64();
        state.lines = (state.lines + passed * LINES_PER_SECOND).min(LINES_MAX);
        state.since = now;
        let passes = state.lines >= 1.0;
        if passes {
            state.lines -= 1.0;
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        passes
    }

    /// Logs how many lines were suppressed since the last call, if any.
    pub fn report(&self) {
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            tracing::warn!("{left_out} more {} are not listed here", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted_and_the_limit_comes_back() {
        let limit = LogLimit::new("tests");
        let now = Instant::now();
        let passed = |at| (0..1000).filter(|_| limit.passes_at(at)).count();
        assert_eq!(passed(now), 100);
        assert_eq!(limit.left_out.load(Ordering::Relaxed), 900);
        assert_eq!(passed(now + Duration::from_secs(2)), 10);
        assert_eq!(passed(now + Duration::from_secs(3600)), 100);
        limit.report();
        assert_eq!(limit.left_out.load(Ordering::Relaxed), 0);
    }
}
