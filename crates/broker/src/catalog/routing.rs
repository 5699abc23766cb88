//! From an exchange and a routing key to queues. Pure: whoever asks twice gets the same answer while the vhost's epoch
//! stands still.

use ferrymq_model::{ExchangeKind, QueueId, Refusal, Table};
use hashbrown::HashMap;

use super::bindings::Binding;
use super::headers::Matcher;
use super::topics::Topics;
use super::{Catalog, Vhost};

/// The bindings of an exchange, arranged for its kind.
#[derive(Debug)]
pub(super) enum Router {
    Direct(HashMap<Box<[u8]>, Targets>),
    Fanout(Targets),
    Topic(Topics),
    /// By the bindings' slots.
    Headers(Vec<(usize, Matcher, QueueId)>),
}

/// Queues in ascending order, each with the number of bindings that lead to it.
#[derive(Debug, Default)]
pub(super) struct Targets(Vec<(QueueId, u32)>);

impl Targets {
    pub(super) fn add(&mut self, queue: QueueId) {
        match self.find(queue) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (queue, 1)),
        }
    }

    pub(super) fn remove(&mut self, queue: QueueId) {
        let at = self.find(queue).expect("only a target that is there is removed");
        self.0[at].1 -= 1;
        if self.0[at].1 == 0 {
            self.0.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn append_to(&self, targets: &mut Vec<QueueId>) {
        targets.extend(self.0.iter().map(|(queue, _)| *queue));
    }

    fn find(&self, queue: QueueId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&queue, |(target, _)| *target)
    }
}

impl Router {
    pub(super) fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(HashMap::new()),
            ExchangeKind::Fanout => Self::Fanout(Targets::default()),
            ExchangeKind::Topic => Self::Topic(Topics::default()),
            ExchangeKind::Headers => Self::Headers(Vec::new()),
        }
    }

    pub(super) fn add(&mut self, slot: usize, binding: &Binding) {
        match self {
            Self::Direct(by_key) => by_key.entry(binding.key.clone()).or_default().add(binding.queue),
            Self::Fanout(targets) => targets.add(binding.queue),
            Self::Topic(topics) => topics.add(&binding.key, binding.queue),
            Self::Headers(matchers) => matchers.push((slot, Matcher::new(&binding.arguments), binding.queue)),
        }
    }

    pub(super) fn remove(&mut self, slot: usize, binding: &Binding) {
        match self {
            Self::Direct(by_key) => {
                let targets = by_key.get_mut(&*binding.key).expect("a binding's key is there");
                targets.remove(binding.queue);
                if targets.is_empty() {
                    by_key.remove(&*binding.key);
                }
            }
            Self::Fanout(targets) => targets.remove(binding.queue),
            Self::Topic(topics) => topics.remove(&binding.key, binding.queue),
            Self::Headers(matchers) => matchers.retain(|(other, ..)| *other != slot),
        }
    }

    /// Appends the targets for each of `keys`. Some may come twice.
    fn collect<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
        headers: &dyn Fn() -> Table,
        targets: &mut Vec<QueueId>,
    ) {
        match self {
            Self::Direct(by_key) => {
                keys.filter_map(|key| by_key.get(key)).for_each(|found| found.append_to(targets));
            }
            Self::Fanout(all) => all.append_to(targets),
            Self::Topic(topics) => keys.for_each(|key| topics.matches(key, targets)),
            Self::Headers(matchers) => {
                let headers = headers();
                let matching = matchers.iter().filter(|(_, matcher, _)| matcher.matches(&headers));
                targets.extend(matching.map(|(_, _, queue)| *queue));
            }
        }
    }
}

impl Catalog {
    /// Fills `targets` with the queues that a message goes to: each once, in ascending order. `more_keys` are further
    /// routing keys; `headers` is asked at most once, and only where an exchange looks at them.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] where the exchange is not there.
    pub fn route(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &[u8],
        more_keys: &[Vec<u8>],
        headers: &dyn Fn() -> Table,
        targets: &mut Vec<QueueId>,
    ) -> Result<(), Refusal> {
        targets.clear();
        let vhost = self.vhost(vhost)?;
        let keys = std::iter::once(routing_key).chain(more_keys.iter().map(Vec::as_slice));
        if exchange.is_empty() {
            targets.extend(keys.filter_map(|key| vhost.queue_named(key)));
        } else {
            vhost.exchange(exchange)?.router.collect(keys, headers, targets);
        }
        if targets.len() > 1 && !targets.is_sorted_by(|a, b| a < b) {
            targets.sort_unstable();
            targets.dedup();
        }
        Ok(())
    }
}

impl Vhost {
    fn queue_named(&self, name: &[u8]) -> Option<QueueId> {
        self.queues.get(std::str::from_utf8(name).ok()?).copied()
    }
}
