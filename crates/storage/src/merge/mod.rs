//! Merging runs: the spill thread copies the live messages of several runs to a new one, and deletes the old ones.
//!
//! Two kinds of runs are merged: those of which most messages are settled, because they waste disk space, and those
//! of a queue that is in very many runs, because its row in the checkpoint lists each. The order makes every crash
//! harmless: the new run is written and synced; the queues' extents refer to it; the checkpoint says so; only then
//! are the old ones deleted. What a crash leaves without a reference from a row is deleted at the next start.

pub(crate) mod store_side;

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use ferrymq_model::{QueueId, Sequence};

use crate::checkpoint::Meta;
use crate::error::Unreadable;
use crate::merge::store_side::{Merge, Mergeable};
use crate::run::{Block, RunContent, RunId, RunMessage, RunReader, RunWriter, Sections};
use crate::sabotage::{self, Sabotage};
use crate::spill::{Incomplete, Spill};
use crate::store::Store;
use crate::stored::{Stored, StoredBody};

/// The maximum number of runs that become one.
const SOURCES_MAX: usize = 16;
/// The maximum total length of runs that become one: then the index is small, and publishers who need the spill
/// thread meanwhile do not wait for long.
const SOURCE_BYTES_MAX: u64 = 64 << 20;
/// If a queue is in too many runs, fewer than this are not merged.
const FRAGMENTED_MIN: usize = 4;

/// What the spill thread knows about runs, for merging.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    /// Runs this long are looked at.
    pub bytes_min: u64,
    contents: HashMap<RunId, RunContent>,
    /// Runs that cannot be read. The next start may try again.
    left_alone: HashSet<RunId>,
    /// A merge whose queues refer to the new run, and the checkpoint does not yet.
    uncommitted: Option<Merge>,
}

impl Merging {
    pub fn new(bytes_min: u64) -> Self {
        Self { bytes_min, ..Self::default() }
    }

    /// A run was written.
    pub fn written(&mut self, run: RunId, content: RunContent) {
        self.contents.insert(run, content);
    }

    /// A run was deleted.
    pub fn gone(&mut self, run: RunId) {
        self.contents.remove(&run);
        self.left_alone.remove(&run);
    }
}

/// Why runs were not merged.
enum NotMerged {
    /// A source cannot be read.
    Unreadable(Unreadable),
    /// To be tried again, or not.
    Incomplete(Incomplete),
}

impl From<Unreadable> for NotMerged {
    fn from(reason: Unreadable) -> Self {
        Self::Unreadable(reason)
    }
}

impl From<Incomplete> for NotMerged {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(incomplete)
    }
}

impl From<std::io::Error> for NotMerged {
    fn from(error: std::io::Error) -> Self {
        Self::Incomplete(Incomplete::Failed(error))
    }
}

/// The place in a source.
struct Cursor {
    run: RunId,
    reader: RunReader,
    next_block: usize,
    block: Option<Block>,
    /// Whether each message of the block is live.
    living: Vec<bool>,
    index: usize,
}

