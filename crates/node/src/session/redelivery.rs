//! Outstanding deliveries of a kept session, which its next connection gets once more with their ids.

use std::{collections::VecDeque, sync::Arc};

use ferrymq_broker::{Next, Ports, SequenceRange};
use ferrymq_model::{Deliveries, MessageKey, MessageRef, QueueId, Settlement};

use crate::{
    client::{Client, consume::begin_pull},
    connection::{effects::DeliveryHeader, mailbox::Mailbox, peer::Connection},
    core::{
        node::Node,
        transition::{Deferred, Transition},
    },
};

/// How many messages are delivered once more during one hold of the shard's lock.
const HELD_MESSAGES_MAX: usize = 128;

/// A delivery that is delivered once more.
#[derive(Clone, Copy, Debug)]
pub struct Redelivery {
    pub channel: u16,
    pub id: u64,
    pub subscription: Option<u32>,
    pub place: MessageKey,
}

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redelivered {
    Yes,
    /// Storage reads the message, and the connection is notified when it has.
    Pending,
    /// The message is gone, or too long for this client.
    No,
}

impl Client {
    /// Delivers outstanding deliveries once more, as long as the socket accepts them; after the last one, new deliveries
    /// follow.
    pub(crate) fn redeliver_some(&mut self) {
        while !self.has_ended() && self.is_redelivering() && !self.connection.mailbox().waits_for_socket() {
            let (mut deferred, mut is_pending) = (Deferred::default(), false);
            let (redeliveries, connection) = (&mut self.redeliveries, &self.connection);
            self.node.decide(&mut deferred, |shard, ports| {
                for _ in 0..HELD_MESSAGES_MAX {
                    let Some(one) = redeliveries.as_ref().and_then(VecDeque::front) else { break };
                    if connection.mailbox().waits_for_socket() {
                        break;
                    }
                    match ports.redeliver(connection, one) {
                        Redelivered::Yes => {}
                        Redelivered::No => {
                            let mut held = Vec::new();
                            connection.mailbox().give_up(one, &mut held);
                            shard.settle(&held, Settlement::RELEASE, ports.now(), ports);
                        }
                        Redelivered::Pending => {
                            is_pending = true;
                            break;
                        }
                    }
                    if let Some(rest) = redeliveries.as_mut() {
                        rest.pop_front();
                    }
                }
                if redeliveries.as_ref().is_some_and(VecDeque::is_empty) {
                    *redeliveries = None;
                    let (waiting, subscriptions, pulls) = connection.mailbox().unpark(connection.id());
                    shard.resume(&subscriptions);
                    shard.credit(&waiting);
                    for pull in pulls {
                        begin_pull(connection, pull, shard, ports);
                    }
                }
                ports.touch(connection);
            });
            self.run_deferred(deferred);
            if is_pending {
                return;
            }
        }
    }

    /// Whether some deliveries are to be delivered once more.
    pub(crate) fn is_redelivering(&self) -> bool {
        self.redeliveries.is_some()
    }
}

impl Node {
    /// Storage has read messages of these queues: connections that wait for them are notified.
    pub(crate) fn retry_redeliveries(&self, queues: &[QueueId]) {
        let is_read = |(queue, _): &mut (QueueId, Arc<Connection>)| queues.iter().any(|read| read.queue() == *queue);
        let ready: Vec<_> = self.redelivering.lock().extract_if(.., is_read).collect();
        ready.iter().for_each(|(_, connection)| connection.wake());
    }
}

impl Transition<'_> {
    /// Delivers a message once more.
    fn redeliver(&mut self, connection: &Arc<Connection>, one: &Redelivery) -> Redelivered {
        let queue = one.place.queue.queue();
        if self.node.failed.check(&[queue]).is_err() {
            return Redelivered::No;
        }
        match self.next(one.place.queue, one.place.sequence) {
            Next::Pending => {
                // Under the lock that storage needs to report what it has read: so no report is missed.
                let mut waiting = self.node.redelivering.lock();
                if !waiting.iter().any(|(other, waits)| *other == queue && Arc::ptr_eq(waits, connection)) {
                    waiting.push((queue, connection.clone()));
                }
                Redelivered::Pending
            }
            Next::Message { sequence, handle, .. } if sequence == one.place.sequence => {
                let message = self.stored(handle);
                if message.needed_bytes() <= connection.properties_bytes_max() {
                    connection.mailbox().deliver_again(one, &message);
                    Redelivered::Yes
                } else {
                    Redelivered::No
                }
            }
            Next::Message { .. } | Next::End => Redelivered::No,
        }
    }
}

impl Mailbox {
    /// Whether so much waits for the socket that nothing is delivered once more until it has accepted that.
    fn waits_for_socket(&mut self) -> bool {
        let waits = self.is_full();
        self.full |= waits;
        waits
    }

    /// Whether the client has not settled it since its connection began.
    fn is_outstanding(&self, one: &Redelivery) -> bool {
        self.state.channels.get(&one.channel).is_some_and(|channel| channel.unacked.holds(one.id, one.place))
    }

    /// It cannot be delivered once more, and is unsettled no longer.
    fn give_up(&mut self, one: &Redelivery, taken: &mut Vec<SequenceRange>) {
        if self.is_outstanding(one) {
            self.settle(one.channel, Deliveries::One(one.id), taken);
        }
    }

    fn deliver_again(&mut self, one: &Redelivery, message: &MessageRef<'_>) {
        if !self.is_outstanding(one) {
            return;
        }
        let header = DeliveryHeader { delivery_tag: one.id, redelivered: true, attempts: None };
        let subscription = one.subscription.and_then(|number| self.state.subscriptions.get(&number));
        let tag = subscription.map(|subscription| subscription.tag.clone()).unwrap_or_default();
        self.effects.deliver(one.channel, &tag, header, message);
    }
}
