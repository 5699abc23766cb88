//! Running a command as a step of `check` or `test`, and counting what came of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::workspace::cargo;

/// What a whole run came to. Tests that were not run are named, never silent.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: Vec<String>,
    pub skipped: Vec<String>,
}

impl Tally {
    pub fn record(&mut self, name: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(why) => self.failed.push(format!("{name}: {why}")),
        }
    }

    /// A failure to run tests at all. Having run them is no test that has passed.
    pub fn require(&mut self, name: &str, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.failed.push(format!("{name}: {why}"));
        }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Where CI=true the machine is expected to have everything: a skip is a failure there.
    pub fn skip(&mut self, name: &str, why: &str) {
        let line = format!("{name}: {why}");
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            self.failed.push(format!("{line} (not skipped, since CI=true)"));
        } else {
            self.skipped.push(line);
        }
    }

    /// Prints the summary; its last line is `N passed, N failed`.
    pub fn close(&self) -> Result<(), String> {
        println!();
        for line in &self.skipped {
            println!("skipped  {line}");
        }
        for line in &self.failed {
            println!("FAILED   {line}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() { Ok(()) } else { Err("some tests failed".to_owned()) }
    }
}

/// Runs a command with its output on ours, and says how long it took.
pub fn run(name: &str, command: &mut Command) -> Result<(), String> {
    let started = Instant::now();
    println!("== {name}");
    let status = command.status().map_err(|why| format!("{name}: {why}"))?;
    println!("== {name}: {:.1} s", started.elapsed().as_secs_f32());
    if status.success() { Ok(()) } else { Err(format!("{name} failed")) }
}

/// Whether a program of this name can be run here.
pub fn is_installed(program: &str, asked: &str) -> bool {
    Command::new(program).arg(asked).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Everything that is run from outside, with the one profile of all tests.
pub fn build_binaries() -> Result<(), String> {
    run("build", Command::new(cargo()).args(["build", "--workspace", "--bins", "--profile", "checked"]))
}

/// Runs `cargo test`, shows its output as it comes, and adds its `test result:` lines to the tally.
pub fn cargo_test(command: &mut Command, tally: &mut Tally) -> Result<(), String> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|why| format!("cargo test: {why}"))?;
    let stdout = child.stdout.take().expect("the pipe was asked for above");
    let mut failed_tests = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|why| format!("cargo test: {why}"))?;
        println!("{line}");
        if let Some(counts) = line.strip_prefix("test result: ") {
            tally.passed += count_before(counts, " passed");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            failed_tests += 1;
            tally.failed.push(name.to_owned());
        }
    }
    std::io::stdout().flush().map_err(|why| why.to_string())?;
    let status = child.wait().map_err(|why| format!("cargo test: {why}"))?;
    if !status.success() && failed_tests == 0 {
        // A compile error, or a test process that died before it could report.
        tally.failed.push(format!("cargo test ended with {status}"));
    }
    Ok(())
}

/// The number in front of a word: 12 in `ok. 12 passed; 0 failed`.
fn count_before(line: &str, word: &str) -> usize {
    let digits = line.split(word).next().and_then(|before| before.rsplit(' ').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_line_that_cargo_prints() {
        let line = "ok. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(count_before(line, " passed"), 12);
        assert_eq!(count_before(line, " failed"), 3);
        assert_eq!(count_before("no numbers here", " passed"), 0);
    }
}
