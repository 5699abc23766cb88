//! The lanes of a queue: one for each priority that it distinguishes, made with the first message of that priority.

use ferrymq_model::{QueueId, Sequence};

use super::lane::Lane;

/// A queue's lanes. Higher priorities come first everywhere. Each lane is stored under its own id.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Priority 0. A queue without priorities has only this one, so it always exists.
    lowest: Lane,
    /// The others that exist, the highest first.
    higher: Vec<Lane>,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { lowest: Lane::new(0), higher: Vec::new() }
    }

    /// The lane that is served next: the highest with something ready. (AMQP-66)
    #[inline]
    pub(super) fn front(&mut self) -> &mut Lane {
        if self.higher.is_empty() {
            return &mut self.lowest;
        }
        self.higher.iter_mut().find(|lane| lane.ready > 0).unwrap_or(&mut self.lowest)
    }

    #[inline]
    pub(super) fn get(&self, number: u8) -> Option<&Lane> {
        if number == 0 {
            return Some(&self.lowest);
        }
        self.higher.iter().find(|lane| lane.number == number)
    }

    /// The lane of this priority; made if it does not exist.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u8) -> &mut Lane {
        if number == 0 { &mut self.lowest } else { self.higher_mut(number) }
    }

    fn higher_mut(&mut self, number: u8) -> &mut Lane {
        let at = self.higher.partition_point(|lane| lane.number > number);
        if self.higher.get(at).is_none_or(|lane| lane.number != number) {
            self.higher.insert(at, Lane::new(number));
        }
        &mut self.higher[at]
    }

    /// What recovery found of one of them.
    pub(super) fn put(&mut self, lane: Lane) {
        let number = lane.number;
        *self.get_mut(number) = lane;
    }

    /// All ready messages leave; calls `each` with every run.
    pub(super) fn purge(&mut self, mut tell: impl FnMut(u8, Sequence, Sequence)) {
        for lane in self.higher.iter_mut().chain([&mut self.lowest]) {
            let number = lane.number;
            lane.purge(|first, last| tell(number, first, last));
        }
    }
}

/// Which of its queue's lanes is stored under this id.
#[inline]
pub(super) fn lane_of(id: QueueId) -> u8 {
    let [lowest, ..] = id.0.to_le_bytes();
    lowest
}
