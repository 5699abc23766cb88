//! When pulls that wait for messages end.

use std::collections::BTreeSet;

use ferrymq_model::{SubscriptionId, Time};

/// The timers of pulls, at most one for each subscription: see [`crate::connection::mailbox::Subscription::pull_ends`].
#[derive(Debug, Default)]
pub struct PullTimers(BTreeSet<(Time, SubscriptionId)>);

impl PullTimers {
    /// When the first of them ends.
    pub fn first(&self) -> Option<Time> {
        self.0.first().map(|(time, _)| *time)
    }

    /// A subscription's timer ends at another time, or there is none any more.
    pub fn set(&mut self, subscription: SubscriptionId, before: Option<Time>, end: Option<Time>) {
        if let Some(before) = before {
            self.0.remove(&(before, subscription));
        }
        if let Some(end) = end {
            self.0.insert((end, subscription));
        }
    }

    /// Removes and returns those that have ended at `now`.
    pub fn take_ended(&mut self, now: Time) -> Vec<(Time, SubscriptionId)> {
        let mut ended = Vec::new();
        while let Some((time, subscription)) = self.0.pop_first() {
            if time > now {
                self.0.insert((time, subscription));
                break;
            }
            ended.push((time, subscription));
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_has_one_timer() {
        let mut timers = PullTimers::default();
        let (one, two) = (SubscriptionId(1), SubscriptionId(2));
        timers.set(one, None, Some(Time(10)));
        timers.set(two, None, Some(Time(20)));
        timers.set(one, Some(Time(10)), Some(Time(30)));
        assert_eq!(timers.first(), Some(Time(20)));
        assert_eq!(timers.take_ended(Time(19)), []);
        assert_eq!(timers.take_ended(Time(30)), [(Time(20), two), (Time(30), one)]);
        timers.set(one, None, Some(Time(40)));
        timers.set(one, Some(Time(40)), None);
        assert_eq!(timers.first(), None);
    }
}
