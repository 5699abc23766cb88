//! Single gets: at once, or after storage has read the message.
//!
//! Gets that wait are kept by queue, in the order in which they came. What storage has read is given to the first of
//! them, until one must wait for more: so a read costs as much as it can serve.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferrymq_broker::Got;
use ferrymq_model::{QueueId, Refusal, Settlement};

use crate::{
    connection::{mailbox::Get, peer::Connection},
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
};

/// How many waiting gets are decided during one hold of the locks.
const GETS_AT_ONCE: usize = 128;

/// A get that waits until storage has read its message.
#[derive(Clone, Debug)]
struct WaitingGet {
    connection: Arc<Connection>,
    get: Get,
}

/// What became of a get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GetOutcome {
    /// It has its answer.
    Answered,
    /// Storage has to read its message first.
    Waits,
    /// The queue was deleted.
    Gone,
}

/// The gets that wait for storage.
#[derive(Debug, Default)]
pub(crate) struct WaitingGets {
    /// By queue and by their numbers, in the order in which they came.
    gets: BTreeMap<(QueueId, u64), WaitingGet>,
    /// How many gets have waited since the start.
    made: u64,
    /// Queues whose first gets wait only for their turn.
    ready: BTreeSet<QueueId>,
    /// The one of these queues that had its turn last.
    served: QueueId,
}

impl WaitingGets {
    fn add(&mut self, connection: Arc<Connection>, get: Get) -> u64 {
        self.made += 1;
        self.gets.insert((get.queue, self.made), WaitingGet { connection, get });
        self.made
    }

    /// The get that has waited for the queue for the longest time, and its number.
    fn first(&self, queue: QueueId) -> Option<(u64, &WaitingGet)> {
        let (&(_, number), waiting) = self.gets.range((queue, 0)..=(queue, u64::MAX)).next()?;
        Some((number, waiting))
    }

    /// A get waits no more.
    pub(crate) fn remove(&mut self, queue: QueueId, number: u64) {
        self.gets.remove(&(queue, number));
    }

    /// The queue that has its turn next. Each of them has one before any has another.
    fn next_ready(&mut self) -> Option<QueueId> {
        let later = self.ready.range(QueueId(self.served.0 + 1)..).next();
        self.served = later.or_else(|| self.ready.first()).copied()?;
        self.ready.remove(&self.served);
        Some(self.served)
    }

    /// How many gets wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.gets.len()
    }
}

