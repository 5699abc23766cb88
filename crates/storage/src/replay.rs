//! The state during recovery: the checkpoint first, then what the journal adds to it, record by record.
//!
//! Records may repeat what is in the checkpoint. That changes nothing: a settled message stays settled, one that is
//! in a run stays there, and marks only advance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrymq_model::{CatalogEntry, EntryKind, QueueId, Sequence};
use hashbrown::HashMap;

use crate::checkpoint::Loaded;
use crate::image::Image;
use crate::journal::{Record, Visitor};
use crate::queue::{Attempts, Gone, Queue, Slot};
use crate::recover::{Recovered, RecoveredQueue};
use crate::run::RunId;
use crate::segment::{SegmentId, Segments};
use crate::stored::StoredBody;

/// The state that is being built.
#[derive(Debug)]
pub(crate) struct Replay {
    entries: BTreeMap<(EntryKind, Vec<u8>), Vec<u8>>,
    pub queues: HashMap<QueueId, Queue, foldhash::fast::FixedState>,
    pub segments: Segments,
    /// Queues that changed in each generation.
    pub touched: Vec<Vec<QueueId>>,
    /// How many live messages each run has.
    pub runs: HashMap<RunId, u64, foldhash::fast::FixedState>,
    /// How many messages need each body in its own file.
    pub blob_files: HashMap<u64, u32, foldhash::fast::FixedState>,
    /// Entries that are missing or different in the checkpoint.
    pub changed_entries: BTreeMap<(EntryKind, Vec<u8>), Option<Vec<u8>>>,
    pub deleted: Vec<QueueId>,
    /// The next sequence of queues whose last messages were transient.
    next: Vec<(QueueId, Sequence)>,
}

impl Replay {
    pub fn new(loaded: Loaded) -> Self {
        let first = u32::try_from(loaded.meta.first_generation).expect("segments are numbered like generations");
        let entries = loaded.entries.into_iter();
        let entries = entries.map(|entry| ((entry.kind, entry.key), entry.value.unwrap_or_default())).collect();
        let next = loaded.queues.iter().map(|kept| (kept.queue.id, kept.next)).collect();
        let queues = loaded.queues.into_iter().map(|kept| (kept.queue.id, kept.queue)).collect();
        Self {
            entries,
            queues,
            segments: Segments::new(first),
            touched: Vec::new(),
            runs: HashMap::default(),
            blob_files: HashMap::default(),
            changed_entries: BTreeMap::new(),
            deleted: Vec::new(),
            next,
        }
    }

    /// Everything was replayed: counts what is live in which place.
    pub fn finish(&mut self) {
        for (id, next) in std::mem::take(&mut self.next) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.skip_to(next);
            }
        }
        for queue in self.queues.values_mut() {
            queue.forget_lost();
            for extent in queue.extents().iter() {
                *self.runs.entry(extent.run).or_default() += u64::from(extent.live);
            }
            for number in queue.blob_files() {
                *self.blob_files.entry(number).or_default() += 1;
            }
        }
    }

    pub fn recovered(&self, missing: Vec<String>) -> Recovered {
        let entry = |((kind, key), value): (&(EntryKind, Vec<u8>), &Vec<u8>)| CatalogEntry {
            kind: *kind,
            key: key.clone(),
            value: Some(value.clone()),
        };
        let queue = |queue: &Queue| RecoveredQueue {
            id: queue.id,
            state: queue.state(),
            messages: queue.messages,
            bytes: queue.bytes,
        };
        let mut queues: Vec<_> = self.queues.values().map(queue).collect();
        queues.sort_by_key(|queue| queue.id);
        let entries = self.entries.iter().map(entry).collect();
        Recovered { entries, queues, missing, took: Duration::ZERO, file_bytes: 0, files: 0 }
    }

    /// The queue, marked as changed in the generation of the record, and the segments. That is not always the last
    /// generation: the records of a unit that continued in the next file are applied when its end was found there.
    fn changed(&mut self, id: QueueId, generation: u32) -> Option<(&mut Queue, &mut Segments)> {
        let queue = self.queues.get_mut(&id)?;
        if queue.touched_in != generation {
            queue.touched_in = generation;
            self.touched[(generation - self.segments.first_number()) as usize].push(id);
        }
        Some((queue, &mut self.segments))
    }

    fn settle(&mut self, id: QueueId, first: Sequence, last: Sequence, generation: u32) {
        let Some((queue, segments)) = self.changed(id, generation) else { return };
        if last != Sequence::MAX {
            queue.saw(last);
        }
        queue.settle(first, last, |gone| {
            // What is live in runs and files is counted at the end.
            if let Gone::Slot(slot) = gone {
                segments.get_mut(slot.segment).live -= 1;
            }
        });
    }

    fn change_entry(&mut self, kind: EntryKind, key: &[u8], value: Option<&[u8]>) {
        let key = (kind, key.to_vec());
        match value {
            Some(value) => drop(self.entries.insert(key.clone(), value.to_vec())),
            None => drop(self.entries.remove(&key)),
        }
        self.changed_entries.insert(key, value.map(<[u8]>::to_vec));
    }
}

impl Visitor for Replay {
    fn generation(&mut self, generation: u64, first_section: u64, image: Arc<Image>) {
        debug_assert_eq!(u64::from(self.segments.next_number()), generation, "segments are numbered like generations");
        self.segments.push(image, first_section);
        self.touched.push(Vec::new());
    }

    fn record(&mut self, generation: u64, at: u32, record: Record<'_>) -> Result<(), String> {
        let number = u32::try_from(generation).expect("segments are numbered like generations");
        match record {
            Record::Enqueue { targets, message, stored } => {
                let segment = SegmentId::journal(generation);
                let at = at + message as u32;
                let slot = Slot { segment, at, body_bytes: stored.facts.body_bytes, beside: false };
                for place in targets.iter() {
                    let Some((queue, segments)) = self.changed(place.queue, number) else { continue };
                    if !queue.restore(place.sequence, slot) {
                        continue;
                    }
                    segments.get_mut(segment).live += 1;
                    if let StoredBody::BlobFile(body) = stored.body {
                        queue.add_blob_file(place.sequence, body.at);
                    }
                }
            }
            Record::Settle { queue, first, last } => self.settle(queue, first, last, number),
            Record::Delivered { queue, sequence } => {
                let Some((queue, _)) = self.changed(queue, number) else { return Ok(()) };
                queue.saw(sequence);
                queue.head = queue.head.max(sequence + 1);
            }
            Record::Attempts { queue, sequence, attempts, due } => {
                let Some((queue, _)) = self.changed(queue, number) else { return Ok(()) };
                queue.saw(sequence);
                if !queue.is_settled(sequence) {
                    queue.attempts.insert(sequence, Attempts { count: attempts, due });
                }
            }
            Record::Put { kind, key, value } => self.change_entry(kind, key, Some(value)),
            Record::Delete { kind, key } => self.change_entry(kind, key, None),
            Record::CreateQueue { queue } => {
                self.queues.entry(queue).or_insert_with(|| Queue::new(queue, true));
                self.changed(queue, number);
            }
            Record::DeleteQueue { queue } => {
                self.settle(queue, 0, Sequence::MAX, number);
                self.queues.remove(&queue);
                self.deleted.push(queue);
            }
            Record::Skipped => {}
        }
        Ok(())
    }
}
