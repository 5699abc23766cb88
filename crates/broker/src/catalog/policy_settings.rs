//! What policies can set, with which values, and for which type of queue.

use ferrymq_model::{Name, Refusal, Table, Value};

use super::policies::PolicyScope;
use super::queue_arguments::{QueueKind, RETRIES};

/// What values a setting may have.
enum Form {
    Text,
    Count,
    Positive,
    Choice(&'static [&'static str]),
    /// Means something in a cluster only, or to queues that are not built: kept as it is.
    Kept,
}

struct Setting {
    key: &'static str,
    form: Form,
    /// What RabbitMQ calls it in a refusal.
    noun: &'static str,
    /// Whether operators may set it; then the lower limit holds.
    operator: bool,
    classic: bool,
    quorum: bool,
}

const fn setting(key: &'static str, form: Form, noun: &'static str) -> Setting {
    Setting { key, form, noun, operator: false, classic: true, quorum: true }
}

const fn limit(key: &'static str, form: Form, noun: &'static str) -> Setting {
    Setting { operator: true, ..setting(key, form, noun) }
}

const fn classic(key: &'static str, form: Form, noun: &'static str) -> Setting {
    Setting { quorum: false, ..setting(key, form, noun) }
}

const fn quorum(key: &'static str, form: Form, noun: &'static str) -> Setting {
    Setting { classic: false, ..setting(key, form, noun) }
}

const fn stream(key: &'static str) -> Setting {
    Setting { classic: false, quorum: false, ..setting(key, Form::Kept, "") }
}

const OVERFLOWS: &[&str] = &["drop-head", "reject-publish", "reject-publish-dlx"];
const STRATEGIES: &[&str] = &["at-most-once", "at-least-once"];

const SETTINGS: [Setting; 29] = [
    setting("alternate-exchange", Form::Text, "alternate exchange name"),
    setting("dead-letter-exchange", Form::Text, "dead letter exchange name"),
    setting("dead-letter-routing-key", Form::Text, "dead letter routing key"),
    quorum("dead-letter-strategy", Form::Choice(STRATEGIES), "dead letter strategy"),
    limit("message-ttl", Form::Count, "message TTL"),
    limit("expires", Form::Positive, "queue expiry"),
    limit("max-length", Form::Count, "maximum length"),
    limit("max-length-bytes", Form::Count, "maximum length in bytes"),
    limit("consumer-timeout", Form::Count, "consumer timeout"),
    Setting { classic: false, ..limit("delivery-limit", Form::Count, "delivery limit") },
    Setting { classic: false, ..limit("max-in-memory-length", Form::Count, "maximum memory in bytes") },
    Setting { classic: false, ..limit("max-in-memory-bytes", Form::Count, "maximum memory in bytes") },
    setting("overflow", Form::Choice(OVERFLOWS), "overflow value"),
    classic("queue-mode", Form::Choice(&["default", "lazy"]), "queue-mode value"),
    setting("delayed-retry-type", Form::Choice(RETRIES), "delayed retry type"),
    setting("delayed-retry-min", Form::Positive, "delayed retry minimum"),
    setting("delayed-retry-max", Form::Positive, "delayed retry maximum"),
    setting("queue-version", Form::Kept, ""),
    setting("queue-leader-locator", Form::Kept, ""),
    classic("queue-master-locator", Form::Kept, ""),
    quorum("target-group-size", Form::Count, "target group size"),
    classic("ha-mode", Form::Kept, ""),
    classic("ha-params", Form::Kept, ""),
    classic("ha-sync-mode", Form::Kept, ""),
    classic("ha-promote-on-shutdown", Form::Kept, ""),
    classic("ha-promote-on-failure", Form::Kept, ""),
    stream("max-age"),
    stream("stream-max-segment-size-bytes"),
    stream("initial-cluster-size"),
];

/// Whether queues of that type have the setting. One that is not known does not stand in the way.
pub(super) fn is_for(key: &str, kind: QueueKind) -> bool {
    SETTINGS.iter().find(|known| known.key == key).is_none_or(|known| match kind {
        QueueKind::Classic => known.classic,
        QueueKind::Quorum => known.quorum,
    })
}

/// A user's and an operator's definition together: of what both set, the lower limit.
pub(super) fn merged(user: &Table, operator: &Table) -> Table {
    let lower = |key: &str, value: &Value| match (value.as_int(), operator.get(key).and_then(Value::as_int)) {
        (Some(own), Some(other)) => Value::Int(own.min(other)),
        _ => value.clone(),
    };
    let own = user.iter().map(|(key, value)| (key.to_owned(), lower(key, value)));
    let added = operator.iter().filter(|(key, _)| user.get(key).is_none());
    own.chain(added.map(|(key, value)| (key.to_owned(), value.clone()))).collect()
}

/// # Errors
/// [`Refusal::PreconditionFailed`] for an empty definition, a setting that is not known (or not for operators), and a
/// wrong value.
pub(super) fn check_definition(scope: PolicyScope, definition: &Table) -> Result<(), Refusal> {
    let refuse = |text| Err(Refusal::PreconditionFailed(text));
    if definition.is_empty() {
        return refuse("no policy provided".to_owned());
    }
    let mut unknown = Vec::new();
    for (key, value) in definition.iter() {
        let known = SETTINGS.iter().find(|known| known.key == key);
        match known.filter(|known| scope == PolicyScope::User || known.operator) {
            None => unknown.push(format!("{{<<\"{key}\">>,{}}}", shown(value))),
            Some(known) if !known.form.takes(value) => {
                return refuse(format!("{} is not a valid {}", shown(value), known.noun));
            }
            Some(_) => {}
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    refuse(format!("[{}] are not recognised policy settings", unknown.join(",")))
}

impl Form {
    fn takes(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Count, Value::Int(number)) => *number >= 0,
            (Self::Positive, Value::Int(number)) => *number >= 1,
            (Self::Text, Value::Text(text)) => text.len() <= Name::BYTES_MAX,
            (Self::Choice(known), Value::Text(text)) => known.contains(&&**text),
            (Self::Kept, _) => true,
            _ => false,
        }
    }
}

/// A value as RabbitMQ's texts show it.
fn shown(value: &Value) -> String {
    match value {
        Value::Void => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Unsigned(number) | Value::Timestamp(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Text(text) => format!("<<\"{text}\">>"),
        Value::List(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(",")),
        Value::Table(table) => {
            let fields = table.iter().map(|(key, value)| format!("<<\"{key}\">> => {}", shown(value)));
            format!("#{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Bytes(_) | Value::Decimal { .. } => format!("{value:?}"),
    }
}
