//! What units settled that are not durable yet.
//!
//! After a power loss a unit may be missing although a later group exists. Then a settlement in that group must not
//! remove a message that the unit had moved to another queue: it would be in neither queue. So a settlement outside
//! of units leaves out what a unit settled before.

use ferrymq_model::{Position, QueueId, Sequence};
use hashbrown::HashMap;

/// With this many known ranges, the durable ones are removed.
const RANGES_MAX: usize = 64;

/// The end of a unit that has not ended.
const UNFINISHED: Position = Position(u64::MAX);

/// A range that a unit settled, and the end of that unit.
#[derive(Clone, Copy, Debug)]
struct SettledRange {
    first: Sequence,
    last: Sequence,
    position: Position,
}

/// Ranges of queues, in the order in which units settled them.
#[derive(Debug, Default)]
pub(crate) struct UnitSettled {
    queues: HashMap<QueueId, Vec<SettledRange>, foldhash::fast::FixedState>,
    /// Queues of the unit that is being written.
    current: Vec<QueueId>,
    /// When this is durable, all ended units are.
    newest: Position,
    ranges: usize,
    limit: usize,
}

impl UnitSettled {
    /// Whether there are none, as is the case without units.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges == 0
    }

    /// The unit that is being written settles these.
    pub fn add(&mut self, queue: QueueId, first: Sequence, last: Sequence, durable: Position) {
        if self.ranges > self.limit.max(RANGES_MAX) {
            self.forget(durable);
        }
        if self.current.last() != Some(&queue) {
            self.current.push(queue);
        }
        let ranges = self.queues.entry(queue).or_default();
        match ranges.last_mut() {
            Some(before) if before.last + 1 == first => (before.last, before.position) = (last, UNFINISHED),
            _ => {
                ranges.push(SettledRange { first, last, position: UNFINISHED });
                self.ranges += 1;
            }
        }
    }

    /// The unit has ended; it is durable when this position is.
    pub fn end_unit(&mut self, position: Position) {
        if self.current.is_empty() {
            return;
        }
        self.newest = position;
        for queue in self.current.drain(..) {
            let ranges = self.queues.get_mut(&queue).into_iter().flatten();
            for range in ranges.rev().take_while(|range| range.position == UNFINISHED) {
                range.position = position;
            }
        }
    }

    /// Removes what is durable.
    fn forget(&mut self, durable: Position) {
        self.queues.retain(|_, ranges| {
            ranges.retain(|range| range.position > durable);
            !ranges.is_empty()
        });
        self.ranges = self.queues.values().map(Vec::len).sum();
        // The rest must double before it is worth doing this again.
        self.limit = 2 * self.ranges;
    }

    /// The parts of `first..=last` that no unit has settled.
    pub fn leave_out(
        &mut self,
        queue: QueueId,
        first: Sequence,
        last: Sequence,
        durable: Position,
    ) -> Vec<(Sequence, Sequence)> {
        if self.current.is_empty() && self.newest <= durable {
            *self = Self::default();
            return vec![(first, last)];
        }
        let mut settled: Vec<(Sequence, Sequence)> = Vec::new();
        if let Some(ranges) = self.queues.get(&queue) {
            let counts = |range: &&SettledRange| range.position > durable && range.first <= last && range.last >= first;
            settled.extend(ranges.iter().filter(counts).map(|range| (range.first, range.last)));
        }
        settled.sort_unstable();
        let (mut parts, mut from) = (Vec::with_capacity(settled.len() + 1), first);
        for (begin, end) in settled {
            if begin > from {
                parts.push((from, begin - 1));
            }
            from = from.max(end.saturating_add(1));
        }
        if from <= last {
            parts.push((from, last));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: QueueId = QueueId(256);

    #[test]
    fn what_a_unit_settled_is_left_out_until_the_unit_is_durable() {
        let mut settled = UnitSettled::default();
        assert!(settled.is_empty());
        for sequence in [3, 4, 9] {
            settled.add(Q, sequence, sequence, Position(0));
        }
        // A long unit may be durable in part.
        assert_eq!(settled.leave_out(Q, 1, 10, Position(500)), [(1, 2), (5, 8), (10, 10)]);
        settled.end_unit(Position(1_000));
        settled.add(Q, 10, 10, Position(0));
        settled.end_unit(Position(2_000));
        assert_eq!(settled.leave_out(Q, 1, 10, Position(999)), [(1, 2), (5, 8)]);
        assert_eq!(settled.leave_out(Q, 4, 9, Position(999)), [(5, 8)]);
        assert_eq!(settled.leave_out(Q, 3, 4, Position(999)), []);
        assert_eq!(settled.leave_out(QueueId(512), 1, 10, Position(0)), [(1, 10)]);
        // The second range has grown since, and counts as a whole until that is durable.
        assert_eq!(settled.leave_out(Q, 1, 10, Position(1_000)), [(1, 8)]);
        assert_eq!(settled.leave_out(Q, 1, 10, Position(2_000)), [(1, 10)]);
        assert!(settled.is_empty());
    }

    #[test]
    fn what_is_durable_is_forgotten() {
        let mut settled = UnitSettled::default();
        for number in 0..10_000 {
            settled.add(Q, 2 * number, 2 * number, Position(number));
            settled.end_unit(Position(number));
        }
        assert!(settled.ranges <= 2 * RANGES_MAX, "{} are known", settled.ranges);
    }
}
