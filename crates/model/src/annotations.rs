//! Annotations: what the server itself says of a message.
//!
//! The publisher's bytes are never rewritten. What happens to a message later (it dies, its delay ends, a binding
//! matches) is stored beside them, in this encoding, which belongs to no protocol. The encoder of each protocol shows it
//! in the protocol's own way when the message is sent.
//!
//! ```text
//! u8 version, then entries:  u8 kind   varint length   payload
//! ```
//! A varint has seven bits in each byte, the lowest first; the highest bit says that another byte follows. A message
//! without annotations has no bytes at all. A reader skips kinds that it does not know, and whatever follows the fields
//! that it knows in a payload. Bytes that are not annotations are read as none.

use std::borrow::Cow;

use crate::{DeathPlace, DeathReason, DeathRecord, Time};

const VERSION: u8 = 1;

// The kinds are stored: never change one, and never use one again.
const DEATH: u8 = 1;
const FIRST_DEATH: u8 = 2;
const LAST_DEATH: u8 = 3;
const NEW_KEY: u8 = 4;
const EXPIRATION_REMOVED: u8 = 5;
const DELAY_OVER: u8 = 6;
const REPLY_ADDRESS: u8 = 7;
const BINDINGS: u8 = 8;

/// The bits that say which optional fields a death has.
const HAS_TTL: u8 = 1;
const HAS_PLACE: u8 = 2;

/// The annotations of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations<'a> {
    /// All its deaths, one for each queue and reason, the latest first. The first death of a message takes over the
    /// deaths that its publisher wrote.
    pub deaths: Vec<DeathRecord<'a>>,
    /// Its first death, if the server recorded it. If the publisher wrote deaths, the first one was before that.
    pub first_death: Option<DeathPlace<'a>>,
    /// Its latest death.
    pub last_death: Option<DeathPlace<'a>>,
    /// It has another routing key, which also replaces the further keys that readers can see (AMQP 0-9-1: CC).
    pub new_key: bool,
    /// Its time to live no longer counts, because it is a dead letter.
    pub expiration_removed: bool,
    /// The delay that its publisher asked for is over.
    pub delay_over: bool,
    /// The address for replies, in place of the publisher's.
    pub reply_address: Option<&'a [u8]>,
    /// The numbers of the bindings through which it came, if they ask for that: see [`crate::BindingSpec::NUMBER`]. In
    /// ascending order.
    pub bindings: Vec<u64>,
}

/// The most bytes of an entry's kind and length.
const ENTRY_BYTES_MAX: usize = 4;

impl<'a> Annotations<'a> {
    /// About how many bytes the deaths of a message may take. Its oldest deaths are left out beyond that.
    pub const DEATHS_BYTES_MAX: usize = 24 << 10;

    /// Reads annotations. What cannot be read is left out.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Self {
        let mut annotations = Self::default();
        for (kind, mut payload) in entries(bytes) {
            match kind {
                DEATH => annotations.deaths.extend(read_death(&mut payload)),
                FIRST_DEATH => annotations.first_death = read_place(&mut payload),
                LAST_DEATH => annotations.last_death = read_place(&mut payload),
                NEW_KEY => annotations.new_key = true,
                EXPIRATION_REMOVED => annotations.expiration_removed = true,
                DELAY_OVER => annotations.delay_over = true,
                REPLY_ADDRESS => annotations.reply_address = Some(payload),
                BINDINGS => annotations.bindings = std::iter::from_fn(|| varint(&mut payload)).collect(),
                _ => {}
            }
        }
        if annotations.last_death.is_none() {
            annotations.last_death = annotations.deaths.first().map(DeathRecord::place);
        }
        annotations
    }

    /// The annotations in their encoding; no bytes if there are none.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut payload = Vec::new();
        for death in &self.deaths {
            put_death(&mut payload, death);
            put_entry(&mut out, DEATH, &mut payload);
        }
        if let Some(place) = &self.first_death {
            put_place(&mut payload, place);
            put_entry(&mut out, FIRST_DEATH, &mut payload);
        }
        // It is nearly always that of the latest record.
        if let Some(place) = &self.last_death
            && self.deaths.first().map(DeathRecord::place).as_ref() != Some(place)
        {
            put_place(&mut payload, place);
            put_entry(&mut out, LAST_DEATH, &mut payload);
        }
        let flags =
            [(NEW_KEY, self.new_key), (EXPIRATION_REMOVED, self.expiration_removed), (DELAY_OVER, self.delay_over)];
        for (kind, _) in flags.into_iter().filter(|(_, is_set)| *is_set) {
            put_entry(&mut out, kind, &mut payload);
        }
        if let Some(address) = self.reply_address {
            payload.extend_from_slice(address);
            put_entry(&mut out, REPLY_ADDRESS, &mut payload);
        }
        if !self.bindings.is_empty() {
            self.bindings.iter().for_each(|number| put_varint(&mut payload, *number));
            put_entry(&mut out, BINDINGS, &mut payload);
        }
        if out.len() == 1 { Vec::new() } else { out }
    }

    /// Leaves out the oldest deaths that are too many for [`Annotations::DEATHS_BYTES_MAX`], and of the latest one, if it
    /// is too long, the further routing keys.
    pub(crate) fn forget_oldest_deaths(&mut self) {
        let mut payload = Vec::new();
        let mut bytes = 0;
        let mut count = 0;
        for death in &mut self.deaths {
            put_death(&mut payload, death);
            if count == 0 && payload.len() > Self::DEATHS_BYTES_MAX {
                death.routing_keys.truncate(1);
                payload.clear();
                put_death(&mut payload, death);
            }
            bytes += payload.len() + ENTRY_BYTES_MAX;
            if count > 0 && bytes > Self::DEATHS_BYTES_MAX {
                break;
            }
            payload.clear();
            count += 1;
        }
        self.deaths.truncate(count);
    }

    /// Whether the delay of a message with these annotations is over.
    #[must_use]
    pub fn is_delay_over(bytes: &[u8]) -> bool {
        entries(bytes).any(|(kind, _)| kind == DELAY_OVER)
    }

    /// How many bytes the annotations that no reader can do without may add to the publisher's own properties, in any
    /// protocol: the address for replies, and a number that says that the delay is over.
    #[must_use]
    pub fn needed_bytes(bytes: &[u8]) -> usize {
        /// A length, or a whole number with its type.
        const FIELD_BYTES: usize = 16;
        entries(bytes).fold(0, |sum, (kind, payload)| match kind {
            REPLY_ADDRESS => sum + FIELD_BYTES + payload.len(),
            DELAY_OVER => sum + FIELD_BYTES,
            _ => sum,
        })
    }
}

