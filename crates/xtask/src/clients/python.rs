//! The Python programs in `conformance/clients`, and the Python environment with their clients.

use std::path::PathBuf;
use std::process::Command;

use super::program::Program;
use super::{Wanted, all_there, find, install_once, read};
use crate::step::{self, Tally};
use crate::workspace::Workspace;

const FOLDER: &str = "conformance/clients";

/// Every `test_*.py`; none without Python.
pub fn programs(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let found = find(&workspace.root.join(FOLDER), "test_", ".py", wanted)?;
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let Some(python) = with_clients(workspace, &names, tally)? else { return Ok(Vec::new()) };
    let program =
        |(name, path): (String, PathBuf)| Program::with_its_own_server(&name, python.clone()).arguments([path]);
    Ok(found.into_iter().map(program).collect())
}

/// Downloads pika for the pages, which tell their readers to install it and have no network. Without Python, the
/// pages are not run either.
pub fn fetch_wheels(workspace: &Workspace, tally: &mut Tally) -> Result<(), String> {
    let Some(python) = with_clients(workspace, &["wheels"], tally)? else { return Ok(()) };
    let requirements = requirements(workspace)?;
    let pika = requirements.lines().find(|line| line.starts_with("pika==")).ok_or("pika is not pinned")?;
    let wheels = workspace.target.join("clients/wheels");
    install_once(&wheels, pika, || {
        let mut download = Command::new(&python);
        download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest"]);
        step::run("pika's wheel", download.arg(&wheels).arg(pika))
    })
}

/// The pinned versions.
pub fn requirements(workspace: &Workspace) -> Result<String, String> {
    read(&workspace.root.join(FOLDER).join("requirements.txt"))
}

/// A virtual environment under `target/`, made again when the pinned versions change; none if nobody needs it, or
/// without Python.
pub fn with_clients(workspace: &Workspace, for_whom: &[&str], tally: &mut Tally) -> Result<Option<PathBuf>, String> {
    if !all_there(&[("python3", "--version")], for_whom.iter().copied(), tally) {
        return Ok(None);
    }
    let environment = workspace.target.join("clients/python");
    let python = environment.join("bin/python");
    install_once(&environment, &requirements(workspace)?, || {
        let mut make = Command::new("python3");
        step::run("python environment", make.args(["-m", "venv", "--clear"]).arg(&environment))?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
        step::run("python clients", install.arg(workspace.root.join(FOLDER).join("requirements.txt")))
    })?;
    Ok(Some(python))
}
