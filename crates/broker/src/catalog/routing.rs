//! From an exchange and a routing key to queues. Pure: the same question has the same answer as long as the vhost's
//! epoch does not change, unless an exchange looks at more than keys.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrymq_model::{Destination, ExchangeKind, ExchangeSpec, Name, Property, QueueId, Refusal, Table};
use hashbrown::HashMap;

use super::bindings::{Binding, Target};
use super::exchanges::Exchange;
use super::hashing::{Shares, hash};
use super::headers::Matcher;
use super::history::{History, wants_not_to_be_kept};
use super::targets::Targets;
use super::topics::{Topics, has_too_many_words, too_many_words};
use super::{Catalog, QueueRecord, Vhost, delayed, jms, named};
use crate::keyed::{HashKey, KeyedTable};
use crate::selector::Expression;

/// The bindings of an exchange, in the form of its kind.
#[derive(Debug)]
pub(super) enum Router {
    Direct(KeyedTable<Box<[u8]>, Targets>),
    Fanout(Targets),
    Topic(Topics),
    /// The matchers by the numbers of their bindings.
    Headers(BTreeMap<u64, (Matcher, Target)>),
    ConsistentHash(Shares),
    ModulusHash(Targets),
    Random(Targets),
    RecentHistory(Targets, Arc<History>),
    /// The selectors by the numbers of their bindings. A binding without a selector matches no message.
    JmsTopic(BTreeMap<u64, (Option<Expression>, Target)>),
}

/// What a message has reached so far.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Where it starts.
    start: &'a str,
    /// Queues, some perhaps twice.
    queues: &'a mut Vec<QueueId>,
    /// Exchanges after the first one, each once, in the order in which they were reached.
    exchanges: Vec<Name>,
    seen: BTreeSet<Name>,
    /// Whether the last exchange had a match, also if that was reached before.
    matched: bool,
    /// The bindings that ask to be named, by the numbers that the catalog gives to bindings.
    named: Vec<QueueId>,
    cacheable: Cacheable,
    /// Whether a key has too many words for a topic exchange.
    too_many_words: bool,
    /// The existing queues, while there are bindings of deleted ones.
    there: Option<&'a HashMap<QueueId, Box<QueueRecord>>>,
}

impl<'a> Found<'a> {
    fn new(
        start: &'a str,
        queues: &'a mut Vec<QueueId>,
        there: Option<&'a HashMap<QueueId, Box<QueueRecord>>>,
    ) -> Self {
        let (exchanges, seen, named) = (Vec::new(), BTreeSet::new(), Vec::new());
        let (cacheable, too_many_words) = (Cacheable::UntilEpoch, false);
        Self { start, queues, exchanges, seen, matched: false, named, cacheable, too_many_words, there }
    }
}

impl Found<'_> {
    pub(super) fn add_all(&mut self, targets: &Targets) {
        targets.iter().for_each(|target| self.add(target));
    }

    /// Adds the target that was chosen of several. If it is deleted, adds another one.
    fn add_chosen<'a>(&mut self, chosen: Option<&Target>, mut all: impl Iterator<Item = &'a Target>) {
        let Some(chosen) = chosen else { return };
        let is_there = |target: &&Target| !self.has_gone(target);
        let chosen = Some(chosen).filter(is_there).or_else(|| all.find(is_there));
        chosen.into_iter().for_each(|target| self.add(target));
    }

    fn has_gone(&self, target: &Target) -> bool {
        let Some(there) = self.there else { return false };
        matches!(target, Target::Queue(queue) if !there.contains_key(queue))
    }

    fn add(&mut self, target: &Target) {
        if !self.has_gone(target) {
            self.put(target);
        }
    }

    fn put(&mut self, target: &Target) {
        self.matched = true;
        match target {
            Target::Queue(queue) => self.queues.push(*queue),
            Target::Exchange(name) => {
                if **name != *self.start && self.seen.insert(name.clone()) {
                    self.exchanges.push(name.clone());
                }
            }
        }
    }
}

