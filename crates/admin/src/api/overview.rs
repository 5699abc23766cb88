//! What the server is and how it is.

use axum::{http::StatusCode, response::Response};
use base64ct::{Base64, Encoding};
use ferrymq_model::{
    Arguments, Ask as Request, Change, Changed, DeclareQueue, Head, Name, OwnedBody, OwnedMessage, Readiness,
    Settlement, Which,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Ask, connections, problem::Problem, respond, routes::To};

/// The name of the node, which clients and tools take for RabbitMQ's.
pub const NODE: &str = "rabbit@localhost";

/// The version of RabbitMQ whose API this is.
const RABBITMQ_VERSION: &str = "3.13.7";

/// How to log in: with a password.
pub fn auth() -> Response {
    respond::json(&json!({"oauth_enabled": false}))
}

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    Ok(respond::json(&match to {
        To::Whoami => json!({"name": &*ask.actor.user, "tags": ask.actor.tags, "is_internal_user": true}),
        To::HashPassword => json!({"ok": hash(ask.part("password"))}),
        To::Extensions => json!([]),
        To::Version => json!(RABBITMQ_VERSION),
        To::ClusterName => json!({"name": NODE}),
        _ => overview(ask),
    }))
}

/// A hash that a user can be given, as RabbitMQ makes it: SHA-256 behind a salt of four bytes.
fn hash(password: &str) -> String {
    // The salt need not be secret; it makes equal passwords differ.
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let salt = time.subsec_nanos().to_be_bytes();
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    Base64::encode_string(&[&salt[..], &digest].concat())
}

fn overview(ask: &Ask) -> Value {
    let (connections, channels, consumers) = connections::counts(ask);
    let (ready, unacked, queues) = connections::queue_totals(ask);
    let mut exchanges = 0;
    ask.management.exchanges(&Which::All, &mut |exchange| exchanges += usize::from(ask.sees(&exchange.vhost)));
    let usage = ask.management.usage();
    let sum = |of: fn(&ferrymq_model::Usage) -> u64| usage.vhosts.iter().map(|(_, usage)| of(usage)).sum::<u64>();
    json!({
        "management_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "FerryMQ",
        "product_version": env!("CARGO_PKG_VERSION"),
        "rates_mode": "none",
        "is_op_policy_updating_enabled": true,
        "disable_stats": false,
        "enable_queue_totals": false,
        "cluster_name": NODE,
        "node": NODE,
        "object_totals": {
            "connections": connections,
            "channels": channels,
            "consumers": consumers,
            "queues": queues,
            "exchanges": exchanges,
        },
        "queue_totals": {
            "messages": ready + unacked,
            "messages_ready": ready,
            "messages_unacknowledged": unacked,
        },
        "message_stats": {
            "publish": sum(|usage| usage.published),
            "deliver_get": sum(|usage| usage.delivered),
            "ack": sum(|usage| usage.acked),
        },
        "exchange_types": exchange_types(),
        "listeners": listeners(ask),
        "contexts": [],
    })
}

fn listeners(ask: &Ask) -> Value {
    let shown = |listener: &ferrymq_model::ListenerReport| json!({"node": NODE, "protocol": listener.protocol, "ip_address": listener.ip, "port": listener.port, "socket_opts": {}});
    ask.listeners.iter().map(shown).collect()
}

fn exchange_types() -> Value {
    let known = [
        ("direct", "AMQP direct exchange, as per the AMQP specification"),
        ("fanout", "AMQP fanout exchange, as per the AMQP specification"),
        ("topic", "AMQP topic exchange, as per the AMQP specification"),
        ("headers", "AMQP headers exchange, as per the AMQP specification"),
        ("x-consistent-hash", "Consistent Hashing Exchange"),
        ("x-modulus-hash", "Modulus Hashing Exchange"),
        ("x-random", "Random exchange"),
        ("x-local-random", "Random exchange among queues of this node"),
        ("x-recent-history", "Recent History Exchange"),
        ("x-delayed-message", "Delayed Message Exchange"),
        ("x-jms-topic", "Exchange with selectors"),
    ];
    known.iter().map(|(name, text)| json!({"name": name, "description": text, "enabled": true})).collect()
}

/// The node.
pub fn node(to: To, ask: &Ask) -> Result<Response, Problem> {
    let memory = ask.management.usage().process_bytes;
    let object = json!({
        "name": NODE,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "partitions": [],
        "mem_used": memory,
        "mem_alarm": false,
        "disk_free_alarm": matches!(ask.readiness, Readiness::Blocked(_)),
        "processors": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "applications": [{
            "name": "rabbit",
            "description": "FerryMQ",
            "version": RABBITMQ_VERSION,
        }],
    });
    match to {
        To::FeatureFlags => Ok(respond::json(&json!([]))),
        To::Nodes => Ok(respond::json(&json!([object]))),
        _ if ask.part("node") == NODE => Ok(respond::json(&object)),
        _ => Err(Problem::not_found()),
    }
}

