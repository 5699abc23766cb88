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
/// Without a command, it runs a server, like `ferrymq serve`.
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
    /// Remove the damaged parts from a data directory that no server uses, for ever; everything else stays
    Repair(check::CheckArgs),
    /// Measure a server: the built-in load generator
    Bench(Box<bench::BenchArgs>),
}

/// How similar a suggested flag must be to the written one, from 0 to 1.
const ALIKE: f64 = 0.85;

/// Removes a bad suggestion from an error: `--nosuchflag` does not mean `--config`.
fn with_a_good_suggestion(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let (written, suggested) = (text(ContextKind::InvalidArg), text(ContextKind::SuggestedArg));
    if strsim::jaro(&written, &suggested) < ALIKE {
        error.remove(ContextKind::SuggestedArg);
        // It shows the usage of the suggested flag.
        error.remove(ContextKind::Usage);
    }
    error
}

/// This allocator returns the memory of many short-lived connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Freed memory goes back to the system at once, and not after ten seconds: each arena of the allocator keeps its
/// own freed memory, so a backlog that was moved to disk, or the 19 MiB for checking a password, would count
/// several times. Publishing and delivering small messages allocates nothing, so this costs nothing there.
///
/// The allocator reads the symbol of this name: a pointer to text that ends with a zero byte. A slice begins with
/// such a pointer.
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
