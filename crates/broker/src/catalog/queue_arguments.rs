//! The arguments of queues and of their subscriptions: which queue types have them, their values, and the settings
//! that result from them and from policies.

use ferrymq_model::{Arguments, Name, QueueSpec, Refusal, Table, Value};

use super::arguments::{check_length, check_same_argument, check_same_flag, invalid, not_built, not_whole, wrong_type};
use crate::queue::{DeadLettering, Overflow, QueueSettings, RetryDelay};

/// A type of queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// All features of AMQP.
    Classic,
    /// Durable and shared; stores every message on disk and counts deliveries. On one node.
    Quorum,
}

impl QueueKind {
    /// As RabbitMQ's texts call it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }

    /// As in the argument `x-queue-type`.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// The values of an argument.
enum Form {
    /// A whole number from 0 up.
    Count,
    /// A whole number from 1 up.
    Positive,
    /// A whole number; a negative one means no limit.
    Limit,
    /// Milliseconds, at most ten years; 0 where allowed.
    Milliseconds {
        zero: bool,
    },
    /// A priority.
    Priority,
    Flag,
    Text,
    /// A routing key, which needs a dead-letter exchange.
    DeadLetterKey,
    /// One of these words, otherwise an error with RabbitMQ's text.
    Choice(&'static [&'static str], fn(&str) -> String),
    /// A number that has a meaning in RabbitMQ only. (AMQP-69)
    Version,
}

struct Argument {
    key: &'static str,
    form: Form,
    classic: bool,
    quorum: bool,
}

const fn both(key: &'static str, form: Form) -> Argument {
    Argument { key, form, classic: true, quorum: true }
}

const fn classic(key: &'static str, form: Form) -> Argument {
    Argument { key, form, classic: true, quorum: false }
}

const fn quorum(key: &'static str, form: Form) -> Argument {
    Argument { key, form, classic: false, quorum: true }
}

/// An argument of streams, which are refused because of their type.
const fn stream(key: &'static str) -> Argument {
    Argument { key, form: Form::Text, classic: false, quorum: false }
}

const OVERFLOWS: &[&str] = &["drop-head", "reject-publish", "reject-publish-dlx"];
const STRATEGIES: &[&str] = &["at-most-once", "at-least-once"];
pub(super) const RETRIES: &[&str] = &["disabled", "all", "failed", "returned"];
const MODES: &[&str] = &["default", "lazy"];
const LOCATORS: &[&str] = &["client-local", "balanced", "random", "least-leaders"];
const MASTER_LOCATORS: &[&str] = &["min-masters", "client-local", "random"];

fn no_locator(_: &str) -> String {
    "invalid_queue_locator_arg".to_owned()
}

/// The arguments of all queue types, in the order in which they are checked and compared.
const ARGUMENTS: [Argument; 28] = [
    both("x-expires", Form::Milliseconds { zero: false }),
    both("x-message-ttl", Form::Milliseconds { zero: true }),
    both("x-dead-letter-exchange", Form::Text),
    both("x-dead-letter-routing-key", Form::DeadLetterKey),
    quorum("x-dead-letter-strategy", Form::Choice(STRATEGIES, |_| "invalid_dlx_strategy".to_owned())),
    both("x-max-length", Form::Count),
    both("x-max-length-bytes", Form::Count),
    quorum("x-max-in-memory-length", Form::Count),
    quorum("x-max-in-memory-bytes", Form::Count),
    classic("x-max-priority", Form::Priority),
    both("x-overflow", Form::Choice(OVERFLOWS, |_| "invalid_overflow".to_owned())),
    // AMQP-69
    classic("x-queue-mode", Form::Choice(MODES, |mode| format!("\"unsupported queue mode '{mode}'\""))),
    classic("x-queue-version", Form::Version),
    both("x-single-active-consumer", Form::Flag),
    both("x-queue-type", Form::Text),
    quorum("x-quorum-initial-group-size", Form::Positive),
    quorum("x-quorum-target-group-size", Form::Positive),
    quorum("x-delivery-limit", Form::Limit),
    quorum("x-queue-leader-locator", Form::Choice(LOCATORS, no_locator)),
    classic("x-queue-master-locator", Form::Choice(MASTER_LOCATORS, no_locator)),
    // RabbitMQ 4.3 has these for quorum queues; they work for both here.
    both("x-delayed-retry-type", Form::Choice(RETRIES, |_| "invalid_delayed_retry_type".to_owned())),
    both("x-delayed-retry-min", Form::Milliseconds { zero: false }),
    both("x-delayed-retry-max", Form::Milliseconds { zero: false }),
    stream("x-initial-cluster-size"),
    stream("x-max-age"),
    stream("x-stream-filter-size-bytes"),
    stream("x-stream-max-segment-size-bytes"),
    // RabbitMQ does not check it; it would silently accept a wrong value.
    Argument { key: "x-consumer-timeout", form: Form::Count, classic: true, quorum: true },
];

/// RabbitMQ's limit on times: ten years of 365 days.
const MILLISECONDS_MAX: u64 = 315_360_000_000;

