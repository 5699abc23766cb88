//! The deliveries of one channel that are not settled, by delivery tag.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_model::{Deliveries, Place, Time};

/// A delivery that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where the message came from.
    pub place: Place,
    /// The subscription that got it, by its number in the connection; `None` for get.
    pub subscription: Option<u32>,
    /// Length of its body in bytes.
    pub body_bytes: u32,
}

/// A ring of slots, one for each delivery tag from `base` on, and a map for the few that stay unsettled for long.
///
/// Invariants: the ring's first slot is unsettled, or the ring is empty; tags in `stuck` are below `base`; `live`
/// counts the unsettled slots of the ring.
#[derive(Debug)]
pub struct Unacked {
    base: u64,
    ring: VecDeque<Option<Delivery>>,
    live: usize,
    stuck: BTreeMap<u64, Delivery>,
    /// Marks: deliveries from a tag on were made at a time or later, both ascending. About one mark a second.
    marks: VecDeque<(Time, u64)>,
}

impl Default for Unacked {
    /// The first delivery tag is 1.
    fn default() -> Self {
        Self { base: 1, ring: VecDeque::new(), live: 0, stuck: BTreeMap::new(), marks: VecDeque::new() }
    }
}

impl Unacked {
    /// A ring with more slots than this, most of them settled, moves its stuck deliveries to the map.
    const RING_MAX: usize = 4_096;

    /// The minimum time between marks, in milliseconds.
    const MARK_MS: u64 = 1_000;

    /// Many marks are thinned out, so that one delivery that is never settled does not keep one mark for each
    /// second.
    const MARKS_MAX: usize = 4_096;

    /// How many deliveries are not settled.
    pub fn len(&self) -> usize {
        self.live + self.stuck.len()
    }

    /// Takes the next delivery tag for a delivery that the client will settle.
    pub fn push(&mut self, delivery: Delivery, now: Time) -> u64 {
        if self.ring.len() >= Self::RING_MAX && self.live * 8 < self.ring.len() {
            self.move_stuck();
        }
        self.ring.push_back(Some(delivery));
        self.live += 1;
        let tag = self.last();
        if self.marks.back().is_none_or(|(time, _)| now.since_ms(*time) >= Self::MARK_MS) {
            self.mark(now, tag);
        }
        tag
    }

    /// The oldest unsettled delivery, and since when, to a second.
    pub fn oldest(&self) -> Option<(Time, Delivery)> {
        let in_ring = || Some((self.base, self.ring.front().copied().flatten()?));
        let (tag, delivery) = self.stuck.first_key_value().map(|(tag, delivery)| (*tag, *delivery)).or_else(in_ring)?;
        let mark = self.marks.partition_point(|(_, first)| *first <= tag).checked_sub(1)?;
        Some((self.marks[mark].0, delivery))
    }

    fn mark(&mut self, now: Time, tag: u64) {
        let oldest = self.oldest_tag();
        while self.marks.get(1).is_some_and(|(_, first)| *first <= oldest) {
            self.marks.pop_front();
        }
        if self.marks.len() >= Self::MARKS_MAX {
            // If two marks are joined, the later time counts: no channel is closed too early.
            self.marks = self.marks.make_contiguous().chunks(2).map(|two| (two[two.len() - 1].0, two[0].1)).collect();
        }
        self.marks.push_back((now, tag));
    }

    /// Takes the next delivery tag for a delivery that is settled already.
    pub fn skip(&mut self) -> u64 {
        if self.ring.is_empty() {
            self.base += 1;
            return self.base - 1;
        }
        self.ring.push_back(None);
        self.last()
    }

    /// The last tag; 0 if there was none.
    fn last(&self) -> u64 {
        self.base + self.ring.len() as u64 - 1
    }

    /// Settles deliveries, oldest first. False, and nothing is settled, if one is named that is not unsettled. As in
    /// RabbitMQ, this is so for one that is settled already, too.
    pub fn settle(&mut self, which: Deliveries, mut each: impl FnMut(u64, Delivery)) -> bool {
        match which {
            Deliveries::One(tag) => return self.take(tag).map(|delivery| each(tag, delivery)).is_some(),
            Deliveries::UpTo(tag) if !self.knows(tag) => return false,
            Deliveries::UpTo(tag) => self.take_up_to(tag, each),
            Deliveries::All => self.take_up_to(self.last(), each),
            Deliveries::Range { first, last } if first > last => {}
            Deliveries::Range { first, last } if first <= self.oldest_tag() => self.take_up_to(last, each),
            Deliveries::Range { first, last } => {
                let mut stuck = self.stuck.range(first..=last).map(|(tag, _)| *tag).collect::<Vec<_>>();
                stuck.extend(first.max(self.base)..=last.min(self.last()));
                for tag in stuck {
                    if let Some(delivery) = self.take(tag) {
                        each(tag, delivery);
                    }
                }
            }
        }
        true
    }

