//! The binary `ferrymq`.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A message broker that speaks the protocols your clients already speak
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a server: the built-in load generator
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Bench(args) => bench::run(args),
    }
}
