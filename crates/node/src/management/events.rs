//! Events: what happens on this node, published to the topic exchange `amq.rabbitmq.event` of the vhost `/` with
//! RabbitMQ's routing keys and headers, if the option `events` is set.
//!
//! An event without a matching binding costs almost nothing: it is not built.

use ferrymq_broker::{Catalog, CatalogEvent};
use ferrymq_model::{
    BindingFacts, BodyRef, CatalogEntry, ExchangeKind, ExchangeSpec, Facts, Head, MessageRef, Name, Refusal, Table,
    Time, Value,
};

use crate::{
    connection::peer::Connection,
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
    management::{
        erlang_terms,
        trace::{ConnectionIdentity, NODE},
    },
    routing::envelope::Routed,
};

const VHOST: &str = "/";
const EXCHANGE: &str = "amq.rabbitmq.event";

/// The user that RabbitMQ names in events about its own actions.
const INTERNAL: &str = "rmq-internal";

/// The headers of one event, in their order.
#[derive(Debug, Default)]
pub struct EventHeaders(Vec<(String, Value)>);

impl EventHeaders {
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

    /// RabbitMQ writes each argument as text in Erlang's notation.
    pub fn arguments(mut self, arguments: &Table) -> Self {
        let texts = arguments.iter().map(|(key, value)| Value::Text(erlang_terms::argument(key, value)));
        self.0.push(("arguments".to_owned(), Value::List(texts.collect())));
        self
    }

    pub fn by(self, user: Option<&Name>) -> Self {
        self.text("user_who_performed_action", user.map_or(INTERNAL, |user| user))
    }

    /// The connection of an event.
    pub fn identity(self, identity: &ConnectionIdentity) -> Self {
        self.text("vhost", &identity.vhost).text("user", &identity.user).by(Some(&identity.user))
    }
}

/// The head of the message that reports an event at this time. All facts are in its headers.
fn head(EventHeaders(mut headers): EventHeaders, at: Time) -> Head<'static> {
    headers.push(("timestamp_in_ms".to_owned(), Value::Unsigned(at.0)));
    Head { headers: Table(headers), persistent: true, created: Some(at), ..Head::default() }
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
    catalog.record_events();
    Ok(())
}

impl Node {
    /// Publishes an event, if anybody is bound to it. The caller holds no lock. (AMQP-18)
    pub(crate) fn publish_event(&self, event: &'static str, headers: impl FnOnce() -> EventHeaders) {
        if !self.publishes_events {
            return;
        }
        let catalog = self.catalog.read();
        if !catalog.leads_anywhere(VHOST, EXCHANGE) {
            return;
        }
        let Some(dialect) = self.dialects.own() else { return };
        let Some(properties) = dialect.write(&head(headers(), self.wall())) else { return };
        let now = self.now();
        let message = MessageRef {
            dialect: dialect.id(),
            exchange: EXCHANGE,
            routing_key: event.as_bytes(),
            properties: &properties,
            annotations: &[],
            body: BodyRef::Inline(&[]),
        };
        let Routed { targets, matched } = self.route_internal(&catalog, VHOST, &message, true);
        let mut deferred = Deferred::default();
        if targets.is_empty() {
            return;
        }
        let facts = Facts { arrived: now, ..Facts::default() };
        let open = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            shard.publish_matched(&message, &facts, true, &targets, &matched, ports);
        });
        drop(catalog);
        if open.is_some() {
            self.run_deferred(deferred, None);
        }
    }

    /// Publishes the events of a catalog change, with the user who made it, if there is one.
    pub(crate) fn publish_events(&self, events: Vec<CatalogEvent>, by: Option<&Name>) {
        for event in events {
            let (event, headers) = headers_of(&event);
            self.publish_event(event, || headers.by(by));
        }
    }
}

fn headers_of(event: &CatalogEvent) -> (&'static str, EventHeaders) {
    let named = |vhost: &Name, name: &Name| EventHeaders::default().text("name", name).text("vhost", vhost);
    match event {
        CatalogEvent::ExchangeCreated { vhost, name, spec } => {
            let headers = named(vhost, name).text("type", spec.kind.as_str()).flag("durable", spec.durable);
            let headers = headers.flag("auto_delete", spec.auto_delete).flag("internal", spec.internal);
            ("exchange.created", headers.arguments(&spec.arguments))
        }
        CatalogEvent::ExchangeDeleted { vhost, name } => ("exchange.deleted", named(vhost, name)),
        CatalogEvent::QueueCreated { vhost, name, spec } => {
            let headers = named(vhost, name).flag("durable", spec.durable).flag("auto_delete", spec.auto_delete);
            ("queue.created", headers.arguments(&spec.arguments).flag("exclusive", spec.exclusive))
        }
        CatalogEvent::QueueDeleted { vhost, name } => ("queue.deleted", named(vhost, name)),
        CatalogEvent::BindingCreated(facts) => ("binding.created", binding(facts)),
        CatalogEvent::BindingDeleted(facts) => ("binding.deleted", binding(facts)),
    }
}

fn binding(facts: &BindingFacts) -> EventHeaders {
    EventHeaders::default()
        .text("source_name", &facts.source)
        .text("source_kind", "exchange")
        .text("destination_name", &facts.target)
        .text("destination_kind", if facts.to_queue { "queue" } else { "exchange" })
        .text("routing_key", &String::from_utf8_lossy(&facts.key))
        .arguments(&facts.arguments)
        .text("vhost", &facts.vhost)
}
