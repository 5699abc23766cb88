//! Publishing a message, and getting some.

use std::borrow::Cow;

use axum::response::Response;
use base64ct::{Base64, Encoding};
use bytes::Bytes;
use ferrymq_model::{
    Change, Changed, Dialects, GotMessage, Head, OwnedBody, OwnedMessage, PublishOutcome, Refusal, Reply, Settlement,
    Time,
};
use serde_json::{Map, Value, json};

use super::{Ask, body, body::Fields, exchanges, json, problem::Problem, respond, routes::To};

/// How many messages may be got at once.
const MESSAGES_MAX: i64 = 10_000;

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    if to == To::Publish { publish(ask).await } else { get(ask).await }
}

async fn publish(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, exchange, fields) = (ask.vhost()?, exchanges::name(ask, "name")?, ask.fields()?);
    fields.require(&["routing_key", "properties", "payload", "payload_encoding"])?;
    let payload = fields.text("payload").ok().flatten().ok_or_else(|| Problem::bad_request("payload_not_string"))?;
    let payload = match fields.needed_text("payload_encoding")? {
        "string" => payload.as_bytes().to_vec(),
        "base64" => Base64::decode_vec(payload).map_err(|_| Problem::bad_request(json!(["not_base64", payload])))?,
        other => return Err(Problem::bad_request(json!(["unsupported_encoding", other]))),
    };
    let dialects = ask.management.dialects();
    let own = dialects.own().ok_or_else(Problem::not_found)?;
    let head = read_head(&fields)?;
    let properties = own.write(&head).ok_or_else(|| Problem::bad_request("the headers are nested too deeply"))?;
    let message = OwnedMessage {
        dialect: own.id(),
        exchange,
        routing_key: fields.needed_text("routing_key")?.as_bytes().into(),
        properties,
        annotations: Box::default(),
        body: OwnedBody::Shared(Bytes::from(payload)),
    };
    let change = Change::Publish { vhost, message: Box::new(message) };
    match ask.management.change(&ask.actor, change).await.map_err(refused)? {
        Changed::Answered(Reply::Published(PublishOutcome::Accepted)) => Ok(respond::json(&json!({"routed": true}))),
        Changed::Answered(Reply::Published(PublishOutcome::Unroutable)) => Ok(respond::json(&json!({"routed": false}))),
        _ => Err(Problem::bad_request("rejected Unable to publish message. Check queue limits.")),
    }
}

/// What is refused of a message has the reply code of AMQP in its reason.
#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn refused(refusal: Refusal) -> Problem {
    match &refusal {
        Refusal::NotFound { .. } => Problem::bad_request(format!("404 NOT_FOUND - {refusal}")),
        Refusal::PreconditionFailed(text) => Problem::bad_request(format!("406 PRECONDITION_FAILED - {text}")),
        Refusal::AccessRefused(text) => Problem::bad_request(format!("403 ACCESS_REFUSED - {text}")),
        Refusal::VhostNotFound(_) => Problem::not_authorised("Access refused."),
        other => Problem::from(other.clone()),
    }
}

/// The properties of a message, by RabbitMQ's names.
fn read_head(fields: &Fields) -> Result<Head<'static>, Problem> {
    let table = match fields.get("properties") {
        Some(Value::Object(object)) => object.clone(),
        Some(Value::Array(list)) if list.is_empty() => Map::new(),
        None => Map::new(),
        Some(_) => return Err(Problem::bad_request("properties must be an object")),
    };
    let text = |key: &str| match table.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Cow::Owned(text.clone().into_bytes()))),
        Some(other) if key == "expiration" => Ok(Some(Cow::Owned(other.to_string().into_bytes()))),
        Some(_) => Err(Problem::bad_request(json!(["not_string", key]))),
    };
    let number = |key: &str| match table.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::bad_request(json!(["not_int", key]))),
        },
    };
    let expiration = text("expiration")?;
    let ttl_ms = match &expiration {
        None => None,
        Some(digits) => {
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            let shown = String::from_utf8_lossy(digits);
            let refused = format!("406 PRECONDITION_FAILED - invalid expiration '{shown}': no_integer");
            Some(number.ok_or_else(|| Problem::bad_request(refused))?)
        }
    };
    let headers = match table.get("headers") {
        Some(Value::Object(object)) if object.values().any(Value::is_null) => {
            return Err(Problem::bad_request("null_not_allowed"));
        }
        Some(Value::Object(object)) => json::to_table(object),
        None | Some(Value::Null) => ferrymq_model::Table::default(),
        Some(Value::Array(list)) if list.is_empty() => ferrymq_model::Table::default(),
        Some(_) => return Err(Problem::bad_request("property headers must be an object")),
    };
    let priority = number("priority")?.map(|priority| u8::try_from(priority).unwrap_or(u8::MAX));
    Ok(Head {
        message_id: text("message_id")?,
        correlation_id: text("correlation_id")?,
        reply_to: text("reply_to")?,
        content_type: text("content_type")?,
        content_encoding: text("content_encoding")?,
        user: text("user_id")?,
        app: text("app_id")?,
        kind: text("type")?,
        created: number("timestamp")?.map(|seconds| Time(seconds.saturating_mul(1000))),
        priority,
        persistent: number("delivery_mode")? == Some(2),
        ttl_ms,
        headers,
        ..Head::default()
    })
}