impl Argument {
    fn is_of(&self, kind: QueueKind) -> bool {
        match kind {
            QueueKind::Classic => self.classic,
            QueueKind::Quorum => self.quorum,
        }
    }

    // AMQP-29
    fn check(&self, whose: &str, arguments: &Arguments) -> Result<(), Refusal> {
        let Some(value) = arguments.get(self.key) else { return Ok(()) };
        let refuse = |why: String| Err(invalid(self.key, whose, &why));
        match (&self.form, value) {
            (Form::Limit, Value::Int(_)) => Ok(()),
            (
                Form::Count | Form::Positive | Form::Limit | Form::Milliseconds { .. } | Form::Priority | Form::Version,
                value,
            ) => {
                let number = whole_number(self.key, whose, value)?;
                match self.form {
                    Form::Positive | Form::Milliseconds { zero: false } if number == 0 => {
                        refuse("{value_zero,0}".to_owned())
                    }
                    Form::Milliseconds { .. } if number > MILLISECONDS_MAX => {
                        refuse(format!("{{value_too_large,{number}}}"))
                    }
                    Form::Priority if number > 255 => refuse(format!("{{max_value_exceeded,{number}}}")),
                    Form::Version if number != 1 && number != 2 => {
                        refuse(format!("\"unsupported queue version '{number}'\""))
                    }
                    _ => Ok(()),
                }
            }
            (Form::Flag, Value::Bool(_)) | (Form::Text, Value::Text(_)) => Ok(()),
            // AMQP-57
            (Form::DeadLetterKey, Value::Text(key)) => match arguments.get("x-dead-letter-exchange") {
                None => refuse("routing_key_but_no_dlx_defined".to_owned()),
                Some(_) if key.len() > Name::BYTES_MAX => refuse("longer than 255 bytes".to_owned()),
                Some(_) => Ok(()),
            },
            (Form::Choice(known, why), Value::Text(text)) if !known.contains(&&**text) => refuse(why(text)),
            (Form::Choice(..), Value::Text(_)) => Ok(()),
            (_, other) => Err(wrong_type(self.key, whose, other)),
        }
    }
}

/// The queue type that the arguments name, without other checks.
pub(super) fn kind(whose: &str, arguments: &Arguments) -> Result<QueueKind, Refusal> {
    match arguments.get("x-queue-type") {
        None => Ok(QueueKind::Classic),
        Some(Value::Text(kind)) => match &**kind {
            "classic" => Ok(QueueKind::Classic),
            "quorum" => Ok(QueueKind::Quorum),
            "stream" => Err(not_built("x-queue-type", whose, &format!("queue type '{kind}' "))),
            _ => Err(invalid("x-queue-type", whose, &format!("\"unsupported queue type '{kind}'\""))),
        },
        Some(other) => Err(wrong_type("x-queue-type", whose, other)),
    }
}

/// Checks the arguments of a declaration.
///
/// # Errors
/// [`Refusal::PreconditionFailed`] in RabbitMQ's order: a value, an argument of another queue type, a property.
pub(super) fn check(whose: &str, kind: QueueKind, spec: &QueueSpec) -> Result<(), Refusal> {
    let arguments = &spec.arguments;
    check_length(whose, arguments)?;
    ARGUMENTS.iter().filter(|known| known.is_of(kind)).try_for_each(|known| known.check(whose, arguments))?;
    for (key, _) in arguments.iter() {
        if ARGUMENTS.iter().any(|known| known.key == key && !known.is_of(kind)) {
            let text = format!("invalid arg '{key}' for {whose} of queue type {}", kind.as_str());
            return Err(Refusal::PreconditionFailed(text));
        }
    }
    // AMQP-67
    if kind == QueueKind::Quorum {
        let no = |what: &str| Err(Refusal::PreconditionFailed(format!("invalid property '{what}' for {whose}")));
        if spec.auto_delete {
            return no("auto-delete");
        }
        if spec.exclusive {
            return no("exclusive-owner");
        }
        if !spec.durable {
            return no("non-durable");
        }
    }
    Ok(())
}

/// A quorum queue cannot have a name that the server chooses.
pub(super) fn check_server_named(kind: QueueKind) -> Result<(), Refusal> {
    match kind {
        QueueKind::Classic => Ok(()),
        QueueKind::Quorum => {
            let text = format!("Cannot declare a server-named queue for type {}", kind.as_str());
            Err(Refusal::PreconditionFailed(text))
        }
    }
}

