//! `cargo x fuzz`: searches for inputs that break a promise, with the program in `fuzz/`. `cargo x test` replays
//! what it has found.

use std::process::Command;

use crate::step;
use crate::workspace::Workspace;

pub fn run(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    step::build_binaries()?;
    step::run("fuzz", Command::new(workspace.binary("ferrymq-fuzz")).current_dir(&workspace.root).args(args))
}