/// What exchanges may look at besides a message's keys. It is read only if an exchange does so; headers and the
/// random number at most once.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    /// Its headers, with their values decoded.
    pub headers: &'a dyn Fn() -> Table,
    /// Its properties.
    pub property: &'a dyn Fn(Property) -> Option<Vec<u8>>,
    /// A random number for it.
    pub random: &'a dyn Fn() -> u64,
    /// Called with every history that should keep it.
    pub keep: &'a dyn Fn(&History),
    /// Its delay in milliseconds, if it asks for one.
    pub delay_ms: &'a dyn Fn() -> Option<u64>,
    /// Called with a queue and the number of a binding through which the message reaches it, for each binding that asks
    /// to be named ([`ferrymq_model::BindingSpec::NUMBER`]).
    pub matched: &'a dyn Fn(QueueId, u64),
}

impl Envelope<'_> {
    /// There is nothing in it.
    pub const EMPTY: Self = Self {
        headers: &Table::default,
        property: &|_| None,
        random: &|| 0,
        keep: &|_| (),
        delay_ms: &|| None,
        matched: &|_, _| (),
    };
}

impl std::fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Envelope")
    }
}

/// How long a route is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cacheable {
    /// For the same exchange and keys, as long as the vhost's epoch does not change.
    UntilEpoch,
    /// For this message only: an exchange looked at more than its keys.
    No,
}

/// An envelope that is read when an exchange looks into it.
pub(super) struct LazyHead<'a> {
    headers: LazyCell<Table, &'a dyn Fn() -> Table>,
    property: &'a dyn Fn(Property) -> Option<Vec<u8>>,
    random: LazyCell<u64, &'a dyn Fn() -> u64>,
    keep: &'a dyn Fn(&History),
    delay_ms: LazyCell<Option<u64>, &'a dyn Fn() -> Option<u64>>,
}

impl<'a> LazyHead<'a> {
    fn new(envelope: &Envelope<'a>) -> Self {
        Self {
            headers: LazyCell::new(envelope.headers),
            property: envelope.property,
            random: LazyCell::new(envelope.random),
            keep: envelope.keep,
            delay_ms: LazyCell::new(envelope.delay_ms),
        }
    }

    pub(super) fn headers(&self) -> &Table {
        &self.headers
    }

    pub(super) fn property(&self, property: Property) -> Option<Vec<u8>> {
        (self.property)(property)
    }
}

impl Router {
    pub(super) fn new(spec: &ExchangeSpec, key: HashKey) -> Self {
        match delayed::routes_as(spec) {
            ExchangeKind::Direct => Self::Direct(KeyedTable::with_hasher(key)),
            ExchangeKind::Fanout => Self::Fanout(Targets::default()),
            ExchangeKind::Topic => Self::Topic(Topics::new(key)),
            ExchangeKind::Headers => Self::Headers(BTreeMap::new()),
            ExchangeKind::ConsistentHash => Self::ConsistentHash(Shares::new(&spec.arguments)),
            ExchangeKind::ModulusHash => Self::ModulusHash(Targets::default()),
            ExchangeKind::Random | ExchangeKind::LocalRandom => Self::Random(Targets::default()),
            ExchangeKind::RecentHistory => {
                Self::RecentHistory(Targets::default(), Arc::new(History::new(&spec.arguments)))
            }
            ExchangeKind::JmsTopic => Self::JmsTopic(BTreeMap::new()),
            ExchangeKind::Delayed => unreachable!("no exchange routes as one that lets messages wait"),
        }
    }

    pub(super) fn add(&mut self, number: u64, binding: &Binding) {
        match self {
            Self::Direct(by_key) => by_key.entry(binding.key.clone()).or_default().add(&binding.target),
            Self::Fanout(targets)
            | Self::ModulusHash(targets)
            | Self::Random(targets)
            | Self::RecentHistory(targets, _) => targets.add(&binding.target),
            Self::ConsistentHash(shares) => shares.add(binding),
            Self::Topic(topics) => topics.add(&binding.key, &binding.target),
            Self::Headers(matchers) => {
                matchers.insert(number, (Matcher::new(&binding.arguments), binding.target.clone()));
            }
            Self::JmsTopic(selectors) => {
                selectors.insert(number, (jms::selector(&binding.arguments).ok(), binding.target.clone()));
            }
        }
    }