/// The entries up to the first one that is not whole. None if the version is another one.
fn entries(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = match bytes {
        [VERSION, rest @ ..] => rest,
        _ => &[],
    };
    std::iter::from_fn(move || {
        let kind = octet(&mut rest)?;
        Some((kind, text(&mut rest)?))
    })
}

/// Appends an entry, and empties its payload.
fn put_entry(out: &mut Vec<u8>, kind: u8, payload: &mut Vec<u8>) {
    out.push(kind);
    put_text(out, payload);
    payload.clear();
}

fn put_death(out: &mut Vec<u8>, death: &DeathRecord<'_>) {
    let flags = if death.ttl_ms.is_some() { HAS_TTL } else { 0 } | if death.written.is_some() { HAS_PLACE } else { 0 };
    out.push(flags);
    put_reason(out, death.reason);
    put_varint(out, death.count);
    put_varint(out, death.at.0);
    put_text(out, death.queue.as_bytes());
    put_text(out, death.exchange.as_bytes());
    put_varint(out, death.routing_keys.len() as u64);
    death.routing_keys.iter().for_each(|key| put_text(out, key));
    death.ttl_ms.into_iter().for_each(|ms| put_varint(out, ms));
    death.written.into_iter().for_each(|place| put_varint(out, place.into()));
}

fn read_death<'a>(bytes: &mut &'a [u8]) -> Option<DeathRecord<'a>> {
    let flags = octet(bytes)?;
    let reason = DeathReason::from_code(octet(bytes)?);
    let (count, at) = (varint(bytes)?, Time(varint(bytes)?));
    let (queue, exchange) = (utf8(bytes)?, utf8(bytes)?);
    let mut routing_keys = Vec::new();
    for _ in 0..varint(bytes)? {
        routing_keys.push(text(bytes)?);
    }
    let ttl_ms = if flags & HAS_TTL == 0 { None } else { Some(varint(bytes)?) };
    let written = if flags & HAS_PLACE == 0 { None } else { Some(u32::try_from(varint(bytes)?).ok()?) };
    Some(DeathRecord { queue, reason, count, at, exchange, routing_keys, ttl_ms, written })
}

fn put_place(out: &mut Vec<u8>, place: &DeathPlace<'_>) {
    put_reason(out, place.reason);
    put_text(out, place.queue.as_bytes());
    put_text(out, place.exchange.as_bytes());
}

fn read_place<'a>(bytes: &mut &'a [u8]) -> Option<DeathPlace<'a>> {
    let reason = DeathReason::from_code(octet(bytes)?);
    Some(DeathPlace { reason, queue: utf8(bytes)?, exchange: utf8(bytes)? })
}

/// 0 is a reason that the server does not know: a publisher wrote it.
fn put_reason(out: &mut Vec<u8>, reason: Option<DeathReason>) {
    out.push(reason.map_or(0, DeathReason::code));
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = octet(bytes)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn octet(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// Appends bytes with their length.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(text)
}

fn utf8<'a>(bytes: &mut &'a [u8]) -> Option<Cow<'a, str>> {
    std::str::from_utf8(text(bytes)?).ok().map(Cow::Borrowed)
}
