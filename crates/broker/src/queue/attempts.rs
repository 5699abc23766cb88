//! How often messages were delivered and came back, for those that came back.

use std::collections::BTreeMap;

use ferrymq_model::Sequence;

/// Counts by sequence, kept as runs of equal counts; zero is not kept. A channel that ends with a million unsettled
/// deliveries leaves a few runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// First sequence to last sequence and count.
    runs: BTreeMap<Sequence, (Sequence, u32)>,
}

impl Attempts {
    pub(crate) fn of(&self, sequence: Sequence) -> u32 {
        match self.runs.range(..=sequence).next_back() {
            Some((_, (last, count))) if *last >= sequence => *count,
            _ => 0,
        }
    }

    /// Adds one to the count of each of `first..=last`, and calls `each` with every run and its new count.
    pub(crate) fn add(&mut self, first: Sequence, last: Sequence, mut tell: impl FnMut(Sequence, Sequence, u32)) {
        self.cut(first);
        self.cut(last + 1);
        let mut from = first;
        while from <= last {
            let (until, count) = match self.runs.range(from..=last).next() {
                Some((start, (end, count))) if *start == from => (*end, *count),
                Some((start, _)) => (*start - 1, 0),
                None => (last, 0),
            };
            self.runs.insert(from, (until, count + 1));
            tell(from, until, count + 1);
            from = until + 1;
        }
    }

    /// Sets the counts that recovery found.
    pub(crate) fn set(&mut self, sequence: Sequence, count: u32) {
        self.remove(sequence, sequence);
        match self.runs.range_mut(..sequence).next_back() {
            Some((_, (last, same))) if *last + 1 == sequence && *same == count => *last = sequence,
            _ => {
                self.runs.insert(sequence, (sequence, count));
            }
        }
    }

    /// Sets one value for all of `first..=last`.
    pub(crate) fn set_all(&mut self, first: Sequence, last: Sequence, count: u32) {
        self.remove(first, last);
        self.runs.insert(first, (last, count));
    }

    /// Removes the counts of `first..=last`.
    pub(crate) fn remove(&mut self, first: Sequence, last: Sequence) {
        if self.runs.is_empty() {
            return;
        }
        self.cut(first);
        self.cut(last + 1);
        while let Some((start, _)) = self.runs.range(first..=last).next() {
            let start = *start;
            self.runs.remove(&start);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Sequence, u32)> + '_ {
        self.runs.iter().flat_map(|(first, (last, count))| (*first..=*last).map(|sequence| (sequence, *count)))
    }

    /// Splits the run that contains both sides of the border before `at`.
    fn cut(&mut self, at: Sequence) {
        if let Some((_, (last, count))) = self.runs.range_mut(..at).next_back()
            && *last >= at
        {
            let rest = (*last, *count);
            *last = at - 1;
            self.runs.insert(at, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Attempts;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_plain_map() {
        let mut seed = 7_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let (mut attempts, mut plain) = (Attempts::default(), BTreeMap::<u64, u32>::new());
            for _ in 0..30 {
                let first = 1 + random(40);
                let last = first + random(8);
                match random(5) {
                    0 => {
                        attempts.remove(first, last);
                        plain.retain(|sequence, _| !(first..=last).contains(sequence));
                    }
                    1 => {
                        attempts.set(first, 3);
                        plain.insert(first, 3);
                    }
                    _ => {
                        let mut told = Vec::new();
                        attempts.add(first, last, |a, b, count| told.extend((a..=b).map(|sequence| (sequence, count))));
                        let expected: Vec<_> = (first..=last)
                            .map(|sequence| {
                                let count = plain.entry(sequence).or_default();
                                *count += 1;
                                (sequence, *count)
                            })
                            .collect();
                        assert_eq!(told, expected);
                    }
                }
                assert_eq!(attempts.iter().collect::<Vec<_>>(), plain.clone().into_iter().collect::<Vec<_>>());
                assert_eq!(attempts.of(first), plain.get(&first).copied().unwrap_or(0));
            }
        }
    }
}