/// The settings of a queue from its checked declaration and its policies. Of two limits the lower one counts, of
/// other settings that of the declaration.
pub(super) fn settings(vhost: &Name, name: &Name, kind: QueueKind, spec: &QueueSpec, policy: &Table) -> QueueSettings {
    let argument = |key: &str| spec.arguments.get(&format!("x-{key}"));
    let least = |key: &str| [argument(key), policy.get(key)].into_iter().flatten().filter_map(limit).min();
    let text = |key: &str| argument(key).or_else(|| policy.get(key)).and_then(Value::as_text);
    let named = |key: &str| text(key).and_then(|name| Name::parse(name.as_bytes()).ok());
    QueueSettings {
        vhost: vhost.clone(),
        name: name.clone(),
        durable: spec.durable,
        persists_all: kind == QueueKind::Quorum,
        auto_delete: spec.auto_delete,
        message_ttl_ms: least("message-ttl"),
        unused_ms_max: least("expires"),
        priority_max: argument("max-priority").and_then(limit).map_or(0, |max| u8::try_from(max).unwrap_or(u8::MAX)),
        messages_max: least("max-length"),
        bytes_max: least("max-length-bytes"),
        overflow: match text("overflow") {
            Some("reject-publish") => Overflow::RejectPublish,
            Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
            _ => Overflow::DropHead,
        },
        dead_letters: named("dead-letter-exchange").map(|exchange| DeadLettering {
            exchange,
            routing_key: named("dead-letter-routing-key"),
            // As in RabbitMQ, which falls back to at-most-once if messages may be dropped anyway. (AMQP-62)
            at_least_once: kind == QueueKind::Quorum
                && text("dead-letter-strategy") == Some("at-least-once")
                && text("overflow") == Some("reject-publish"),
        }),
        single_active: argument("single-active-consumer") == Some(&Value::Bool(true)),
        attempts_max: least("delivery-limit")
            .filter(|_| kind == QueueKind::Quorum)
            .map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
        retry: retry_delay(text("delayed-retry-type"), least("delayed-retry-min"), least("delayed-retry-max")),
        shows_attempts: kind == QueueKind::Quorum,
        consumer_timeout_ms: least("consumer-timeout"),
    }
}

/// The delayed retry: which messages, and how long. Without a minimum there is none; without a maximum the delay is
/// always the minimum.
fn retry_delay(kind: Option<&str>, min_ms: Option<u64>, max_ms: Option<u64>) -> Option<RetryDelay> {
    let min_ms = min_ms?;
    let (failed, returned) = match kind? {
        "all" => (true, true),
        "failed" => (true, false),
        "returned" => (false, true),
        _ => return None,
    };
    Some(RetryDelay { failed, returned, min_ms, max_ms: max_ms.unwrap_or(min_ms) })
}

/// A limit; a negative one means none.
fn limit(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Unsigned(number) => Some(*number),
        _ => None,
    }
}

fn whole_number(key: &str, whose: &str, value: &Value) -> Result<u64, Refusal> {
    match value {
        Value::Int(number) => {
            u64::try_from(*number).map_err(|_| invalid(key, whose, &format!("{{value_negative,{number}}}")))
        }
        Value::Unsigned(number) => Ok(*number),
        other => Err(not_whole(key, whose, other)),
    }
}

/// Whether a second declaration of a queue of this type is equivalent to the first. (AMQP-29)
pub(super) fn check_same(
    whose: &str,
    kind: QueueKind,
    current: &QueueSpec,
    received: &QueueSpec,
) -> Result<(), Refusal> {
    check_same_flag("durable", whose, current.durable, received.durable)?;
    check_same_flag("auto_delete", whose, current.auto_delete, received.auto_delete)?;
    let compared = ARGUMENTS.iter().filter(|known| known.is_of(kind) && known.key != "x-consumer-timeout");
    compared
        .into_iter()
        .try_for_each(|known| check_same_argument(known.key, whose, &current.arguments, &received.arguments))
}

/// Arguments of subscriptions that only streams have.
const SUBSCRIPTION_OF_STREAMS: [&str; 1] = ["x-stream-offset"];

/// Arguments of subscriptions that are known and not implemented.
const SUBSCRIPTION_NOT_BUILT: [&str; 1] = ["x-credit"];

/// The consumer priority. (AMQP-49)
pub(super) fn subscription_priority(whose: &str, kind: QueueKind, arguments: &Arguments) -> Result<i64, Refusal> {
    let priority = match arguments.get("x-priority") {
        None => 0,
        Some(Value::Int(priority)) => *priority,
        Some(other) => return Err(not_whole("x-priority", whose, other)),
    };
    const FAILOVER: &str = "x-cancel-on-ha-failover";
    match arguments.get(FAILOVER) {
        Some(other) if kind == QueueKind::Classic && !matches!(other, Value::Bool(_)) => {
            return Err(wrong_type(FAILOVER, whose, other));
        }
        _ => {}
    }
    for (key, _) in arguments.iter() {
        if SUBSCRIPTION_OF_STREAMS.contains(&key) || (key == FAILOVER && kind == QueueKind::Quorum) {
            let text = format!("invalid arg '{key}' for {whose} of queue type {}", kind.as_str());
            return Err(Refusal::PreconditionFailed(text));
        }
        if SUBSCRIPTION_NOT_BUILT.contains(&key) {
            return Err(not_built(key, whose, ""));
        }
    }
    Ok(priority)
}

/// The consumer timeout in the arguments, in milliseconds.
pub(super) fn subscription_timeout_ms(whose: &str, arguments: &Arguments) -> Result<Option<u64>, Refusal> {
    const KEY: &str = "x-consumer-timeout";
    arguments.get(KEY).map(|value| whole_number(KEY, whose, value)).transpose()
}