/// A message is published to a queue of the vhost, and got from it, with the permissions of the user.
pub async fn alive(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, queue) = (ask.check_vhost()?, Name::from("aliveness-test"));
    let declare = DeclareQueue {
        queue: queue.clone(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::default(),
    };
    ask.change(Change::Request { vhost: vhost.clone(), ask: Request::DeclareQueue(declare) }).await?;
    let dialects = ask.management.dialects();
    let own = dialects.own().ok_or_else(Problem::not_found)?;
    let message = OwnedMessage {
        dialect: own.id(),
        exchange: Name::default(),
        routing_key: queue.as_bytes().into(),
        properties: own.write(&Head::default()).unwrap_or_default(),
        annotations: Box::default(),
        body: OwnedBody::Inline((*b"test_message").into()),
    };
    ask.change(Change::Publish { vhost: vhost.clone(), message: Box::new(message) }).await?;
    let get = Change::Get { vhost, queue, messages: 1, settlement: Settlement::Accept };
    match ask.change(get).await? {
        Changed::Got(got) if !got.is_empty() => Ok(respond::json(&json!({"status": "ok"}))),
        _ => Err(Problem::unhealthy("the message did not come back")),
    }
}

/// Health checks: 200 if all is well, else 503.
pub fn health(to: To, ask: &Ask) -> Result<Response, Problem> {
    let single = json!({"status": "ok", "reason": "single node cluster"});
    match (to, &ask.readiness) {
        (To::PortListener, _) => return port_listener(ask),
        (To::ProtocolListener, _) => return protocol_listener(ask),
        (To::CertificateExpiration, _) => return certificates(ask),
        (_, Readiness::NotReady(reason)) => return Err(Problem::unhealthy(reason)),
        (To::Alarms, Readiness::Blocked(reason)) => return Err(Problem::unhealthy(reason)),
        (To::Critical, _) => return Ok(respond::json(&single)),
        (To::Healthy, _) if ask.part_if_any("node").is_some_and(|node| node != NODE) => {
            return Err(Problem::not_found());
        }
        _ => {}
    }
    Ok(respond::json(&json!({"status": "ok"})))
}

/// 503 with what there is instead.
fn no_listener(object: &Value) -> Response {
    let mut response = respond::json(object);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn port_listener(ask: &Ask) -> Result<Response, Problem> {
    let port: u16 = ask.part("port").parse().map_err(|_| Problem::bad_request("Invalid port"))?;
    let ports: Vec<u16> = ask.listeners.iter().map(|listener| listener.port).collect();
    if ports.contains(&port) {
        return Ok(respond::json(&json!({"status": "ok", "port": port})));
    }
    let reason = "No active listener";
    Ok(no_listener(&json!({"status": "failed", "reason": reason, "missing": port, "ports": ports})))
}

fn protocol_listener(ask: &Ask) -> Result<Response, Problem> {
    let protocol = ask.part("protocol");
    // Versions and spellings that clients use.
    let wanted = match protocol.to_ascii_lowercase().as_str() {
        "amqp091" | "amqp0.9.1" | "amqp0-9-1" | "amqp/0-9-1" => "amqp".to_owned(),
        "amqp/ssl" => "amqps".to_owned(),
        other => other.to_owned(),
    };
    let protocols: Vec<&str> = ask.listeners.iter().map(|listener| listener.protocol).collect();
    if protocols.contains(&wanted.as_str()) {
        return Ok(respond::json(&json!({"status": "ok", "protocol": protocol})));
    }
    let reason = "No active listener";
    Ok(no_listener(&json!({"status": "failed", "reason": reason, "missing": protocol, "protocols": protocols})))
}

/// Whether certificates expire soon. Those of listeners cannot be asked yet: with one the answer is a refusal.
fn certificates(ask: &Ask) -> Result<Response, Problem> {
    let within: Option<u64> = ask.part("within").parse().ok();
    within.ok_or_else(|| Problem::bad_request("Invalid expiration value."))?;
    if !["days", "weeks", "months", "years"].contains(&ask.part("unit")) {
        let text = "Time unit not recognised. Supported units: days, weeks, months, years.";
        return Err(Problem::bad_request(text));
    }
    if ask.listeners.iter().any(|listener| ["amqps", "https"].contains(&listener.protocol)) {
        return Err(Problem::not_built("the expiry of certificates cannot be asked in this version"));
    }
    Ok(respond::json(&json!({"status": "ok"})))
}
