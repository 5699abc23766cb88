//! Bindings that ask to be named: a message that comes into a queue through one has its number as an annotation.
//!
//! An exchange with such bindings has a second router of its kind, which leads to the bindings themselves. So a message
//! is compared with them as with all others, and an exchange without them does nothing more.

use ferrymq_model::{Arguments, BindingSpec, Destination, ExchangeKind, ExchangeSpec, QueueId, Refusal, Value};

use super::bindings::{Binding, Target};
use super::routing::Router;
use crate::keyed::HashKey;

/// The bindings of an exchange that ask to be named.
#[derive(Debug)]
pub(super) struct NamedBindings {
    /// Leads to numbers of bindings, each in place of a queue's id.
    pub(super) router: Router,
    count: usize,
}

/// The number that a binding with these arguments asks for.
#[must_use]
pub fn number(arguments: &Arguments) -> Option<u64> {
    match arguments.get(BindingSpec::NUMBER)? {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Unsigned(number) => Some(*number),
        _ => None,
    }
}

/// # Errors
/// [`Refusal::PreconditionFailed`] if such a binding has no number, leads to an exchange, or is one of an exchange that
/// chooses among its bindings.
pub(super) fn check(arguments: &Arguments, kind: ExchangeKind, destination: &Destination) -> Result<(), Refusal> {
    if arguments.get(BindingSpec::NUMBER).is_none() {
        return Ok(());
    }
    let refuse = |why: &str| Err(Refusal::PreconditionFailed(format!("{}: {why}", BindingSpec::NUMBER)));
    if number(arguments).is_none() {
        return refuse("the value is no whole number from 0");
    }
    match (kind, destination) {
        (_, Destination::Exchange(_)) => refuse("only the binding of a queue can be named"),
        (
            ExchangeKind::ConsistentHash | ExchangeKind::ModulusHash | ExchangeKind::Random | ExchangeKind::LocalRandom,
            _,
        ) => refuse("an exchange that chooses one of its bindings does not name them"),
        _ => Ok(()),
    }
}

impl NamedBindings {
    /// No bindings, of an exchange of this kind.
    pub(super) fn new(spec: &ExchangeSpec, key: HashKey) -> Self {
        Self { router: Router::of_names(spec, key), count: 0 }
    }

    pub(super) fn add(&mut self, number: u64, binding: &Binding) {
        self.router.add(number, &leading_to(number, binding));
        self.count += 1;
    }

    /// Returns whether it was the last one.
    pub(super) fn remove(&mut self, number: u64, binding: &Binding) -> bool {
        self.router.remove(number, &leading_to(number, binding));
        self.count -= 1;
        self.count == 0
    }
}

fn leading_to(number: u64, binding: &Binding) -> Binding {
    Binding { target: Target::Queue(QueueId(number)), ..binding.clone() }
}
