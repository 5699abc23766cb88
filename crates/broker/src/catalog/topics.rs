//! Topic patterns: words between dots, where `*` is any one word and `#` any number of words.

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::bindings::Target;
use super::routing::{Found, Targets};

/// Patterns as a tree with a word on each edge. A routing key walks it with all nodes that it may have reached at once,
/// so that many `#` cost a set of nodes and never a search.
#[derive(Debug)]
pub(super) struct Topics {
    nodes: Slab<Node>,
    root: usize,
}

#[derive(Debug, Default)]
struct Node {
    words: HashMap<Box<[u8]>, usize>,
    /// Behind `*`.
    any: Option<usize>,
    /// Behind `#`.
    rest: Option<usize>,
    /// Whether this node stands behind `#` itself: any word leads back to it.
    repeats: bool,
    targets: Targets,
}

/// Nodes that a key may have reached.
type Reached = SmallVec<[usize; 32]>;

impl Default for Topics {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::default());
        Self { nodes, root }
    }
}

impl Topics {
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

    /// Finds the targets of all patterns that match.
    pub(super) fn matches(&self, key: &[u8], found: &mut Found<'_>) {
        let (mut reached, mut next) = (Reached::new(), Reached::new());
        self.enter(self.root, &mut reached);
        for word in words(key) {
            for &at in &reached {
                let node = &self.nodes[at];
                if node.repeats {
                    self.enter(at, &mut next);
                }
                if let Some(&child) = node.words.get(word) {
                    self.enter(child, &mut next);
                }
                if let Some(child) = node.any {
                    self.enter(child, &mut next);
                }
            }
            // Two ways may lead to one node.
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut reached, &mut next);
            next.clear();
            if reached.is_empty() {
                return;
            }
        }
        for &at in &reached {
            found.add_all(&self.nodes[at].targets);
        }
    }

    /// A node is reached, and with it the one behind `#`, which may stand for no word.
    fn enter(&self, at: usize, reached: &mut Reached) {
        reached.push(at);
        if let Some(rest) = self.nodes[at].rest {
            self.enter(rest, reached);
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
        let child = self.nodes.insert(Node { repeats: word == b"#", ..Node::default() });
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

/// The words of a key or pattern. The empty one has none; between two dots that touch is an empty word.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|byte| *byte == b'.').skip(usize::from(key.is_empty()))
}
