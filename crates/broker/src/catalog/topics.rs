//! Topic patterns: words between dots, where `*` is any one word and `#` any number of words.

use std::collections::BTreeMap;

use ferrymq_model::Refusal;
use slab::Slab;
use smallvec::SmallVec;

use super::bindings::Target;
use super::routing::Found;
use super::targets::Targets;
use crate::keyed::{HashKey, KeyedTable};

/// The most words of a key or a pattern: as many as fit into the 255 bytes of AMQP 0-9-1. The time and the memory that a
/// key takes grow with the square of this number. (Other servers have such a limit for the levels of MQTT's topics, too:
/// in Mosquitto it is 200.)
const WORDS_MAX: usize = 256;

/// Whether a key or a pattern has more words than patterns are compared with.
pub(super) fn has_too_many_words(key: &[u8]) -> bool {
    key.len() >= WORDS_MAX && words(key).nth(WORDS_MAX).is_some()
}

/// The refusal of such a key.
pub(super) fn too_many_words() -> Refusal {
    Refusal::PreconditionFailed(format!("a key of a topic exchange has at most {WORDS_MAX} words"))
}

/// Patterns as a tree with a word on each edge. Matching a routing key visits every node at most once, with all
/// positions in the key at which the node can match. So a key costs at most as much as all patterns have words.
#[derive(Debug)]
pub(super) struct Topics {
    nodes: Slab<Node>,
    root: usize,
}

#[derive(Debug)]
struct Node {
    words: KeyedTable<Box<[u8]>, usize>,
    /// Behind `*`.
    any: Option<usize>,
    /// Behind `#`.
    rest: Option<usize>,
    targets: Targets,
}

impl Node {
    fn new(key: HashKey) -> Self {
        Self { words: KeyedTable::with_hasher(key), any: None, rest: None, targets: Targets::default() }
    }
}

impl Topics {
    pub(super) fn new(key: HashKey) -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new(key));
        Self { nodes, root }
    }

    pub(super) fn add(&mut self, pattern: &[u8], target: &Target) {
        let mut at = self.root;
        for word in words(pattern) {
            at = match self.child(at, word) {
                Some(child) => child,
                None => self.grow(at, word),
            };
        }
        self.nodes[at].targets.add(target);
    }

    pub(super) fn remove(&mut self, pattern: &[u8], target: &Target) {
        let mut path = vec![self.root];
        for word in words(pattern) {
            let at = path[path.len() - 1];
            path.push(self.child(at, word).expect("a pattern that was added has its nodes"));
        }
        self.nodes[path[path.len() - 1]].targets.remove(target);
        for (word, pair) in words(pattern).collect::<Vec<_>>().into_iter().zip(path.windows(2)).rev() {
            let &[parent, child] = pair else { unreachable!("windows of two") };
            if !self.nodes[child].is_bare() {
                break;
            }
            self.nodes.remove(child);
            self.nodes[parent].forget(word);
        }
    }

    /// Finds the targets of all patterns that match. The key does not have too many words. (AMQP-16)
    pub(super) fn matches(&self, key: &[u8], found: &mut Found<'_>) {
        let words: SmallVec<[&[u8]; 16]> = words(key).collect();
        if words.len() < 64 {
            self.visit(self.root, &1, &Key::<u64>::new(&words), found);
        } else {
            self.visit(self.root, &Many::default().with(0), &Key::<Many>::new(&words), found);
        }
    }

    /// A node is reached at some positions of the key.
    fn visit<P: Places>(&self, at: usize, places: &P, key: &Key<'_, P>, found: &mut Found<'_>) {
        let node = &self.nodes[at];
        if places.has(key.words.len()) {
            found.add_all(&node.targets);
        }
        if let Some(rest) = node.rest {
            self.visit(rest, &places.and_all_behind(&key.all), key, found);
        }
        let before_words = places.and(&key.before_words);
        if before_words.is_empty() {
            return;
        }
        if let Some(any) = node.any {
            self.visit(any, &before_words.behind(), key, found);
        }
        if node.words.len() < before_words.count() {
            for (word, child) in &node.words {
                let alike = key.places_of(word).map(|alike| before_words.and(alike));
                if let Some(alike) = alike.filter(|alike| !alike.is_empty()) {
                    self.visit(*child, &alike.behind(), key, found);
                }
            }
        } else if !node.words.is_empty() {
            before_words.each(|place| {
                // A word that appears again is looked up at its first position.
                let alike = before_words.and(&key.alike[place]);
                if alike.first() == place
                    && let Some(child) = node.words.get(key.words[place])
                {
                    self.visit(*child, &alike.behind(), key, found);
                }
            });
        }
    }

    fn child(&self, at: usize, word: &[u8]) -> Option<usize> {
        let node = &self.nodes[at];
        match word {
            b"*" => node.any,
            b"#" => node.rest,
            word => node.words.get(word).copied(),
        }
    }

    fn grow(&mut self, at: usize, word: &[u8]) -> usize {
        let key = *self.nodes[at].words.hasher();
        let child = self.nodes.insert(Node::new(key));
        let node = &mut self.nodes[at];
        match word {
            b"*" => node.any = Some(child),
            b"#" => node.rest = Some(child),
            word => {
                node.words.insert(word.into(), child);
            }
        }
        child
    }
}

