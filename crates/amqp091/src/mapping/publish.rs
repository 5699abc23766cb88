//! Checks the properties of a publish, and reads those that decide how the message is handled.

use ferrymq_model::{Name, PublishExtras};
use ferrymq_wire::Put;

use super::{REPLIES, Violation};
use crate::codec::{
    content::Properties,
    reply_code::ReplyCode,
    table::{RawArray, RawTable, RawValue, put_key},
};

/// The properties that decide how a message is handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishFacts {
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// Its priority.
    pub priority: Option<u8>,
    /// Its time to live in milliseconds.
    pub expiration_ms: Option<u64>,
    /// Its user, its further routing keys, and whether it wants replies. `None` if it has none of these.
    pub rare: Option<Box<PublishExtras>>,
    /// The properties without the header BCC, if they had it.
    pub shown: Option<Vec<u8>>,
}

/// Checks a message's properties and reads those that decide how it is handled.
///
/// # Errors
/// If the properties are malformed, or one of them has a wrong value.
pub fn publish_facts(bytes: &[u8]) -> Result<PublishFacts, Violation> {
    let properties = Properties::read_inline(bytes)?;
    let mut facts = PublishFacts {
        // AMQP-38
        persistent: properties.delivery_mode == Some(2),
        priority: properties.priority,
        expiration_ms: properties.expiration.map(expiration_ms).transpose()?,
        rare: None,
        shown: None,
    };
    if let Some(claimed) = properties.user_id {
        facts.rare.get_or_insert_default().user = Some(user(claimed)?);
    }
    if properties.reply_to == Some(REPLIES.as_bytes()) {
        facts.rare.get_or_insert_default().wants_replies = true;
    }
    if let Some(headers) = properties.headers {
        read_copies(bytes, headers, &mut facts)?;
    }
    Ok(facts)
}

/// Reads the headers CC and BCC, which have further routing keys. Consumers do not see those of BCC. (AMQP-21)
fn read_copies(bytes: &[u8], headers: RawTable<'_>, facts: &mut PublishFacts) -> Result<(), Violation> {
    let mut keys = Vec::new();
    for (key, value) in headers.iter() {
        let header = match key {
            b"CC" => "CC",
            b"BCC" => "BCC",
            _ => continue,
        };
        let RawValue::Array(array) = value else { return Err(unacceptable(header)) };
        keys.extend(texts(array).map(<[u8]>::to_vec));
        if header == "BCC" {
            let (mut shown, mut rest) = (Vec::new(), Vec::new());
            for (key, value) in headers.entries().filter(|(key, _)| *key != b"BCC") {
                put_key(&mut rest, key);
                rest.put(value);
            }
            Properties { headers: Some(RawTable::check(&rest)?), ..Properties::read(bytes)? }.write(&mut shown);
            facts.shown = Some(shown);
        }
    }
    if !keys.is_empty() {
        facts.rare.get_or_insert_default().more_keys = keys;
    }
    Ok(())
}

/// The texts in an array. Other values are ignored, as in RabbitMQ.
pub(super) fn texts(array: RawArray<'_>) -> impl Iterator<Item = &[u8]> {
    array.iter().filter_map(|value| match value {
        RawValue::Text(text) => Some(text),
        _ => None,
    })
}

fn unacceptable(header: &str) -> Violation {
    let text = format!("invalid message: header '{header}' is not an array of longstr");
    Violation::new(ReplyCode::PreconditionFailed, text)
}

fn user(bytes: &[u8]) -> Result<Name, Violation> {
    Name::parse(bytes).map_err(|_| Violation::new(ReplyCode::PreconditionFailed, "user_id property is not text"))
}

/// A message's time to live in milliseconds, from the digits of its expiration property. (AMQP-39)
///
/// # Errors
/// 406 with RabbitMQ's text, if they are not the digits of a number or the number is too large.
pub fn expiration_ms(text: &[u8]) -> Result<u64, Violation> {
    /// The largest expiration, as in RabbitMQ: ten years.
    const MS_MAX: u64 = 315_360_000_000;
    let shown = String::from_utf8_lossy(text);
    let refuse = |why: String| {
        Err(Violation::new(ReplyCode::PreconditionFailed, format!("invalid expiration '{shown}': {why}")))
    };
    let digits_from = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = shown.get(digits_from..).unwrap_or_default();
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return refuse("no_integer".into());
    }
    let (number, leftover) = digits.split_at(end);
    if !leftover.is_empty() {
        return refuse(format!("{{leftover_string,\"{leftover}\"}}"));
    }
    match number.parse::<u64>() {
        Ok(number) if text.first() == Some(&b'-') && number > 0 => refuse(format!("{{value_negative,-{number}}}")),
        Ok(number) if number <= MS_MAX => Ok(number),
        _ => refuse(format!("{{value_too_large,{number}}}")),
    }
}
