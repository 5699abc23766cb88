//! The binary `ferrymq`.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ferrymq_server::{command_line::ServeArgs, serve};

/// A message broker that speaks the protocols your clients already speak
///
/// Without a command it serves, as `ferrymq serve` does.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server
    Serve(ServeArgs),
    /// Measure a server: the built-in load generator
    Bench(bench::BenchArgs),
}

/// Frees and reuses memory of many short-lived connections without holding on to it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match line.command.unwrap_or(Command::Serve(line.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(args),
    }
}
