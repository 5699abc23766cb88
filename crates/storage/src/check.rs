//! Checks everything in a data directory outside the journal, and removes exactly what cannot be read.

use std::path::Path;
use std::sync::Arc;

use ferrymq_model::{QueueId, Sequence, Settled};

use crate::blob::BlobFiles;
use crate::disk::Disk;
use crate::error::Unreadable;
use crate::recover::Layout;
use crate::run::{Block, RunId, RunReader};
use crate::store::Store;
use crate::stored::{Stored, StoredBody};

/// Something that cannot be read, and the messages that are lost with it.
#[derive(Clone, Debug)]
pub struct Damage {
    /// A sentence with file and position.
    pub what: String,
    /// Whether it may be temporary, so that nothing must be removed.
    pub passes: bool,
    /// The messages, as stretches of queues; what is settled in them already does not count.
    pub messages: Vec<(QueueId, Sequence, Sequence)>,
}

impl Damage {
    fn new(reason: Unreadable, messages: Vec<(QueueId, Sequence, Sequence)>) -> Self {
        Self { passes: reason.passes(), what: reason.what, messages }
    }
}

impl Store {
    /// Reads every run, and every body that a message needs; returns what cannot be read. It takes as long as
    /// reading all of it.
    #[must_use]
    pub fn verify(&self, disk: &Arc<dyn Disk>, directory: &Path) -> Vec<Damage> {
        let Layout { runs: folders, bodies, .. } = Layout::of(directory);
        let blob_files = &BlobFiles::new(Arc::clone(disk), bodies);
        let mut runs: Vec<RunId> = self.runs.keys().copied().filter(|run| !run.is_transient()).collect();
        runs.sort_unstable();
        let mut damages = Vec::new();
        for run in runs {
            match RunReader::open(&**disk, &folders.run(run), run) {
                Ok(reader) => self.verify_run(run, &reader, blob_files, &mut damages),
                Err(reason) => damages.push(Damage::new(reason, self.stretches(run, (QueueId(0), 0), LAST))),
            }
        }
        self.verify_resident_bodies(blob_files, &mut damages);
        damages.retain(|damage| !damage.messages.is_empty());
        damages
    }

    /// Removes the messages of a damage: they count as purged.
    pub fn give_up(&mut self, damage: &Damage) {
        for (queue, first, last) in &damage.messages {
            self.settle(*queue, *first, *last, Settled::Purged);
        }
    }

    fn verify_run(&self, run: RunId, reader: &RunReader, blob_files: &BlobFiles, damages: &mut Vec<Damage>) {
        for number in 0..reader.blocks() {
            match reader.read_block(number) {
                Ok(block) => self.verify_bodies(run, &block, reader, blob_files, damages),
                Err(reason) => {
                    let (first, last) = reader.keys(number);
                    damages.push(Damage::new(reason, self.stretches(run, first, last)));
                }
            }
        }
    }

    fn verify_bodies(
        &self,
        run: RunId,
        block: &Block,
        reader: &RunReader,
        blob_files: &BlobFiles,
        damages: &mut Vec<Damage>,
    ) {
        for index in 0..block.messages() {
            let stored = Stored::read(block.stored(index)).expect("checked when the block was read");
            let read = match stored.body {
                StoredBody::Here(_) => continue,
                StoredBody::InRun(place) => reader.read_body(place, stored.facts.body_bytes),
                StoredBody::BlobFile(place) => blob_files.read(place, stored.facts.body_bytes),
            };
            if let Err(reason) = read {
                let key = block.key(index);
                damages.push(Damage::new(reason, self.stretches(run, key, key)));
            }
        }
    }

    /// Bodies in their own files whose messages are still in the journal.
    fn verify_resident_bodies(&self, blob_files: &BlobFiles, damages: &mut Vec<Damage>) {
        for queue in self.queues.iter().flatten().filter(|queue| queue.durable) {
            let mut from = 0;
            while let Some((sequence, slot)) = queue.resident_from(from) {
                from = sequence + 1;
                if slot.segment.is_transient() {
                    continue;
                }
                let stored = Stored::read(self.journal.get(slot.segment).image.tail(slot.at as usize));
                let Some(Stored { body: StoredBody::BlobFile(place), facts, .. }) = stored else { continue };
                if let Err(reason) = blob_files.read(place, facts.body_bytes) {
                    damages.push(Damage::new(reason, vec![(queue.id, sequence, sequence)]));
                }
            }
        }
    }

    /// What of the messages from `first` to `last`, as a run is sorted, is in this run.
    fn stretches(
        &self,
        run: RunId,
        first: (QueueId, Sequence),
        last: (QueueId, Sequence),
    ) -> Vec<(QueueId, Sequence, Sequence)> {
        let mut found = Vec::new();
        for queue in self.queues.iter().flatten().filter(|queue| first.0 <= queue.id && queue.id <= last.0) {
            let from = if queue.id == first.0 { first.1 } else { 0 };
            let to = if queue.id == last.0 { last.1 } else { Sequence::MAX };
            for extent in queue.extents().iter().filter(|extent| extent.run == run) {
                let (from, to) = (extent.first.max(from), extent.last.min(to));
                if (from..=to).any(|sequence| !queue.is_settled(sequence)) {
                    found.push((queue.id, from, to));
                }
            }
        }
        found.sort_unstable();
        found
    }
}

/// After every message of a run.
const LAST: (QueueId, Sequence) = (QueueId(u64::MAX), Sequence::MAX);
