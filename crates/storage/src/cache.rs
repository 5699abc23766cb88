//! What was read back from disk and is still in memory: blocks of runs, and long bodies. Its size is bounded,
//! however many queues are read; the oldest goes first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use ferrymq_model::{BodyRef, FiledBody, Position, QueueId, Sequence};
use hashbrown::HashMap;

use crate::run::{Block, RunId};

/// A body that is not stored behind its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BodyKey {
    /// In its own file, by number.
    BlobFile(u64),
    /// In a run, by position.
    InRun(RunId, u64),
}

/// Number of a block in the cache.
pub(crate) type BlockNumber = u64;

/// A stretch of a queue that is in a cached block. Stretches of one run are apart; those of two may overlap, since
/// transient and persistent messages of a queue come to different runs.
#[derive(Clone, Copy, Debug)]
struct Window {
    last: Sequence,
    block: BlockNumber,
}

#[derive(Debug)]
struct CachedBlock {
    run: RunId,
    block: Block,
    queues: Vec<(QueueId, Sequence, Sequence)>,
    age: Age,
}

#[derive(Debug)]
struct CachedBody {
    held: HeldBody,
    /// Its age in the share of bodies. A body that is being written to its file is in no share.
    age: Option<Age>,
}

#[derive(Debug)]
enum HeldBody {
    InRun(Bytes),
    BlobFile(FiledBody),
}

impl CachedBody {
    fn len(&self) -> u64 {
        self.as_ref().bytes().len() as u64
    }

    fn as_ref(&self) -> BodyRef<'_> {
        match &self.held {
            HeldBody::InRun(bytes) => BodyRef::Shared(bytes),
            HeldBody::BlobFile(filed) => BodyRef::Filed(filed),
        }
    }
}

/// A number that is higher for later entries.
type Age = u64;

/// The bytes of one kind in memory, and the order of the entries.
#[derive(Debug)]
struct Share<T> {
    items: BTreeMap<Age, T>,
    next: Age,
    bytes: u64,
    bytes_max: u64,
}

impl<T: Copy> Share<T> {
    fn new(bytes_max: u64) -> Self {
        Self { items: BTreeMap::new(), next: 0, bytes: 0, bytes_max }
    }

    fn add(&mut self, item: T, bytes: u64) -> Age {
        let age = self.next;
        self.next += 1;
        self.items.insert(age, item);
        self.bytes += bytes;
        age
    }

    fn remove(&mut self, age: Age, bytes: u64) {
        if self.items.remove(&age).is_some() {
            self.bytes -= bytes;
        }
    }

    /// The oldest entry, if it must be removed. The last entry always stays, because a reader waits for it.
    fn surplus(&self) -> Option<T> {
        if self.bytes <= self.bytes_max || self.items.len() < 2 {
            return None;
        }
        self.items.values().next().copied()
    }
}

/// The cache. Blocks and bodies each have a share, so that a long body does not evict the block it belongs to.
#[derive(Debug)]
pub(crate) struct Cache {
    blocks: HashMap<BlockNumber, CachedBlock, foldhash::fast::FixedState>,
    /// By run, queue and first sequence.
    windows: BTreeMap<(RunId, QueueId, Sequence), Window>,
    bodies: HashMap<BodyKey, CachedBody, foldhash::fast::FixedState>,
    block_share: Share<BlockNumber>,
    body_share: Share<BodyKey>,
    /// For each run, the positions of the bodies that were read from it.
    run_bodies: BTreeSet<(RunId, u64)>,
    /// Bodies that are being written to their files, each with the journal position after which it is in its file.
    unwritten: VecDeque<(Position, u64)>,
    next_block: BlockNumber,
}

