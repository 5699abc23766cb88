//! `cargo x test`: everything that proves the product, in one command and with one summary.
//!
//! The crates' own tests come first, then what watches the binary from outside: the protocol scripts, the real clients,
//! and the proofs that kill, trace and measure it. All of it uses the one profile `checked`, so the tree is built once.

use std::process::Command;

use crate::clients::{self, Against};
use crate::conformance;
use crate::proof;
use crate::step::{self, Tally};
use crate::workspace::{Workspace, cargo};

pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<(), String> {
    let mut tally = Tally::default();
    step::build_binaries()?;
    let mut tests = Command::new(cargo());
    tests.args(["test", "--workspace", "--profile", "checked", "--no-fail-fast"]).args(filter);
    step::cargo_test(&mut tests, &mut tally)?;
    tally.add(from_outside(workspace, filter));
    tally.add(proof::run(workspace, |name| filter.is_none_or(|filter| name.contains(filter))));
    tally.close()
}

/// Scripts and clients wait for the server's clock most of the time, so they run side by side.
fn from_outside(workspace: &Workspace, filter: Option<&str>) -> Tally {
    let binary = Against::Binary(workspace.binary("ferrymq"));
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let (mut scripts, mut programs) = (Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let played = conformance::play_ours(workspace, filter, &mut scripts);
            scripts.require("scripts", played);
        });
        let ran = clients::run(workspace, &binary, wanted, &mut programs);
        programs.require("clients", ran);
    });
    scripts.add(programs);
    scripts
}
