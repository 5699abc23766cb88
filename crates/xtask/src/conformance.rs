//! `cargo x conformance`: the protocol scripts, against our binary or a running server.
//!
//! Played against ours, a script must come out as it says and as the original answered when it was recorded. Against
//! any other server it must come out as it says; `--record` writes down what that server answered.

use ferrymq_conformance::{Served, Suite, Tcp, identify};

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
    let mut suite = suite(workspace)?;
    suite.scripts.retain(|script| order.wants(&script.name));
    if suite.scripts.is_empty() {
        return Ok(());
    }
    match &order.against {
        Some(address) => play_against(&suite, address, order.record, tally),
        None => {
            let served = Served::start_defined(&workspace.binary("ferrymq"), &suite.definitions_path())?;
            play_against(&suite, served.address(), order.record, tally)
        }
    }
}

fn play_against(suite: &Suite, address: &str, record: bool, tally: &mut Tally) -> Result<(), String> {
    let server = identify(&mut Tcp::new(address))?;
    println!("playing {} scripts against {} at {address}", suite.scripts.len(), server.title);
    for script in &suite.scripts {
        let mut target = Tcp::new(address);
        let played = if record {
            suite.record(script, &mut target, &server)
        } else {
            suite.check(script, &mut target, server.whose)
        };
        println!("script {} ... {}", script.name, if played.is_ok() { "ok" } else { "FAILED" });
        tally.record(&format!("script {}", script.name), played);
    }
    Ok(())
}

/// All scripts with their recordings.
pub fn suite(workspace: &Workspace) -> Result<Suite, String> {
    Suite::read(&workspace.root.join("conformance/amqp"))
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
