//! Selectors: conditions on a message's headers and properties, as JMS 1.1 defines them (section 3.8.1.1). Pure and
//! total.
//!
//! One tree for all notations; so far there is that of `x-jms-topic` bindings ([`erlang`]). The logic has three
//! values: a missing value is unknown, and a selector matches a message only if it is certainly true. Where JMS
//! leaves a choice, it is RabbitMQ's: texts are ordered by their bytes, and a division has a fraction.

mod erlang;
mod evaluate;
mod like;
mod number;
#[cfg(test)]
mod tests;

use std::fmt;

use like::Pattern;
use number::{Arithmetic, Number};

/// The maximum length of a selector. With the size of a message's headers it limits the cost of evaluating it.
const LENGTH_BYTES_MAX: usize = 8 * 1024;

/// The maximum depth of a selector. Reading, evaluating and dropping one recurse as deep.
const NESTING_MAX: usize = 64;

/// A condition, or a part of one with a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Literal(Literal),
    /// What the message has under that name.
    Identifier(String),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
    Calculate(Arithmetic, Box<Expression>, Box<Expression>),
    /// Value, lower bound, upper bound; the bounds are included.
    Between(Box<Expression>, Box<Expression>, Box<Expression>),
    In(Box<Expression>, Vec<Literal>),
    Like(Box<Expression>, Pattern),
    IsNull(Box<Expression>),
}

/// A constant in the selector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Bool(bool),
    Number(Number),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    TooLong,
    TooDeep,
    /// It is unreadable from this byte on.
    Malformed(usize),
    /// It is readable and has no meaning.
    Meaningless(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {LENGTH_BYTES_MAX} bytes"),
            Self::TooDeep => write!(f, "nested deeper than {NESTING_MAX}"),
            Self::Malformed(at) => write!(f, "malformed at byte {at}"),
            Self::Meaningless(why) => f.write_str(why),
        }
    }
}
