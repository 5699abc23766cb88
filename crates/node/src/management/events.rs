//! Events: what happens on this node, published to the topic exchange `amq.rabbitmq.event` of the vhost `/` with
//! RabbitMQ's routing keys and headers, if the option `events` is set.
//!
//! An event without a matching binding costs almost nothing: it is not built.

use ferrymq_broker::{BindingFacts, Catalog, Happening};
use ferrymq_model::{
    BodyRef, CatalogEntry, ExchangeKind, ExchangeSpec, Facts, MessageRef, Name, Refusal, Table, Value,
};

use crate::{
    connection::peer::Connection,
    core::{
        node::Node,
        transition::{Aftermath, CatalogLock},
    },
    management::trace::{NODE, Who},
};

const VHOST: &str = "/";
const EXCHANGE: &str = "amq.rabbitmq.event";

/// The user that RabbitMQ names in events about its own actions.
const INTERNAL: &str = "rmq-internal";

/// The headers of one event, in their order.
#[derive(Debug, Default)]
pub struct Told(Vec<(String, Value)>);

impl Told {
    pub fn text(mut self, key: &str, text: &str) -> Self {
        self.0.push((key.to_owned(), Value::Text(text.to_owned())));
        self
    }

    pub fn flag(mut self, key: &str, flag: bool) -> Self {
        self.0.push((key.to_owned(), Value::Bool(flag)));
        self
    }

    pub fn count(mut self, key: &str, count: u64) -> Self {
        self.0.push((key.to_owned(), Value::Unsigned(count)));
        self
    }

    pub fn arguments(mut self, arguments: &Table) -> Self {
        self.0.push(("arguments".to_owned(), Value::Table(arguments.clone())));
        self
    }

    pub fn by(self, user: Option<&Name>) -> Self {
        self.text("user_who_performed_action", user.map_or(INTERNAL, |user| user))
    }

    /// The connection of an event.
    pub fn who(self, who: &Who) -> Self {
        self.text("vhost", &who.vhost).text("user", &who.user).by(Some(&who.user))
    }
}

impl Connection {
    /// The name of the connection or channel in events: unique in this process.
    pub fn pid(&self, channel: u16) -> String {
        format!("<{NODE}.{}.{channel}>", self.serial)
    }
}

/// Creates the exchange for events, and begins to record them.
///
/// # Errors
/// If its vhost does not exist, or if there is another exchange of that name.
pub fn prepare(catalog: &mut Catalog, changes: &mut Vec<CatalogEntry>) -> Result<(), Refusal> {
    let spec = ExchangeSpec {
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: true,
        arguments: Table::default(),
    };
    catalog.put_exchange(&Name::from(VHOST), &Name::from(EXCHANGE), &spec, changes)?;
    catalog.note_happenings();
    Ok(())
}

impl Node {
    /// Publishes an event, if anybody is bound to it. The caller holds no lock.
    pub(crate) fn tell(&self, event: &'static str, told: impl FnOnce() -> Told) {
        if !self.tells_events {
            return;
        }
        let catalog = self.catalog.read();
        if !catalog.leads_anywhere(VHOST, EXCHANGE) {
            return;
        }
        let Some((dialect, writer)) = self.properties.iter().next() else { return };
        let now = self.now();
        let properties = writer.event(&Table(told().0), self.wall());
        let message = MessageRef {
            dialect: *dialect,
            exchange: EXCHANGE,
            routing_key: event.as_bytes(),
            properties: &properties,
            annotations: &[],
            body: BodyRef::Inline(&[]),
        };
        let (targets, mut aftermath) = (self.route_made(&catalog, VHOST, &message, true), Aftermath::default());
        if targets.is_empty() {
            return;
        }
        let facts = Facts { arrived: now, ..Facts::default() };
        let open = self.decide_if_open(CatalogLock::Read(&catalog), &mut aftermath, |shard, ports| {
            shard.publish(&message, &facts, true, &targets, ports);
        });
        drop(catalog);
        if open.is_some() {
            self.settle_down(aftermath, None);
        }
    }

    /// Publishes the events of a catalog change, with the user who made it, if there is one.
    pub(crate) fn tell_happenings(&self, happenings: Vec<Happening>, by: Option<&Name>) {
        for happening in happenings {
            let (event, told) = told_of(&happening);
            self.tell(event, || told.by(by));
        }
    }
}

fn told_of(happening: &Happening) -> (&'static str, Told) {
    let named = |vhost: &Name, name: &Name| Told::default().text("name", name).text("vhost", vhost);
    match happening {
        Happening::ExchangeMade { vhost, name, spec } => {
            let told = named(vhost, name).text("type", spec.kind.as_str()).flag("durable", spec.durable);
            let told = told.flag("auto_delete", spec.auto_delete).flag("internal", spec.internal);
            ("exchange.created", told.arguments(&spec.arguments))
        }
        Happening::ExchangeGone { vhost, name } => ("exchange.deleted", named(vhost, name)),
        Happening::QueueMade { vhost, name, spec } => {
            let told = named(vhost, name).flag("durable", spec.durable).flag("auto_delete", spec.auto_delete);
            ("queue.created", told.arguments(&spec.arguments).flag("exclusive", spec.exclusive))
        }
        Happening::QueueGone { vhost, name } => ("queue.deleted", named(vhost, name)),
        Happening::BindingMade(facts) => ("binding.created", binding(facts)),
        Happening::BindingGone(facts) => ("binding.deleted", binding(facts)),
    }
}

fn binding(facts: &BindingFacts) -> Told {
    Told::default()
        .text("source_name", &facts.source)
        .text("source_kind", "exchange")
        .text("destination_name", &facts.target)
        .text("destination_kind", if facts.to_queue { "queue" } else { "exchange" })
        .text("routing_key", &String::from_utf8_lossy(&facts.key))
        .arguments(&facts.arguments)
        .text("vhost", &facts.vhost)
}