    /// No delivery that is not settled has a smaller tag.
    fn oldest_tag(&self) -> u64 {
        self.stuck.first_key_value().map_or(self.base, |(tag, _)| *tag)
    }

    /// A delivery that was taken is unsettled again.
    pub fn put_back(&mut self, tag: u64, delivery: Delivery) {
        let slot = tag.checked_sub(self.base).and_then(|slot| self.ring.get_mut(usize::try_from(slot).ok()?));
        match slot {
            Some(slot) => {
                *slot = Some(delivery);
                self.live += 1;
            }
            None => {
                self.stuck.insert(tag, delivery);
            }
        }
    }

    /// Settles one delivery. `None` where the tag is unknown or settled already.
    pub fn take(&mut self, tag: u64) -> Option<Delivery> {
        let Some(slot) = tag.checked_sub(self.base) else { return self.stuck.remove(&tag) };
        let delivery = self.ring.get_mut(usize::try_from(slot).ok()?)?.take()?;
        self.live -= 1;
        self.trim();
        Some(delivery)
    }

    /// Settles all deliveries up to `last`, oldest first.
    fn take_up_to(&mut self, last: u64, mut each: impl FnMut(u64, Delivery)) {
        let later = self.stuck.split_off(&last.saturating_add(1));
        for (tag, delivery) in std::mem::replace(&mut self.stuck, later) {
            each(tag, delivery);
        }
        while self.base <= last
            && let Some(slot) = self.ring.pop_front()
        {
            self.base += 1;
            if let Some(delivery) = slot {
                self.live -= 1;
                each(self.base - 1, delivery);
            }
        }
        self.trim();
    }

    fn knows(&self, tag: u64) -> bool {
        match tag.checked_sub(self.base) {
            None => self.stuck.contains_key(&tag),
            Some(slot) => usize::try_from(slot).ok().and_then(|slot| self.ring.get(slot)).is_some_and(Option::is_some),
        }
    }

    /// Removes settled slots at the front.
    fn trim(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
        if self.ring.is_empty() && self.ring.capacity() > Self::RING_MAX {
            self.ring = VecDeque::new();
        }
    }

