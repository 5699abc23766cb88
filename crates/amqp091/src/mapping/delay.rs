//! The header `x-delay`: how long a message waits before an exchange of type `x-delayed-message` routes it.
//!
//! RabbitMQ's plugin accepts numbers of any type, and text. After the delay the header has the opposite sign. So
//! consumers can see that the message was delayed, and the next delayed exchange does not delay it again.

use crate::codec::{content::Properties, table::RawValue};

pub(super) const DELAY: &str = "x-delay";

/// The delay that the message asks for, in milliseconds.
pub fn delay_ms(properties: &Properties<'_>) -> Option<u64> {
    let delay = properties.headers?.get(DELAY).and_then(whole)?;
    u64::try_from(delay).ok().filter(|ms| *ms > 0)
}

/// The delay that a message has had before it was published again, in milliseconds.
pub fn delayed_ms(properties: &Properties<'_>) -> Option<u64> {
    properties.headers?.get(DELAY).and_then(whole).filter(|delay| *delay < 0).map(i64::unsigned_abs)
}

/// The header after the delay.
pub fn delayed(properties: &Properties<'_>) -> Option<i64> {
    properties.headers?.get(DELAY).and_then(whole).map(i64::saturating_neg)
}

/// The whole part of a number.
fn whole(value: RawValue<'_>) -> Option<i64> {
    match value {
        RawValue::Int(number) => Some(number),
        RawValue::Float(number) if number.is_finite() => Some(number as i64),
        RawValue::Decimal { scale, digits } => {
            Some(10_i64.checked_pow(scale.into()).map_or(0, |unit| i64::from(digits) / unit))
        }
        RawValue::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::table::{RawTable, put_key, put_value};

    fn with_delay<T>(value: &RawValue<'_>, look: impl FnOnce(&Properties<'_>) -> T) -> T {
        let mut entries = Vec::new();
        put_key(&mut entries, "x-delay");
        put_value(&mut entries, value);
        look(&Properties { headers: Some(RawTable::check(&entries).unwrap()), ..Properties::default() })
    }

    #[test]
    fn numbers_and_text_are_delays() {
        let delay = |value: RawValue<'_>| with_delay(&value, delay_ms);
        assert_eq!(delay(RawValue::Int(5000)), Some(5000));
        assert_eq!(delay(RawValue::Int(0)), None);
        assert_eq!(delay(RawValue::Int(-5000)), None);
        assert_eq!(delay(RawValue::Float(1.9)), Some(1));
        assert_eq!(delay(RawValue::Float(0.9)), None);
        assert_eq!(delay(RawValue::Float(f64::NAN)), None);
        assert_eq!(delay(RawValue::Float(f64::INFINITY)), None);
        assert_eq!(delay(RawValue::Decimal { scale: 2, digits: 1234 }), Some(12));
        assert_eq!(delay(RawValue::Decimal { scale: 255, digits: 1234 }), None);
        assert_eq!(delay(RawValue::Text(b"5000")), Some(5000));
        assert_eq!(delay(RawValue::Text(b"+5000")), Some(5000));
        assert_eq!(delay(RawValue::Text(b"-5000")), None);
        assert_eq!(delay(RawValue::Text(b"5000 ms")), None);
        assert_eq!(delay(RawValue::Text(b"")), None);
        assert_eq!(delay(RawValue::Timestamp(5000)), None);
        assert_eq!(delay(RawValue::Bool(true)), None);
        assert_eq!(delay_ms(&Properties::default()), None);
    }

    #[test]
    fn what_has_waited_says_so_and_does_not_wait_again() {
        for value in [RawValue::Int(5000), RawValue::Text(b"5000"), RawValue::Float(5000.4)] {
            let header = with_delay(&value, delayed).unwrap();
            assert_eq!(header, -5000);
            assert_eq!(with_delay(&RawValue::Int(header), delay_ms), None);
            assert_eq!(with_delay(&RawValue::Int(header), delayed_ms), Some(5000));
        }
    }
}
