//! The programs with amqp091-go in `conformance/go`: one binary, which is told which of them to be.

use std::process::Command;

use super::program::Program;
use super::{Wanted, all_there};
use crate::step::{self, Tally};
use crate::workspace::Workspace;

/// The programs, and what they are called on the command line.
const PROGRAMS: &[(&str, &str)] = &[
    ("client go messages", "messages"),
    ("client go transactions", "transactions"),
    ("client go reconnects", "reconnects"),
];

pub fn programs(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let asked_for: Vec<_> = PROGRAMS.iter().filter(|(name, _)| wanted(name)).collect();
    if !all_there(&[("go", "version")], asked_for.iter().map(|(name, _)| *name), tally) {
        return Ok(Vec::new());
    }
    let installed = workspace.target.join("clients/go");
    let binary = installed.join("programs");
    let mut build = Command::new("go");
    build.args(["build", "-modcacherw", "-o"]).arg(&binary).arg(".").current_dir(workspace.root.join("conformance/go"));
    build.env("GOMODCACHE", installed.join("modules")).env("GOCACHE", installed.join("cache"));
    step::run("go programs", &mut build)?;
    let program = |(name, argument): &(&str, &str)| Program::new(name, &binary).arguments([argument]);
    Ok(asked_for.into_iter().map(program).collect())
}