    /// Moves the unsettled deliveries of a mostly settled ring to the map, so that one old delivery does not keep
    /// the ring.
    fn move_stuck(&mut self) {
        for (tag, slot) in (self.base..).zip(self.ring.drain(..)) {
            self.base = tag + 1;
            if let Some(delivery) = slot {
                self.stuck.insert(tag, delivery);
            }
        }
        self.live = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrymq_model::QueueId;

    fn delivery(sequence: u64) -> Delivery {
        Delivery { place: Place { queue: QueueId(256), sequence }, subscription: None, body_bytes: 1 }
    }

    /// Random takes agree with a plain map, with one delivery that is never settled.
    #[test]
    fn agrees_with_a_plain_map() {
        let (mut unacked, mut plain) = (Unacked::default(), BTreeMap::new());
        let mut seed = 7_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        assert_eq!(unacked.push(delivery(1), Time(0)), 1);
        plain.insert(1, delivery(1));
        let mut last = 1;
        for sequence in 2..60_000 {
            match random(8) {
                0 => {
                    last += 1;
                    assert_eq!(unacked.skip(), last);
                }
                1..=3 => {
                    let tag = last.saturating_sub(random(40)).max(2);
                    let taken = unacked.take(tag);
                    assert_eq!(taken, plain.remove(&tag), "tag {tag}");
                    if let Some(delivery) = taken.filter(|_| random(8) == 0) {
                        unacked.put_back(tag, delivery);
                        plain.insert(tag, delivery);
                    }
                }
                _ => {
                    last += 1;
                    assert_eq!(unacked.push(delivery(sequence), Time(sequence)), last);
                    plain.insert(last, delivery(sequence));
                }
            }
            assert_eq!(unacked.len(), plain.len());
        }
        let most = Unacked::RING_MAX.max(8 * plain.len()) + 1;
        assert!(unacked.ring.len() <= most, "settled slots do not pile up");
        let half = *plain.keys().nth(plain.len() / 2).unwrap();
        let mut taken = Vec::new();
        assert!(unacked.settle(Deliveries::UpTo(half), |_, delivery| taken.push(delivery)));
        assert_eq!(taken, plain.range(..=half).map(|(_, delivery)| *delivery).collect::<Vec<_>>());
        assert!(unacked.settle(Deliveries::All, |_, delivery| taken.push(delivery)));
        assert_eq!(taken.len(), plain.len());
        assert_eq!(unacked.len(), 0);
    }

    /// One old delivery does not keep the slots of all that came after it.
    #[test]
    fn a_stuck_delivery_moves_out_of_the_ring() {
        let mut unacked = Unacked::default();
        let stuck = unacked.push(delivery(1), Time(0));
        for sequence in 2..100_000 {
            let tag = unacked.push(delivery(sequence), Time(sequence));
            assert!(unacked.take(tag).is_some());
        }
        assert!(unacked.ring.len() <= Unacked::RING_MAX + 1, "{} slots", unacked.ring.len());
        assert_eq!(unacked.take(stuck), Some(delivery(1)));
        assert_eq!(unacked.take(stuck), None);
    }

    #[test]
    fn the_oldest_delivery_is_known_to_a_second() {
        let mut unacked = Unacked::default();
        assert_eq!(unacked.oldest(), None);
        for second in 0..10_000_u64 {
            for sequence in 0..3 {
                unacked.push(delivery(second * 3 + sequence), Time(second * 1_000 + sequence));
            }
            if second > 0 {
                (1..=3).for_each(|back| assert!(unacked.take(second * 3 + 4 - back).is_some()));
            }
        }
        assert!(unacked.marks.len() <= Unacked::MARKS_MAX, "marks are thinned out");
        let (since, oldest) = unacked.oldest().unwrap();
        assert_eq!((oldest, since.0 < 10_000), (delivery(0), true), "{since:?}");
        (1..=3).for_each(|tag| assert!(unacked.take(tag).is_some()));
        assert_eq!(unacked.oldest(), None);
        unacked.push(delivery(1), Time(20_000_000));
        unacked.push(delivery(2), Time(20_000_900));
        unacked.push(delivery(3), Time(20_001_100));
        assert_eq!(unacked.oldest(), Some((Time(20_000_000), delivery(1))));
        assert!(unacked.settle(Deliveries::UpTo(30_002), |_, _| ()));
        assert_eq!(unacked.oldest(), Some((Time(20_001_100), delivery(3))));
    }

    #[test]
    fn multiple_takes_everything_up_to_its_tag_once() {
        let mut unacked = Unacked::default();
        for sequence in 1..=5 {
            unacked.push(delivery(sequence), Time(sequence));
        }
        assert!(unacked.take(2).is_some());
        let mut taken = Vec::new();
        assert!(unacked.settle(Deliveries::UpTo(3), |_, delivery| taken.push(delivery.place.sequence)));
        assert_eq!(taken, [1, 3]);
        assert!(!unacked.settle(Deliveries::UpTo(3), |_, _| ()), "a settled tag is unknown");
        assert!(!unacked.settle(Deliveries::UpTo(9), |_, _| ()), "a tag that was not given is unknown");
        assert!(unacked.settle(Deliveries::All, |_, delivery| taken.push(delivery.place.sequence)));
        assert_eq!(taken, [1, 3, 4, 5]);
    }

    #[test]
    fn a_range_settles_what_is_left_of_it() {
        let mut unacked = Unacked::default();
        (1..=10).for_each(|sequence| _ = unacked.push(delivery(sequence), Time(0)));
        let mut taken = Vec::new();
        assert!(unacked.settle(Deliveries::One(5), |tag, _| taken.push(tag)));
        assert!(unacked.settle(Deliveries::Range { first: 4, last: 6 }, |tag, _| taken.push(tag)));
        assert!(unacked.settle(Deliveries::Range { first: 4, last: 6 }, |tag, _| taken.push(tag)));
        assert!(unacked.settle(Deliveries::Range { first: 9, last: u64::MAX }, |tag, _| taken.push(tag)));
        assert!(unacked.settle(Deliveries::Range { first: 3, last: 2 }, |tag, _| taken.push(tag)));
        assert_eq!(taken, [5, 4, 6, 9, 10]);
        assert!(unacked.settle(Deliveries::Range { first: 0, last: 7 }, |tag, _| taken.push(tag)));
        assert_eq!(taken[5..], [1, 2, 3, 7]);
        assert_eq!(unacked.len(), 1);
    }
}
