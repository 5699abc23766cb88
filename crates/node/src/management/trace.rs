//! The firehose: everything that is published or delivered in a traced vhost is also published to its exchange
//! `amq.rabbitmq.trace`.
//!
//! Trace messages are built under the shard's lock, in the order of the decisions, and published after the lock is
//! released. While nothing is traced, this costs one check of a flag for each delivery and each batch of publishes.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use ferrymq_model::{Dialects, Facts, MessageRef, Name, OwnedMessage, Table, Time, Traced, Value};
use parking_lot::Mutex;

use crate::{
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
    management::client_facts::KeptFacts,
    routing::envelope::Routed,
};

/// The exchange for trace messages, in each vhost.
const EXCHANGE: &str = "amq.rabbitmq.trace";

/// The maximum number of target queues in a trace message: with the longest names they take half of a client's
/// frame.
const QUEUES_MAX: usize = 256;

/// Which vhosts are traced. As in RabbitMQ, none are after a restart, until tracing is switched on again.
#[derive(Debug, Default)]
pub struct Firehose {
    /// Whether any vhost is traced.
    is_on: AtomicBool,
    /// Locked only to read or change it; no other lock is taken meanwhile.
    vhosts: Mutex<BTreeSet<Name>>,
}

/// The connection of a trace message.
#[derive(Clone, Debug)]
pub struct ConnectionIdentity {
    pub vhost: Name,
    pub user: Name,
    /// The connection's name.
    pub connection: String,
    /// When it has opened its vhost, by the wall clock.
    pub connected_at: Time,
    /// What operators are told of the client.
    pub client: Option<Box<KeptFacts>>,
}

/// A trace message.
#[derive(Debug)]
pub struct TraceMessage {
    vhost: Name,
    message: OwnedMessage,
}

/// What happened to a message.
pub enum TracePoint<'a> {
    /// It was published to these queues.
    Published(Vec<&'a str>),
    /// It was delivered from this queue, perhaps not for the first time.
    Delivered(&'a str, bool),
}

impl Firehose {
    /// Whether anything is traced. While nothing is, this is the only cost.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub fn traces(&self, vhost: &Name) -> bool {
        self.vhosts.lock().contains(vhost)
    }

    fn set(&self, vhost: &Name, on: bool) {
        let mut vhosts = self.vhosts.lock();
        if on {
            vhosts.insert(vhost.clone());
        } else {
            vhosts.remove(vhost);
        }
        self.is_on.store(!vhosts.is_empty(), Ordering::Relaxed);
    }

    /// The trace message for this message on a channel; none if its vhost is not traced. (AMQP-18)
    pub fn trace_message(
        &self,
        identity: &ConnectionIdentity,
        channel: u16,
        message: &MessageRef<'_>,
        more_keys: &[Vec<u8>],
        point: &TracePoint<'_>,
        dialects: &Dialects,
    ) -> Option<TraceMessage> {
        let writer = dialects.own()?;
        if message.exchange == EXCHANGE || !self.traces(&identity.vhost) {
            return None;
        }
        // Otherwise a trace message that is dead-lettered to where it is delivered would be traced without end.
        if matches!(point, TracePoint::Delivered(..))
            && dialects.head(message).first_death.is_some_and(|first| first.exchange == EXCHANGE)
        {
            return None;
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let mut more = vec![
            ("vhost".to_owned(), text(&identity.vhost)),
            ("connection".to_owned(), text(&identity.connection)),
            ("channel".to_owned(), Value::Int(channel.into())),
            ("user".to_owned(), text(&identity.user)),
        ];
        let (verb, place) = match point {
            TracePoint::Published(queues) => {
                let queues = queues.iter().take(QUEUES_MAX).map(|queue| text(queue));
                more.push(("routed_queues".to_owned(), Value::List(queues.collect())));
                ("publish", message.exchange)
            }
            TracePoint::Delivered(queue, redelivered) => {
                more.push(("redelivered".to_owned(), Value::Int((*redelivered).into())));
                ("deliver", *queue)
            }
        };
        let traced = Traced { message: *message, dialects, more_keys, node: NODE, more: Table(more) };
        let message = OwnedMessage {
            dialect: writer.id(),
            exchange: Name::from(EXCHANGE),
            routing_key: Name::cut(&format!("{verb}.{place}")).as_bytes().into(),
            properties: writer.trace(&traced),
            annotations: Box::default(),
            body: message.body.into(),
        };
        Some(TraceMessage { vhost: identity.vhost.clone(), message })
    }
}

/// The name of this member, for where RabbitMQ has the name of a node.
pub const NODE: &str = "ferrymq@localhost";

impl Node {
    /// Starts or stops tracing a vhost on its exchange `amq.rabbitmq.trace`.
    pub fn trace(&self, vhost: &Name, on: bool) {
        self.firehose.set(vhost, on);
    }

    /// Publishes trace messages. The caller holds no lock.
    pub(crate) fn publish_trace_messages(&self, deferred: &mut Deferred) {
        let trace_messages = std::mem::take(&mut deferred.trace_messages);
        let (now, catalog) = (self.now(), self.catalog.read());
        let routed: Vec<_> = trace_messages
            .iter()
            .map(|TraceMessage { vhost, message }| {
                let message = message.borrowed();
                (message, self.route_internal(&catalog, vhost, &message, false))
            })
            .collect();
        // Not after the node has stopped.
        let _ = self.decide_if_open(CatalogLock::Read(&catalog), deferred, |shard, ports| {
            for (message, Routed { targets, matched }) in routed.iter().filter(|(_, to)| !to.targets.is_empty()) {
                let body_bytes = u32::try_from(message.body.bytes().len()).expect("as long as what it shows");
                let facts = Facts { body_bytes, arrived: now, ..Facts::default() };
                shard.publish_matched(message, &facts, false, targets, matched, ports);
            }
        });
    }
}
