//! Points on a ring. The point that follows a position can be found.

use smallvec::SmallVec;

/// Points of 64 bits, each with the number of its owner. The ring is divided into about as many arcs as it has points.
/// So the time to find the point after a position hardly depends on the number of points, if they are spread evenly.
#[derive(Debug)]
pub(super) struct Ring {
    /// The arcs; their number is a power of two. The points of each arc are in ascending order.
    arcs: Vec<SmallVec<[(u64, u64); 1]>>,
    points: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { arcs: vec![SmallVec::new()], points: 0 }
    }
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.points == 0
    }

    pub(super) fn insert(&mut self, point: u64, number: u64) {
        self.points += 1;
        if self.points > self.arcs.len() {
            self.cut(2 * self.arcs.len());
        }
        self.put((point, number));
    }

    pub(super) fn remove(&mut self, point: u64, number: u64) {
        let at = self.arc(point);
        let arc = &mut self.arcs[at];
        let Ok(found) = arc.binary_search(&(point, number)) else { return };
        arc.remove(found);
        self.points -= 1;
        if self.points < self.arcs.len() / 4 {
            self.cut(self.arcs.len() / 2);
        }
    }

    /// The distance from a position to the next point, and the owner of that point. `None` if the distance is more than
    /// `most`.
    pub(super) fn after(&self, place: u64, most: u64) -> Option<(u64, u64)> {
        let first = self.arc(place);
        let arc_length = u64::MAX / self.arcs.len() as u64;
        // The first arc comes again at the end, for its points before the position.
        for step in 0..=self.arcs.len() {
            let arc = &self.arcs[(first + step) & (self.arcs.len() - 1)];
            let is_first = step == 0;
            if let Some((point, number)) = arc.iter().find(|(point, _)| !is_first || *point >= place) {
                let distance = point.wrapping_sub(place);
                return (distance <= most).then_some((distance, *number));
            }
            if (step as u64).saturating_mul(arc_length) > most {
                return None;
            }
        }
        None
    }

    fn put(&mut self, entry: (u64, u64)) {
        let at = self.arc(entry.0);
        let arc = &mut self.arcs[at];
        let place = arc.partition_point(|other| *other < entry);
        arc.insert(place, entry);
    }

    fn arc(&self, point: u64) -> usize {
        match self.arcs.len().trailing_zeros() {
            0 => 0,
            bits => (point >> (u64::BITS - bits)) as usize,
        }
    }

    fn cut(&mut self, arcs: usize) {
        let points = std::mem::replace(&mut self.arcs, vec![SmallVec::new(); arcs]);
        points.into_iter().flatten().for_each(|entry| self.put(entry));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Compares the ring with a plain set.
    #[test]
    fn the_next_point_is_found_wherever_it_is() {
        let (mut ring, mut expected) = (Ring::default(), BTreeSet::new());
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 32
        };
        assert_eq!(ring.after(5, u64::MAX), None);
        for step in 0..4_000_u64 {
            if step < 2_000 {
                // Some points are equal, and some are close to each other.
                let point = if step % 3 == 0 { random() % 64 } else { random() };
                ring.insert(point, step);
                expected.insert((point, step));
            } else {
                let (point, number) = *expected.iter().nth(random() as usize % expected.len()).unwrap();
                ring.remove(point, number);
                expected.remove(&(point, number));
            }
            for place in [random(), random() % 64, u64::MAX] {
                let next = expected.range((place, 0)..).next().or_else(|| expected.first());
                let next = next.map(|(point, number)| (point.wrapping_sub(place), *number));
                assert_eq!(ring.after(place, u64::MAX), next, "step {step}");
                let most = random() % (u64::MAX / 500);
                assert_eq!(ring.after(place, most), next.filter(|(distance, _)| *distance <= most), "step {step}");
            }
        }
        assert!(ring.is_empty() && ring.arcs.len() <= 4, "{}", ring.arcs.len());
    }
}
