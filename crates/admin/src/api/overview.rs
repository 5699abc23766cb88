//! What the server is and how it is.

use axum::response::Response;
use base64ct::{Base64, Encoding};
use ferrymq_model::{Readiness, Which};
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
        "listeners": [],
        "contexts": [],
    })
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
    let memory = ask.management.usage().memory;
    let object = json!({
        "name": NODE,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "partitions": [],
        "mem_used": memory.iter().map(|(_, bytes)| bytes).sum::<u64>(),
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

/// Health checks: 200 if all is well, else 503.
pub fn health(to: To, ask: &Ask) -> Result<Response, Problem> {
    let failed = |reason: &str| Err(Problem::unhealthy(reason));
    match (to, &ask.readiness) {
        (To::Alive, _) => {
            ask.check_vhost()?;
        }
        (To::PortListener | To::ProtocolListener, _) => {
            return failed("this version does not know its listeners here; ask GET /health/ready");
        }
        (_, Readiness::NotReady(reason)) => return failed(reason),
        (To::Alarms, Readiness::Blocked(reason)) => return failed(reason),
        _ => {}
    }
    Ok(respond::json(&json!({"status": "ok"})))
}
