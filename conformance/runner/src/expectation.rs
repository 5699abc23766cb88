//! Checks whether a message is the one that a line expects, and writes it for a recording.

use crate::inbox::Received;
use crate::notation::{Captures, Term};
use crate::script::Step;
use crate::spec::{FieldKind, Spec};
use crate::value::Value;

/// Checks a message and returns its text for a recording. The text has all fields. A value that differs from run to run
/// is replaced by the name that the script gives it.
pub fn check(step: &Step, received: &Received, captures: &mut Captures) -> Result<String, String> {
    if received.name != step.verb {
        return Err(format!("expected {}, got {received}", step.verb));
    }
    if let Some(word) = step.arguments.words.first() {
        return Err(format!("`{word}` is not an expectation of the form NAME=VALUE"));
    }
    for (name, term) in &step.arguments.named {
        let (kind, value) = part(received, name)?;
        if !term.matches(kind, value.as_ref(), captures) {
            return Err(format!("{name} is not as expected, got {received}"));
        }
    }
    let mut shown = received.name.clone();
    let body = received.body.clone().map(|body| ("body".to_owned(), Value::Text(body)));
    for (name, value) in received.fields.iter().cloned().chain(body) {
        let term = step.arguments.named.iter().find(|(named, _)| *named == name).map(|(_, term)| term);
        shown.push_str(&format!(" {name}={}", show(term, &value)));
    }
    Ok(shown)
}

/// The value of a field, of a property, of the body, or the number of the body's frames.
fn part(received: &Received, name: &str) -> Result<(FieldKind, Option<Value>), String> {
    match name {
        "body" => return Ok((FieldKind::LongText, received.body.clone().map(Value::Text))),
        "body-frames" => return Ok((FieldKind::Long, Some(Value::Number(received.body_frames as u64)))),
        _ => {}
    }
    let spec = Spec::amqp091();
    let in_method = spec.method(&received.name).and_then(|method| method.field(name));
    let field = in_method.or_else(|| spec.properties.iter().find(|property| property.name == name));
    let field = field.ok_or_else(|| format!("{} has no field `{name}`", received.name))?;
    Ok((field.kind, received.field(name).cloned()))
}

fn show(term: Option<&Term>, value: &Value) -> String {
    match term {
        Some(Term::Any | Term::PartOfTable(_)) => "*".to_owned(),
        Some(Term::Glob(pattern)) => pattern.clone(),
        Some(Term::Capture(name, _)) => format!("${name}"),
        _ => value.to_string(),
    }
}
