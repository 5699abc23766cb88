//! The deliveries of one channel that are not settled, by delivery id.
//!
//! Inside, deliveries are numbered with 64 bits: these are the tags. A delivery id is the tag in the space that the
//! channel's protocol has for ids, so that it begins again after the largest one.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
};

use ferrymq_model::{Deliveries, DeliveryIds, MessageKey, Time};

/// A delivery that is not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where the message came from.
    pub place: MessageKey,
    /// The subscription that got it, by its number in the connection; `None` for get.
    pub subscription: Option<u32>,
    /// Length of its body in bytes.
    pub body_bytes: u32,
    /// The message is accepted, and the id is still in use.
    pub is_accepted: bool,
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
    ids: DeliveryIds,
    /// When the consumer timeouts of some deliveries end; [`NEVER`] for those that have none. Few protocols have
    /// such deliveries.
    timeouts: BTreeMap<u64, Time>,
}

/// The end of a timeout that never ends.
const NEVER: Time = Time(u64::MAX);

impl Default for Unacked {
    fn default() -> Self {
        Self::new(DeliveryIds::U64)
    }
}

impl Unacked {
    /// Without deliveries. The first delivery id is 1.
    pub fn new(ids: DeliveryIds) -> Self {
        let (ring, stuck, marks) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        Self { base: 1, ring, live: 0, stuck, marks, ids, timeouts: BTreeMap::new() }
    }

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

    /// Whether there is an id for another delivery.
    #[inline]
    pub fn has_free_id(&self) -> bool {
        self.ids == DeliveryIds::U64 || (self.len() as u64) < self.ids.max()
    }

    /// Takes the next delivery id for a delivery that the client will settle. There must be one.
    pub fn push(&mut self, delivery: Delivery, now: Time) -> u64 {
        if self.ids != DeliveryIds::U64 {
            self.pass_over_used();
        }
        if self.ring.len() >= Self::RING_MAX && self.live * 8 < self.ring.len() {
            self.move_stuck();
        }
        self.ring.push_back(Some(delivery));
        self.live += 1;
        let tag = self.last();
        if self.marks.back().is_none_or(|(time, _)| now.since_ms(*time) >= Self::MARK_MS) {
            self.mark(now, tag);
        }
        self.id_of(tag)
    }

    /// Passes over tags whose ids are in use.
    fn pass_over_used(&mut self) {
        debug_assert!(self.has_free_id(), "whoever delivers has looked for an id");
        while self.has_free_id() && self.unsettled_tag(self.id_of(self.last() + 1)).is_some() {
            self.skip();
        }
    }

    fn id_of(&self, tag: u64) -> u64 {
        if self.ids == DeliveryIds::U64 { tag } else { (tag - 1) % self.ids.max() + 1 }
    }

    /// The latest tag with this id; one after the last for an id that follows it.
    fn latest_tag(&self, id: u64) -> Option<u64> {
        let (last, max) = (self.last(), self.ids.max());
        if self.ids == DeliveryIds::U64 || last == 0 {
            return Some(id);
        }
        let ahead = (id % max + max - self.id_of(last) % max) % max;
        if ahead < max / 2 { Some(last + ahead) } else { (last + ahead).checked_sub(max).filter(|tag| *tag > 0) }
    }

    /// The tag of the unsettled delivery with this id.
    fn unsettled_tag(&self, id: u64) -> Option<u64> {
        if self.ids == DeliveryIds::U64 {
            return self.knows(id).then_some(id);
        }
        if id == 0 || id > self.ids.max() {
            return None;
        }
        let (mut tag, oldest) = (self.latest_tag(id)?, self.oldest_tag());
        while !self.knows(tag) {
            tag = tag.checked_sub(self.ids.max()).filter(|tag| *tag >= oldest)?;
        }
        Some(tag)
    }

    /// The oldest unsettled delivery, and since when, to a second.
    pub fn oldest(&self) -> Option<(Time, Delivery)> {
        let in_ring = || Some((self.base, self.ring.front().copied().flatten()?));
        let (tag, delivery) = self.stuck.first_key_value().map(|(tag, delivery)| (*tag, *delivery)).or_else(in_ring)?;
        Some((self.since(tag)?, delivery))
    }

