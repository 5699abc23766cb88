//! `cargo x under-load [--rounds N] [FILTER]`: the Rust tests again and again while other threads keep all
//! processors busy. A test that fails there waits for time and not for an event, or the server has a race.

use std::collections::BTreeMap;
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::step::{self, Tally};
use crate::workspace::cargo;

/// How many threads only count.
const BUSY: usize = 6;
const ROUNDS: u64 = 20;

pub fn run(args: &[String]) -> Result<(), String> {
    let (rounds, filter) = match args {
        [flag, rounds, filter @ ..] if flag == "--rounds" => {
            (rounds.parse().map_err(|why| format!("--rounds {rounds}: {why}"))?, filter)
        }
        filter => (ROUNDS, filter),
    };
    if filter.len() > 1 || filter.iter().any(|word| word.starts_with('-')) {
        return Err("usage: cargo x under-load [--rounds N] [FILTER]".to_owned());
    }
    step::run("build", tests().arg("--no-run"))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        let played = play(rounds, filter);
        over.store(true, Relaxed);
        played
    })
}

fn play(rounds: u64, filter: &[String]) -> Result<(), String> {
    let mut failures = BTreeMap::<String, u64>::new();
    for round in 1..=rounds {
        println!("== round {round} of {rounds}, beside {BUSY} busy threads");
        let mut tally = Tally::default();
        step::cargo_test(tests().args(["--no-fail-fast"]).args(filter), &mut tally)?;
        if tally.is_empty() {
            return Err(format!("no test has `{}` in its name", filter.join(" ")));
        }
        tally.failed.into_iter().for_each(|name| *failures.entry(name).or_default() += 1);
    }
    for (name, times) in &failures {
        println!("FAILED   {name}: {times} of {rounds} rounds");
    }
    println!("{rounds} rounds, {} tests failed", failures.len());
    if failures.is_empty() { Ok(()) } else { Err("some tests failed".to_owned()) }
}

fn tests() -> std::process::Command {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--profile", "checked"]);
    tests
}