impl Cache {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            blocks: HashMap::default(),
            windows: BTreeMap::new(),
            bodies: HashMap::default(),
            block_share: Share::new(bytes_max / 2),
            body_share: Share::new(bytes_max / 2),
            run_bodies: BTreeSet::new(),
            unwritten: VecDeque::new(),
            next_block: 0,
        }
    }

    /// The block that contains a message of this run, and where.
    pub fn find(&self, run: RunId, queue: QueueId, sequence: Sequence) -> Option<(BlockNumber, usize)> {
        let (key, window) = self.windows.range((run, queue, 0)..=(run, queue, sequence)).next_back()?;
        debug_assert_eq!((key.0, key.1), (run, queue), "the range has no other");
        if window.last < sequence {
            return None;
        }
        let index = self.blocks.get(&window.block)?.block.find(queue, sequence)?;
        Some((window.block, index))
    }

    /// The stored message, and its run.
    pub fn stored(&self, block: BlockNumber, index: usize) -> Option<(&[u8], RunId)> {
        let cached = self.blocks.get(&block)?;
        Some((cached.block.stored(index), cached.run))
    }

    /// The bytes of everything in it.
    pub fn held_bytes(&self) -> u64 {
        let bodies: u64 = self.bodies.values().map(CachedBody::len).sum();
        self.block_share.bytes + bodies
    }

    pub fn body(&self, key: BodyKey) -> Option<BodyRef<'_>> {
        self.bodies.get(&key).map(CachedBody::as_ref)
    }

    pub fn insert_block(&mut self, run: RunId, block: Block) {
        let number = self.next_block;
        self.next_block += 1;
        let queues = block.queues();
        if let Some((queue, first, _)) = queues.first()
            && let Some(known) = self.windows.get(&(run, *queue, *first))
        {
            // It is the same body, and it stays longer now.
            self.drop_block(known.block);
        }
        for (queue, first, last) in &queues {
            self.windows.insert((run, *queue, *first), Window { last: *last, block: number });
        }
        let age = self.block_share.add(number, block.len() as u64);
        self.blocks.insert(number, CachedBlock { run, block, queues, age });
        while let Some(oldest) = self.block_share.surplus() {
            self.drop_block(oldest);
        }
    }

    /// These runs are deleted, and what was read from them refers to them.
    pub fn forget_runs(&mut self, runs: &[RunId]) {
        for run in runs {
            let last = (*run, QueueId(u64::MAX), Sequence::MAX);
            let mut blocks: Vec<_> =
                self.windows.range((*run, QueueId(0), 0)..=last).map(|(_, window)| window.block).collect();
            blocks.dedup();
            blocks.into_iter().for_each(|number| self.drop_block(number));
            while let Some((_, at)) = self.run_bodies.range((*run, 0)..=(*run, u64::MAX)).next().copied() {
                self.drop_body(BodyKey::InRun(*run, at));
            }
        }
    }

    /// A body that was read from a run.
    pub fn insert_from_run(&mut self, run: RunId, at: u64, body: Bytes) {
        self.run_bodies.insert((run, at));
        self.insert(BodyKey::InRun(run, at), HeldBody::InRun(body));
    }

    /// A body that is in its file.
    pub fn insert_filed(&mut self, filed: FiledBody) {
        self.insert(BodyKey::BlobFile(filed.number), HeldBody::BlobFile(filed));
    }

    fn insert(&mut self, key: BodyKey, held: HeldBody) {
        match self.bodies.get_mut(&key) {
            // It is the same body.
            Some(body) => body.held = held,
            None => {
                let mut body = CachedBody { held, age: None };
                body.age = Some(self.body_share.add(key, body.len()));
                self.bodies.insert(key, body);
            }
        }
        self.drop_surplus_bodies();
    }

    /// Keeps a body until its file is written, and for a while after that.
    pub fn insert_unwritten(&mut self, filed: FiledBody, written_at: Position) {
        let number = filed.number;
        self.drop_body(BodyKey::BlobFile(number));
        let body = CachedBody { held: HeldBody::BlobFile(filed), age: None };
        self.bodies.insert(BodyKey::BlobFile(number), body);
        self.unwritten.push_back((written_at, number));
    }

    /// Bodies up to `durable` are in their files: they may be evicted.
    pub fn written(&mut self, durable: Position) {
        while self.unwritten.front().is_some_and(|(position, _)| *position <= durable) {
            let Some((_, number)) = self.unwritten.pop_front() else { return };
            let key = BodyKey::BlobFile(number);
            if let Some(body) = self.bodies.get_mut(&key).filter(|body| body.age.is_none()) {
                body.age = Some(self.body_share.add(key, body.len()));
            }
        }
        self.drop_surplus_bodies();
    }

    /// Whether files of bodies are still being written.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Removes everything that can be read again.
    pub fn clear(&mut self) {
        if self.unwritten.is_empty() {
            let bytes_max = self.block_share.bytes_max + self.body_share.bytes_max;
            // Blocks have numbers that are never used again.
            *self = Self { next_block: self.next_block, ..Self::new(bytes_max) };
        }
    }

    /// No message needs a body's file. A body whose file is not written yet stays until it is: a message that is
    /// moved may need it again, and could not read it.
    pub fn forget_blob_file(&mut self, number: u64) {
        if self.unwritten.iter().any(|(_, unwritten)| *unwritten == number) {
            return;
        }
        self.drop_body(BodyKey::BlobFile(number));
    }

    fn drop_surplus_bodies(&mut self) {
        while let Some(oldest) = self.body_share.surplus() {
            self.drop_body(oldest);
        }
    }

    fn drop_body(&mut self, key: BodyKey) {
        if let BodyKey::InRun(run, at) = key {
            self.run_bodies.remove(&(run, at));
        }
        let Some(body) = self.bodies.remove(&key) else { return };
        body.age.into_iter().for_each(|age| self.body_share.remove(age, body.len()));
    }

    fn drop_block(&mut self, number: BlockNumber) {
        let Some(cached) = self.blocks.remove(&number) else { return };
        self.block_share.remove(cached.age, cached.block.len() as u64);
        for (queue, first, _) in cached.queues {
            self.windows.remove(&(cached.run, queue, first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message moves before its body is in its file: the body stays, is counted once, and is not driven out by itself
    /// later.
    #[test]
    fn a_body_that_is_needed_again_before_it_is_written_stays() {
        const BYTES_MAX: u64 = 200;
        let filed = |number| FiledBody { bytes: vec![7; 150].into(), number, crc: 0, claim: None };
        let (mut cache, key) = (Cache::new(BYTES_MAX), BodyKey::BlobFile(1));
        cache.insert_unwritten(filed(1), Position(10));
        cache.forget_blob_file(1);
        cache.insert_filed(filed(1));
        cache.insert_filed(filed(2));
        assert!(cache.body(key).is_some(), "it cannot be read yet");
        cache.written(Position(10));
        cache.insert_filed(filed(3));
        assert!(cache.body(key).is_none(), "it can be");
        for _ in 0..3 {
            cache.insert_filed(filed(1));
            assert!(cache.body(key).is_some(), "what came last stays");
            cache.insert_filed(filed(2));
        }
        cache.forget_blob_file(2);
        assert_eq!(cache.body_share.bytes, 0);
    }

    /// The entries of removed runs are removed, and no others.
    #[test]
    fn what_was_read_from_a_run_goes_with_it() {
        let mut cache = Cache::new(1 << 20);
        for at in 0..1_000 {
            cache.insert_from_run(RunId(at as u32 % 50), at, vec![7; 100].into());
        }
        cache.insert_filed(FiledBody { bytes: vec![7; 100].into(), number: 1, crc: 0, claim: None });
        cache.forget_runs(&[RunId(3), RunId(49), RunId(77)]);
        for at in 0..1_000 {
            let run = RunId(at as u32 % 50);
            let is_gone = run == RunId(3) || run == RunId(49);
            assert_eq!(cache.body(BodyKey::InRun(run, at)).is_none(), is_gone, "{run:?} at {at}");
        }
        assert!(cache.body(BodyKey::BlobFile(1)).is_some());
        assert_eq!((cache.body_share.bytes, cache.run_bodies.len()), (961 * 100, 960));
        cache.insert_from_run(RunId(1), 0, vec![7; 1 << 20].into());
        assert_eq!((cache.body_share.bytes, cache.run_bodies.len()), (1 << 20, 1), "the share is kept to");
    }
}
