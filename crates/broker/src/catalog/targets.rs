//! The targets of bindings, in order, so that one of them can be chosen by a number.

use smallvec::SmallVec;

use super::bindings::Target;

/// Targets in ascending order, each with its number of bindings. They are in chunks, so that adding or removing one
/// moves few others, however many there are.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// None of them is empty.
    portions: SmallVec<[Vec<(Target, u32)>; 1]>,
}

/// A longer chunk is split in two.
const PORTION_MAX: usize = 512;

impl Targets {
    pub(super) fn add(&mut self, target: &Target) {
        if self.portions.is_empty() {
            self.portions.push(vec![(target.clone(), 1)]);
            return;
        }
        let at = self.portion(target);
        let portion = &mut self.portions[at];
        match portion.binary_search_by(|(other, _)| other.cmp(target)) {
            Ok(found) => portion[found].1 += 1,
            Err(place) => portion.insert(place, (target.clone(), 1)),
        }
        if portion.len() > PORTION_MAX {
            let rest = portion.split_off(PORTION_MAX / 2);
            self.portions.insert(at + 1, rest);
        }
    }

    pub(super) fn remove(&mut self, target: &Target) {
        let at = self.portion(target);
        let portion = &mut self.portions[at];
        let found = portion.binary_search_by(|(other, _)| other.cmp(target));
        let found = found.expect("only a target that is there is removed");
        portion[found].1 -= 1;
        if portion[found].1 == 0 {
            portion.remove(found);
        }
        if portion.is_empty() {
            self.portions.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.portions.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.portions.iter().flatten().map(|(target, _)| target)
    }

    /// The target with this number.
    pub(super) fn nth(&self, number: u64) -> Option<&Target> {
        let count: usize = self.portions.iter().map(Vec::len).sum();
        let mut at = number.checked_rem(count as u64)? as usize;
        for portion in &self.portions {
            match portion.get(at) {
                Some((target, _)) => return Some(target),
                None => at -= portion.len(),
            }
        }
        None
    }

    /// The chunk that contains a target, or would contain it.
    fn portion(&self, target: &Target) -> usize {
        self.portions.partition_point(|portion| portion[0].0 <= *target).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ferrymq_model::QueueId;

    use super::*;

    /// Compared with a map that does the same.
    #[test]
    fn many_targets_stay_in_order() {
        let (mut targets, mut expected) = (Targets::default(), BTreeMap::new());
        let mut state = 1_u64;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let target = Target::Queue(QueueId((state >> 33) % 3_000));
            if step < 12_000 || !expected.contains_key(&target) {
                targets.add(&target);
                *expected.entry(target).or_insert(0) += 1;
            } else {
                targets.remove(&target);
                let count = expected.get_mut(&target).unwrap();
                *count -= 1;
                if *count == 0 {
                    expected.remove(&target);
                }
            }
        }
        assert!(targets.portions.len() > 4);
        assert!(targets.iter().eq(expected.keys()));
        for (number, target) in expected.keys().enumerate() {
            assert_eq!(targets.nth((number + expected.len()) as u64), Some(target));
        }
        assert_eq!(Targets::default().nth(3), None);
    }
}
