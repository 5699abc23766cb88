//! The programs with RabbitMQ's Java client in `conformance/java`: Maven downloads it, javac compiles all of them
//! at once.

use std::process::Command;

use super::program::Program;
use super::{Wanted, all_there, install_once, read};
use crate::step::{self, Tally};
use crate::workspace::Workspace;

/// The programs and their classes.
const PROGRAMS: &[(&str, &str)] = &[
    ("client java messages", "Messages"),
    ("client java transactions", "Transactions"),
    ("client java recovers", "Recovers"),
];

/// A version of the plugin that all recent versions of Maven can run.
const FETCH: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

pub fn programs(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let asked_for: Vec<_> = PROGRAMS.iter().filter(|(name, _)| wanted(name)).collect();
    let tools = &[("java", "-version"), ("javac", "-version"), ("mvn", "--version")];
    if !all_there(tools, asked_for.iter().map(|(name, _)| *name), tally) {
        return Ok(Vec::new());
    }
    let folder = workspace.root.join("conformance/java");
    let installed = workspace.target.join("clients/java");
    let pom = folder.join("pom.xml");
    install_once(&installed, &read(&pom)?, || {
        let mut maven = Command::new("mvn");
        maven.args(["--batch-mode", "--quiet", "--file"]).arg(&pom).arg(FETCH);
        maven.arg(format!("-Dmaven.repo.local={}", installed.join("repository").display()));
        maven.arg(format!("-DoutputDirectory={}", installed.join("lib").display()));
        step::run("java client", &mut maven)
    })?;
    let classes = installed.join("classes");
    let libraries = format!("{}/*", installed.join("lib").display());
    let mut compile = Command::new("javac");
    compile.args(["-Xlint:all", "-Werror", "-cp", &libraries, "-d"]).arg(&classes);
    let sources = std::fs::read_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let sources = sources.filter_map(|entry| Some(entry.ok()?.path()));
    compile.args(sources.filter(|path| path.extension().is_some_and(|kind| kind == "java")));
    step::run("java programs", &mut compile)?;
    let class_path = format!("{libraries}:{}", classes.display());
    let program = |(name, class): &(&str, &str)| Program::new(name, "java").arguments(["-cp", &*class_path, class]);
    Ok(asked_for.into_iter().map(program).collect())
}
