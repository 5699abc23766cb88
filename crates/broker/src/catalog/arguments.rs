//! The arguments of exchanges: their meaning, whether two declarations are equivalent, and how refusals show
//! values.
//!
//! Texts are RabbitMQ's, because people and programs search for them.

use ferrymq_model::{Arguments, ExchangeKind, ExchangeSpec, Name, Refusal, Value};

use super::delayed;
use super::entries;
use super::hashing::HashedBy;
use super::history;

/// Arguments of exchanges that are known and not implemented.
const EXCHANGE_NOT_BUILT: [&str; 1] = ["x-super-stream"];

/// The maximum length of encoded arguments: a binding's record contains them twice, and it must fit into the
/// smallest journal file.
const BYTES_MAX: usize = 96 << 10;

/// Refuses arguments that are too long to be stored.
pub(super) fn check_length(whose: &str, arguments: &Arguments) -> Result<(), Refusal> {
    let bytes = entries::encode(arguments).len();
    if bytes <= BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::PreconditionFailed(format!("arguments of {whose} take {bytes} bytes, and may take {BYTES_MAX}")))
}

/// The exchange that an argument names. It need not exist.
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

/// The alternate exchange. A name that is too long for an exchange counts as none.
pub(super) fn alternate_exchange(arguments: &Arguments) -> Option<Name> {
    let name = arguments.get("alternate-exchange").and_then(Value::as_text)?;
    Name::parse(name.as_bytes()).ok()
}

/// Refuses arguments of exchanges that are known and not implemented, or wrong for their kind.
pub(super) fn check_exchange(whose: &str, spec: &ExchangeSpec) -> Result<(), Refusal> {
    if let Some((key, _)) = spec.arguments.iter().find(|(key, _)| EXCHANGE_NOT_BUILT.contains(key)) {
        return Err(not_built(key, whose, ""));
    }
    check_length(whose, &spec.arguments)?;
    delayed::check(spec)?;
    match delayed::routes_as(spec) {
        ExchangeKind::ConsistentHash => drop(HashedBy::parse(&spec.arguments)?),
        ExchangeKind::RecentHistory => drop(history::length(&spec.arguments)?),
        _ => {}
    }
    Ok(())
}

/// Whether a second declaration of an exchange is equivalent to the first. (AMQP-13)
pub(super) fn check_same_exchange(whose: &str, current: &ExchangeSpec, received: &ExchangeSpec) -> Result<(), Refusal> {
    if current.kind != received.kind {
        let (received, current) = (received.kind.as_str(), current.kind.as_str());
        return Err(inequivalent("type", whose, &format!("'{received}'"), &format!("'{current}'")));
    }
    check_same_flag("durable", whose, current.durable, received.durable)?;
    check_same_flag("auto_delete", whose, current.auto_delete, received.auto_delete)?;
    check_same_flag("internal", whose, current.internal, received.internal)?;
    check_same_argument("alternate-exchange", whose, &current.arguments, &received.arguments)?;
    if current.kind == ExchangeKind::Delayed {
        check_same_argument(delayed::ROUTES_AS, whose, &current.arguments, &received.arguments)?;
    }
    Ok(())
}

pub(super) fn check_same_flag(key: &str, whose: &str, current: bool, received: bool) -> Result<(), Refusal> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(key, whose, &format!("'{received}'"), &format!("'{current}'")))
}

pub(super) fn check_same_argument(
    key: &str,
    whose: &str,
    current: &Arguments,
    received: &Arguments,
) -> Result<(), Refusal> {
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

pub(super) fn invalid(key: &str, whose: &str, why: &str) -> Refusal {
    Refusal::PreconditionFailed(format!("invalid arg '{key}' for {whose}: {why}"))
}

pub(super) fn not_built(key: &str, whose: &str, what: &str) -> Refusal {
    invalid(key, whose, &format!("{what}not implemented"))
}

pub(super) fn wrong_type(key: &str, whose: &str, value: &Value) -> Refusal {
    invalid(key, whose, &format!("{{unacceptable_type,{}}}", type_name(value)))
}

pub(super) fn not_whole(key: &str, whose: &str, value: &Value) -> Refusal {
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

pub(super) fn plain(value: &Value) -> String {
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

/// RabbitMQ's name for a value's type. The width of a number is not stored, so this is the width that most clients
/// use.
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
