//! The result of a selector for one message.

use std::cmp::Ordering;

use ferrymq_model::Value;

use super::number::Number;
use super::{Comparison, Expression, Literal};

/// Finds what a message has under a name.
type Lookup<'a> = dyn Fn(&str) -> Option<&'a Value> + 'a;

/// The value of an expression.
#[derive(Clone, Copy, Debug)]
enum Operand<'a> {
    /// Missing, or computed from something missing.
    Unknown,
    Bool(bool),
    Number(Number),
    Text(&'a str),
    /// Present, and of a type that selectors do not have.
    Other,
}

impl Expression {
    /// Whether the condition is certainly true.
    pub(crate) fn selects<'a>(&'a self, lookup: &Lookup<'a>) -> bool {
        self.truth(lookup) == Some(true)
    }

    /// The expression as a condition: `None` means unknown, also for an expression that is not a condition.
    pub(super) fn truth<'a>(&'a self, lookup: &Lookup<'a>) -> Option<bool> {
        match self {
            Self::Not(inner) => inner.truth(lookup).map(|truth| !truth),
            Self::And(left, right) => and(left.truth(lookup), right.truth(lookup)),
            Self::Or(left, right) => or(left.truth(lookup), right.truth(lookup)),
            Self::Compare(comparison, left, right) => compare(*comparison, left.value(lookup), right.value(lookup)),
            Self::Between(value, from, to) => {
                let value = value.value(lookup);
                let from = compare(Comparison::GreaterOrEqual, value, from.value(lookup));
                and(from, compare(Comparison::LessOrEqual, value, to.value(lookup)))
            }
            Self::In(value, literals) => {
                let value = value.value(lookup).known()?;
                Some(literals.iter().any(|literal| compare(Comparison::Equal, value, literal.operand()) == Some(true)))
            }
            Self::Like(value, pattern) => match value.value(lookup) {
                Operand::Unknown => None,
                Operand::Text(text) => Some(pattern.matches(text)),
                _ => Some(false),
            },
            Self::IsNull(value) => Some(value.value(lookup).known().is_none()),
            Self::Literal(_) | Self::Identifier(_) | Self::Calculate(..) => match self.value(lookup) {
                Operand::Bool(truth) => Some(truth),
                _ => None,
            },
        }
    }

    fn value<'a>(&'a self, lookup: &Lookup<'a>) -> Operand<'a> {
        match self {
            Self::Literal(literal) => literal.operand(),
            Self::Identifier(name) => lookup(name).map_or(Operand::Unknown, operand),
            Self::Calculate(operator, left, right) => match (left.value(lookup), right.value(lookup)) {
                (Operand::Number(left), Operand::Number(right)) => Operand::Number(left.calculate(*operator, right)),
                _ => Operand::Unknown,
            },
            _ => self.truth(lookup).map_or(Operand::Unknown, Operand::Bool),
        }
    }
}

impl Literal {
    fn operand(&self) -> Operand<'_> {
        match self {
            Self::Bool(truth) => Operand::Bool(*truth),
            Self::Number(number) => Operand::Number(*number),
            Self::Text(text) => Operand::Text(text),
        }
    }
}

impl Operand<'_> {
    fn known(self) -> Option<Self> {
        match self {
            Operand::Unknown => None,
            known => Some(known),
        }
    }
}

fn operand(value: &Value) -> Operand<'_> {
    match value {
        Value::Void => Operand::Unknown,
        Value::Bool(truth) => Operand::Bool(*truth),
        Value::Int(number) => Operand::Number(Number::Exact((*number).into())),
        Value::Unsigned(number) | Value::Timestamp(number) => Operand::Number(Number::Exact((*number).into())),
        Value::Float(number) => Operand::Number(Number::Approximate(*number)),
        Value::Decimal { scale, digits } => {
            Operand::Number(Number::Approximate(f64::from(*digits) / 10_f64.powi((*scale).into())))
        }
        Value::Text(text) => Operand::Text(text),
        Value::Bytes(_) | Value::List(_) | Value::Table(_) => Operand::Other,
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn or(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// An unknown value stays unknown; values of different types are neither equal nor unequal nor ordered (JMS 1.1,
/// 3.8.1.1).
fn compare(comparison: Comparison, left: Operand<'_>, right: Operand<'_>) -> Option<bool> {
    let ordering = match (left, right) {
        (Operand::Unknown, _) | (_, Operand::Unknown) => return None,
        (Operand::Number(left), Operand::Number(right)) => left.compare(right),
        (Operand::Text(left), Operand::Text(right)) => Some(left.cmp(right)),
        (Operand::Bool(left), Operand::Bool(right)) => {
            return Some(match comparison {
                Comparison::Equal => left == right,
                Comparison::NotEqual => left != right,
                _ => false,
            });
        }
        _ => None,
    };
    Some(ordering.is_some_and(|ordering| match comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
    }))
}
