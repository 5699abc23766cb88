//! A clock that moves when a test says so.

use std::sync::atomic::{AtomicU64, Ordering};

use ferrymq_model::Time;
use parking_lot::Mutex;

/// When the clock begins; any time will do.
pub const START: Time = Time(1_700_000_000_000);

/// A clock, the timer that a node has set on it, and values that are random for those who ask.
#[derive(Debug, Default)]
pub struct Clock {
    passed_ms: AtomicU64,
    timer: Mutex<Option<Time>>,
    given: AtomicU64,
}

impl Clock {
    /// Its time.
    #[must_use]
    pub fn now(&self) -> Time {
        START.after_ms(self.passed_ms())
    }

    /// The milliseconds since it began.
    #[must_use]
    pub fn passed_ms(&self) -> u64 {
        self.passed_ms.load(Ordering::Relaxed)
    }

    /// It moves by so many milliseconds.
    pub fn advance(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// It moves to so many milliseconds after its beginning, but never back.
    pub fn advance_to(&self, ms: u64) {
        self.passed_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// Sets the timer, or removes it.
    pub fn set_timer(&self, due: Option<Time>) {
        *self.timer.lock() = due;
    }

    /// When the timer is due, in milliseconds after the beginning.
    #[must_use]
    pub fn timer_ms(&self) -> Option<u64> {
        self.timer.lock().map(|due| due.since_ms(START))
    }

    /// Removes the timer if it is due now. Returns whether it was.
    #[must_use]
    pub fn take_due(&self) -> bool {
        let now = self.now();
        self.timer.lock().take_if(|due| *due <= now).is_some()
    }

    /// Nobody guesses here; it is enough that each value is different.
    #[must_use]
    pub fn random(&self) -> u128 {
        u128::from(self.given.fetch_add(1, Ordering::Relaxed)) << 64 | 0x5eed
    }
}
