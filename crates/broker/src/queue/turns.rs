//! The order of service: a queue's subscriptions with credit.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use ferrymq_model::SubscriptionId;

/// A subscription's place in the order of service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) subscription: SubscriptionId,
    pub(super) no_ack: bool,
    pub(super) priority: i64,
}

/// Higher priorities first; within one, the subscription that has waited longest. Nothing here looks through all of
/// them, except for removing many ended ones at once. (AMQP-49)
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// None of the lines is empty.
    lines: BTreeMap<Reverse<i64>, VecDeque<Turn>>,
    /// How many turns the lines have.
    count: usize,
    /// Subscriptions that ended and still have a turn there. They are skipped.
    gone: BTreeSet<SubscriptionId>,
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.count == self.gone.len()
    }

    /// Adds a subscription after all others of its own priority or a higher one.
    pub(super) fn push(&mut self, turn: Turn) {
        if self.gone.contains(&turn.subscription) {
            // Another subscription had its number before.
            self.forget_gone();
        }
        self.lines.entry(Reverse(turn.priority)).or_default().push_back(turn);
        self.count += 1;
    }

    /// Who is next.
    #[inline]
    pub(super) fn front(&mut self) -> Option<Turn> {
        loop {
            let turn = *self.lines.first_key_value()?.1.front()?;
            if self.gone.is_empty() || !self.gone.remove(&turn.subscription) {
                return Some(turn);
            }
            self.pop();
        }
    }

    /// The first one is not waiting any more.
    pub(super) fn pop(&mut self) {
        let Some(mut line) = self.lines.first_entry() else { return };
        self.count -= usize::from(line.get_mut().pop_front().is_some());
        if line.get().is_empty() {
            line.remove();
        }
    }

    /// The first one moves behind all others of its priority.
    #[inline]
    pub(super) fn rotate(&mut self) {
        // A single subscription is always next.
        if self.count > 1
            && let Some(mut line) = self.lines.first_entry()
            && line.get().len() > 1
        {
            line.get_mut().rotate_left(1);
        }
    }

    /// A subscription that has a turn has ended.
    pub(super) fn remove(&mut self, subscription: SubscriptionId) {
        self.gone.insert(subscription);
        if self.gone.len() * 2 > self.count {
            self.forget_gone();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cold]
    fn forget_gone(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        self.lines.retain(|_, line| {
            line.retain(|turn| !gone.contains(&turn.subscription));
            !line.is_empty()
        });
        self.count = self.lines.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: u64, priority: i64) -> Turn {
        Turn { subscription: SubscriptionId(number), no_ack: true, priority }
    }

    fn order(turns: &mut Turns) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(turn) = turns.front() {
            order.push(turn.subscription.0);
            turns.pop();
        }
        assert!(turns.is_empty());
        order
    }

    #[test]
    fn higher_priorities_go_first_and_equal_ones_take_turns() {
        let mut turns = Turns::default();
        for (number, priority) in [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)] {
            turns.push(turn(number, priority));
        }
        turns.rotate();
        assert_eq!(order(&mut turns), [4, 2, 1, 3, 5]);
    }

    #[test]
    fn who_has_gone_has_no_turn() {
        let mut turns = Turns::default();
        (0..10).for_each(|number| turns.push(turn(number, (number % 2) as i64)));
        for number in [1, 3, 0] {
            turns.remove(SubscriptionId(number));
        }
        // A new one with the number of an ended one, and another priority.
        turns.push(turn(1, 0));
        assert_eq!(order(&mut turns), [5, 7, 9, 2, 4, 6, 8, 1]);
        turns.push(turn(1, 0));
        turns.remove(SubscriptionId(1));
        assert!(turns.is_empty());
    }
}
