//! Routing of a message from an exchange to queues.

use std::collections::BTreeSet;

use ferrymq_model::{Destination, ExchangeKind, Table, Value};

use super::{Binding, Exchange, Reference};

/// A message on its way through exchanges.
#[derive(Clone, Default)]
struct Walk {
    /// Exchanges that it has not visited yet.
    ahead: Vec<String>,
    asked: BTreeSet<String>,
    queues: BTreeSet<String>,
}

impl Reference {
    /// The queues of a message: one answer for each possible choice of the exchanges that route it to one of
    /// several targets.
    pub fn routes(&mut self, exchange: &str, keys: &[Vec<u8>], headers: &Table) -> Vec<BTreeSet<String>> {
        if exchange.is_empty() {
            let named = |key: &Vec<u8>| String::from_utf8(key.clone()).ok();
            return vec![keys.iter().filter_map(named).filter(|name| self.queues.contains_key(name)).collect()];
        }
        let mut routes = Vec::new();
        let mut walks = vec![Walk { ahead: vec![exchange.to_owned()], ..Walk::default() }];
        while let Some(mut walk) = walks.pop() {
            let Some(name) = walk.ahead.pop() else {
                routes.push(walk.queues);
                continue;
            };
            let Some(exchange) = self.exchanges.get(&name) else {
                walks.push(walk);
                continue;
            };
            if !walk.asked.insert(name) {
                self.met.push("publish: came round to an exchange again");
                walks.push(walk);
                continue;
            }
            for way in exchange.ways(keys, headers, &mut self.met) {
                let mut walk = walk.clone();
                for destination in way {
                    match destination {
                        Destination::Queue(name) => drop(walk.queues.insert(name.to_string())),
                        Destination::Exchange(name) => {
                            self.met.push("publish: on to another exchange");
                            walk.ahead.push(name.to_string());
                        }
                    }
                }
                walks.push(walk);
            }
        }
        routes
    }
}

impl Exchange {
    /// Its targets, for each choice that it may make.
    fn ways(&self, keys: &[Vec<u8>], headers: &Table, met: &mut Vec<&'static str>) -> Vec<Vec<Destination>> {
        let mut matching = Vec::new();
        for binding in self.bindings.iter().filter(|binding| self.matches(binding, keys, headers)) {
            if !matching.contains(&binding.to) {
                matching.push(binding.to.clone());
            }
        }
        if matching.is_empty() {
            let alternate = self.alternate.as_ref().and_then(Value::as_text);
            met.extend(alternate.map(|_| "publish: on to an alternate exchange"));
            return vec![alternate.map(|name| Destination::Exchange(name.into())).into_iter().collect()];
        }
        if !self.gives_to_one() {
            return vec![matching];
        }
        if matching.len() > 1 {
            met.push("publish: to one of many");
        }
        if self.kind == ExchangeKind::Random {
            met.push("publish: left to chance");
        }
        matching.into_iter().map(|one| vec![one]).collect()
    }

    fn gives_to_one(&self) -> bool {
        matches!(self.kind, ExchangeKind::ConsistentHash | ExchangeKind::ModulusHash | ExchangeKind::Random)
    }

    fn matches(&self, binding: &Binding, keys: &[Vec<u8>], headers: &Table) -> bool {
        match self.kind {
            ExchangeKind::Direct => keys.contains(&binding.key),
            ExchangeKind::Fanout => true,
            ExchangeKind::Topic => keys.iter().any(|key| topic_matches(&words(&binding.key), &words(key))),
            ExchangeKind::Headers => headers_match(&binding.arguments, headers),
            // Whose message it is, is the broker's choice.
            ExchangeKind::ConsistentHash | ExchangeKind::ModulusHash | ExchangeKind::Random => true,
            _ => unreachable!("the sequences declare no others"),
        }
    }
}

fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|byte| *byte == b'.').collect() }
}

pub fn topic_matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    match (pattern, key) {
        ([], key) => key.is_empty(),
        ([b"#", rest @ ..], key) => (0..=key.len()).any(|skipped| topic_matches(rest, &key[skipped..])),
        (_, []) => false,
        ([word, rest @ ..], [first, others @ ..]) => (*word == b"*" || word == first) && topic_matches(rest, others),
    }
}

pub fn headers_match(arguments: &Table, headers: &Table) -> bool {
    let kind = arguments.get("x-match").and_then(Value::as_text).unwrap_or("all");
    let looked_at = |key: &str| key != "x-match" && (kind.ends_with("-with-x") || !key.starts_with("x-"));
    let matches = |(key, wanted): (&str, &Value)| match headers.get(key) {
        None => false,
        Some(header) => *wanted == Value::Void || header == wanted,
    };
    let mut found = arguments.iter().filter(|(key, _)| looked_at(key)).map(matches);
    if kind.starts_with("any") { found.any(|one| one) } else { found.all(|one| one) }
}
