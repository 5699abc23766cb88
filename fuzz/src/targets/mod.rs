//! What is tried out.

mod frames;
mod recovery;
mod tables;

use std::collections::BTreeSet;
use std::fmt::Debug;

/// What an input made a target come across.
pub type Marks = BTreeSet<String>;

/// Something that reads bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Reads the bytes; panics if a promise is broken.
    pub read: fn(&[u8]) -> Marks,
    /// How many inputs a short hunt tries.
    pub tries: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", read: frames::read, tries: 2_000 },
    Target { name: "tables", read: tables::read, tries: 2_000 },
    Target { name: "recovery", read: recovery::read, tries: 60 },
];

/// The name of a variant, without what it holds.
fn variant(value: &impl Debug) -> String {
    let shown = format!("{value:?}");
    shown.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
