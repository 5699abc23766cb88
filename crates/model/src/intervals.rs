//! A set of sequence numbers, kept as disjoint intervals.

use std::collections::BTreeMap;

/// A set of numbers, most of which follow each other. Its cost depends on the number of intervals, not on the number of
/// numbers.
///
/// Invariants: intervals are not empty, do not overlap and are not adjacent (adjacent ones are merged).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Intervals {
    /// First number to last number, both included.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl Intervals {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The smallest number in the set.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.runs.first_key_value().map(|(first, _)| *first)
    }

    /// The largest number in the set.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, last)| *last)
    }

    /// Whether `number` is in the set.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// The smallest number in the set that is at least `from`.
    #[must_use]
    pub fn next_from(&self, from: u64) -> Option<u64> {
        if self.contains(from) {
            return Some(from);
        }
        self.runs.range(from..).next().map(|(first, _)| *first)
    }

    /// The smallest number that is at least `from` and not in the set.
    #[must_use]
    pub fn gap_from(&self, from: u64) -> u64 {
        match self.runs.range(..=from).next_back() {
            Some((_, last)) if *last >= from => last + 1,
            _ => from,
        }
    }

    /// The intervals, first and last number included, in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(first, last)| (*first, *last))
    }

    /// Adds `first..=last`; returns how many of them were new.
    pub fn insert(&mut self, first: u64, last: u64) -> u64 {
        debug_assert!(first <= last, "an interval is not empty");
        let (mut low, mut high, mut absorbed) = (first, last, 0);
        // The interval before the new one may overlap it or be adjacent. Intervals that begin inside the new one or
        // right after it are merged with it.
        if let Some((&start, &end)) = self.runs.range(..first).next_back()
            && end.saturating_add(1) >= first
        {
            if end >= last {
                return 0;
            }
            low = start;
            absorbed += end - start + 1;
        }
        while let Some((&start, &end)) = self.runs.range(first..=last.saturating_add(1)).next() {
            self.runs.remove(&start);
            absorbed += end - start + 1;
            high = high.max(end);
        }
        self.runs.insert(low, high);
        let added = (high - low + 1) - absorbed;
        self.count += added;
        added
    }

    /// Removes `first..=last`; returns how many of them were in the set.
    pub fn remove(&mut self, first: u64, last: u64) -> u64 {
        debug_assert!(first <= last, "an interval is not empty");
        let mut removed = 0;
        if let Some((&start, &end)) = self.runs.range(..first).next_back()
            && end >= first
        {
            self.runs.insert(start, first - 1);
            removed += end.min(last) - first + 1;
            if end > last {
                self.runs.insert(last + 1, end);
            }
        }
        while let Some((&start, &end)) = self.runs.range(first..=last).next() {
            self.runs.remove(&start);
            removed += end.min(last) - start + 1;
            if end > last {
                self.runs.insert(last + 1, end);
            }
        }
        self.count -= removed;
        removed
    }

    /// Removes the smallest number and returns it.
    pub fn pop_first(&mut self) -> Option<u64> {
        let entry = self.runs.first_entry()?;
        let first = *entry.key();
        if *entry.get() == first {
            entry.remove();
        } else {
            let last = entry.remove();
            self.runs.insert(first + 1, last);
        }
        self.count -= 1;
        Some(first)
    }
}

impl FromIterator<(u64, u64)> for Intervals {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(runs: T) -> Self {
        let mut set = Self::new();
        for (first, last) in runs {
            set.insert(first, last);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::Intervals;
    use std::collections::BTreeSet;

    /// Short random sequences of inserts and removes give the same result as with a plain set.
    #[test]
    fn agrees_with_a_plain_set() {
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..2_000 {
            let (mut set, mut plain) = (Intervals::new(), BTreeSet::new());
            for _ in 0..12 {
                let first = random(24);
                let last = first + random(6);
                match random(3) {
                    0 => {
                        let removed = (first..=last).filter(|n| plain.remove(n)).count() as u64;
                        assert_eq!(set.remove(first, last), removed);
                    }
                    1 => assert_eq!(set.pop_first(), plain.pop_first()),
                    _ => {
                        let added = (first..=last).filter(|n| plain.insert(*n)).count() as u64;
                        assert_eq!(set.insert(first, last), added);
                    }
                }
                assert_eq!(set.len(), plain.len() as u64);
                assert_eq!(
                    set.iter().flat_map(|(a, b)| a..=b).collect::<Vec<_>>(),
                    plain.iter().copied().collect::<Vec<_>>()
                );
                assert!(
                    set.iter().zip(set.iter().skip(1)).all(|((_, a), (b, _))| a + 1 < b),
                    "adjacent intervals are merged"
                );
                assert_eq!(set.next_from(first), plain.range(first..).next().copied());
                assert_eq!(set.contains(first), plain.contains(&first));
                assert_eq!(set.gap_from(first), (first..).find(|n| !plain.contains(n)).unwrap());
            }
        }
    }
}
