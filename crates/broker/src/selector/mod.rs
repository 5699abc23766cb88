//! Selectors: conditions on what a message says of itself, as JMS 1.1 defines them (section 3.8.1.1). Pure and total.
//!
//! One tree, whatever notation it came in; so far that is the one of `x-jms-topic` bindings ([`erlang`]). Logic has three
//! values: what is missing is unknown, and a message is selected by what is certainly true only. Where JMS leaves a choice,
//! it is RabbitMQ's: texts are ordered by their bytes, and a division leaves a fraction.

mod erlang;
mod evaluate;
mod like;
mod number;
#[cfg(test)]
mod tests;

use std::fmt;

use like::Pattern;
use number::{Arithmetic, Number};

/// Bytes of a selector. With the size of a message's headers it bounds what asking the selector takes.
const LENGTH_BYTES_MAX: usize = 8 * 1024;

/// How deep the parts of a selector may lie in each other. Reading, asking and dropping one recurse as deep.
const NESTING_MAX: usize = 64;

/// A condition, or a part of one that has a value.
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
    /// Value, lower bound, upper bound; the bounds are within.
    Between(Box<Expression>, Box<Expression>, Box<Expression>),
    In(Box<Expression>, Vec<Literal>),
    Like(Box<Expression>, Pattern),
    IsNull(Box<Expression>),
}

/// A value that is written in the selector itself.
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

/// Why something is no selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    TooLong,
    TooDeep,
    /// It cannot be read from this byte on.
    Malformed(usize),
    /// It can be read and means nothing.
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