    pub(super) fn remove(&mut self, number: u64, binding: &Binding) {
        match self {
            Self::Direct(by_key) => {
                let targets = by_key.get_mut(&*binding.key).expect("a binding's key is there");
                targets.remove(&binding.target);
                if targets.is_empty() {
                    by_key.remove(&*binding.key);
                }
            }
            Self::Fanout(targets)
            | Self::ModulusHash(targets)
            | Self::Random(targets)
            | Self::RecentHistory(targets, _) => targets.remove(&binding.target),
            Self::ConsistentHash(shares) => shares.remove(binding),
            Self::Topic(topics) => topics.remove(&binding.key, &binding.target),
            Self::Headers(matchers) => drop(matchers.remove(&number)),
            Self::JmsTopic(selectors) => drop(selectors.remove(&number)),
        }
    }

    /// A router of an exchange's bindings that ask to be named.
    pub(super) fn of_names(spec: &ExchangeSpec, key: HashKey) -> Self {
        match Self::new(spec, key) {
            // Only the exchange itself keeps messages.
            Self::RecentHistory(targets, _) => Self::Fanout(targets),
            router => router,
        }
    }

    /// Finds the targets for each of `keys`.
    fn collect<'a>(&self, mut keys: impl Iterator<Item = &'a [u8]>, envelope: &LazyHead<'_>, found: &mut Found<'_>) {
        match self {
            // AMQP-17
            Self::Direct(by_key) => {
                keys.filter_map(|key| by_key.get(key)).for_each(|targets| found.add_all(targets));
            }
            Self::Fanout(all) => found.add_all(all),
            Self::Topic(topics) => {
                let before = found.exchanges.len();
                for key in keys {
                    if has_too_many_words(key) {
                        found.too_many_words = true;
                    } else {
                        topics.matches(key, found);
                    }
                }
                // Words are found in the order of a hash table, which is another one in each process.
                found.exchanges[before..].sort_unstable();
            }
            Self::Headers(matchers) => {
                found.cacheable = Cacheable::No;
                let matching = matchers.values().filter(|(matcher, _)| matcher.matches(&envelope.headers));
                matching.for_each(|(_, target)| found.add(target));
            }
            // AMQP-18
            Self::JmsTopic(selectors) => {
                found.cacheable = Cacheable::No;
                let headers = envelope.headers();
                for (selector, target) in selectors.values() {
                    if selector.as_ref().is_some_and(|selector| selector.selects(&|name| headers.get(name))) {
                        found.add(target);
                    }
                }
            }
            // AMQP-18
            Self::ConsistentHash(shares) => {
                if !shares.looks_at_keys() {
                    found.cacheable = Cacheable::No;
                }
                // The first key counts, as in RabbitMQ.
                let target = keys.next().and_then(|key| shares.pick(key, envelope));
                found.add_chosen(target, shares.targets());
            }
            // AMQP-18
            Self::ModulusHash(all) => {
                found.add_chosen(keys.next().and_then(|key| all.nth(hash(0, key))), all.iter());
            }
            // AMQP-18
            Self::RecentHistory(all, history) => {
                found.cacheable = Cacheable::No;
                if !wants_not_to_be_kept(envelope.headers()) {
                    (envelope.keep)(history);
                }
                found.add_all(all);
            }
            // AMQP-18
            Self::Random(all) => {
                found.cacheable = Cacheable::No;
                found.add_chosen(all.nth(*envelope.random), all.iter());
            }
        }
    }
}

impl Exchange {
    /// Finds the targets of its bindings, or of its alternate exchange if no binding matches.
    fn collect<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
        envelope: &LazyHead<'_>,
        found: &mut Found<'_>,
    ) {
        found.matched = false;
        // AMQP-18
        if let Some(schedule) = self.schedule {
            found.cacheable = Cacheable::No;
            if envelope.delay_ms.is_some() {
                return found.put(&Target::Queue(schedule));
            }
        }
        if let Some(named) = &self.named {
            found.cacheable = Cacheable::No;
            named.router.collect(keys.clone(), envelope, &mut Found::new("", &mut found.named, None));
        }
        self.router.collect(keys, envelope, found);
        // AMQP-20
        if !found.matched
            && let Some(alternate) = &self.alternate
        {
            found.add(&Target::Exchange(alternate.clone()));
        }
    }
}

