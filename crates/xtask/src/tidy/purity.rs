//! No clock, thread, file, socket or randomness below the server: these are arguments, so that time can be faked
//! and a seed reproduces a run.

use syn::visit::{self, Visit};

use super::SourceFile;

/// The crates that may use the operating system. `xtask`, `conformance` and `fuzz` may, too: they test from
/// outside.
const SHELL: &[&str] =
    &["server", "storage", "admin", "xtask", "conformance", "conformance-lapin", "conformance-proof", "fuzz"];

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

pub fn complaints(file: &SourceFile<'_>) -> Vec<String> {
    if SHELL.contains(&file.package.short()) || file.is_test() {
        return Vec::new();
    }
    let mut paths = Paths::default();
    paths.visit_file(&file.syntax);
    let forbidden = |path: &str| {
        FORBIDDEN.iter().any(|root| path == *root || path.starts_with(&format!("{root}::")))
            // An import of the module would hide which of its items are used.
            || path == "std::time"
    };
    paths
        .found
        .iter()
        .filter(|(path, _)| forbidden(path))
        .map(|(path, line)| {
            format!("{}:{line}: `{path}` is for the shell; take time and chance as arguments", file.shown)
        })
        .collect()
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
    fn test_modules_may_touch_the_world() {
        assert!(paths_of("#[cfg(test)] mod tests { use std::fs; }").is_empty());
    }
}
