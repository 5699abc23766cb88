//! The firehose: in a vhost that is traced, whatever is published or delivered is shown on its exchange
//! `amq.rabbitmq.trace` as well.
//!
//! What is shown is made under the shard's lock, in the order in which things were decided, and published once the lock has
//! been let go. While nothing is traced this costs one look at a flag for each delivery and each batch of publishes.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use ferrymq_model::{Facts, MessageRef, Name, OwnedMessage, Properties, Table, Traced, Value};
use parking_lot::Mutex;

use crate::{
    node::Node,
    transition::{Aftermath, CatalogLock},
};

/// Where it comes out, in each vhost.
const EXCHANGE: &str = "amq.rabbitmq.trace";

/// So many of the queues that a message went to are told: with the longest names they take half of what a client's frame holds.
const QUEUES_MAX: usize = 256;

/// What is traced. As in RabbitMQ nothing is after a restart, until somebody asks for it again.
#[derive(Debug, Default)]
pub struct Firehose {
    /// Whether any vhost is traced.
    is_on: AtomicBool,
    /// Held only to look or to change it; no other lock is taken meanwhile.
    vhosts: Mutex<HashSet<Name>>,
}

/// Whose connection it is, for those who watch.
#[derive(Clone, Debug)]
pub struct Who {
    pub vhost: Name,
    pub user: Name,
    /// The connection's name.
    pub connection: String,
}

/// A message that shows another one.
#[derive(Debug)]
pub struct Shown {
    vhost: Name,
    message: OwnedMessage,
}

/// What happened to a message.
pub enum Tap<'a> {
    /// It was published, and goes to these queues.
    Published(Vec<&'a str>),
    /// It was delivered from this queue, perhaps not for the first time.
    Delivered(&'a str, bool),
}

impl Firehose {
    /// Whether anything is traced. A look at this is all that is spent while nothing is.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    fn traces(&self, vhost: &Name) -> bool {
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

    /// The message that shows what has happened to this one on a channel; nothing where that is not traced.
    pub fn show(
        &self,
        who: &Who,
        channel: u16,
        message: &MessageRef<'_>,
        more_keys: &[Vec<u8>],
        tap: &Tap<'_>,
        writer: &dyn Properties,
    ) -> Option<Shown> {
        if message.exchange == EXCHANGE || !self.traces(&who.vhost) {
            return None;
        }
        // Else what is shown, dead-lettered to where it is delivered, would be shown without end.
        if matches!(tap, Tap::Delivered(..))
            && writer.first_exchange(message.properties).is_some_and(|first| first == EXCHANGE.as_bytes())
        {
            return None;
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let mut more = vec![
            ("vhost".to_owned(), text(&who.vhost)),
            ("connection".to_owned(), text(&who.connection)),
            ("channel".to_owned(), Value::Int(channel.into())),
            ("user".to_owned(), text(&who.user)),
        ];
        let (verb, place) = match tap {
            Tap::Published(queues) => {
                let queues = queues.iter().take(QUEUES_MAX).map(|queue| text(queue));
                more.push(("routed_queues".to_owned(), Value::List(queues.collect())));
                ("publish", message.exchange)
            }
            Tap::Delivered(queue, redelivered) => {
                more.push(("redelivered".to_owned(), Value::Int((*redelivered).into())));
                ("deliver", *queue)
            }
        };
        let traced = Traced {
            exchange: message.exchange,
            routing_key: message.routing_key,
            more_keys,
            properties: message.properties,
            node: NODE,
            more: Table(more),
        };
        let message = OwnedMessage {
            dialect: message.dialect,
            exchange: Name::from(EXCHANGE),
            routing_key: Name::cut(&format!("{verb}.{place}")).as_bytes().into(),
            properties: writer.trace(&traced),
            annotations: Box::default(),
            body: message.body.into(),
        };
        Some(Shown { vhost: who.vhost.clone(), message })
    }
}

/// What this member is called where RabbitMQ shows the name of one of its nodes.
pub const NODE: &str = "ferrymq@localhost";

impl Node {
    /// Shows what is published and delivered in a vhost on its exchange `amq.rabbitmq.trace`, or stops that.
    pub fn trace(&self, vhost: &Name, on: bool) {
        self.firehose.set(vhost, on);
    }

    /// Publishes what was shown. The caller holds no lock.
    pub(crate) fn publish_shown(&self, aftermath: &mut Aftermath) {
        let shown = std::mem::take(&mut aftermath.shown);
        let (now, catalog) = (self.now(), self.catalog.read());
        let routed: Vec<_> = shown
            .iter()
            .map(|Shown { vhost, message }| {
                let message = message.borrowed();
                (message, self.route_made(&catalog, vhost, &message, false))
            })
            .collect();
        // Nobody has to hear of it once the node has stopped.
        let _ = self.decide_if_open(CatalogLock::Read(&catalog), aftermath, |shard, ports| {
            for (message, targets) in routed.iter().filter(|(_, targets)| !targets.is_empty()) {
                let body_bytes = u32::try_from(message.body.bytes().len()).expect("as long as what it shows");
                let facts = Facts { body_bytes, arrived: now, ..Facts::default() };
                shard.publish(message, &facts, false, targets, ports);
            }
        });
    }
}
