//! Exchanges that route each message to one of their targets: by a hash, or at random.

use std::collections::BTreeMap;

use ferrymq_model::{Arguments, Property, Refusal, Value};
use slab::Slab;

use super::bindings::{Binding, Target};
use super::ring::Ring;
use super::routing::LazyHead;

/// What an `x-consistent-hash` exchange hashes.
#[derive(Debug)]
pub(super) enum HashedBy {
    RoutingKey,
    Header(String),
    Property(Property),
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
                "message_id" => Ok(Self::Property(Property::MessageId)),
                "correlation_id" => Ok(Self::Property(Property::CorrelationId)),
                "timestamp" => Ok(Self::Property(Property::Timestamp)),
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

/// The number of rings of each class.
const RINGS: usize = 8;
/// The number of positions on each ring that are checked for a message.
const PROBES: usize = 8;

/// The targets of an `x-consistent-hash` exchange, each with its weight.
///
/// A binding has a point on each of eight rings. For a message, eight positions on each ring are checked. The binding
/// whose point follows one of these positions at the shortest distance gets the message (multi-probe consistent
/// hashing). A weight is a sum of powers of two. Each power has its own rings, on which distances count half as much as
/// on the rings of the power before it. So when a binding is added or removed, only the messages move that it gains or
/// loses. The order of the bindings does not matter, and a restart changes nothing. The work for a message hardly
/// depends on the number of bindings. The share of a binding is some per cent more or less than its weight says,
/// because points may be very close to each other.
#[derive(Debug)]
pub(super) struct Shares {
    by: HashedBy,
    targets: Slab<Bound>,
    /// The index of each target in `targets`, in the order of the targets.
    places: BTreeMap<Target, usize>,
    /// The rings of each power of two.
    classes: BTreeMap<u32, Rings>,
}

/// A target with its bindings. Bindings of one target that have a power of two in common share a point.
#[derive(Debug)]
struct Bound {
    target: Target,
    /// For each power of two, how many bindings have it in their weights.
    counts: BTreeMap<u32, usize>,
}

/// The points of the targets whose weights contain the same power of two, each with the index of its target.
type Rings = [Ring; RINGS];

impl Shares {
    pub(super) fn new(arguments: &Arguments) -> Self {
        // The arguments were checked when the exchange was declared.
        let by = HashedBy::parse(arguments).unwrap_or(HashedBy::RoutingKey);
        Self { by, targets: Slab::new(), places: BTreeMap::new(), classes: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, binding: &Binding) {
        let target = &binding.target;
        let targets = &mut self.targets;
        let new = || targets.insert(Bound { target: target.clone(), counts: BTreeMap::new() });
        let place = *self.places.entry(target.clone()).or_insert_with(new);
        for class in classes(binding) {
            let count = self.targets[place].counts.entry(class).or_default();
            *count += 1;
            if *count == 1 {
                let rings = self.classes.entry(class).or_default();
                rings.iter_mut().zip(points(class, target)).for_each(|(ring, point)| ring.insert(point, place as u64));
            }
        }
    }

    pub(super) fn remove(&mut self, binding: &Binding) {
        let target = &binding.target;
        let Some(&place) = self.places.get(target) else { return };
        for class in classes(binding) {
            let count = self.targets[place].counts.get_mut(&class).expect("it was counted when the binding was made");
            *count -= 1;
            if *count > 0 {
                continue;
            }
            self.targets[place].counts.remove(&class);
            let rings = self.classes.get_mut(&class).expect("a class with a target is there");
            rings.iter_mut().zip(points(class, target)).for_each(|(ring, point)| ring.remove(point, place as u64));
            if rings[0].is_empty() {
                self.classes.remove(&class);
            }
        }
        if self.targets[place].counts.is_empty() {
            self.targets.remove(place);
            self.places.remove(target);
        }
    }

    /// All targets, in order: when the chosen one is deleted, the first that is there takes its place.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.places.keys()
    }

    /// Whether the routing key alone decides.
    pub(super) fn looks_at_keys(&self) -> bool {
        matches!(self.by, HashedBy::RoutingKey)
    }

    /// The value that is hashed. A message without the header or property counts as one with an empty value.
    pub(super) fn pick(&self, routing_key: &[u8], envelope: &LazyHead<'_>) -> Option<&Target> {
        let seed = match &self.by {
            HashedBy::RoutingKey => hash(0, routing_key),
            HashedBy::Header(header) => match envelope.headers().get(header) {
                None => hash(0, b""),
                Some(Value::Text(text)) => hash(0, text.as_bytes()),
                Some(other) => hash(0, format!("{other:?}").as_bytes()),
            },
            HashedBy::Property(property) => hash(0, &envelope.property(*property).unwrap_or_default()),
        };
        let (mut least, mut nearest) = (u64::MAX, None);
        for (class, rings) in &self.classes {
            let mut places = Scattered(stir(seed ^ u64::from(*class)));
            for ring in rings {
                for place in places.by_ref().take(PROBES) {
                    let most = least.saturating_mul(1 << class);
                    if let Some((distance, number)) = ring.after(place, most)
                        && distance >> class < least
                    {
                        (least, nearest) = (distance >> class, Some(number));
                    }
                }
            }
        }
        self.targets.get(nearest? as usize).map(|bound| &bound.target)
    }
}

/// The powers of two that add up to a binding's weight.
fn classes(binding: &Binding) -> impl Iterator<Item = u32> + use<> {
    let weight = weight(&binding.key).unwrap_or(1);
    (0..u32::BITS).filter(move |class| weight >> class & 1 == 1)
}

/// The points of a target on the rings of a class.
fn points(class: u32, target: &Target) -> Scattered {
    let seed = u64::from(class) << 32 | 1;
    Scattered(match target {
        Target::Queue(id) => hash(seed, &id.0.to_be_bytes()),
        Target::Exchange(name) => hash(seed, name.as_bytes()),
    })
}

/// An endless sequence of pseudo-random numbers (SplitMix64). The same seed gives the same sequence.
struct Scattered(u64);

impl Iterator for Scattered {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Some(stir(self.0))
    }
}

/// FNV-1a with a final mix, so that all bits depend on all bytes. Never change it: it determines which queue gets a
/// message.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    stir(state)
}

/// Mixes the bits, so that all bits of the result depend on all bits of `state`. Never change it, either.
fn stir(mut state: u64) -> u64 {
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}
