//! Numbers in selectors: exact as long as possible, compared by value.

use std::cmp::Ordering;

/// A number. Wide enough for every whole number of a header, and for sums and products of two of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Exact(i128),
    Approximate(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Number {
    pub(super) const ZERO: Self = Self::Exact(0);

    fn approximate(self) -> f64 {
        match self {
            Self::Exact(number) => number as f64,
            Self::Approximate(number) => number,
        }
    }

    /// The order of two numbers; NaN is not ordered.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => Some(a.cmp(&b)),
            (Self::Approximate(a), Self::Approximate(b)) => a.partial_cmp(&b),
            (Self::Exact(a), Self::Approximate(b)) => compare_mixed(a, b),
            (Self::Approximate(a), Self::Exact(b)) => compare_mixed(b, a).map(Ordering::reverse),
        }
    }

    /// A result that does not fit is approximated, as is a division with a remainder.
    pub(super) fn calculate(self, operator: Arithmetic, other: Self) -> Self {
        if let (Self::Exact(a), Self::Exact(b)) = (self, other) {
            let exact = match operator {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Subtract => a.checked_sub(b),
                Arithmetic::Multiply => a.checked_mul(b),
                Arithmetic::Divide if a.checked_rem(b) == Some(0) => a.checked_div(b),
                Arithmetic::Divide => None,
            };
            if let Some(exact) = exact {
                return Self::Exact(exact);
            }
        }
        let (a, b) = (self.approximate(), other.approximate());
        Self::Approximate(match operator {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide => a / b,
        })
    }
}

/// The first number above those that [`Number::Exact`] holds.
const BEYOND_EXACT: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;

/// Compares without rounding the whole number first.
fn compare_mixed(exact: i128, approximate: f64) -> Option<Ordering> {
    if approximate.is_nan() {
        return None;
    }
    if approximate.abs() >= BEYOND_EXACT {
        return 0.0.partial_cmp(&approximate);
    }
    let whole = exact.cmp(&(approximate.trunc() as i128));
    0.0.partial_cmp(&approximate.fract()).map(|fraction| whole.then(fraction))
}