    /// Since when a delivery is out, to a second.
    fn since(&self, tag: u64) -> Option<Time> {
        let mark = self.marks.partition_point(|(_, first)| *first <= tag).checked_sub(1)?;
        Some(self.marks[mark].0)
    }

    /// The timeout of a delivery that is out for too long, if there is one. `timeout_ms` says how long each may be out;
    /// 0 means for ever. Only the oldest delivery counts, as in RabbitMQ, unless some have timeouts of their own.
    /// (AMQP-52)
    pub fn overdue(&self, now: Time, timeout_ms: impl Fn(&Delivery) -> u64) -> Option<u64> {
        let is_over = |since: Time, ms: u64| ms > 0 && now.since_ms(since) > ms;
        if self.timeouts.is_empty() {
            let (since, delivery) = self.oldest()?;
            let ms = timeout_ms(&delivery);
            return is_over(since, ms).then_some(ms);
        }
        self.unsettled().find_map(|(tag, delivery)| {
            let ms = timeout_ms(&delivery);
            let over = match self.timeouts.get(&tag) {
                Some(end) => *end < now,
                None => is_over(self.since(tag)?, ms),
            };
            over.then_some(ms)
        })
    }

    /// Whether the delivery of this id is unsettled, came from this place, and is not accepted.
    pub fn holds(&self, id: u64, place: MessageKey) -> bool {
        let Some(tag) = self.unsettled_tag(id) else { return false };
        let found = match tag.checked_sub(self.base) {
            None => self.stuck.get(&tag).copied(),
            Some(slot) => usize::try_from(slot).ok().and_then(|slot| self.ring.get(slot).copied().flatten()),
        };
        found.is_some_and(|delivery| delivery.place == place && !delivery.is_accepted)
    }

    /// All unsettled deliveries with their tags, oldest first.
    fn unsettled(&self) -> impl Iterator<Item = (u64, Delivery)> {
        let stuck = self.stuck.iter().map(|(tag, delivery)| (*tag, *delivery));
        let ring = (self.base..).zip(&self.ring).filter_map(|(tag, slot)| Some((tag, (*slot)?)));
        stuck.chain(ring)
    }

    /// All unsettled deliveries with their ids, oldest first.
    pub fn outstanding(&self) -> impl Iterator<Item = (u64, Delivery)> {
        self.unsettled().map(|(tag, delivery)| (self.id_of(tag), delivery))
    }

    /// The ids of unsettled deliveries of gets.
    pub fn of_gets(&self) -> impl Iterator<Item = u64> {
        self.outstanding().filter(|(_, delivery)| delivery.subscription.is_none()).map(|(id, _)| id)
    }

    /// These messages are accepted, and their ids stay in use; calls `each` for each that was not accepted before.
    /// False, and nothing has changed, if one is named that is not unsettled.
    pub fn accept_and_keep(&mut self, which: Deliveries, mut each: impl FnMut(Delivery)) -> bool {
        let Some(tags) = self.tags(which) else { return false };
        for tag in tags {
            let Some(delivery) = self.get_mut(tag).filter(|delivery| !delivery.is_accepted) else { continue };
            let accepted = *delivery;
            delivery.is_accepted = true;
            self.timeouts.insert(tag, NEVER);
            each(accepted);
        }
        true
    }

    /// The consumer timeouts of these deliveries end at this time. False, and nothing has changed, if one is named that
    /// is not unsettled.
    pub fn extend(&mut self, which: Deliveries, end: Time) -> bool {
        let Some(tags) = self.tags(which) else { return false };
        for tag in tags {
            if self.get_mut(tag).is_some_and(|delivery| !delivery.is_accepted) {
                self.timeouts.insert(tag, end);
            }
        }
        true
    }

    /// The tags of unsettled deliveries. `None` if one is named that is not unsettled.
    fn tags(&self, which: Deliveries) -> Option<Vec<u64>> {
        let (first, last) = match which {
            Deliveries::One(id) => return self.unsettled_tag(id).map(|tag| vec![tag]),
            Deliveries::UpTo(id) => (0, self.unsettled_tag(id)?),
            Deliveries::All => (0, u64::MAX),
            Deliveries::Range { first, last } => self.range(first, last).unwrap_or((1, 0)),
        };
        Some(self.unsettled().map(|(tag, _)| tag).filter(|tag| (first..=last).contains(tag)).collect())
    }