impl Node {
    fn is_bare(&self) -> bool {
        self.targets.is_empty() && self.words.is_empty() && self.any.is_none() && self.rest.is_none()
    }

    fn forget(&mut self, word: &[u8]) {
        match word {
            b"*" => self.any = None,
            b"#" => self.rest = None,
            word => {
                self.words.remove(word);
            }
        }
    }
}

/// A routing key: position `n` is before its word `n`, and the last one is after all words.
struct Key<'a, P> {
    words: &'a [&'a [u8]],
    /// For each word, the positions before equal words.
    alike: SmallVec<[P; 16]>,
    all: P,
    before_words: P,
}

impl<'a, P: Places> Key<'a, P> {
    fn new(words: &'a [&'a [u8]]) -> Self {
        let mut places: BTreeMap<&[u8], P> = BTreeMap::new();
        let small = words.len() <= 8;
        if !small {
            for (place, word) in words.iter().enumerate() {
                let of_word = places.entry(word).or_default();
                *of_word = std::mem::take(of_word).with(place);
            }
        }
        let looked_for = |word: &[u8]| {
            let same = words.iter().enumerate().filter(|(_, other)| **other == word);
            same.fold(P::default(), |places, (place, _)| places.with(place))
        };
        let alike = words.iter().map(|word| if small { looked_for(word) } else { places[*word].clone() }).collect();
        let before_words = (0..words.len()).fold(P::default(), P::with);
        Self { words, alike, all: before_words.clone().with(words.len()), before_words }
    }

    /// The positions before `word`.
    fn places_of(&self, word: &[u8]) -> Option<&P> {
        self.words.iter().position(|other| *other == word).map(|place| &self.alike[place])
    }
}

/// A set of positions.
trait Places: Clone + Default {
    fn has(&self, place: usize) -> bool;
    fn with(self, place: usize) -> Self;
    fn and(&self, other: &Self) -> Self;
    /// Each position moved by one; none of them is the last one.
    fn behind(&self) -> Self;
    /// These, and those of `all` after the first one.
    fn and_all_behind(&self, all: &Self) -> Self;
    fn is_empty(&self) -> bool;
    fn count(&self) -> usize;
    /// The first one of a set that is not empty.
    fn first(&self) -> usize;
    fn each(&self, each: impl FnMut(usize));
}

/// For keys with few words, which are nearly all keys.
impl Places for u64 {
    #[inline]
    fn has(&self, place: usize) -> bool {
        self >> place & 1 == 1
    }

    #[inline]
    fn with(self, place: usize) -> Self {
        self | 1 << place
    }

    #[inline]
    fn and(&self, other: &Self) -> Self {
        self & other
    }

    #[inline]
    fn behind(&self) -> Self {
        self << 1
    }

    #[inline]
    fn and_all_behind(&self, all: &Self) -> Self {
        // The lowest bit and all above it.
        (self | self.wrapping_neg()) & all
    }

    #[inline]
    fn is_empty(&self) -> bool {
        *self == 0
    }

    #[inline]
    fn count(&self) -> usize {
        self.count_ones() as usize
    }

    #[inline]
    fn first(&self) -> usize {
        self.trailing_zeros() as usize
    }

    #[inline]
    fn each(&self, mut each: impl FnMut(usize)) {
        let mut rest = *self;
        while rest != 0 {
            each(rest.first());
            rest &= rest - 1;
        }
    }
}

/// For keys with many words, 64 positions in each part. A missing part is empty.
#[derive(Clone, Default)]
struct Many(SmallVec<[u64; 5]>);

impl Many {
    fn part(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

impl Places for Many {
    fn has(&self, place: usize) -> bool {
        self.part(place / 64).has(place % 64)
    }

    fn with(mut self, place: usize) -> Self {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
        self
    }

    fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one & other).collect())
    }

    fn behind(&self) -> Self {
        let carried = |at: usize| at.checked_sub(1).map_or(0, |before| self.part(before) >> 63);
        // The last one may go into one part more.
        Self((0..=self.0.len()).map(|at| self.part(at) << 1 | carried(at)).collect())
    }

    fn and_all_behind(&self, all: &Self) -> Self {
        let mut begun = false;
        let part = |(at, all): (usize, &u64)| {
            let part = self.part(at);
            let behind = if begun { u64::MAX } else { part.and_all_behind(&u64::MAX) };
            begun |= part != 0;
            behind & all
        };
        Self(all.0.iter().enumerate().map(part).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|part| *part == 0)
    }

    fn count(&self) -> usize {
        self.0.iter().map(Places::count).sum()
    }

    fn first(&self) -> usize {
        let at = self.0.iter().position(|part| *part != 0).unwrap_or(0);
        at * 64 + self.part(at).first()
    }

    fn each(&self, mut each: impl FnMut(usize)) {
        for (at, part) in self.0.iter().enumerate() {
            part.each(|place| each(at * 64 + place));
        }
    }
}

/// The words of a key or pattern. An empty text has none; between two adjacent dots is an empty word. (AMQP-16)
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|byte| *byte == b'.').skip(usize::from(key.is_empty()))
}
