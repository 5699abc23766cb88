//! The binary `ferrymq`.

mod bench;

use std::process::ExitCode;

use clap::{
    Parser, Subcommand,
    error::{ContextKind, ContextValue},
};
use ferrymq_server::{check, command_line::ServeArgs, serve};

/// A message broker that speaks the protocols your clients already speak
///
/// Without a command it serves, as `ferrymq serve` does.
#[derive(Debug, Parser)]
#[command(name = "ferrymq", version, args_conflicts_with_subcommands = true)]
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
    /// Read everything in a data directory that no server uses, and list what is damaged
    Check(check::CheckArgs),
    /// Give up what is damaged in a data directory that no server uses: exactly that, and for good
    Repair(check::CheckArgs),
    /// Measure a server: the built-in load generator
    Bench(Box<bench::BenchArgs>),
}

/// How alike a flag must be to what was written, from 0 to 1, to be suggested.
const ALIKE: f64 = 0.85;

/// An error without a suggestion that is far from what was written: `--nosuchflag` does not mean `--config`.
fn with_a_good_suggestion(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let (written, suggested) = (text(ContextKind::InvalidArg), text(ContextKind::SuggestedArg));
    if strsim::jaro(&written, &suggested) < ALIKE {
        error.remove(ContextKind::SuggestedArg);
        // It shows how the suggestion would be used.
        error.remove(ContextKind::Usage);
    }
    error
}

/// Frees and reuses memory of many short-lived connections without holding on to it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is freed goes back to the system at once, and not after ten seconds: each of the allocator's arenas keeps its own,
/// so that a backlog that was moved to disk, or the 19 MiB that checking a password takes, would count several times. What
/// is published and delivered in small messages allocates nothing, and so pays nothing.
///
/// The allocator looks for this name. It reads a pointer to text that ends in a zero, which is how a slice begins.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_CONFIGURATION: &[u8] = b"dirty_decay_ms:0,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let line = CommandLine::try_parse().unwrap_or_else(|error| with_a_good_suggestion(error).exit());
    match line.command.unwrap_or(Command::Serve(line.serve)) {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args, false),
        Command::Repair(args) => check::run(&args, true),
        Command::Bench(args) => bench::run(*args),
    }
}
