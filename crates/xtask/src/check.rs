//! `cargo x check`: what a developer runs after each change, in about a minute.

use std::process::Command;

use crate::step::TestProgram;
use crate::workspace::{Workspace, cargo};
use crate::{step, tidy};

/// Crates whose tests open files, sockets or processes; `cargo x test` runs them.
const SHELL: &[&str] = &["server", "storage", "admin", "conformance", "conformance-lapin", "conformance-proof", "fuzz"];

pub fn run(workspace: &Workspace) -> Result<(), String> {
    step::run("format", cargo().args(["fmt", "--all", "--check"]))?;
    tidy::run(workspace, false)?;
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--profile", "checked"]).args(["--", "-D", "warnings"]);
    step::run("clippy", &mut clippy)?;
    let programs = step::build_tests(workspace)?;
    let is_pure = |program: &&TestProgram| {
        let package = workspace.members.iter().find(|package| package.folder == program.folder);
        package.is_some_and(|package| !SHELL.contains(&package.short()))
    };
    let mut failed = Vec::new();
    for program in programs.iter().filter(is_pure) {
        let name = format!("tests in {}", workspace.shown(&program.folder));
        failed.extend(
            step::run(&name, Command::new(&program.executable).arg("--quiet").current_dir(&program.folder)).err(),
        );
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) }
}
