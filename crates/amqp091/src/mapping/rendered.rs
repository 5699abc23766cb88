//! The properties that a client gets: those of the publisher, with what the server says of the message in RabbitMQ's
//! headers.
//!
//! Most messages are plain: a client of AMQP 0-9-1 published them, and nothing has happened to them. Their properties are
//! sent as they are stored, and nothing here is called.

use std::borrow::Cow;

use ferrymq_model::{Annotations, Dialects, Head, MessageRef, Name, Table};

use super::{
    DIALECT,
    death::{self, ShownDeaths},
    delay, head,
    headers::Headers,
};
use crate::codec::{
    content::Properties,
    table::{RawValue, put_value},
};

/// The complete routing key of a message whose key is too long for AMQP 0-9-1.
const KEY: &str = "x-routing-key";

/// Whether the stored properties are what clients get.
#[inline]
#[must_use]
pub fn is_plain(message: &MessageRef<'_>) -> bool {
    // One branch for all three.
    (message.dialect == DIALECT) & message.annotations.is_empty() & (message.routing_key.len() <= Name::BYTES_MAX)
}

/// The routing key as AMQP 0-9-1 can carry it: a longer one is cut between two characters.
#[inline]
#[must_use]
pub fn short_key(key: &[u8]) -> &[u8] {
    if key.len() <= Name::BYTES_MAX { key } else { cut(key) }
}

#[cold]
fn cut(key: &[u8]) -> &[u8] {
    let is_inside = |at: &usize| key[*at] & 0xc0 == 0x80;
    let end = (Name::BYTES_MAX - 3..=Name::BYTES_MAX).rev().find(|at| !is_inside(at));
    &key[..end.unwrap_or(Name::BYTES_MAX)]
}

/// The properties that a client gets. They have at most `bytes_max` bytes if the publisher's own have: where they would
/// be longer, what the server has added is left out, the least important first.
#[must_use]
pub fn rendered(message: &MessageRef<'_>, dialects: &Dialects, attempts: Option<u32>, bytes_max: usize) -> Vec<u8> {
    let translated;
    let is_own = message.dialect == DIALECT;
    let base = if is_own {
        message.properties
    } else {
        translated = translated_head(message, dialects, bytes_max);
        &translated
    };
    let source = Source {
        // The session has checked them when the message arrived.
        base: Properties::read(base).unwrap_or_default(),
        is_own,
        annotations: Annotations::read(message.annotations),
    };
    let key = (message.routing_key.len() > Name::BYTES_MAX).then_some(message.routing_key);
    let choices = [(true, attempts, key), (true, attempts, None), (true, None, None), (false, attempts, None)];
    let fits = |(deaths, attempts, key)| Some(source.shown(deaths, attempts, key)).filter(|it| it.len() <= bytes_max);
    choices.into_iter().find_map(fits).unwrap_or_else(|| source.shown(false, None, None))
}

/// The head of a message of another dialect; without its headers, if these do not fit.
fn translated_head(message: &MessageRef<'_>, dialects: &Dialects, bytes_max: usize) -> Vec<u8> {
    let head = dialects.get(message.dialect).map(|dialect| dialect.read(message)).unwrap_or_default();
    match head::write(&head).filter(|written| written.len() <= bytes_max) {
        Some(written) => written,
        None => {
            let short = |id: &Cow<'_, [u8]>| id.len() <= Name::BYTES_MAX;
            let bare = Head {
                message_id: head.message_id.filter(short),
                correlation_id: head.correlation_id.filter(short),
                headers: Table::default(),
                deaths: Vec::new(),
                more_keys: Vec::new(),
                ..head
            };
            head::write(&bare).expect("without headers nothing is nested")
        }
    }
}

/// What the shown properties are made from.
struct Source<'a> {
    base: Properties<'a>,
    /// Whether the publisher wrote them so.
    is_own: bool,
    annotations: Annotations<'a>,
}

impl Source<'_> {
    fn shown(&self, deaths: bool, attempts: Option<u32>, key: Option<&[u8]>) -> Vec<u8> {
        let Self { base, annotations, .. } = self;
        let mut properties = *base;
        // AMQP-60
        if annotations.expiration_removed {
            properties.expiration = None;
        }
        if let Some(address) = annotations.reply_address {
            properties.reply_to = Some(address).filter(|address| address.len() <= Name::BYTES_MAX);
        }
        let delayed = if annotations.delay_over { delay::delayed(base) } else { None };
        let dead = !annotations.deaths.is_empty();
        let changes = dead || annotations.new_key || delayed.is_some() || attempts.is_some() || key.is_some();
        if !changes {
            let mut written = Vec::new();
            properties.write(&mut written);
            return written;
        }
        let mut headers = Headers::of(base);
        if dead && deaths {
            let shown = ShownDeaths {
                deaths: &annotations.deaths,
                first: annotations.first_death.as_ref(),
                last: annotations.last_death.as_ref(),
                written: self.is_own.then_some(base),
            };
            death::put_deaths(&mut headers, &shown);
        } else if dead {
            death::remove_deaths(&mut headers);
        }
        // AMQP-57
        if annotations.new_key {
            headers.remove("CC");
        }
        if let Some(delay) = delayed {
            headers.set(delay::DELAY, |value| put_value(value, &RawValue::Int(delay)));
        }
        if let Some(attempts) = attempts {
            headers.set_count("x-delivery-count", attempts);
        }
        if let Some(key) = key {
            headers.set(KEY, |value| put_value(value, &RawValue::Text(key)));
        }
        headers.write(&properties)
    }
}

/// The properties that a client gets, without limits.
pub fn whole<'a>(message: &MessageRef<'a>) -> Cow<'a, [u8]> {
    if message.annotations.is_empty() {
        return Cow::Borrowed(message.properties);
    }
    rendered(message, &Dialects::default(), None, usize::MAX).into()
}
