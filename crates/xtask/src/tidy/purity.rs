//! No clock, thread, file, socket or randomness below the server: these are arguments, so that time can be faked
//! and a seed reproduces a run. So there is no hash table of the standard library either, whose seed is random.

use syn::visit::{self, Visit};

use super::SourceFile;

/// The crates that may use the operating system. `xtask`, `conformance`, `fuzz` and `testkit` may, too: they are for
/// tests.
const SHELL: &[&str] = &[
    "server",
    "storage",
    "admin",
    "testkit",
    "xtask",
    "conformance",
    "conformance-lapin",
    "conformance-proof",
    "fuzz",
];

/// Paths that use the operating system, and the exceptions below them.
const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::os",
    "tokio",
    "mio",
    "rand",
    "getrandom",
    "libc",
];

/// Tables whose order is another one in each process, and what needs the system's random numbers for that.
const UNORDERED: &[&str] = &[
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::hash::RandomState",
];

pub fn complaints(file: &SourceFile<'_>) -> Vec<String> {
    if SHELL.contains(&file.package.short()) || file.is_test() {
        return Vec::new();
    }
    let mut paths = Paths::default();
    paths.visit_file(&file.syntax);
    let complaint = |(path, line): &(String, usize)| Some(format!("{}:{line}: `{path}` {}", file.shown, remedy(path)?));
    paths.found.iter().filter_map(complaint).collect()
}

/// Why a path may not be used, and what to do instead; `None` if it may.
fn remedy(path: &str) -> Option<&'static str> {
    let is_below = |root: &&str| path == *root || path.starts_with(&format!("{root}::"));
    // An import of the module would hide which of its items are used.
    if FORBIDDEN.iter().any(is_below) || path == "std::time" {
        return Some("is for the shell; take time and chance as arguments");
    }
    if UNORDERED.iter().any(is_below) || path == "std::collections" {
        return Some(
            "may have another order in each process; take a BTreeMap or BTreeSet, or for lookups only a table of \
             hashbrown",
        );
    }
    None
}

/// Every path of a file in full, outside of `#[cfg(test)]`.
#[derive(Default)]
struct Paths {
    found: Vec<(String, usize)>,
}

impl Paths {
    fn take_use(&mut self, prefix: &str, tree: &syn::UseTree) {
        let joined = |ident: &syn::Ident| {
            if prefix.is_empty() { ident.to_string() } else { format!("{prefix}::{ident}") }
        };
        let (path, line) = match tree {
            syn::UseTree::Path(path) => return self.take_use(&joined(&path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.take_use(prefix, item));
            }
            syn::UseTree::Name(name) if name.ident == "self" => (prefix.to_owned(), name.ident.span()),
            syn::UseTree::Name(name) => (joined(&name.ident), name.ident.span()),
            syn::UseTree::Rename(rename) => (joined(&rename.ident), rename.ident.span()),
            syn::UseTree::Glob(glob) => (prefix.to_owned(), glob.star_token.spans[0]),
        };
        self.found.push((path, line.start().line));
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.take_use("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.found.push((words.join("::"), first.ident.span().start().line));
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_of(text: &str) -> Vec<String> {
        let mut paths = Paths::default();
        paths.visit_file(&syn::parse_file(text).unwrap());
        paths.found.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn nested_imports_are_seen_in_full() {
        assert_eq!(
            paths_of("use std::{fs::{self, File}, time::Duration as D};"),
            ["std::fs", "std::fs::File", "std::time::Duration"]
        );
    }

    #[test]
    fn what_differs_in_each_process_is_refused() {
        let refused = |text: &str| paths_of(text).iter().any(|path| remedy(path).is_some());
        for text in [
            "use std::collections::{BTreeMap, HashMap};",
            "use std::collections::hash_map::Entry;",
            "use std::collections;",
            "use std::collections::*;",
            "fn f() { let _ = std::collections::HashSet::<u8>::new(); }",
            "use std::{hash::RandomState, sync::Arc};",
            "use std::time;",
        ] {
            assert!(refused(text), "{text}");
        }
        for text in ["use std::collections::{BTreeMap, VecDeque, btree_map::Entry};", "use hashbrown::HashMap;"] {
            assert!(!refused(text), "{text}");
        }
    }

    #[test]
    fn test_modules_may_touch_the_world() {
        assert!(paths_of("#[cfg(test)] mod tests { use std::fs; }").is_empty());
    }
}
