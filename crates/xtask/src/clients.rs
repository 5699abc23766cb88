//! Real clients from their own registries, each a program that asserts what came back.
//!
//! A program is told by its environment where the server is (`conformance/clients/server.py` says how), and what it
//! needs is installed below `target/` from pinned versions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::step::Tally;
use crate::workspace::Workspace;

const FOLDER: &str = "conformance/clients";
const LAPIN: &str = "ferrymq-conformance-lapin";

/// The exit code of a program that cannot run against this server.
const SKIPPED: i32 = 77;

/// More than the cores: most of these programs wait for their server most of the time.
const AT_ONCE: usize = 4;

/// Where the programs find a server.
#[derive(Debug, Clone)]
pub enum Against {
    /// Each program starts this binary for itself.
    Binary(PathBuf),
    /// One that runs, so the programs take turns.
    Address(String),
}

#[derive(Debug)]
struct Program {
    name: String,
    command: Vec<PathBuf>,
}

pub fn run(
    workspace: &Workspace,
    against: &Against,
    wanted: impl Fn(&str) -> bool,
    tally: &mut Tally,
) -> Result<(), String> {
    println!("== clients");
    let mut programs = python_programs(workspace, &wanted, tally)?;
    if wanted("client lapin") {
        programs.push(Program { name: "client lapin".to_owned(), command: vec![workspace.binary(LAPIN)] });
    }
    let at_once = if matches!(against, Against::Binary(_)) { AT_ONCE } else { 1 };
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(tally);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let ended = program.run(against);
                    let mut tally = tally.lock().expect("nobody panics while counting");
                    report(program, ended, started, &mut tally);
                }
            });
        }
    });
    Ok(())
}

fn report(program: &Program, ended: Result<(), Failure>, started: Instant, tally: &mut Tally) {
    let name = &program.name;
    let seconds = started.elapsed().as_secs_f32();
    match ended {
        Ok(()) => {
            println!("{name} ... ok ({seconds:.1} s)");
            tally.record(name, Ok(()));
        }
        Err(Failure::CannotRunHere) => {
            println!("{name} ... skipped");
            tally.skip(name, "it kills its server, and this one is not ours to kill");
        }
        Err(Failure::Wrong(why)) => {
            println!("{name} ... FAILED ({seconds:.1} s)\n{why}");
            tally.record(name, Err("see above".to_owned()));
        }
    }
}

enum Failure {
    CannotRunHere,
    Wrong(String),
}

impl Program {
    fn run(&self, against: &Against) -> Result<(), Failure> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null());
        match against {
            Against::Binary(binary) => command.env("FERRYMQ_BIN", binary).env_remove("FERRYMQ_AT"),
            Against::Address(address) => command.env("FERRYMQ_AT", address).env_remove("FERRYMQ_BIN"),
        };
        let output = command.output().map_err(|why| Failure::Wrong(format!("{}: {why}", self.command[0].display())))?;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(SKIPPED) => Err(Failure::CannotRunHere),
            _ => {
                let said = [output.stdout, output.stderr].concat();
                Err(Failure::Wrong(format!("{}\n{}", output.status, String::from_utf8_lossy(&said))))
            }
        }
    }
}

/// Every `test_*.py`, with a Python that has the clients; none where there is no Python.
fn python_programs(
    workspace: &Workspace,
    wanted: &impl Fn(&str) -> bool,
    tally: &mut Tally,
) -> Result<Vec<Program>, String> {
    let folder = workspace.root.join(FOLDER);
    let entries = std::fs::read_dir(&folder).map_err(|why| format!("{FOLDER}: {why}"))?;
    let program = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("test_")?.strip_suffix(".py")?.replace('_', " ");
        Some((format!("client {name}"), path))
    };
    let mut found: Vec<(String, PathBuf)> =
        entries.filter_map(|entry| program(entry.ok()?.path())).filter(|(name, _)| wanted(name)).collect();
    found.sort();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    if Command::new("python3").arg("--version").output().is_err() {
        found.iter().for_each(|(name, _)| tally.skip(name, "there is no python3 here"));
        return Ok(Vec::new());
    }
    let python = python_with_clients(workspace, &folder.join("requirements.txt"))?;
    Ok(found.into_iter().map(|(name, path)| Program { name, command: vec![python.clone(), path] }).collect())
}

/// A virtual environment under `target/`, made anew when the pinned versions change.
fn python_with_clients(workspace: &Workspace, requirements: &Path) -> Result<PathBuf, String> {
    let environment = workspace.target.join("clients/python");
    let installed = environment.join("installed.txt");
    let wanted = std::fs::read(requirements).map_err(|why| format!("{}: {why}", requirements.display()))?;
    let python = environment.join("bin/python");
    if std::fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    crate::step::run("python environment", make.args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
    crate::step::run("python clients", install.arg(requirements))?;
    std::fs::write(&installed, wanted).map_err(|why| format!("{}: {why}", installed.display()))?;
    Ok(python)
}