impl Catalog {
    /// The history of an exchange, if it keeps one.
    #[must_use]
    pub fn history(&self, vhost: &str, exchange: &str) -> Option<Arc<History>> {
        match &self.vhost(vhost).ok()?.exchanges.get(exchange)?.router {
            Router::RecentHistory(_, history) => Some(history.clone()),
            _ => None,
        }
    }

    /// Fills `targets` with the queues of a message: each once, in ascending order. `more_keys` are further routing
    /// keys. Returns how long the answer is valid.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if the exchange does not exist; [`Refusal::PreconditionFailed`] if a key has more than 256
    /// words and reaches a topic exchange.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        more_keys: &[Vec<u8>],
        envelope: &Envelope<'_>,
        targets: &mut Vec<QueueId>,
    ) -> Result<Cacheable, Refusal> {
        targets.clear();
        let vhost = self.vhost(vhost)?;
        // AMQP-21
        let keys = std::iter::once(routing_key).chain(more_keys.iter().map(Vec::as_slice));
        let mut cacheable = Cacheable::UntilEpoch;
        // AMQP-11
        if exchange.is_empty() {
            targets.extend(keys.filter_map(|key| vhost.queue_named(key)));
        } else {
            let start = vhost.exchange(exchange)?;
            let there = (!self.unbinding.is_empty()).then_some(&self.queues);
            let mut found = Found::new(exchange, targets, there);
            vhost.walk(start, &keys, &LazyHead::new(envelope), &mut found);
            cacheable = found.cacheable;
            if found.too_many_words {
                return Err(too_many_words());
            }
            found.named.into_iter().for_each(|number| vhost.tell_matched(number, envelope));
        }
        // AMQP-19
        if targets.len() > 1 && !targets.is_sorted_by(|a, b| a < b) {
            targets.sort_unstable();
            targets.dedup();
        }
        Ok(cacheable)
    }
}

impl Catalog {
    /// Like [`Catalog::route`], for a message that arrives through a binding with this `destination`.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] if that does not exist.
    pub fn route_to(
        &self,
        vhost: &str,
        destination: &Destination,
        routing_key: &[u8],
        more_keys: &[Vec<u8>],
        envelope: &Envelope<'_>,
        targets: &mut Vec<QueueId>,
    ) -> Result<(), Refusal> {
        match self.vhost(vhost)?.target(destination)? {
            Target::Exchange(name) => {
                self.route(vhost, &name, routing_key, more_keys, envelope, targets)?;
            }
            Target::Queue(id) => {
                targets.clear();
                targets.push(id);
            }
        }
        Ok(())
    }
}

impl Vhost {
    /// Visits the first exchange, then its target exchanges, and so on, each once: so cycles end. (AMQP-19)
    fn walk<'a>(
        &self,
        start: &Exchange,
        keys: &(impl Iterator<Item = &'a [u8]> + Clone),
        envelope: &LazyHead<'_>,
        found: &mut Found<'_>,
    ) {
        start.collect(keys.clone(), envelope, found);
        let mut asked = 0;
        while let Some(name) = found.exchanges.get(asked) {
            asked += 1;
            // An alternate exchange need not exist.
            if let Some(exchange) = self.exchanges.get(name) {
                exchange.collect(keys.clone(), envelope, found);
            }
        }
    }

    /// Tells of a binding that asks to be named, and was matched.
    fn tell_matched(&self, QueueId(number): QueueId, envelope: &Envelope<'_>) {
        let Some(binding) = self.bindings.get(&number) else { return };
        if let (Target::Queue(queue), Some(number)) = (&binding.target, named::number(&binding.arguments)) {
            (envelope.matched)(*queue, number);
        }
    }

    fn queue_named(&self, name: &[u8]) -> Option<QueueId> {
        self.queues.get(std::str::from_utf8(name).ok()?).copied()
    }
}