impl Spill {
    /// Merges some runs, if any are worth it; false if there was nothing to do.
    pub(crate) fn merge(&mut self) -> Result<bool, Incomplete> {
        if let Some(merge) = self.merging.uncommitted.take() {
            return self.commit(merge).map(|()| true);
        }
        let mergeable = self.visit(Store::mergeable)?;
        let Some(sources) = self.choose(&mergeable) else { return Ok(false) };
        let to = if sources[0].is_transient() { self.next_transient() } else { self.next_run() };
        let rewritten = self.rewrite(&sources, to);
        if rewritten.is_err() {
            let _ = self.disk.remove(&self.folders.run(to));
        }
        let queues = match rewritten {
            Ok(queues) => queues,
            Err(NotMerged::Incomplete(incomplete)) => return Err(incomplete),
            Err(NotMerged::Unreadable(reason)) if reason.passes() => {
                return Err(Incomplete::Failed(std::io::Error::other(reason.what)));
            }
            Err(NotMerged::Unreadable(_)) => {
                // A read of the damaged data will report it; merging does not.
                self.merging.left_alone.extend(sources);
                return Ok(true);
            }
        };
        let merge = Merge { sources, to, queues: queues.into_iter().collect() };
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.visit(|store| store.adopt(&merge, from))?;
        }
        self.commit(merge)?;
        Ok(true)
    }

    /// Runs that should become one.
    fn choose(&mut self, mergeable: &Mergeable) -> Option<Vec<RunId>> {
        let mostly_dead = |spill: &mut Self, run: RunId, live: u64| {
            let content = spill.content(run)?;
            (content.bytes >= spill.merging.bytes_min && live * 4 <= content.messages).then_some(content.bytes)
        };
        let mut dead = Vec::new();
        for (run, live) in &mergeable.runs {
            if let Some(bytes) = mostly_dead(self, *run, *live) {
                dead.push((*run, bytes));
            }
        }
        let first = dead.first().map(|(run, _)| run.is_transient());
        dead.retain(|(run, _)| Some(run.is_transient()) == first);
        if !dead.is_empty() {
            return Some(limited(dead));
        }
        let transient = mergeable.fragmented.first()?.is_transient();
        let fragmented: Vec<_> =
            mergeable.fragmented.iter().filter(|run| run.is_transient() == transient).copied().collect();
        let fragmented = fragmented.into_iter().filter_map(|run| Some((run, self.content(run)?.bytes)));
        let fragmented =
            limited(fragmented.filter(|(_, bytes)| *bytes <= SOURCE_BYTES_MAX / FRAGMENTED_MIN as u64).collect());
        (fragmented.len() >= FRAGMENTED_MIN).then_some(fragmented)
    }

    /// The properties of a run; read from its index, if it was written before this start.
    fn content(&mut self, run: RunId) -> Option<RunContent> {
        if self.merging.left_alone.contains(&run) {
            return None;
        }
        if let Some(content) = self.merging.contents.get(&run) {
            return Some(*content);
        }
        match RunReader::open(&*self.disk, &self.folders.run(run), run) {
            Ok(reader) => {
                self.merging.contents.insert(run, reader.content());
                Some(reader.content())
            }
            Err(reason) => {
                if !reason.passes() {
                    self.merging.left_alone.insert(run);
                }
                None
            }
        }
    }

    /// Writes the live messages of the sources to a new run, sorted; returns its queues.
    fn rewrite(&mut self, sources: &[RunId], to: RunId) -> Result<BTreeSet<QueueId>, NotMerged> {
        let mut queues = BTreeSet::new();
        let mut cursors = Vec::new();
        for run in sources {
            cursors.push(Cursor::new(*run, RunReader::open(&*self.disk, &self.folders.run(*run), *run)?));
        }
        let sections = cursors.iter().map(|cursor| cursor.reader.content().sections).reduce(Sections::and);
        let mut writer = RunWriter::create(&*self.disk, &self.folders.run(to), to, sections.unwrap_or_default())?;
        loop {
            for cursor in &mut cursors {
                while cursor.needs_block() {
                    cursor.read_block()?;
                    let keys = cursor.keys();
                    cursor.living = self.visit(|store| store.living(cursor.run, &keys))?;
                    cursor.skip_dead();
                }
            }
            let first = cursors.iter_mut().filter(|cursor| cursor.block.is_some()).min_by_key(|cursor| cursor.key());
            let Some(first) = first else { break };
            queues.insert(first.key().0);
            first.copy(&mut writer)?;
            first.index += 1;
            first.skip_dead();
        }
        let content = writer.finish()?;
        if !to.is_transient() {
            self.disk.sync_folder(&self.folders.runs)?;
        }
        self.merging.written(to, content);
        Ok(queues)
    }

    /// Deletes the sources of a merge, once the checkpoint does not refer to them any more. If the checkpoint
    /// cannot be written now, they stay, and it is tried again.
    fn commit(&mut self, merge: Merge) -> Result<(), Incomplete> {
        let committed = if merge.to.is_transient() || sabotage::is(Sabotage::RemoveBeforeCheckpoint) {
            Ok(())
        } else {
            self.commit_rows(&merge.queues)
        };
        if let Err(incomplete) = committed {
            self.merging.uncommitted = Some(merge);
            return Err(incomplete);
        }
        let sources = merge.sources.len();
        for source in merge.sources {
            self.remove(crate::spill::store_side::DeadFile::Run(source));
        }
        self.notify.merged(sources);
        Ok(())
    }

    fn commit_rows(&mut self, queues: &[QueueId]) -> Result<(), Incomplete> {
        let mut portions = Vec::new();
        let position = self.rows(queues, &mut portions)?;
        if !sabotage::is(Sabotage::MergeBeforeSync) {
            self.wait_durable(position)?;
        }
        let mut meta = Meta { synced: position, ..self.meta };
        self.checkpoint.commit(&mut meta, &portions).map_err(std::io::Error::other)?;
        self.meta = meta;
        Ok(())
    }
}

/// As many as may become one.
fn limited(runs: Vec<(RunId, u64)>) -> Vec<RunId> {
    let mut bytes = 0;
    let fits = |(_, more): &(RunId, u64)| {
        bytes += more;
        bytes <= SOURCE_BYTES_MAX
    };
    let mut runs = runs.into_iter();
    // The first may be longer than the limit: most of it is settled.
    let first = runs.next();
    let rest = runs.take_while(fits).take(SOURCES_MAX - 1);
    first.into_iter().chain(rest).map(|(run, _)| run).collect()
}

impl Cursor {
    fn new(run: RunId, reader: RunReader) -> Self {
        Self { run, reader, next_block: 0, block: None, living: Vec::new(), index: 0 }
    }

    fn needs_block(&self) -> bool {
        self.block.is_none() && self.next_block < self.reader.blocks()
    }

    fn read_block(&mut self) -> Result<(), Unreadable> {
        self.block = Some(self.reader.read_block(self.next_block)?);
        self.next_block += 1;
        self.index = 0;
        Ok(())
    }

    fn keys(&self) -> Vec<(QueueId, Sequence)> {
        self.block.iter().flat_map(|block| (0..block.messages()).map(|index| block.key(index))).collect()
    }

    /// Moves to the next live message; after the last one the block is finished.
    fn skip_dead(&mut self) {
        while self.living.get(self.index) == Some(&false) {
            self.index += 1;
        }
        if self.index >= self.living.len() {
            self.block = None;
        }
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("it has a message")
    }

    fn key(&self) -> (QueueId, Sequence) {
        self.block().key(self.index)
    }

    fn copy(&self, writer: &mut RunWriter) -> Result<(), NotMerged> {
        let (queue, sequence) = self.key();
        let stored = self.block().stored(self.index);
        let whole = Stored::read(stored).expect("checked when the block was read");
        let body: Option<(Bytes, u64)> = match whole.body {
            StoredBody::InRun(place) => Some((self.reader.read_body(place, whole.facts.body_bytes)?, place.at)),
            StoredBody::Here(_) | StoredBody::BlobFile(_) => None,
        };
        let body = body.as_ref().map(|(body, at)| (&body[..], (self.run.0, *at)));
        Ok(writer.push(&RunMessage { queue, sequence, stored, body })?)
    }
}