    /// The first and the last tag of a range of ids; `None` if it is empty.
    fn range(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        if self.ids == DeliveryIds::U64 {
            return (first <= last).then_some((first, last));
        }
        let (last_tag, max) = (self.latest_tag(last)?, self.ids.max());
        let before = (last % max + max - first % max) % max;
        Some((last_tag.saturating_sub(before), last_tag))
    }

    fn get_mut(&mut self, tag: u64) -> Option<&mut Delivery> {
        match tag.checked_sub(self.base) {
            None => self.stuck.get_mut(&tag),
            Some(slot) => self.ring.get_mut(usize::try_from(slot).ok()?)?.as_mut(),
        }
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

    /// Takes the next delivery id for a delivery that is settled already.
    #[inline]
    pub fn skip(&mut self) -> u64 {
        if self.ring.is_empty() {
            self.base += 1;
            return self.id_of(self.base - 1);
        }
        self.skip_in_ring()
    }

    fn skip_in_ring(&mut self) -> u64 {
        if self.ring.len() >= Self::RING_MAX && self.live * 8 < self.ring.len() {
            self.move_stuck();
            return self.skip();
        }
        self.ring.push_back(None);
        self.id_of(self.last())
    }

    /// The last tag; 0 if there was none.
    fn last(&self) -> u64 {
        self.base + self.ring.len() as u64 - 1
    }

    /// Settles deliveries, oldest first, and calls `each` with each tag. False, and nothing is settled, if one is named
    /// that is not unsettled. As in RabbitMQ, this is so for one that is settled already, too. (AMQP-43)
    pub fn settle(&mut self, which: Deliveries, mut each: impl FnMut(u64, Delivery)) -> bool {
        let which = if self.ids == DeliveryIds::U64 {
            which
        } else {
            match which {
                Deliveries::One(id) => Deliveries::One(self.unsettled_tag(id).unwrap_or(0)),
                Deliveries::UpTo(id) => Deliveries::UpTo(self.unsettled_tag(id).unwrap_or(0)),
                Deliveries::All => Deliveries::All,
                Deliveries::Range { first, last } => {
                    let (first, last) = self.range(first, last).unwrap_or((1, 0));
                    Deliveries::Range { first, last }
                }
            }
        };
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
        if delivery.is_accepted {
            self.timeouts.insert(tag, NEVER);
        }
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
        self.forget_timeouts(tag..=tag);
        let Some(slot) = tag.checked_sub(self.base) else { return self.stuck.remove(&tag) };
        let delivery = self.ring.get_mut(usize::try_from(slot).ok()?)?.take()?;
        self.live -= 1;
        self.trim();
        Some(delivery)
    }

    /// Settles all deliveries up to `last`, oldest first.
    fn take_up_to(&mut self, last: u64, mut each: impl FnMut(u64, Delivery)) {
        self.forget_timeouts(0..=last);
        while let Some(oldest) = self.stuck.first_entry().filter(|oldest| *oldest.key() <= last) {
            let (tag, delivery) = oldest.remove_entry();
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

    /// Timeouts of deliveries that are settled mean nothing.
    #[inline]
    fn forget_timeouts(&mut self, tags: RangeInclusive<u64>) {
        if self.timeouts.is_empty() {
            return;
        }
        let (first, last) = tags.into_inner();
        while let Some((tag, _)) = self.timeouts.range(first..=last).next() {
            let tag = *tag;
            self.timeouts.remove(&tag);
        }
    }

    /// All unsettled deliveries are delivered again now: their consumer timeouts begin again.
    pub fn begin_again(&mut self, now: Time) {
        self.marks.clear();
        if self.len() > 0 {
            self.marks.push_back((now, self.oldest_tag()));
        }
        self.timeouts.retain(|_, end| *end == NEVER);
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
        let place = MessageKey { queue: QueueId(256), sequence };
        Delivery { place, subscription: None, body_bytes: 1, is_accepted: false }
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
