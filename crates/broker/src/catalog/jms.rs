//! `x-jms-topic`: each binding has a selector, which is evaluated with the message's headers. Routing keys do not
//! count; a JMS client binds such an exchange to a topic exchange for them.

use ferrymq_model::{Arguments, Destination, Refusal, Value};

use crate::selector::Expression;

/// The argument in which RabbitMQ's JMS client puts the selector, as an Erlang term.
const SELECTOR: &str = "rjms_erlang_selector";

/// The selector of a binding, or what is wrong with it.
pub(super) fn selector(arguments: &Arguments) -> Result<Expression, String> {
    match arguments.get(SELECTOR) {
        Some(Value::Text(text)) => Expression::from_erlang(text).map_err(|unreadable| unreadable.to_string()),
        _ => Err(format!("no text in the argument '{SELECTOR}'")),
    }
}

/// # Errors
/// [`Refusal::PreconditionFailed`] if the binding has no selector, or an unreadable one.
pub(super) fn check_arguments(arguments: &Arguments, source: &str, destination: &Destination) -> Result<(), Refusal> {
    let wrong = match selector(arguments) {
        Ok(_) => return Ok(()),
        Err(wrong) => wrong,
    };
    let (Destination::Queue(destination) | Destination::Exchange(destination)) = destination;
    Err(Refusal::PreconditionFailed(format!(
        "cannot parse selector binding destination '{destination}' to exchange '{source}': {wrong}"
    )))
}

#[cfg(test)]
mod tests {
    use ferrymq_model::Table;

    use super::*;

    fn check(selector: Option<Value>, expected: Result<(), &str>) {
        let arguments: Table = selector.map(|selector| (SELECTOR.to_owned(), selector)).into_iter().collect();
        let refused = check_arguments(&arguments, "x", &Destination::Queue("q".into()));
        let text = |wrong| format!("cannot parse selector binding destination 'q' to exchange 'x': {wrong}");
        assert_eq!(refused, expected.map_err(|wrong| Refusal::PreconditionFailed(text(wrong))));
    }

    #[test]
    fn a_binding_needs_a_selector() {
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        check(text("{'=',{'ident',<<\"a\">>},5}."), Ok(()));
        check(text("{'=',{'ident',"), Err("malformed at byte 14"));
        check(text("{sum,1}."), Err("an unknown operator, or one with other operands than it takes"));
        check(text(&"{".repeat(100)), Err("nested deeper than 64"));
        check(None, Err("no text in the argument 'rjms_erlang_selector'"));
        check(Some(Value::Int(5)), Err("no text in the argument 'rjms_erlang_selector'"));
    }
}
