//! Proofs that watch the real binary from outside: kills under load, its system calls, its memory. They are in the
//! program `conformance/proof`, which runs here.

use std::process::Command;

use crate::step::{self, Tally};
use crate::workspace::Workspace;

const PROGRAM: &str = "ferrymq-conformance-proof";
/// The exit code of a proof that cannot run on this machine.
const SKIPPED: i32 = 77;

/// What `cargo x test` runs: each proof's name, and its arguments.
const PROOFS: &[(&str, &[&str])] = &[
    ("proof crash", &["crash", "--rounds", "20"]),
    ("proof power loss", &["power-loss", "--rounds", "5"]),
    ("proof power loss without syncs", &["power-loss", "--rounds", "5", "--without-syncs"]),
    ("proof confirms", &["confirms"]),
    ("proof memory persistent", &["memory", "--messages", "400000"]),
    ("proof memory persistent in 1000 queues", &["memory", "--messages", "400000", "--queues", "1000"]),
    ("proof memory transient", &["memory", "--messages", "600000", "--transient"]),
    ("proof memory transient in 1000 queues", &["memory", "--messages", "600000", "--queues", "1000", "--transient"]),
    (
        "proof memory transient of 10 kB",
        &["memory", "--messages", "60000", "--body-bytes", "10000", "--transient", "--megabytes-max", "70"],
    ),
];

/// `cargo x crash [--rounds N] [--seed S]`.
pub fn crash(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    step::build_binaries()?;
    step::run("crash", program(workspace).arg("crash").args(args))
}

/// `cargo x power-loss [--rounds N] [--seed S] [--without-syncs]`.
pub fn power_loss(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    step::build_binaries()?;
    let status = program(workspace).arg("power-loss").args(args).status().map_err(|why| why.to_string())?;
    match status.code() {
        Some(0) => Ok(()),
        Some(SKIPPED) => {
            Err("this machine cannot do it: it takes root, loop devices, mkfs.ext4 and unshare".to_owned())
        }
        _ => Err(format!("power-loss: {status}, see above")),
    }
}

/// One after the other: each of them needs a busy server.
pub fn run(workspace: &Workspace, wanted: impl Fn(&str) -> bool) -> Tally {
    let mut tally = Tally::default();
    for (name, args) in PROOFS.iter().filter(|(name, _)| wanted(name)) {
        match step::status_and_reason(name, program(workspace).args(*args)) {
            Ok((status, _)) if status.code() == Some(SKIPPED) => {
                tally.skip(name, "what it needs is not installed here");
            }
            Ok((status, _)) if status.success() => tally.record(name, Ok(())),
            Ok((status, reason)) => tally.record(name, Err(format!("{status}: {reason}"))),
            Err(why) => tally.record(name, Err(why.to_string())),
        }
    }
    tally
}

fn program(workspace: &Workspace) -> Command {
    let mut command = Command::new(workspace.binary(PROGRAM));
    command.arg("--binary").arg(workspace.binary("ferrymq"));
    command
}
