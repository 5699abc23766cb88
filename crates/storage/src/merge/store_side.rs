//! The store's side of merging: which runs are worth it, which messages are live, and their new places.

use ferrymq_model::{QueueId, Sequence};

use crate::run::RunId;
use crate::spill::store_side::VISIT_QUEUES;
use crate::store::Store;

/// Candidates for merging.
#[derive(Debug, Default)]
pub(crate) struct Mergeable {
    /// How many live messages each run has.
    pub runs: Vec<(RunId, u64)>,
    /// The runs of a queue that is in too many, oldest first.
    pub fragmented: Vec<RunId>,
}

/// Runs that become one, with the new run if it is known already.
#[derive(Debug)]
pub(crate) struct Merge {
    pub sources: Vec<RunId>,
    pub to: RunId,
    /// Queues that had messages in the sources when they were read, by id.
    pub queues: Vec<QueueId>,
}

impl Store {
    /// What could be merged now.
    pub(crate) fn mergeable(&mut self) -> Mergeable {
        let mut fragmented = Vec::new();
        let queue = self.fragmented.take().and_then(|id| self.keys.get(id));
        if let Some(queue) = queue.and_then(|key| self.queues[key as usize].as_ref()) {
            fragmented.extend(queue.extents().iter().map(|extent| extent.run));
            let mut seen = hashbrown::HashSet::new();
            fragmented.retain(|run| seen.insert(*run));
        }
        let mut runs: Vec<_> = self.runs.iter().map(|(run, live)| (*run, *live)).collect();
        runs.sort_unstable();
        Mergeable { runs, fragmented }
    }

    /// Whether each of these messages is live, and in this run.
    pub(crate) fn living(&self, run: RunId, keys: &[(QueueId, Sequence)]) -> Vec<bool> {
        let lives = |(id, sequence): &(QueueId, Sequence)| {
            let queue = self.keys.get(*id).and_then(|key| self.queues[key as usize].as_ref());
            queue.is_some_and(|queue| queue.lives_in(run, *sequence))
        };
        keys.iter().map(lives).collect()
    }

    /// From now on the messages of the sources are found in their new run. The sources then have no live messages,
    /// and are not deleted yet: the checkpoint still refers to them.
    pub(crate) fn adopt(&mut self, merge: &Merge, cursor: usize) -> Option<usize> {
        if cursor == 0 {
            // None of them may be deleted on the way, however fast the queues change.
            for run in merge.sources.iter().chain([&merge.to]) {
                *self.runs.entry(*run).or_default() += 1;
            }
        }
        let end = (cursor + VISIT_QUEUES).min(merge.queues.len());
        for id in &merge.queues[cursor..end] {
            let Some(key) = self.keys.get(*id) else { continue };
            let queue = self.queues[key as usize].as_mut().expect("keys are of queues");
            let runs = &mut self.runs;
            queue.retarget(&merge.sources, merge.to, |source, messages| {
                *runs.get_mut(&source).expect("it was pinned") -= u64::from(messages);
                *runs.get_mut(&merge.to).expect("it was pinned") += u64::from(messages);
            });
        }
        if end < merge.queues.len() {
            return Some(end);
        }
        for source in &merge.sources {
            let live = self.runs.remove(source);
            debug_assert_eq!(live, Some(1), "everything that lived there was moved");
        }
        self.cache.forget_runs(&merge.sources);
        self.unpin(merge.to);
        None
    }
}
