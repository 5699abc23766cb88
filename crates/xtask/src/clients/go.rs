//! The programs with amqp091-go in `conformance/go`: one binary, whose first argument says which program to run.
//! And the tests that amqp091-go publishes with its module, in the same version.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::Program;
use super::{Wanted, all_there, suites};
use crate::step::{self, Tally};
use crate::workspace::Workspace;

/// The programs, and their names on the command line.
const PROGRAMS: &[(&str, &str)] = &[
    ("client go messages", "messages"),
    ("client go transactions", "transactions"),
    ("client go reconnects", "reconnects"),
];

const SUITE: &str = "suite amqp091-go";
const MODULE: &str = "github.com/rabbitmq/amqp091-go";

pub fn programs(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let asked_for: Vec<_> = PROGRAMS.iter().filter(|(name, _)| wanted(name)).collect();
    let names: Vec<&str> = asked_for.iter().map(|(name, _)| *name).chain(wanted(SUITE).then_some(SUITE)).collect();
    if !all_there(&[("go", "version")], names.into_iter(), tally) {
        return Ok(Vec::new());
    }
    let installed = workspace.target.join("clients/go");
    let source = workspace.root.join("conformance/go");
    let binary = installed.join("programs");
    let mut build = go(&installed, &source);
    step::run("go programs", build.args(["build", "-modcacherw", "-o"]).arg(&binary).arg("."))?;
    let program = |(name, argument): &(&str, &str)| Program::new(name, &binary).arguments([argument]);
    let mut programs: Vec<Program> = asked_for.into_iter().map(program).collect();
    if wanted(SUITE) {
        programs.push(suite(workspace, &installed, &source)?);
    }
    Ok(programs)
}

/// A Go command that keeps downloads and builds below `installed`.
fn go(installed: &Path, folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder);
    command.env("GOMODCACHE", installed.join("modules")).env("GOCACHE", installed.join("cache"));
    command
}

/// The client's own tests, in one binary.
fn suite(workspace: &Workspace, installed: &Path, source: &Path) -> Result<Program, String> {
    let folder = unpacked(installed, source)?;
    let binary = installed.join("suite");
    let mut build = go(installed, &folder);
    build.args(["test", "-modcacherw", "-tags", "integration", "-c", "-o"]).arg(&binary).arg(".");
    step::run("tests of amqp091-go", &mut build)?;
    let program = Program::new(SUITE, &binary)
        .arguments([format!("-test.skip=^({})$", suites::left_out_of(workspace, SUITE)?.join("|"))])
        .inside(&folder)
        .told_by(|place| vec![("AMQP_URL", format!("amqp://guest:guest@{}:{}/", place.host, place.port))]);
    Ok(program)
}

/// A copy of the module that these programs use: Go does not build in its own cache.
fn unpacked(installed: &Path, source: &Path) -> Result<PathBuf, String> {
    let path = source.join("go.mod");
    let text = std::fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
    let version = text.split_once(MODULE).and_then(|(_, rest)| rest.split_whitespace().next());
    let name = format!("{MODULE}@{}", version.ok_or("go.mod does not name amqp091-go")?);
    let folder = installed.join("source").join(&name);
    if !folder.is_dir() {
        std::fs::create_dir_all(folder.parent().expect("it has one")).map_err(|why| format!("{name}: {why}"))?;
        let mut copy = Command::new("cp");
        step::run("source of amqp091-go", copy.arg("-R").arg(installed.join("modules").join(&name)).arg(&folder))?;
    }
    Ok(folder)
}
