//! `cargo x check`: what a developer runs after each change, in about a minute.

use std::process::Command;

use crate::workspace::{Workspace, cargo};
use crate::{step, tidy};

/// Crates whose tests open files, sockets or processes; `cargo x test` runs them.
const SHELL: &[&str] = &["server", "storage", "admin", "conformance", "conformance-lapin", "conformance-proof", "fuzz"];

pub fn run(workspace: &Workspace) -> Result<(), String> {
    step::run("format", Command::new(cargo()).args(["fmt", "--all", "--check"]))?;
    tidy::run(workspace, false)?;
    step::run(
        "clippy",
        Command::new(cargo())
            .args(["clippy", "--workspace", "--all-targets", "--profile", "checked", "--quiet"])
            .args(["--", "-D", "warnings"]),
    )?;
    let mut tests = Command::new(cargo());
    tests.args(["test", "--workspace", "--profile", "checked", "--quiet", "--lib", "--tests"]);
    for package in workspace.members.iter().filter(|package| SHELL.contains(&package.short())) {
        tests.args(["--exclude", &package.name]);
    }
    step::run("pure tests", &mut tests)
}
