//! Finding messages: in memory if they are resident, in what was read back if they are not; otherwise they are
//! requested from disk.

use bytes::Bytes;
use ferrymq_model::{BodyBuffer, BodyRef, Facts, MessageRef, QueueId, Sequence};

use crate::cache::{BlockNumber, BodyKey};
use crate::image::Image;
use crate::queue::Slot;
use crate::read_ahead::{Loaded, Want, Wanted};
use crate::run::RunId;
use crate::segment::Beside;
use crate::store::{Store, lookup};
use crate::stored::{self, BodyPlace, Stored, StoredBody};

/// A message that [`Store::next`] found. It is valid until the store changes.
#[derive(Clone, Copy, Debug)]
pub struct Handle(Found);

/// The place of a found message.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// In a segment.
    Resident(Slot),
    /// In a cached block.
    Read(BlockNumber, usize),
}

/// What a queue has next.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// The first unsettled message at or after the requested sequence.
    Message {
        /// Its sequence.
        sequence: Sequence,
        /// The handle for [`Store::message`].
        handle: Handle,
        /// Its facts.
        facts: Facts,
    },
    /// It is on disk and is being read; [`crate::Notify::loaded`] is called when it is in memory.
    Pending,
    /// There is none.
    End,
}

impl Store {
    /// The first message of a queue at or after `from` that exists and is not settled.
    #[inline]
    pub fn next(&mut self, queue: QueueId, from: Sequence) -> Next {
        let Some((queue, _)) = lookup(&mut self.keys, &mut self.queues, queue) else { return Next::End };
        let resident = queue.resident_from(from);
        let moved = queue.moved_from(from);
        match (resident, moved) {
            (None, None) => Next::End,
            (Some((sequence, slot)), moved) if moved.is_none_or(|(moved, _)| sequence < moved) => {
                let (id, slot) = (queue.id, *slot);
                self.next_resident(id, sequence, slot)
            }
            (_, Some((sequence, run))) => {
                let (id, failed) = (queue.id, queue.failed);
                if failed { Next::Pending } else { self.next_moved(id, sequence, run) }
            }
            (Some(_), None) => unreachable!("a resident message comes before none"),
        }
    }

    #[inline]
    fn next_resident(&mut self, queue: QueueId, sequence: Sequence, mut slot: Slot) -> Next {
        let stored = self.journal_or_transient(&slot).tail(slot.at as usize);
        let (facts, _) = stored::peek(stored).expect("what stands in memory was written whole");
        if facts.body_bytes > self.copy_bytes_max && !slot.beside {
            let body = Stored::read(stored).expect("what stands in memory was written whole").body;
            if let StoredBody::BlobFile(place) = body {
                let key = BodyKey::BlobFile(place.at);
                if self.cache.body(key).is_none() {
                    return self.want_body(queue, sequence, key, place, facts.body_bytes);
                }
            } else if !slot.segment.is_transient() {
                slot.beside = true;
                self.share_replayed_body(&slot);
            }
        }
        Next::Message { sequence, handle: Handle(Found::Resident(slot)), facts }
    }

    /// A message on disk, if the needed parts of it were read.
    fn next_moved(&mut self, queue: QueueId, sequence: Sequence, run: RunId) -> Next {
        let Some((block, index)) = self.cache.find(run, queue, sequence) else {
            return self.want(Want { queue, sequence, what: Wanted::Block(run) }, None);
        };
        let (bytes, run) = self.cache.stored(block, index).expect("just found");
        let stored = Stored::read(bytes).expect("checked when the block was read");
        let facts = stored.facts;
        let key = body_key(&stored, run);
        match (key, stored.body) {
            (Some(key), StoredBody::BlobFile(place) | StoredBody::InRun(place)) if self.cache.body(key).is_none() => {
                self.want_body(queue, sequence, key, place, facts.body_bytes)
            }
            _ => Next::Message { sequence, handle: Handle(Found::Read(block, index)), facts },
        }
    }

    #[cold]
    fn want_body(&mut self, queue: QueueId, sequence: Sequence, key: BodyKey, place: BodyPlace, bytes: u32) -> Next {
        self.want(Want { queue, sequence, what: Wanted::Body(key, place, bytes) }, Some(key))
    }

