//! `ferrymq bench`: the built-in load generator.
//!
//! It runs on the same machine as the server that it measures, so it uses little CPU: plain threads and blocking
//! sockets, frames that are encoded once and patched per message, one write per batch, large reads. It works with
//! any server of the protocol. It checks every figure: each message carries its producer and a sequence, and a run
//! in which a message is lost, duplicated, reordered or damaged fails.

mod amqp;
mod failure;
mod process;
mod report;
mod verify;

use std::process::ExitCode;

pub use failure::Failure;

/// Measures a server: what it carries, or how long it takes.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, clap::Subcommand)]
enum Protocol {
    /// AMQP 0-9-1, against any server that speaks it
    Amqp(amqp::AmqpArgs),
}

/// Runs the measurement and prints its report on standard output. The exit code is not 0 if the measurement failed.
pub fn run(args: BenchArgs) -> ExitCode {
    let outcome = match args.protocol {
        Protocol::Amqp(args) => amqp::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ferrymq bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
