//! The tests that clients publish with their own packages, run without changes.
//!
//! They are downloaded below `target/`, in the version that this project's programs use.
//! `conformance/suites/left_out.txt` says which of their tests are left out, and why.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::Program;
use super::python;
use super::{CERTIFICATES, Wanted};
use crate::step::{self, Tally};
use crate::workspace::{Workspace, cargo, cargo_path};

const LEFT_OUT: &str = "conformance/suites/left_out.txt";

/// A Python client whose source package has tests that need a server.
struct Suite {
    name: &'static str,
    package: &'static str,
    tests: &'static str,
    /// Where the tests look for certificates.
    certificates: Option<&'static str>,
}

const PYTHON: &[Suite] = &[
    Suite { name: "suite kombu", package: "kombu", tests: "t/integration/test_py_amqp.py", certificates: None },
    Suite { name: "suite py-amqp", package: "amqp", tests: "t/integration", certificates: Some("t/certs") },
];

pub fn programs(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let suites: Vec<&Suite> = PYTHON.iter().filter(|suite| wanted(suite.name)).collect();
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let mut programs = Vec::new();
    if let Some(python) = python::with_clients(workspace, &names, tally)? {
        let left_out = left_out(workspace)?;
        for suite in suites {
            programs.push(suite.program(workspace, &python, &left_out)?);
        }
    }
    if wanted("suite lapin") {
        programs.push(lapin(workspace)?);
    }
    Ok(programs)
}

impl Suite {
    fn program(&self, workspace: &Workspace, python: &Path, left_out: &[LeftOut]) -> Result<Program, String> {
        let folder = self.fetch(workspace, python)?;
        if let Some(link) = self.certificates.map(|certificates| folder.join(certificates)) {
            // A link from an earlier run may lead to another folder, if the checkout was moved or copied.
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(workspace.target.join(CERTIFICATES), &link)
                .map_err(|why| format!("{}: {why}", link.display()))?;
        }
        let arguments = ["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-W", "ignore", self.tests];
        let of_this = left_out.iter().filter(|left_out| left_out.suite == self.name);
        let program = Program::new(self.name, python)
            .arguments(arguments)
            .arguments(of_this.map(|left_out| format!("--deselect={}", left_out.test)))
            .inside(&folder)
            .told_by(|place| {
                let variables = [
                    ("RABBITMQ_HOST", place.host),
                    ("RABBITMQ_5672_TCP", place.port),
                    ("RABBITMQ_5671_TCP", place.tls_port),
                ];
                variables.map(|(name, value)| (name, value.to_owned())).to_vec()
            });
        Ok(program)
    }

    /// Unpacks the source package of the pinned version, once.
    fn fetch(&self, workspace: &Workspace, python: &Path) -> Result<PathBuf, String> {
        let requirements = python::requirements(workspace)?;
        let pinned = |line: &&str| line.strip_prefix(self.package).is_some_and(|rest| rest.starts_with("=="));
        let requirement = requirements.lines().find(pinned).ok_or(format!("{} is not pinned", self.package))?;
        let suites = workspace.target.join("clients/suites");
        let stem = requirement.replace("==", "-");
        let folder = suites.join(&stem);
        if folder.is_dir() {
            return Ok(folder);
        }
        let mut download = Command::new(python);
        download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary"]);
        download.args([self.package, "--dest"]).arg(&suites).arg(requirement);
        step::run(&format!("source of {stem}"), &mut download)?;
        let mut unpack = Command::new(python);
        unpack.args(["-m", "tarfile", "--extract"]).arg(suites.join(format!("{stem}.tar.gz"))).arg(&suites);
        step::run(&format!("unpacking {stem}"), &mut unpack)?;
        Ok(folder)
    }
}

/// lapin's tests are in its crate, which cargo has downloaded for this project's program.
fn lapin(workspace: &Workspace) -> Result<Program, String> {
    let crates = &workspace.foreign;
    let lapin = crates.iter().find(|package| package.name == "lapin").ok_or("lapin is not in the lock file")?;
    let mut arguments =
        ["test", "--locked", "--tests", "--no-default-features", "--features", "tokio,smol"].map(Into::into).to_vec();
    arguments.push("--manifest-path".into());
    arguments.push(lapin.folder.join("Cargo.toml").into_os_string());
    arguments.push("--target-dir".into());
    arguments.push(workspace.target.join("clients/lapin").into_os_string());
    let mut build = cargo();
    step::run("tests of lapin", build.args(&arguments).arg("--no-run").env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    let program = Program::new("suite lapin", cargo_path())
        .arguments(arguments)
        .variable("CARGO_PROFILE_DEV_DEBUG", "0")
        .told_by(|place| vec![("AMQP_ADDR", format!("amqp://{}:{}/%2f", place.host, place.port))]);
    Ok(program)
}

/// A foreign test that is not run. Its reason is for readers.
struct LeftOut {
    suite: String,
    test: String,
}

/// The tests of a suite that are not run.
pub fn left_out_of(workspace: &Workspace, suite: &str) -> Result<Vec<String>, String> {
    let all = left_out(workspace)?;
    Ok(all.into_iter().filter(|left_out| left_out.suite == suite).map(|left_out| left_out.test).collect())
}

/// Lines of the form `suite NAME | TEST | REASON`.
fn left_out(workspace: &Workspace) -> Result<Vec<LeftOut>, String> {
    let path = workspace.root.join(LEFT_OUT);
    let text = std::fs::read_to_string(&path).map_err(|why| format!("{LEFT_OUT}: {why}"))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let mut parts = line.split(" | ").map(|part| part.trim().to_owned());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(suite), Some(test), Some(_reason)) => Ok(LeftOut { suite, test }),
            _ => Err(format!("{LEFT_OUT}: no `suite | test | reason`: {line}")),
        }
    };
    lines.map(read).collect()
}
