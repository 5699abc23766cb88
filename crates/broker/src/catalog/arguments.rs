//! What arguments of declarations mean, which of them are built, and whether two declarations say the same.
//!
//! Texts follow RabbitMQ's, because people and programs look for them.

use ferrymq_model::{Arguments, ExchangeSpec, Name, Object, QueueSpec, Refusal, Value};

use super::shown;
use crate::queue::QueueSettings;

/// Arguments of queues that a second declaration must repeat.
const COMPARED: [&str; 13] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
];

/// Arguments of queues that are known and not built.
const QUEUE_NOT_BUILT: [&str; 9] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-single-active-consumer",
    "x-consumer-timeout",
];

/// Arguments of queues of another type, which RabbitMQ refuses for classic ones.
const QUEUE_OF_OTHER_TYPE: [&str; 11] = [
    "x-delivery-limit",
    "x-initial-cluster-size",
    "x-max-age",
    "x-max-in-memory-bytes",
    "x-max-in-memory-length",
    "x-quorum-initial-group-size",
    "x-quorum-target-group-size",
    "x-delayed-retry-type",
    "x-stream-filter-size-bytes",
    "x-stream-max-segment-size-bytes",
    "x-consumer-disconnected-timeout",
];

/// The same for subscriptions.
const SUBSCRIPTION_NOT_BUILT: [&str; 2] = ["x-consumer-timeout", "x-credit"];
const SUBSCRIPTION_OF_OTHER_TYPE: [&str; 3] = ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];

/// The same for exchanges.
const EXCHANGE_NOT_BUILT: [&str; 1] = ["x-super-stream"];

/// What a queue does, by its declaration.
pub(super) fn queue_settings(vhost: &Name, name: &Name, spec: &QueueSpec) -> Result<QueueSettings, Refusal> {
    let whose = shown(Object::Queue, name, vhost);
    let arguments = &spec.arguments;
    check_queue_type(&whose, arguments)?;
    refuse_first(&whose, arguments, &QUEUE_NOT_BUILT, &QUEUE_OF_OTHER_TYPE)?;
    let message_ttl_ms = whole_number(&whose, arguments, "x-message-ttl")?;
    let unused_ms_max = whole_number(&whose, arguments, "x-expires")?;
    if unused_ms_max == Some(0) {
        return Err(invalid("x-expires", &whose, "{value_zero,0}"));
    }
    match arguments.get("x-queue-mode") {
        None => {}
        Some(Value::Text(mode)) if mode == "default" || mode == "lazy" => {}
        Some(Value::Text(mode)) => {
            return Err(invalid("x-queue-mode", &whose, &format!("\"unsupported queue mode '{mode}'\"")));
        }
        Some(other) => return Err(wrong_type("x-queue-mode", &whose, other)),
    }
    match whole_number(&whose, arguments, "x-queue-version")? {
        None | Some(1 | 2) => {}
        Some(other) => {
            return Err(invalid("x-queue-version", &whose, &format!("\"unsupported queue version '{other}'\"")));
        }
    }
    Ok(QueueSettings {
        vhost: vhost.clone(),
        name: name.clone(),
        durable: spec.durable,
        auto_delete: spec.auto_delete,
        message_ttl_ms,
        unused_ms_max,
        ..QueueSettings::default()
    })
}

fn check_queue_type(whose: &str, arguments: &Arguments) -> Result<(), Refusal> {
    match arguments.get("x-queue-type") {
        None => Ok(()),
        Some(Value::Text(kind)) => match &**kind {
            "classic" => Ok(()),
            "quorum" | "stream" => Err(not_built("x-queue-type", whose, &format!("queue type '{kind}' "))),
            _ => Err(invalid("x-queue-type", whose, &format!("\"unsupported queue type '{kind}'\""))),
        },
        Some(other) => Err(wrong_type("x-queue-type", whose, other)),
    }
}

/// The priority of a subscription to the queue.
pub(super) fn subscription_priority(whose: &str, arguments: &Arguments) -> Result<i64, Refusal> {
    refuse_first(whose, arguments, &SUBSCRIPTION_NOT_BUILT, &SUBSCRIPTION_OF_OTHER_TYPE)?;
    match arguments.get("x-priority") {
        None => Ok(0),
        Some(Value::Int(priority)) => Ok(*priority),
        Some(other) => Err(not_whole("x-priority", whose, other)),
    }
}

/// The exchange that an argument names. It need not be there.
pub(super) fn exchange_named<'a>(key: &str, whose: &str, arguments: &'a Arguments) -> Result<Option<&'a str>, Refusal> {
    match arguments.get(key) {
        None => Ok(None),
        Some(Value::Text(name)) => Ok(Some(name)),
        Some(other) => {
            let text = format!("invalid type '{}' for arg '{key}' in {whose}", type_name(other));
            Err(Refusal::PreconditionFailed(text))
        }
    }
}

/// Where an exchange sends what its bindings lead nowhere. A name too long for an exchange is none.
pub(super) fn alternate_exchange(arguments: &Arguments) -> Option<Name> {
    let name = arguments.get("alternate-exchange").and_then(Value::as_text)?;
    Name::parse(name.as_bytes()).ok()
}

