//! The targets of the search.

mod frames;
mod recovery;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Debug;

/// The marks of an input: texts that name what a target found in it.
pub type Marks = BTreeSet<String>;

/// Code that reads bytes, with a check of its promises.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and the name of its folder in the corpus.
    pub name: &'static str,
    /// Reads the bytes. Panics if a promise is broken.
    pub read: fn(&[u8]) -> Marks,
    /// How many inputs a short search tries.
    pub tries: u32,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", read: frames::read, tries: 2_000 },
    Target { name: "tables", read: tables::read, tries: 2_000 },
    Target { name: "recovery", read: recovery::read, tries: 60 },
];

/// The name of a variant, without its fields.
fn variant(value: &impl Debug) -> String {
    let shown = format!("{value:?}");
    shown.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