async fn get(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, queue, fields) = (ask.vhost()?, body::name(ask.part("name"), "queue")?, ask.fields()?);
    fields.require(&["ackmode", "count", "encoding"])?;
    let settlement = match fields.needed_text("ackmode")? {
        "ack_requeue_true" => Settlement::RELEASE,
        "reject_requeue_true" => Settlement::FAIL,
        "ack_requeue_false" => Settlement::Accept,
        "reject_requeue_false" => Settlement::Reject,
        other => return Err(Problem::bad_request(json!(["unknown_ackmode", other]))),
    };
    let count = whole(&fields, "count")?.unwrap_or_default().max(0);
    if count > MESSAGES_MAX {
        return Err(Problem::bad_request(format!("count must be at most {MESSAGES_MAX}")));
    }
    let encoding = fields.needed_text("encoding")?;
    if !["auto", "base64"].contains(&encoding) {
        return Err(Problem::bad_request("Unsupported encoding. Please use auto or base64."));
    }
    let truncate = whole(&fields, "truncate")?.and_then(|bytes| usize::try_from(bytes).ok());
    let messages = u32::try_from(count).unwrap_or(u32::MAX);
    let change = Change::Get { vhost, queue, messages, settlement };
    let changed = ask.management.change(&ask.actor, change).await.map_err(|refusal| match refusal {
        Refusal::NotFound { .. } => Problem::missing(format!("NOT_FOUND - {refusal}")),
        Refusal::VhostNotFound(_) => Problem::not_authorised("Access refused."),
        Refusal::ResourceLocked(text) => Problem::bad_request(format!("405 RESOURCE_LOCKED - {text}")),
        other => Problem::from(other),
    })?;
    let Changed::Got(got) = changed else { return Err(Problem::bad_request("no messages")) };
    let dialects = ask.management.dialects();
    let shown = got.iter().map(|message| shown(&dialects, message, encoding, truncate));
    Ok(respond::json(&Value::Array(shown.collect())))
}

/// A whole number, which may be written as a text.
fn whole(fields: &Fields, key: &str) -> Result<Option<i64>, Problem> {
    fields.whole(key).map_err(|_| Problem::bad_request(json!(["not_integer", fields.get(key)])))
}

fn shown(dialects: &Dialects, got: &GotMessage, encoding: &str, truncate: Option<usize>) -> Value {
    let message = got.message.borrowed();
    let body = message.body.bytes();
    let payload = &body[..truncate.unwrap_or(body.len()).min(body.len())];
    let text = std::str::from_utf8(payload).ok().filter(|_| encoding == "auto");
    let (payload, encoding) = match text {
        Some(text) => (text.to_owned(), "string"),
        None => (Base64::encode_string(payload), "base64"),
    };
    json!({
        "payload_bytes": body.len(),
        "redelivered": got.redelivered,
        "exchange": message.exchange,
        "routing_key": String::from_utf8_lossy(message.routing_key),
        "message_count": got.remaining,
        "properties": properties(dialects, got),
        "payload": payload,
        "payload_encoding": encoding,
    })
}

/// The properties that a message has, by RabbitMQ's names.
fn properties(dialects: &Dialects, got: &GotMessage) -> Value {
    let message = got.message.borrowed();
    let head = dialects.head(&message);
    let mut object = Map::new();
    let texts = [
        ("message_id", &head.message_id),
        ("correlation_id", &head.correlation_id),
        ("reply_to", &head.reply_to),
        ("content_type", &head.content_type),
        ("content_encoding", &head.content_encoding),
        ("user_id", &head.user),
        ("app_id", &head.app),
        ("type", &head.kind),
    ];
    for (key, value) in texts {
        if let Some(text) = value {
            object.insert(key.to_owned(), json!(String::from_utf8_lossy(text)));
        }
    }
    let numbers = [
        ("timestamp", head.created.map(|time| time.0 / 1000)),
        ("priority", head.priority.map(u64::from)),
        ("delivery_mode", head.persistent.then_some(2)),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            object.insert(key.to_owned(), json!(number));
        }
    }
    if let Some(ttl) = head.ttl_ms {
        object.insert("expiration".to_owned(), json!(ttl.to_string()));
    }
    let headers = dialects.headers(&message);
    if !headers.is_empty() {
        object.insert("headers".to_owned(), json::of_table(&headers));
    }
    // As RabbitMQ writes it, and as its tools expect it.
    if object.is_empty() { json!([]) } else { Value::Object(object) }
}
