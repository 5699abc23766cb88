//! `cargo x test`: everything that proves the product, in one command and with one summary.
//!
//! All of it uses the one profile `checked`, so the tree is built once.

use std::process::Command;

use crate::step::{self, Tally};
use crate::workspace::cargo;

pub fn run(filter: Option<&str>) -> Result<(), String> {
    let mut tally = Tally::default();
    step::build_binaries()?;
    let mut tests = Command::new(cargo());
    tests.args(["test", "--workspace", "--profile", "checked", "--no-fail-fast"]).args(filter);
    step::cargo_test(&mut tests, &mut tally)?;
    tally.close()
}