    fn want(&mut self, want: Want, body: Option<BodyKey>) -> Next {
        if self.wanted.insert((want.queue, body)) {
            self.reads.ask(want);
        }
        Next::Pending
    }

    /// The message that [`Self::next`] found.
    #[inline]
    #[must_use]
    pub fn message(&self, handle: Handle) -> MessageRef<'_> {
        let whole = "what stands in memory was written whole";
        let (stored, run, beside) = match handle.0 {
            Found::Resident(slot) => {
                let bytes = self.journal_or_transient(&slot).tail(slot.at as usize);
                let stored = if slot.beside { Stored::read_head(bytes) } else { Stored::read(bytes) };
                (stored.expect(whole), RunId(0), slot.beside.then_some(slot))
            }
            Found::Read(block, index) => {
                let (bytes, run) = self.cache.stored(block, index).expect("a handle is used before the next change");
                (Stored::read(bytes).expect(whole), run, None)
            }
        };
        let body = match (beside, body_key(&stored, run), stored.body) {
            (Some(slot), ..) => BodyRef::Shared(self.body_beside(&slot)),
            (None, None, StoredBody::Here(bytes)) => BodyRef::Inline(bytes),
            (None, key, _) => {
                let body = key.and_then(|key| self.cache.body(key));
                body.expect("a handle is given for what is there")
            }
        };
        stored.with_body(body)
    }

    pub(crate) fn body_beside(&self, slot: &Slot) -> &Bytes {
        let segments = if slot.segment.is_transient() { self.transient.segments() } else { &self.journal };
        let beside = segments.get(slot.segment).bodies.get(&slot.at);
        &beside.expect("a body beside its message stays as long as it").body
    }

    /// Replay leaves long bodies in the image. A delivery needs a shared body.
    #[cold]
    fn share_replayed_body(&mut self, slot: &Slot) {
        let segment = self.journal.get_mut(slot.segment);
        let stored = Stored::read(segment.image.tail(slot.at as usize)).expect("replay read it");
        if let StoredBody::Here(body) = stored.body {
            segment.bodies.entry(slot.at).or_insert_with(|| Beside { body: BodyBuffer::copy(body), slots: 0 });
        }
    }

    #[inline]
    fn journal_or_transient(&self, slot: &Slot) -> &Image {
        let segments = if slot.segment.is_transient() { self.transient.segments() } else { &self.journal };
        &segments.get(slot.segment).image
    }

    /// Receives what was read from disk; returns the queues that have something new.
    pub fn install_loaded(&mut self) -> Vec<QueueId> {
        let mut queues = Vec::new();
        for (want, loaded) in self.reads.take_loaded() {
            let body = match want.what {
                Wanted::Block(_) => None,
                Wanted::Body(key, ..) => Some(key),
            };
            self.wanted.remove(&(want.queue, body));
            let something = !loaded.is_empty();
            // The requested part is added last, so that the parts that were read ahead cannot evict it.
            for loaded in loaded.into_iter().rev() {
                match loaded {
                    // The run was merged meanwhile.
                    Loaded::Block(run, _) | Loaded::Body(run, ..) if !self.runs.contains_key(&run) => {}
                    Loaded::Block(run, block) => self.cache.insert_block(run, block),
                    Loaded::Body(run, at, body) => self.cache.insert_from_run(run, at, body),
                    Loaded::Filed(filed) => self.cache.insert_filed(filed),
                }
            }
            if let Wanted::Block(run) = want.what
                && something
            {
                let (found, is_there) = (self.cache.find(run, want.queue, want.sequence), self.runs.contains_key(&run));
                debug_assert!(found.is_some() || !is_there, "what was read is found, or it is read for ever");
            }
            queues.push(want.queue);
        }
        queues
    }
}

/// Where a message's body is, if it is not stored behind it.
fn body_key(stored: &Stored<'_>, run: RunId) -> Option<BodyKey> {
    match stored.body {
        StoredBody::Here(_) => None,
        StoredBody::BlobFile(place) => Some(BodyKey::BlobFile(place.at)),
        StoredBody::InRun(place) => Some(BodyKey::InRun(run, place.at)),
    }
}
