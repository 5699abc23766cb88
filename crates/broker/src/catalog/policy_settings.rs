//! The settings of policies, their values, and the queue types that have them.

use ferrymq_model::{Name, PolicyScope, Refusal, Table, Value};

use super::queue_arguments::{QueueKind, RETRIES};

/// The values that a setting may have.
enum Form {
    Text,
    Count,
    Positive,
    Choice(&'static [&'static str]),
    /// Has a meaning only in a cluster, or for queues that are not implemented: stored as it is.
    Kept,
}

struct Setting {
    key: &'static str,
    form: Form,
    /// What RabbitMQ calls it in a refusal.
    noun: &'static str,
    /// Whether operators may set it. Of two numbers the lower one counts, otherwise the operator's value.
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

/// Settings of a cluster, of plugins and of streams. Each version of RabbitMQ has different ones: stored as they
/// are.
const KEPT: [(&str, Setting); 3] = [
    ("ha-", classic("ha-*", Form::Kept, "")),
    ("federation-", setting("federation-*", Form::Kept, "")),
    ("stream-", stream("stream-*")),
];

const SETTINGS: [Setting; 31] = [
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
    limit("overflow", Form::Choice(OVERFLOWS), "overflow value"),
    classic("queue-mode", Form::Choice(&["default", "lazy"]), "queue-mode value"),
    setting("delayed-retry-type", Form::Choice(RETRIES), "delayed retry type"),
    setting("delayed-retry-min", Form::Positive, "delayed retry minimum"),
    setting("delayed-retry-max", Form::Positive, "delayed retry maximum"),
    limit("queue-version", Form::Kept, ""),
    setting("queue-leader-locator", Form::Kept, ""),
    classic("queue-master-locator", Form::Kept, ""),
    quorum("target-group-size", Form::Count, "target group size"),
    Setting { operator: true, ..classic("ha-mode", Form::Kept, "") },
    Setting { operator: true, ..classic("ha-params", Form::Kept, "") },
    Setting { operator: true, ..classic("ha-sync-mode", Form::Kept, "") },
    classic("ha-promote-on-shutdown", Form::Kept, ""),
    classic("ha-promote-on-failure", Form::Kept, ""),
    // These two are the sharding plugin's, for exchanges.
    setting("shards-per-node", Form::Kept, ""),
    setting("routing-key", Form::Kept, ""),
    stream("max-age"),
    stream("stream-max-segment-size-bytes"),
    stream("initial-cluster-size"),
];

/// The names of all settings, to suggest one for an unknown name.
pub fn policy_settings() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

fn known(key: &str) -> Option<&'static Setting> {
    let by_name = SETTINGS.iter().find(|known| known.key == key);
    by_name.or_else(|| KEPT.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, known)| known))
}

/// Whether queues of that type have the setting. An unknown setting does not matter.
pub(super) fn is_for(key: &str, kind: QueueKind) -> bool {
    known(key).is_none_or(|known| match kind {
        QueueKind::Classic => known.classic,
        QueueKind::Quorum => known.quorum,
    })
}

/// The definitions of a user policy and an operator policy together: of a setting in both, the lower limit or the
/// operator's value. (AMQP-70)
pub(super) fn merged(user: &Table, operator: &Table) -> Table {
    let both = |key: &str, value: &Value| match operator.get(key) {
        Some(other) => match (value.as_int(), other.as_int()) {
            (Some(own), Some(most)) if key != "queue-version" => Value::Int(own.min(most)),
            _ => other.clone(),
        },
        None => value.clone(),
    };
    let own = user.iter().map(|(key, value)| (key.to_owned(), both(key, value)));
    let added = operator.iter().filter(|(key, _)| user.get(key).is_none());
    own.chain(added.map(|(key, value)| (key.to_owned(), value.clone()))).collect()
}

/// # Errors
/// [`Refusal::PreconditionFailed`] for an empty definition, an unknown setting (or one that operators may not set),
/// and a wrong value.
pub(super) fn check_definition(scope: PolicyScope, definition: &Table) -> Result<(), Refusal> {
    let refuse = |text| Err(Refusal::PreconditionFailed(text));
    if definition.is_empty() {
        return refuse("no policy provided".to_owned());
    }
    let mut unknown = Vec::new();
    for (key, value) in definition.iter() {
        match known(key) {
            Some(known) if scope == PolicyScope::Operator && !known.operator => {
                return refuse(format!("policy setting '{key}' is not one that an operator's policy can have"));
            }
            Some(known) if !known.form.takes(value) => {
                return refuse(format!(
                    "policy setting '{key}' is {}, which is not a valid {}",
                    shown(value),
                    known.noun
                ));
            }
            Some(_) => {}
            None => unknown.push(format!("'{key}'")),
        }
    }
    match unknown.len() {
        0 => Ok(()),
        1 => refuse(format!("policy setting {} is not known", unknown[0])),
        _ => refuse(format!("policy settings {} are not known", unknown.join(", "))),
    }
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

/// A value as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Void => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Unsigned(number) | Value::Timestamp(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Text(text) => format!("'{text}'"),
        Value::List(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let fields = table.iter().map(|(key, value)| format!("'{key}': {}", shown(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Bytes(_) | Value::Decimal { .. } => format!("{value:?}"),
    }
}
