//! Whether publishers, and all other clients, may continue, and what they must be told. The flush thread tells them.
//! The state may change several times between two of its checks. Clients that had to wait only for a moment must also
//! be told that they may continue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::notify::Backpressure;

/// The state, and what was reported to the clients.
#[derive(Debug)]
pub(crate) struct Gate {
    backpressure: Backpressure,
    /// Whether publishers must wait, for readers that do not take the lock.
    stalled: Arc<AtomicBool>,
    /// Whether all clients must wait, in the same way.
    overfull: Arc<AtomicBool>,
    reported: Backpressure,
    /// Whether publishers had to wait since they were last told that they may continue.
    was_short: bool,
    /// Whether all clients had to wait since they were last told that they may continue.
    was_overfull: bool,
}

impl Gate {
    /// A gate that lets all clients continue. The flags belong to [`Shared`](super::open::Shared).
    pub fn new(stalled: Arc<AtomicBool>, overfull: Arc<AtomicBool>) -> Self {
        Self {
            backpressure: Backpressure::Open,
            stalled,
            overfull,
            reported: Backpressure::Open,
            was_short: false,
            was_overfull: false,
        }
    }

    /// Whether publishers may continue.
    pub fn backpressure(&self) -> &Backpressure {
        &self.backpressure
    }

    /// Whether publishers may continue.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.backpressure == Backpressure::Open
    }

    /// Sets whether publishers must wait.
    pub fn set(&mut self, backpressure: Backpressure) {
        self.stalled.store(backpressure != Backpressure::Open, Ordering::Release);
        self.was_short |= backpressure != Backpressure::Open;
        self.backpressure = backpressure;
    }

    /// Sets whether all clients must wait.
    pub fn set_overfull(&mut self, overfull: bool) {
        self.overfull.store(overfull, Ordering::Release);
        self.was_overfull |= overfull;
    }

    /// What must be told now.
    pub fn news(&mut self) -> Option<Backpressure> {
        let all_go_on = self.was_overfull && !self.overfull.load(Ordering::Acquire);
        let publishers_go_on = self.was_short && self.is_open();
        if self.reported == self.backpressure && !publishers_go_on && !all_go_on {
            return None;
        }
        self.was_overfull &= !all_go_on;
        self.was_short = !self.is_open();
        self.reported = self.backpressure.clone();
        Some(self.backpressure.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Stall;

    const STALLED: Backpressure = Backpressure::Stalled(Stall::JournalFull);

    fn gate() -> Gate {
        Gate::new(Arc::default(), Arc::default())
    }

    #[test]
    fn a_change_is_told_once() {
        let mut gate = gate();
        assert_eq!(gate.news(), None);
        gate.set(STALLED);
        assert_eq!((gate.news(), gate.news()), (Some(STALLED), None));
        gate.set(Backpressure::Open);
        assert_eq!((gate.news(), gate.news()), (Some(Backpressure::Open), None));
    }

    #[test]
    fn publishers_that_waited_for_a_moment_are_told() {
        let mut gate = gate();
        gate.set(STALLED);
        gate.set(Backpressure::Open);
        assert_eq!((gate.news(), gate.news()), (Some(Backpressure::Open), None));
    }

    #[test]
    fn everybody_who_waited_for_a_moment_is_told_while_publishers_still_wait() {
        let mut gate = gate();
        gate.set(STALLED);
        assert_eq!(gate.news(), Some(STALLED));
        gate.set_overfull(true);
        assert_eq!(gate.news(), None, "who is stopped notices it himself");
        gate.set_overfull(false);
        assert_eq!((gate.news(), gate.news()), (Some(STALLED), None));
        gate.set_overfull(true);
        gate.set_overfull(false);
        assert_eq!((gate.news(), gate.news()), (Some(STALLED), None), "nobody looked meanwhile");
    }
}
