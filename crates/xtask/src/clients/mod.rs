//! Real clients from their own registries: this project's programs, which check what they receive, and the clients'
//! own tests.
//!
//! A program's environment says where the server is. Its packages are installed below `target/` in pinned versions.
//! If its language is missing, it is skipped by name.

mod go;
mod java;
mod node;
mod program;
mod python;
mod scratch;
mod suites;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ferrymq_conformance::Certificates;

use crate::step::{self, Tally};
use crate::workspace::Workspace;
use program::{Failure, Program};
pub use python::fetch_wheels;

const LAPIN: &str = "ferrymq-conformance-lapin";

/// Below `target/`.
const CERTIFICATES: &str = "clients/certificates";

/// More than the cores: most of these programs wait for their server most of the time.
const AT_ONCE: usize = 4;

/// The server for the programs.
#[derive(Debug, Clone)]
pub enum Against {
    /// Each program has its own server with this binary.
    Binary(PathBuf),
    /// A running server, so only one program at a time.
    Address(String),
}

/// Which programs are wanted, by name.
type Wanted<'a> = &'a dyn Fn(&str) -> bool;

pub fn run(
    workspace: &Workspace,
    against: &Against,
    wanted: impl Fn(&str) -> bool,
    tally: &mut Tally,
) -> Result<(), String> {
    println!("== clients");
    let certificates = make_certificates(workspace)?;
    let programs = install(workspace, &wanted, tally)?;
    let at_once = if matches!(against, Against::Binary(_)) { AT_ONCE } else { 1 };
    let next = AtomicUsize::new(0);
    let (tally, running) = (Mutex::new(tally), Mutex::new(BTreeSet::new()));
    let take_turns = || {
        while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let started = Instant::now();
            running.lock().expect("nobody panics while naming").insert(program.name());
            let ended = program.run(against, &certificates);
            running.lock().expect("nobody panics while naming").remove(program.name());
            let mut tally = tally.lock().expect("nobody panics while counting");
            report(program, ended, started, &mut tally);
        }
    };
    let still_running = || {
        let running = running.lock().expect("nobody panics while naming");
        println!("== still running: {}", running.iter().copied().collect::<Vec<_>>().join(", "));
    };
    step::meanwhile(still_running, || {
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(take_turns);
            }
        });
    });
    Ok(())
}

/// Everything that is wanted, ready to run; the longest first, so that it does not run alone at the end.
fn install(workspace: &Workspace, wanted: Wanted<'_>, tally: &mut Tally) -> Result<Vec<Program>, String> {
    let mut programs = suites::programs(workspace, wanted, tally)?;
    programs.extend(python::programs(workspace, wanted, tally)?);
    programs.extend(node::programs(workspace, wanted, tally)?);
    programs.extend(java::programs(workspace, wanted, tally)?);
    programs.extend(go::programs(workspace, wanted, tally)?);
    if wanted("client lapin") {
        programs.push(Program::with_its_own_server("client lapin", workspace.binary(LAPIN)));
    }
    Ok(programs)
}

/// For servers with TLS, and for clients that show a certificate.
fn make_certificates(workspace: &Workspace) -> Result<Certificates, String> {
    let folder = workspace.target.join(CERTIFICATES);
    std::fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    Certificates::make(&folder)
}

fn report(program: &Program, ended: Result<String, Failure>, started: Instant, tally: &mut Tally) {
    let name = program.name();
    let seconds = started.elapsed().as_secs_f32();
    match ended {
        Ok(said) => {
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            println!("{name} ... ok ({seconds:.1} s) {last}");
            tally.record(name, Ok(()));
        }
        Err(Failure::CannotRunHere(why)) => {
            println!("{name} ... skipped");
            tally.skip(name, &why);
        }
        Err(Failure::Wrong(why)) => {
            println!("{name} ... FAILED ({seconds:.1} s)\n{why}");
            tally.record(name, Err("see above".to_owned()));
        }
    }
}

/// The programs in a folder with this prefix and suffix, with their names: `test_pika_rpc.py` is `client pika rpc`.
fn find(folder: &Path, begin: &str, end: &str, wanted: Wanted<'_>) -> Result<Vec<(String, PathBuf)>, String> {
    let entries = std::fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let program = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix(begin)?.strip_suffix(end)?.replace('_', " ");
        Some((format!("client {name}"), path))
    };
    let mut found: Vec<(String, PathBuf)> =
        entries.filter_map(|entry| program(entry.ok()?.path())).filter(|(name, _)| wanted(name)).collect();
    found.sort();
    Ok(found)
}

/// Whether the tools of these programs are installed; if not, the programs are skipped by name. Also false if there
/// are no programs, so that nothing is downloaded.
fn all_there<'a>(tools: &[(&str, &str)], programs: impl ExactSizeIterator<Item = &'a str>, tally: &mut Tally) -> bool {
    if programs.len() == 0 {
        return false;
    }
    let missing = tools.iter().find(|(tool, asked)| !step::is_installed(tool, asked));
    if let Some((tool, _)) = missing {
        programs.for_each(|name| tally.skip(name, &format!("there is no {tool} here")));
    }
    missing.is_none()
}

/// Installs into a folder below `target/`, unless the same pinned versions are installed there.
fn install_once(folder: &Path, pinned: &str, install: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let stamp = folder.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == pinned) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    install()?;
    std::fs::write(&stamp, pinned).map_err(|why| format!("{}: {why}", stamp.display()))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))
}
