//! Selectors in the bindings of `x-jms-topic` exchanges: Erlang terms as text. RabbitMQ's JMS client translates the
//! selector to `{'=',{'ident',<<"colour">>},<<"blue">>}.`; only what that client can write is accepted here.

use super::like::Pattern;
use super::number::{Arithmetic, Number};
use super::{Comparison, Expression, LENGTH_BYTES_MAX, Literal, NESTING_MAX, Unreadable};

/// A term of the kinds in selectors.
#[derive(Debug)]
enum Term {
    Atom(String),
    Binary(String),
    Number(Number),
    Tuple(Vec<Term>),
    List(Vec<Term>),
}

impl Expression {
    /// Reads a term; the final dot may be missing.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(crate) fn from_erlang(text: &str) -> Result<Self, Unreadable> {
        if text.len() > LENGTH_BYTES_MAX {
            return Err(Unreadable::TooLong);
        }
        let mut reader = Reader { text, at: 0 };
        let term = reader.term(0)?;
        reader.take(".");
        reader.skip_space();
        if reader.at < text.len() {
            return Err(reader.malformed());
        }
        expression(term)
    }
}

struct Reader<'a> {
    text: &'a str,
    /// A character begins there.
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn malformed(&self) -> Unreadable {
        Unreadable::Malformed(self.at)
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_ascii_start().len();
    }

    /// Reads a token, if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    /// Reads as many characters as `wanted` accepts.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let taken: String = self.rest().chars().take_while(|character| wanted(*character)).collect();
        self.at += taken.len();
        taken
    }

    fn term(&mut self, depth: usize) -> Result<Term, Unreadable> {
        if depth > NESTING_MAX {
            return Err(Unreadable::TooDeep);
        }
        if self.take("{") {
            return self.terms("}", depth).map(Term::Tuple);
        }
        if self.take("[") {
            return self.terms("]", depth).map(Term::List);
        }
        if self.take("<<") {
            let text = if self.take("\"") { self.quoted('"')? } else { String::new() };
            return if self.take(">>") { Ok(Term::Binary(text)) } else { Err(self.malformed()) };
        }
        if self.take("'") {
            return self.quoted('\'').map(Term::Atom);
        }
        if self.take("-") {
            return self.number().map(|number| Term::Number(Number::ZERO.calculate(Arithmetic::Subtract, number)));
        }
        self.take("+");
        match self.rest().chars().next() {
            Some('0'..='9') => self.number().map(Term::Number),
            Some('a'..='z') => Ok(Term::Atom(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@'))),
            _ => Err(self.malformed()),
        }
    }

    /// Terms with commas between them, up to `end`.
    fn terms(&mut self, end: &str, depth: usize) -> Result<Vec<Term>, Unreadable> {
        let mut terms = Vec::new();
        if self.take(end) {
            return Ok(terms);
        }
        loop {
            terms.push(self.term(depth + 1)?);
            if self.take(end) {
                return Ok(terms);
            }
            if !self.take(",") {
                return Err(self.malformed());
            }
        }
    }

    /// The text before the next `end`.
    fn quoted(&mut self, end: char) -> Result<String, Unreadable> {
        let mut text = String::new();
        loop {
            let character = self.character()?;
            if character == end {
                return Ok(text);
            }
            text.push(if character == '\\' { self.escaped()? } else { character });
        }
    }

    fn character(&mut self) -> Result<char, Unreadable> {
        let character = self.rest().chars().next().ok_or_else(|| self.malformed())?;
        self.at += character.len_utf8();
        Ok(character)
    }

    /// The meaning of an escape. The client only writes those of quotes and backslashes; characters by number are
    /// refused.
    fn escaped(&mut self) -> Result<char, Unreadable> {
        Ok(match self.character()? {
            'b' => '\u{8}',
            'd' => '\u{7f}',
            'e' => '\u{1b}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            's' => ' ',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='9' | 'x' | '^' => return Err(self.malformed()),
            itself => itself,
        })
    }

    /// Digits, with a base before them (`16#ff`) or a fraction after them.
    fn number(&mut self) -> Result<Number, Unreadable> {
        self.skip_space();
        let start = self.at;
        let mut digits = self.take_while(|c| c.is_ascii_digit());
        let mut base = 10;
        if self.rest().starts_with('#') {
            base = digits.parse().ok().filter(|base| (2..=36).contains(base)).ok_or_else(|| self.malformed())?;
            self.at += 1;
            digits = self.take_while(|c| c.is_ascii_alphanumeric());
        }
        let mut behind = self.rest().chars();
        if base == 10 && behind.next() == Some('.') && behind.next().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
            if self.rest().starts_with(['e', 'E']) {
                self.at += 1;
                self.at += usize::from(self.rest().starts_with(['+', '-']));
                self.take_while(|c| c.is_ascii_digit());
            }
            let number = self.text[start..self.at].parse().map_err(|_| self.malformed())?;
            return Ok(Number::Approximate(number));
        }
        i128::from_str_radix(&digits, base).map(Number::Exact).map_err(|_| self.malformed())
    }
}

fn expression(term: Term) -> Result<Expression, Unreadable> {
    let parts = match term {
        Term::Tuple(parts) => parts,
        other => return literal(other).map(Expression::Literal),
    };
    let mut parts = parts.into_iter();
    let Some(Term::Atom(operator)) = parts.next() else {
        return Err(Unreadable::Meaningless("a tuple that does not begin with an operator"));
    };
    let parts: Vec<Term> = parts.collect();
    match parts.len() {
        1 => unary(&operator, take(parts)),
        2 => binary(&operator, take(parts)),
        3 => ternary(&operator, take(parts)),
        _ => None,
    }
    .unwrap_or(Err(Unreadable::Meaningless("an unknown operator, or one with other operands than it takes")))
}

