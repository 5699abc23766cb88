//! Proofs that test the real binary from outside: they kill it under load, read its system calls, and measure its
//! memory. `cargo x crash`, `cargo x power-loss` and `cargo x test` run them.

mod client;
mod confirms;
mod crash;
mod dials;
mod disk;
mod failure;
mod memory;
mod random;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit code of a proof that cannot run on this machine.
const SKIPPED: u8 = 77;

#[derive(Debug, Parser)]
struct CommandLine {
    /// The server's binary
    #[arg(long)]
    binary: PathBuf,
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Debug, Subcommand)]
enum Proof {
    /// Kills the server under load, and checks that it kept its promises
    Crash {
        #[arg(long, default_value_t = 20)]
        rounds: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Takes the power from the server's disk under load and in recovery, and checks that the server kept its promises
    PowerLoss {
        #[arg(long, default_value_t = 5)]
        rounds: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Makes syncs do nothing. Then the proof must find a broken promise, and it fails if it finds none
        #[arg(long)]
        without_syncs: bool,
    },
    /// Reads the server's system calls, and checks that no confirm is sent before the sync of its message
    Confirms,
    /// Measures the server's memory while messages are published, wait and are drained
    Memory {
        #[arg(long, default_value_t = 5_000_000)]
        messages: u64,
        #[arg(long, default_value_t = 1)]
        queues: u64,
        #[arg(long)]
        transient: bool,
        /// Length of each body
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=131_064))]
        body_bytes: u32,
        /// The proof fails if the server needs more megabytes than this
        #[arg(long, default_value_t = 100)]
        megabytes_max: u64,
    },
}

fn main() -> ExitCode {
    let CommandLine { binary, proof } = CommandLine::parse();
    let proved = match proof {
        Proof::Crash { rounds, seed } => crash::run(&binary, rounds, seed),
        Proof::PowerLoss { .. } if !disk::can_run() => {
            eprintln!("this needs root, loop devices and ext4");
            return ExitCode::from(SKIPPED);
        }
        Proof::PowerLoss { rounds, seed, without_syncs } => match disk::own_namespace() {
            Ok(Some(code)) => return ExitCode::from(code),
            Ok(None) if without_syncs => crash::run_without_syncs(&binary, rounds, seed),
            Ok(None) => crash::run_with_power_losses(&binary, rounds, seed),
            Err(why) => Err(why),
        },
        Proof::Confirms if !confirms::can_run() => {
            eprintln!("this needs strace");
            return ExitCode::from(SKIPPED);
        }
        Proof::Confirms => confirms::run(&binary),
        Proof::Memory { messages, queues, transient, body_bytes, megabytes_max } => {
            let (persistent, body_bytes) = (!transient, body_bytes as usize);
            let bytes_max = megabytes_max * 1_000_000;
            memory::run(&binary, memory::Backlog { messages, queues, persistent, body_bytes, bytes_max })
        }
    };
    match proved {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
