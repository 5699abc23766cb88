//! `ferrymq bench`: the built-in load generator.
//!
//! It shares its machine with the server it measures, so it is built to spend little: plain threads and blocking
//! sockets, frames encoded once and patched per message, one write per batch, large reads. It speaks to any server of
//! the protocol, and it believes no figure that it has not checked: each message carries its producer and a sequence,
//! and a run in which one is lost, doubled, reordered or damaged fails.

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

/// Runs the measurement, prints its report on standard output, and fails when the server did.
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
