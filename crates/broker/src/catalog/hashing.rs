//! Exchanges that route each message to one of their targets: by a hash, or at random.

use std::collections::BTreeMap;

use ferrymq_model::{Arguments, Identity, Refusal, Value};

use super::bindings::{Binding, Target};
use super::routing::Opened;

/// What an `x-consistent-hash` exchange hashes.
#[derive(Debug)]
pub(super) enum HashedBy {
    RoutingKey,
    Header(String),
    Identity(Identity),
}

impl HashedBy {
    /// # Errors
    /// [`Refusal::PreconditionFailed`] for contradicting or unknown arguments.
    pub(super) fn parse(arguments: &Arguments) -> Result<Self, Refusal> {
        let refuse = |text: String| Err(Refusal::PreconditionFailed(text));
        match (arguments.get("hash-header"), arguments.get("hash-property")) {
            (None, None) => Ok(Self::RoutingKey),
            (Some(Value::Text(header)), None) => Ok(Self::Header(header.clone())),
            (Some(_), Some(_)) => refuse("hash-header and hash-property are mutually exclusive".to_owned()),
            (Some(_), None) => refuse("hash-header must be a text".to_owned()),
            (None, Some(property)) => match property.as_text().unwrap_or_default() {
                "message_id" => Ok(Self::Identity(Identity::MessageId)),
                "correlation_id" => Ok(Self::Identity(Identity::CorrelationId)),
                "timestamp" => Ok(Self::Identity(Identity::Timestamp)),
                other => refuse(format!("Unsupported property: {other}")),
            },
        }
    }
}

/// The weight of a binding to an `x-consistent-hash` exchange, which is its key.
///
/// # Errors
/// [`Refusal::PreconditionFailed`] if that is not a number from 1 up.
pub(super) fn weight(key: &[u8]) -> Result<u32, Refusal> {
    let refuse = |text: String| Err(Refusal::PreconditionFailed(text));
    let shown = String::from_utf8_lossy(key);
    match shown.parse::<i64>().map(u32::try_from) {
        Ok(Ok(0)) | Ok(Err(_)) => refuse("The binding key must be greater than 0".to_owned()),
        Ok(Ok(weight)) => Ok(weight),
        Err(_) => refuse(format!("The binding key must be an integer: <<\"{shown}\">>")),
    }
}

/// The targets of an `x-consistent-hash` exchange, each with its weight.
///
/// Every share gets a pseudo-random number for the message, and the lowest number wins (weighted rendezvous
/// hashing). So a new or removed binding moves only the messages that it gains or loses, whatever the order of
/// bindings, and also over restarts.
#[derive(Debug)]
pub(super) struct Shares {
    by: HashedBy,
    /// By the bindings' slots.
    shares: BTreeMap<usize, (u32, Target)>,
    /// How many bindings have each weight.
    weights: BTreeMap<u32, usize>,
}

impl Shares {
    pub(super) fn new(arguments: &Arguments) -> Self {
        // The arguments were checked when the exchange was declared.
        let by = HashedBy::parse(arguments).unwrap_or(HashedBy::RoutingKey);
        Self { by, shares: BTreeMap::new(), weights: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, slot: usize, binding: &Binding) {
        let weight = weight(&binding.key).unwrap_or(1);
        self.shares.insert(slot, (weight, binding.target.clone()));
        *self.weights.entry(weight).or_insert(0) += 1;
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let Some((weight, _)) = self.shares.remove(&slot) else { return };
        if let Some(count) = self.weights.get_mut(&weight) {
            *count -= 1;
            if *count == 0 {
                self.weights.remove(&weight);
            }
        }
    }

    /// Whether the routing key alone decides.
    pub(super) fn looks_at_keys(&self) -> bool {
        matches!(self.by, HashedBy::RoutingKey)
    }

    /// The value that is hashed. A message without the header or property counts as one with an empty value.
    pub(super) fn pick(&self, routing_key: &[u8], envelope: &Opened<'_>) -> Option<&Target> {
        let seed = match &self.by {
            HashedBy::RoutingKey => hash(0, routing_key),
            HashedBy::Header(header) => match envelope.headers().get(header) {
                None => hash(0, b""),
                Some(Value::Text(text)) => hash(0, text.as_bytes()),
                Some(other) => hash(0, format!("{other:?}").as_bytes()),
            },
            HashedBy::Identity(identity) => hash(0, &envelope.identity(*identity).unwrap_or_default()),
        };
        let number = |target: &Target| match target {
            Target::Queue(id) => hash(seed, &id.0.to_be_bytes()) >> 11,
            Target::Exchange(name) => hash(seed, name.as_bytes()) >> 11,
        };
        let shares = self.shares.values();
        if self.weights.len() == 1 {
            // Of equal weights, the highest number has the lowest logarithm; of two equal numbers, the first one
            // counts.
            return shares.map(|(_, target)| (number(target), target)).reduce(higher).map(|(_, target)| target);
        }
        let drawn = |(weight, target): &&(u32, Target)| {
            // Uniform over (0, 1], as a time until the first of `weight` equal events.
            let uniform = (number(target) + 1) as f64 / (1_u64 << 53) as f64;
            -uniform.ln() / f64::from(*weight)
        };
        let drawn = shares.map(|share| (drawn(&share), &share.1));
        drawn.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, target)| target)
    }
}

fn higher<'a>(one: (u64, &'a Target), other: (u64, &'a Target)) -> (u64, &'a Target) {
    if other.0 > one.0 { other } else { one }
}

/// FNV-1a with a final mix, so that all bits depend on all bytes. Never change it: it determines which queue gets a
/// message.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}
