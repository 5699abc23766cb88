//! The programs with amqplib in `conformance/node`.

use std::path::PathBuf;
use std::process::Command;

use super::program::Program;
use super::{Wanted, all_there, find, install_once, read};
use crate::step::{self, Tally};
use crate::workspace::Workspace;

pub fn programs(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let folder = workspace.root.join("conformance/node");
    let found = find(&folder, "test_", ".js", wanted)?;
    if !all_there(&[("node", "--version"), ("npm", "--version")], found.iter().map(|(name, _)| &**name), tally) {
        return Ok(Vec::new());
    }
    let installed = workspace.target.join("clients/node");
    let lock = read(&folder.join("package-lock.json"))?;
    install_once(&installed, &lock, || {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(folder.join(file), installed.join(file)).map_err(|why| format!("{file}: {why}"))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&installed);
        step::run("amqplib", npm.env("npm_config_cache", installed.join("cache")))
    })?;
    let modules = installed.join("node_modules");
    let program =
        |(name, path): (String, PathBuf)| Program::new(&name, "node").arguments([path]).variable("NODE_PATH", &modules);
    Ok(found.into_iter().map(program).collect())
}
