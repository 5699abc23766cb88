//! `cargo x`: all commands for developers. CI uses the same ones.
//!
//! Each command has its own module; this file only has their names.

mod bench;
mod check;
mod clients;
mod codegen;
mod conformance;
mod fuzz;
mod pages;
mod plots;
mod proof;
mod sabotage;
mod step;
mod test;
mod tidy;
mod under_load;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const USAGE: &str = "usage: cargo x COMMAND

  check                 the inner loop: format, clippy, tidy and the pure tests
  test [FILTER]         every test; FILTER keeps those whose name contains it
  under-load [--rounds N] [FILTER]
                        the Rust tests again and again beside six busy threads
  codegen               writes the code that the tables in spec/ determine
  bench [--runs N] [--seconds N] [--loads NAME,...] [--json FILE] [--binary FILE]
                        deliveries per second beside RabbitMQ, where that is installed; loads are transient,
                        durable, other sizes, a neighbour's latency beside floods (throughput, neighbour, all)
  plots FILE [FOLDER]   pictures of what bench has kept in that file, into docs/plots
  crash [--rounds N] [--seed S]
                        kills the server under load and checks that it keeps its promises
  power-loss [--rounds N] [--seed S] [--without-syncs]
                        takes the power from the server's disk, on a real file system
  sabotage [FILTER]     builds faults into the broker on purpose, and checks that its test notices each
  fuzz [TARGET] [--seconds N] [--seed S]
                        searches for inputs that break a promise, and adds them to fuzz/corpus
  tidy [--bless]        the project's rules; --bless lowers the limits to today's excess
  conformance amqp [--against HOST:PORT] [--record] [SCRIPT]...
                        plays the protocol scripts against our binary or a running server
  conformance clients [--against HOST:PORT] [PROGRAM]...
                        runs the real clients in the same way
  conformance pages [PAGE]...
                        runs the blocks of README and docs";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let done = Workspace::load().and_then(|workspace| match command.as_str() {
        "bench" => bench::run(&workspace, &rest),
        "check" => check::run(&workspace),
        "plots" => plots::run(&workspace, &rest),
        "crash" => proof::crash(&workspace, &rest),
        "power-loss" => proof::power_loss(&workspace, &rest),
        "fuzz" => fuzz::run(&workspace, &rest),
        "codegen" => codegen::run(&workspace),
        "test" => test::run(&workspace, rest.first().map(String::as_str)),
        "sabotage" => sabotage::run(&workspace, rest.first().map(String::as_str)),
        "under-load" => under_load::run(&rest),
        "conformance" => conformance::run(&workspace, &rest),
        "tidy" => tidy::run(&workspace, rest.iter().any(|arg| arg == "--bless")),
        "" | "help" | "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("no command `{other}`\n\n{USAGE}")),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