/// Refuses arguments of exchanges that are known and not built.
pub(super) fn check_exchange(whose: &str, arguments: &Arguments) -> Result<(), Refusal> {
    refuse_first(whose, arguments, &EXCHANGE_NOT_BUILT, &[])
}

/// Whether a second declaration of a queue says the same as the first.
pub(super) fn check_same_queue(whose: &str, current: &QueueSpec, received: &QueueSpec) -> Result<(), Refusal> {
    check_same_flag("durable", whose, current.durable, received.durable)?;
    check_same_flag("auto_delete", whose, current.auto_delete, received.auto_delete)?;
    COMPARED.iter().try_for_each(|key| check_same_argument(key, whose, &current.arguments, &received.arguments))
}

/// Whether a second declaration of an exchange says the same as the first.
pub(super) fn check_same_exchange(whose: &str, current: &ExchangeSpec, received: &ExchangeSpec) -> Result<(), Refusal> {
    if current.kind != received.kind {
        let (received, current) = (received.kind.as_str(), current.kind.as_str());
        return Err(inequivalent("type", whose, &format!("'{received}'"), &format!("'{current}'")));
    }
    check_same_flag("durable", whose, current.durable, received.durable)?;
    check_same_flag("auto_delete", whose, current.auto_delete, received.auto_delete)?;
    check_same_flag("internal", whose, current.internal, received.internal)?;
    check_same_argument("alternate-exchange", whose, &current.arguments, &received.arguments)
}

fn check_same_flag(key: &str, whose: &str, current: bool, received: bool) -> Result<(), Refusal> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(key, whose, &format!("'{received}'"), &format!("'{current}'")))
}

fn check_same_argument(key: &str, whose: &str, current: &Arguments, received: &Arguments) -> Result<(), Refusal> {
    let is_default = |value: &Value| key == "x-queue-type" && value.as_text() == Some("classic");
    match (current.get(key), received.get(key)) {
        (None, None) => Ok(()),
        (Some(current), Some(received)) if current == received => Ok(()),
        (Some(current), Some(received)) => {
            let quoted = |value| format!("'{}'", plain(value));
            Err(inequivalent(key, whose, &quoted(received), &quoted(current)))
        }
        (Some(value), None) | (None, Some(value)) if is_default(value) => Ok(()),
        (Some(current), None) => Err(inequivalent(key, whose, "none", &described(current))),
        (None, Some(received)) => Err(inequivalent(key, whose, &described(received), "none")),
    }
}

/// Refuses the first argument that is in one of the lists.
fn refuse_first(
    whose: &str,
    arguments: &Arguments,
    not_built_yet: &[&str],
    other_type: &[&str],
) -> Result<(), Refusal> {
    for (key, _) in arguments.iter() {
        if not_built_yet.contains(&key) {
            return Err(not_built(key, whose, ""));
        }
        if other_type.contains(&key) {
            let text = format!("invalid arg '{key}' for {whose} of queue type rabbit_classic_queue");
            return Err(Refusal::PreconditionFailed(text));
        }
    }
    Ok(())
}

fn whole_number(whose: &str, arguments: &Arguments, key: &str) -> Result<Option<u64>, Refusal> {
    match arguments.get(key) {
        None => Ok(None),
        Some(Value::Int(number)) => match u64::try_from(*number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(invalid(key, whose, &format!("{{value_negative,{number}}}"))),
        },
        Some(Value::Unsigned(number)) => Ok(Some(*number)),
        Some(other) => Err(not_whole(key, whose, other)),
    }
}

fn invalid(key: &str, whose: &str, why: &str) -> Refusal {
    Refusal::PreconditionFailed(format!("invalid arg '{key}' for {whose}: {why}"))
}

fn not_built(key: &str, whose: &str, what: &str) -> Refusal {
    invalid(key, whose, &format!("{what}not implemented"))
}

fn wrong_type(key: &str, whose: &str, value: &Value) -> Refusal {
    invalid(key, whose, &format!("{{unacceptable_type,{}}}", type_name(value)))
}

fn not_whole(key: &str, whose: &str, value: &Value) -> Refusal {
    invalid(key, whose, &format!("\"expected integer, got {}\"", type_name(value)))
}

fn inequivalent(key: &str, whose: &str, received: &str, current: &str) -> Refusal {
    Refusal::PreconditionFailed(format!(
        "inequivalent arg '{key}' for {whose}: received {received} but current is {current}"
    ))
}

fn described(value: &Value) -> String {
    format!("the value '{}' of type '{}'", plain(value), type_name(value))
}

fn plain(value: &Value) -> String {
    match value {
        Value::Void => "undefined".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Unsigned(number) | Value::Timestamp(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

/// RabbitMQ's name for a value's type. Widths of numbers are not kept, so the one that clients use most is named.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Void => "void",
        Value::Bool(_) => "bool",
        Value::Int(number) if i32::try_from(*number).is_ok() => "signedint",
        Value::Int(_) | Value::Unsigned(_) => "long",
        Value::Float(_) => "double",
        Value::Decimal { .. } => "decimal",
        Value::Text(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::Timestamp(_) => "timestamp",
        Value::List(_) => "array",
        Value::Table(_) => "table",
    }
}
