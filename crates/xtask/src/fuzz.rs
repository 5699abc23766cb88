//! `cargo x fuzz`: hunts for inputs that break a promise, with the program in `fuzz/`. What it has found is replayed by
//! `cargo x test`.

use std::process::Command;

use crate::step;
use crate::workspace::cargo;

pub fn run(args: &[String]) -> Result<(), String> {
    let mut hunt = Command::new(cargo());
    hunt.args(["run", "--quiet", "--profile", "checked", "--package", "ferrymq-fuzz", "--"]).args(args);
    step::run("fuzz", &mut hunt)
}