/// As many parts as were counted.
fn take<const N: usize>(parts: Vec<Term>) -> [Term; N] {
    parts.try_into().expect("the parts were counted")
}

fn boxed(term: Term) -> Result<Box<Expression>, Unreadable> {
    expression(term).map(Box::new)
}

fn negated_if(negated: bool, inner: Expression) -> Expression {
    if negated { Expression::Not(Box::new(inner)) } else { inner }
}

/// `None` if there is no such operator.
fn unary(operator: &str, [operand]: [Term; 1]) -> Option<Result<Expression, Unreadable>> {
    let signed = |operator, operand| {
        let zero = Box::new(Expression::Literal(Literal::Number(Number::ZERO)));
        boxed(operand).map(|inner| Expression::Calculate(operator, zero, inner))
    };
    Some(match (operator, operand) {
        ("ident", Term::Binary(name)) => Ok(Expression::Identifier(name)),
        ("not", operand) => boxed(operand).map(Expression::Not),
        ("is_null", operand) => boxed(operand).map(Expression::IsNull),
        ("not_null", operand) => boxed(operand).map(|inner| negated_if(true, Expression::IsNull(inner))),
        ("-", operand) => signed(Arithmetic::Subtract, operand),
        ("+", operand) => signed(Arithmetic::Add, operand),
        _ => return None,
    })
}

/// Like [`unary`].
fn binary(operator: &str, [left, right]: [Term; 2]) -> Option<Result<Expression, Unreadable>> {
    let combine: fn(Box<Expression>, Box<Expression>) -> Expression = match operator {
        "in" | "not_in" => return Some(membership(operator == "not_in", left, right)),
        "between" | "not_between" => return range(operator, left, right),
        "and" => Expression::And,
        "or" => Expression::Or,
        "=" => |left, right| Expression::Compare(Comparison::Equal, left, right),
        "<>" => |left, right| Expression::Compare(Comparison::NotEqual, left, right),
        "<" => |left, right| Expression::Compare(Comparison::Less, left, right),
        "<=" => |left, right| Expression::Compare(Comparison::LessOrEqual, left, right),
        ">" => |left, right| Expression::Compare(Comparison::Greater, left, right),
        ">=" => |left, right| Expression::Compare(Comparison::GreaterOrEqual, left, right),
        "+" => |left, right| Expression::Calculate(Arithmetic::Add, left, right),
        "-" => |left, right| Expression::Calculate(Arithmetic::Subtract, left, right),
        "*" => |left, right| Expression::Calculate(Arithmetic::Multiply, left, right),
        "/" => |left, right| Expression::Calculate(Arithmetic::Divide, left, right),
        _ => return None,
    };
    Some(boxed(left).and_then(|left| Ok(combine(left, boxed(right)?))))
}

/// Like [`unary`].
fn ternary(operator: &str, [value, second, third]: [Term; 3]) -> Option<Result<Expression, Unreadable>> {
    match operator {
        "between" | "not_between" => Some(between(operator == "not_between", value, second, third)),
        "like" | "not_like" => Some(like(operator == "not_like", value, second, third)),
        _ => None,
    }
}

/// Bounds may be in their own tuple.
fn range(operator: &str, value: Term, bounds: Term) -> Option<Result<Expression, Unreadable>> {
    let Term::Tuple(bounds) = bounds else { return None };
    let [Term::Atom(range), from, to] = <[Term; 3]>::try_from(bounds).ok()? else { return None };
    (range == "range").then(|| between(operator == "not_between", value, from, to))
}

fn between(negated: bool, value: Term, from: Term, to: Term) -> Result<Expression, Unreadable> {
    Ok(negated_if(negated, Expression::Between(boxed(value)?, boxed(from)?, boxed(to)?)))
}

fn like(negated: bool, value: Term, pattern: Term, escape: Term) -> Result<Expression, Unreadable> {
    let Term::Binary(pattern) = pattern else { return Err(Unreadable::Meaningless("a pattern that is no binary")) };
    let escape = match escape {
        Term::Atom(word) if word == "no_escape" => None,
        Term::Binary(text) if text.chars().count() == 1 => text.chars().next(),
        _ => return Err(Unreadable::Meaningless("an escape that is not one character")),
    };
    Ok(negated_if(negated, Expression::Like(boxed(value)?, Pattern::new(&pattern, escape))))
}

fn membership(negated: bool, value: Term, list: Term) -> Result<Expression, Unreadable> {
    let Term::List(members) = list else { return Err(Unreadable::Meaningless("'in' without a list")) };
    let members = members.into_iter().map(literal).collect::<Result<_, _>>()?;
    Ok(negated_if(negated, Expression::In(boxed(value)?, members)))
}

fn literal(term: Term) -> Result<Literal, Unreadable> {
    match term {
        Term::Binary(text) => Ok(Literal::Text(text)),
        Term::Number(number) => Ok(Literal::Number(number)),
        Term::Atom(word) if word == "true" => Ok(Literal::Bool(true)),
        Term::Atom(word) if word == "false" => Ok(Literal::Bool(false)),
        _ => Err(Unreadable::Meaningless("a value that is no binary, no number and neither true nor false")),
    }
}
