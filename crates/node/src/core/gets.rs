//! Single gets: at once, or after storage has read the message.

use std::sync::Arc;

use ferrymq_broker::Got;
use ferrymq_model::{QueueId, Settlement};

use crate::{
    connection::{mailbox::Get, peer::Connection},
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
};

pub(crate) struct PendingGet {
    pub connection: Arc<Connection>,
    pub get: Get,
}

impl Node {
    /// Gets one message for a channel; if storage has to read it first, after that. False: the queue was deleted.
    pub(crate) fn get(&self, connection: &Arc<Connection>, get: Get) -> bool {
        let (now, mut deferred) = (self.now(), Deferred::default());
        let got = loop {
            let catalog = self.catalog.read();
            let got = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
                ports.getting(connection, get);
                let got = shard.get(get.queue, get.no_ack, now, ports);
                match got {
                    Got::Empty => {
                        answer_empty_get(connection, &get);
                        ports.touch(connection);
                    }
                    // Under the lock that storage needs to report what it has read: so no report is missed.
                    Got::Pending => self.gets.lock().push(PendingGet { connection: connection.clone(), get }),
                    Got::Message | Got::Busy | Got::Gone => {}
                }
                got
            });
            drop(catalog);
            if got != Some(Got::Busy) {
                break got;
            }
        };
        let unclaimed = std::mem::take(&mut deferred.unclaimed);
        if !unclaimed.is_empty() {
            let catalog = self.catalog.read();
            self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
                shard.settle(&unclaimed, Settlement::RELEASE, ports.now(), ports);
            });
        }
        self.run_deferred(deferred, Some(connection));
        got != Some(Got::Gone)
    }

    /// Storage has read messages of these queues: gets that waited for them are tried again.
    pub(crate) fn retry_gets(&self, queues: &[QueueId]) {
        let is_read = |waiting: &mut PendingGet| queues.iter().any(|read| read.queue() == waiting.get.queue);
        let ready: Vec<PendingGet> = self.gets.lock().extract_if(.., is_read).collect();
        for PendingGet { connection, get } in ready {
            // If its channel has ended meanwhile, it wants nothing; if the queue was deleted, it finds nothing.
            if connection.mailbox().still_wants(&get) && !self.get(&connection, get) {
                answer_empty_get(&connection, &get);
                if connection.drain() {
                    connection.wake();
                }
            }
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
