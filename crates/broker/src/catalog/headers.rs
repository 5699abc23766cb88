//! Headers exchanges: a binding's arguments say which headers must match, and whether all of them or any.

use ferrymq_model::{Arguments, BindingSpec, Refusal, Table, Value};

/// A binding's arguments, prepared for matching.
#[derive(Debug)]
pub(super) struct Matcher {
    /// Whether one match is enough.
    any: bool,
    /// The headers to compare; `Void` only asks for presence.
    wanted: Vec<(String, Value)>,
}

/// The kinds of `x-match`: whether any match is enough, and whether keys that begin with `x-` count. (AMQP-17)
fn parse_kind(kind: &str) -> Option<(bool, bool)> {
    match kind {
        "all" => Some((false, false)),
        "any" => Some((true, false)),
        "all-with-x" => Some((false, true)),
        "any-with-x" => Some((true, true)),
        _ => None,
    }
}

/// # Errors
/// [`Refusal::PreconditionFailed`] for an unknown `x-match`.
pub(super) fn check_arguments(arguments: &Arguments) -> Result<(), Refusal> {
    match arguments.get("x-match") {
        None => Ok(()),
        Some(Value::Text(kind)) if parse_kind(kind).is_some() => Ok(()),
        Some(Value::Text(kind)) => Err(Refusal::PreconditionFailed(format!(
            "Invalid x-match field value \"{kind}\"; expected all, any, all-with-x, or any-with-x"
        ))),
        Some(other) => Err(Refusal::PreconditionFailed(format!(
            "Invalid x-match field type {}; expected longstr",
            super::arguments::type_name(other)
        ))),
    }
}

impl Matcher {
    pub(super) fn new(arguments: &Arguments) -> Self {
        let kind = arguments.get("x-match").and_then(Value::as_text).and_then(parse_kind);
        let (any, with_x) = kind.unwrap_or((false, false));
        let own = ["x-match", BindingSpec::NUMBER];
        let wanted = arguments
            .iter()
            .filter(|(key, _)| if with_x { !own.contains(key) } else { !key.starts_with("x-") })
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        Self { any, wanted }
    }

    // AMQP-17
    pub(super) fn matches(&self, headers: &Table) -> bool {
        let mut found = self
            .wanted
            .iter()
            .map(|(key, value)| headers.get(key).is_some_and(|header| *value == Value::Void || alike(header, value)));
        if self.any { found.any(|matches| matches) } else { found.all(|matches| matches) }
    }
}

/// Whether a header has the value of a binding. Text and bytes are equal if their bytes are: which of the two a
/// client sends depends on its language.
fn alike(header: &Value, wanted: &Value) -> bool {
    match (header, wanted) {
        (Value::Text(text), Value::Bytes(bytes)) | (Value::Bytes(bytes), Value::Text(text)) => {
            text.as_bytes() == *bytes
        }
        _ => header == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_match_each_other() {
        let table = |value| Table(vec![("k".to_owned(), value)]);
        let (text, bytes) = (Value::Text("v".to_owned()), Value::Bytes(b"v".to_vec()));
        for (wanted, header) in [(&text, &bytes), (&bytes, &text), (&bytes, &bytes)] {
            assert!(Matcher::new(&table(wanted.clone())).matches(&table(header.clone())), "{wanted:?} {header:?}");
        }
        let other = Value::Bytes(b"w".to_vec());
        assert!(!Matcher::new(&table(text)).matches(&table(other)));
    }
}
