//! Runs a command as a step of `check` or `test`, and counts the results.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::workspace::{Workspace, cargo};

/// A step that prints nothing for this long is named, so that nobody thinks it is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The result of a whole run. Tests that were not run are named.
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

    /// Records an error that prevented tests from running. Success is not recorded: it is not a test.
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

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.passed == 0 && self.failed.is_empty() && self.skipped.is_empty()
    }

    /// With CI=true the machine must have everything: a skip is a failure there.
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

/// Runs a command with its output on this one's, and prints how long it took; every 10 seconds also that it still
/// runs.
pub fn run(name: &str, command: &mut Command) -> Result<(), String> {
    let status = status(name, command).map_err(|why| format!("{name}: {why}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed")) }
}

/// The same, for callers that need the exit code.
pub fn status(name: &str, command: &mut Command) -> std::io::Result<ExitStatus> {
    let started = Instant::now();
    println!("== {name}");
    let mut child = command.spawn()?;
    let status = wait(&mut child, || println!("== {name}: {} s so far", started.elapsed().as_secs()))?;
    println!("== {name}: {:.1} s", started.elapsed().as_secs_f32());
    Ok(status)
}

/// The same for a program whose last line on standard error says why it failed; also returns that line.
pub fn status_and_reason(name: &str, command: &mut Command) -> std::io::Result<(ExitStatus, String)> {
    let started = Instant::now();
    println!("== {name}");
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().expect("the pipe was asked for");
    let reason = std::thread::spawn(move || {
        let shown = BufReader::new(stderr).lines().map_while(Result::ok).inspect(|line| eprintln!("{line}"));
        shown.filter(|line| !line.trim().is_empty()).last().unwrap_or_default()
    });
    let status = wait(&mut child, || println!("== {name}: {} s so far", started.elapsed().as_secs()))?;
    println!("== {name}: {:.1} s", started.elapsed().as_secs_f32());
    Ok((status, reason.join().expect("it only reads")))
}

/// Waits for a child's end, and calls `still_runs` after every [`SILENCE_MAX`].
fn wait(child: &mut Child, still_runs: impl Fn() + Send) -> std::io::Result<ExitStatus> {
    meanwhile(still_runs, || child.wait())
}

/// Runs `act`, and calls `still_runs` after every [`SILENCE_MAX`] until it ends.
pub fn meanwhile<T>(still_runs: impl Fn() + Send, act: impl FnOnce() -> T) -> T {
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while end.recv_timeout(SILENCE_MAX) == Err(RecvTimeoutError::Timeout) {
                still_runs();
            }
        });
        let done = act();
        drop(ended);
        done
    })
}

/// Whether a program of this name can be run here.
pub fn is_installed(program: &str, asked: &str) -> bool {
    Command::new(program).arg(asked).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Builds everything that runs from outside, with the one profile of all tests.
pub fn build_binaries() -> Result<(), String> {
    run("build", cargo().args(["build", "--workspace", "--bins", "--profile", "checked"]))
}

/// A test program that cargo has built.
pub struct TestProgram {
    /// The package's folder, in which its tests run.
    pub folder: PathBuf,
    pub executable: PathBuf,
}

/// Builds the tests of the whole workspace, as `cargo test --workspace` does, and returns where they are.
///
/// Building only some packages would choose other features for their dependencies, and build these again.
pub fn build_tests(workspace: &Workspace) -> Result<Vec<TestProgram>, String> {
    let started = Instant::now();
    println!("== build of the tests");
    let mut command = cargo();
    command.args(["test", "--workspace", "--profile", "checked", "--lib", "--tests", "--no-run"]);
    let mut child = command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("cargo test: {why}"))?;
    let mut programs = Vec::new();
    let silent = |_: &str| println!("== build of the tests: {} s so far", started.elapsed().as_secs());
    each_line(&mut child, silent, |line| programs.extend(test_program(workspace, line)))?;
    let status = child.wait().map_err(|why| format!("cargo test: {why}"))?;
    println!("== build of the tests: {:.1} s", started.elapsed().as_secs_f32());
    if status.success() { Ok(programs) } else { Err("the tests cannot be built".to_owned()) }
}

/// The test program in one line of cargo's messages, if it is this workspace's.
fn test_program(workspace: &Workspace, line: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["profile"]["test"].as_bool()?;
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let executable = PathBuf::from(message["executable"].as_str()?);
    let ours: BTreeSet<&Path> = workspace.members.iter().map(|package| package.folder.as_path()).collect();
    (is_test && ours.contains(folder.as_path())).then_some(TestProgram { folder, executable })
}

/// Runs `cargo test`, forwards its output, and adds its `test result:` lines to the tally.
pub fn cargo_test(command: &mut Command, tally: &mut Tally) -> Result<(), String> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|why| format!("cargo test: {why}"))?;
    let mut failed_tests = 0;
    let silent = |last: &str| println!("== still running after `{last}`");
    each_line(&mut child, silent, |line| {
        println!("{line}");
        if let Some(counts) = line.strip_prefix("test result: ") {
            tally.passed += count_before(counts, " passed");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            failed_tests += 1;
            tally.failed.push(name.to_owned());
        }
    })?;
    std::io::stdout().flush().map_err(|why| why.to_string())?;
    let status = child.wait().map_err(|why| format!("cargo test: {why}"))?;
    if !status.success() && failed_tests == 0 {
        // A compile error, or a test process that ended before it could report.
        tally.failed.push(format!("cargo test ended with {status}"));
    }
    Ok(())
}

/// Calls `line` for each line of a child's standard output. If none arrives for [`SILENCE_MAX`], calls `silent`
/// with the last one.
fn each_line(child: &mut Child, silent: impl Fn(&str), mut line: impl FnMut(&str)) -> Result<(), String> {
    let stdout = child.stdout.take().expect("the pipe was asked for");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut last = String::new();
    loop {
        match lines.recv_timeout(SILENCE_MAX) {
            Ok(read) => {
                last = read.map_err(|why| format!("what it says: {why}"))?;
                line(&last);
            }
            Err(RecvTimeoutError::Timeout) => silent(&last),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
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
