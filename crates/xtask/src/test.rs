//! `cargo x test`: all tests and proofs, in one command and with one summary.
//!
//! The crates' own tests run first, then everything that watches the binary from outside: the protocol scripts, the
//! real clients, and the proofs that kill, trace and measure it. All of it uses the one profile `checked` and, as
//! `tidy` checks, the same features of every package, so the tree is built once.

use crate::clients::{self, Against};
use crate::conformance::{self, Filter};
use crate::pages;
use crate::proof;
use crate::sabotage;
use crate::step::{self, Tally};
use crate::workspace::{Workspace, cargo};

/// The modules whose tests count instructions under valgrind.
const COUNTING: &[&str] = &["callgrind::", "doubling::"];

pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<(), String> {
    let mut tally = Tally::default();
    step::build_binaries()?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--profile", "checked", "--no-fail-fast"]).args(filter);
    if !step::is_installed("valgrind", "--version") {
        tests.arg("--").args(COUNTING.iter().flat_map(|name| ["--skip", name]));
        COUNTING.iter().for_each(|name| tally.skip(name.trim_end_matches("::"), "there is no valgrind here"));
    }
    step::cargo_test(&mut tests, &mut tally)?;
    let part = filter.map(Filter::new);
    let mut sabotages = Tally::default();
    let tried = sabotage::try_all(workspace, |name| part.as_ref().is_none_or(|part| part.wants(name)), &mut sabotages);
    sabotages.require("sabotages", tried);
    tally.add(sabotages);
    tally.add(from_outside(workspace, filter));
    let mut pages = Tally::default();
    let ran = clients::fetch_wheels(workspace, &mut pages)
        .and_then(|()| pages::run(workspace, |name| part.as_ref().is_none_or(|part| part.wants(name)), &mut pages));
    pages.require("pages", ran);
    tally.add(pages);
    tally.add(proof::run(workspace, |name| part.as_ref().is_none_or(|part| part.wants(name))));
    match filter {
        Some(filter) if tally.is_empty() => Err(format!("no test has `{filter}` in its name")),
        _ => tally.close(),
    }
}

/// Scripts and clients wait for the server's clock most of the time, so they run side by side.
fn from_outside(workspace: &Workspace, filter: Option<&str>) -> Tally {
    let binary = Against::Binary(workspace.binary("ferrymq"));
    let (mut scripts, mut programs) = (Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let played = conformance::play_ours(workspace, filter, &mut scripts);
            scripts.require("scripts", played);
        });
        let part = filter.map(Filter::new);
        let wanted = |name: &str| part.as_ref().is_none_or(|part| part.wants(name));
        let ran = clients::run(workspace, &binary, wanted, &mut programs);
        programs.require("clients", ran);
    });
    scripts.add(programs);
    scripts
}