impl Node {
    /// Gets one message for a channel; if storage has to read it first, or if others wait for the queue, after that.
    pub(crate) fn get(&self, connection: &Arc<Connection>, get: Get) -> GetOutcome {
        let (now, mut deferred) = (self.now(), Deferred::default());
        let (got, is_first) = loop {
            let catalog = self.catalog.read();
            let decided = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
                let is_first = self.gets.lock().first(get.queue).is_none();
                let got = if is_first {
                    ports.getting(connection, get);
                    shard.get(get.queue, get.no_ack, now, ports)
                } else {
                    Got::Pending
                };
                match got {
                    Got::Empty => {
                        answer_empty_get(connection, &get);
                        ports.touch(connection);
                    }
                    // Under the lock that storage needs to report what it has read: so no report is missed.
                    Got::Pending => {
                        let number = self.gets.lock().add(connection.clone(), get);
                        connection.mailbox().get_waits(&get, number);
                    }
                    Got::Message | Got::Busy | Got::Gone => {}
                }
                (got, is_first)
            });
            drop(catalog);
            match decided {
                Some((Got::Busy, _)) => {}
                Some(decided) => break decided,
                // The node has stopped.
                None => return GetOutcome::Answered,
            }
        };
        self.release_unclaimed(&mut deferred);
        self.run_deferred(deferred, Some(connection));
        match got {
            Got::Gone => GetOutcome::Gone,
            Got::Pending => {
                if !is_first {
                    self.gets_are_ready(&[get.queue]);
                }
                GetOutcome::Waits
            }
            Got::Empty | Got::Message | Got::Busy => GetOutcome::Answered,
        }
    }

    /// Messages that were taken for channels that have ended meanwhile return to their queues.
    fn release_unclaimed(&self, deferred: &mut Deferred) {
        let unclaimed = std::mem::take(&mut deferred.unclaimed);
        if !unclaimed.is_empty() {
            let catalog = self.catalog.read();
            self.decide_if_open(CatalogLock::Read(&catalog), deferred, |shard, ports| {
                shard.settle(&unclaimed, Settlement::RELEASE, ports.now(), ports);
            });
        }
    }

    /// Storage has read messages of these queues, or something else may have changed for those who wait for them: the
    /// first gets of one queue are decided at once, and the others have their turns.
    pub(crate) fn gets_are_ready(&self, queues: &[QueueId]) {
        {
            let mut gets = self.gets.lock();
            if gets.gets.is_empty() {
                return;
            }
            for queue in queues.iter().map(|queue| queue.queue()) {
                if gets.first(queue).is_some() {
                    gets.ready.insert(queue);
                }
            }
        }
        self.go_on_with_gets();
    }

    /// Decides the first waiting gets of one queue. The host continues with those that are left.
    pub(crate) fn go_on_with_gets(&self) {
        loop {
            let next = self.gets.lock().next_ready();
            let Some(queue) = next else { return };
            let is_more = self.serve_some_gets(queue);
            let is_over = {
                let mut gets = self.gets.lock();
                if is_more {
                    gets.ready.insert(queue);
                }
                gets.ready.is_empty()
            };
            if is_over || self.host.deliveries_wait() {
                return;
            }
        }
    }

    /// Gives a queue's messages to the gets that wait for them, in order: one portion. Returns whether there may be
    /// messages for more of them.
    fn serve_some_gets(&self, queue: QueueId) -> bool {
        let (now, mut deferred, catalog) = (self.now(), Deferred::default(), self.catalog.read());
        let is_more = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            for _ in 0..GETS_AT_ONCE {
                let first = self.gets.lock().first(queue).map(|(number, waiting)| (number, waiting.clone()));
                let Some((number, WaitingGet { connection, get })) = first else { return false };
                // If its channel has ended meanwhile, it wants nothing; if the queue was deleted, it finds nothing.
                let is_wanted = connection.mailbox().still_wants(&get);
                if is_wanted {
                    ports.getting(&connection, get);
                    match shard.get(queue, get.no_ack, now, ports) {
                        Got::Pending => return false,
                        // Dispatch goes on with the queue first.
                        Got::Busy => return true,
                        Got::Empty | Got::Gone => answer_empty_get(&connection, &get),
                        Got::Message => {}
                    }
                    ports.touch(&connection);
                }
                self.gets.lock().remove(queue, number);
                connection.mailbox().get_ended(&get, number);
                // Its owner goes on with the channel.
                connection.wake();
            }
            true
        });
        drop(catalog);
        self.release_unclaimed(&mut deferred);
        self.run_deferred(deferred, None);
        is_more == Some(true)
    }

    /// Nobody can get anything from the queue any more: the gets that wait for it are refused, or find nothing.
    pub(crate) fn end_gets(&self, queue: QueueId, refusal: Option<&Refusal>) {
        loop {
            let first = {
                let mut gets = self.gets.lock();
                let first = gets.first(queue).map(|(number, waiting)| (number, waiting.clone()));
                if let Some((number, _)) = &first {
                    gets.remove(queue, *number);
                }
                first
            };
            let Some((number, WaitingGet { connection, get })) = first else { return };
            match refusal {
                None => answer_empty_get(&connection, &get),
                Some(refusal) => {
                    let mut mailbox = connection.mailbox();
                    if mailbox.still_wants(&get) {
                        mailbox.refuse_for_session(get.origin, refusal);
                    }
                }
            }
            connection.mailbox().get_ended(&get, number);
            connection.drain();
            connection.wake();
        }
    }
}

/// Answers a get that found nothing, if its channel still wants it.
fn answer_empty_get(connection: &Connection, get: &Get) {
    let wakes = connection.mailbox().got_nothing(get);
    if wakes {
        connection.wake();
    }
}
