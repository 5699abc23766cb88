//! `cargo x conformance`: the protocol scripts, against our binary or a running server.
//!
//! Played against ours, a script must come out as it says and as the original answered when it was recorded. Against
//! any other server it must come out as it says; `--record` writes down what that server answered.

use std::path::{Path, PathBuf};

use ferrymq_conformance::{Recording, Script, Served, Server, Tcp, Whose, identify, play};

use crate::clients::{self, Against};
use crate::step::{self, Tally};
use crate::workspace::Workspace;

/// What to play, and against whom.
#[derive(Debug, Default)]
struct Order {
    /// Another server than our binary.
    against: Option<String>,
    record: bool,
    /// Only what has one of these in its name; everything, when there are none.
    filters: Vec<String>,
}

pub fn run(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    let (what, args) = args.split_first().ok_or("conformance of what: amqp or clients?")?;
    let order = Order::parse(args)?;
    if order.against.is_none() || what == "clients" {
        step::build_binaries()?;
    }
    let mut tally = Tally::default();
    match what.as_str() {
        "amqp" => play_scripts(workspace, &order, &mut tally)?,
        "clients" => {
            let binary = || Against::Binary(workspace.binary("ferrymq"));
            let against = order.against.clone().map_or_else(binary, Against::Address);
            clients::run(workspace, &against, |name| order.wants(name), &mut tally)?;
        }
        other => return Err(format!("conformance knows amqp and clients, not `{other}`")),
    }
    tally.close()
}

/// The scripts against our binary, as part of `cargo x test`.
pub fn play_ours(workspace: &Workspace, filter: Option<&str>, tally: &mut Tally) -> Result<(), String> {
    let order = Order { filters: filter.map(str::to_owned).into_iter().collect(), ..Order::default() };
    play_scripts(workspace, &order, tally)
}

fn play_scripts(workspace: &Workspace, order: &Order, tally: &mut Tally) -> Result<(), String> {
    let mut scripts = scripts(workspace)?;
    scripts.retain(|script| order.wants(&script.name));
    if scripts.is_empty() {
        return Ok(());
    }
    match &order.against {
        Some(address) => play_against(workspace, &scripts, address, order.record, tally),
        None => {
            let served = Served::start(&workspace.binary("ferrymq"))?;
            play_against(workspace, &scripts, served.address(), order.record, tally)
        }
    }
}

fn play_against(
    workspace: &Workspace,
    scripts: &[Script],
    address: &str,
    record: bool,
    tally: &mut Tally,
) -> Result<(), String> {
    let server = identify(&mut Tcp::new(address))?;
    println!("playing {} scripts against {} at {address}", scripts.len(), server.title);
    if record && server.whose == Whose::Ours {
        return Err("the recordings are the original's answers, not ours".to_owned());
    }
    for script in scripts {
        let played = play_one(workspace, script, address, &server, record);
        println!("script {} ... {}", script.name, if played.is_ok() { "ok" } else { "FAILED" });
        tally.record(&format!("script {}", script.name), played);
    }
    Ok(())
}

fn play_one(
    workspace: &Workspace,
    script: &Script,
    address: &str,
    server: &Server,
    record: bool,
) -> Result<(), String> {
    let transcript = play(script, &mut Tcp::new(address), server.whose)?;
    let path = workspace.root.join(format!("conformance/amqp/recorded/{}.txt", script.name));
    if record {
        let recording = Recording { server: server.title.clone(), transcript };
        return std::fs::write(&path, recording.to_string()).map_err(|why| format!("{}: {why}", path.display()));
    }
    if server.whose == Whose::Theirs {
        return Ok(());
    }
    Recording::parse(&read(&path)?)?.compare(&transcript)
}

/// All scripts in the order of their numbers.
pub fn scripts(workspace: &Workspace) -> Result<Vec<Script>, String> {
    let folder = workspace.root.join("conformance/amqp");
    let entries = std::fs::read_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let numbered = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(|first: char| first.is_ascii_digit()) && name.ends_with(".txt")
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(numbered).collect();
    paths.sort();
    let parse = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Script::parse(&name, &read(path)?)
    };
    paths.iter().map(parse).collect()
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))
}

impl Order {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut args = args.iter();
        let mut order = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--against" => order.against = Some(args.next().ok_or("--against HOST:PORT")?.clone()),
                "--record" => order.record = true,
                flag if flag.starts_with('-') => return Err(format!("no option `{flag}`")),
                filter => order.filters.push(filter.to_owned()),
            }
        }
        Ok(order)
    }
    fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter))
    }
}
