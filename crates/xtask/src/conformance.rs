//! `cargo x conformance`: the protocol scripts, against this checkout's binary or a running server.
//!
//! Against this binary, a script must give what it says and what RabbitMQ answered when it was recorded. Against
//! any other server it must give what it says; `--record` writes that server's answers down.

use std::cell::Cell;

use ferrymq_conformance::{Served, Suite, Tcp, identify};

use crate::clients::{self, Against};
use crate::pages;
use crate::step::{self, Tally};
use crate::workspace::Workspace;

/// Which scripts to run, and against which server.
#[derive(Debug, Default)]
struct Order {
    /// Another server than this checkout's binary.
    against: Option<String>,
    record: bool,
    /// Only those with one of these in their names; all, if there are none.
    filters: Vec<Filter>,
}

/// A part of a name, and whether it matched anything.
#[derive(Debug)]
pub struct Filter {
    part: String,
    matched: Cell<bool>,
}

impl Filter {
    pub fn new(part: &str) -> Self {
        Self { part: spaced(part), matched: Cell::new(false) }
    }

    /// Whether the name contains it; spaces, `_` and `-` are equal, as in `pika_hello`.
    pub fn wants(&self, name: &str) -> bool {
        let wants = spaced(name).contains(&self.part);
        self.matched.set(self.matched.get() || wants);
        wants
    }
}

fn spaced(name: &str) -> String {
    name.replace(['_', '-'], " ")
}

pub fn run(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    let (what, args) = args.split_first().ok_or("conformance of what: amqp, clients or pages?")?;
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
        "pages" => {
            clients::fetch_wheels(workspace, &mut tally)?;
            pages::run(workspace, |name| order.wants(name), &mut tally)?;
        }
        other => return Err(format!("conformance knows amqp, clients and pages, not `{other}`")),
    }
    order.all_matched(what)?;
    tally.close()
}

/// The scripts against this checkout's binary, as a part of `cargo x test`.
pub fn play_ours(workspace: &Workspace, filter: Option<&str>, tally: &mut Tally) -> Result<(), String> {
    let order = Order { filters: filter.map(Filter::new).into_iter().collect(), ..Order::default() };
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
                filter => order.filters.push(Filter::new(filter)),
            }
        }
        Ok(order)
    }
    fn wants(&self, name: &str) -> bool {
        // Each filter is asked, so that each records whether it matched.
        let wanted = self.filters.iter().filter(|filter| filter.wants(name)).count();
        self.filters.is_empty() || wanted > 0
    }

    /// An error if a given name matched nothing.
    fn all_matched(&self, what: &str) -> Result<(), String> {
        let unmatched = self.filters.iter().find(|filter| !filter.matched.get());
        unmatched.map_or(Ok(()), |filter| {
            let names = if what == "pages" {
                "the names are those of the pages, such as docs/tls.md"
            } else if what == "amqp" {
                "the names are those of the files in conformance/amqp"
            } else {
                "`cargo x conformance clients client` runs all programs and shows their names"
            };
            Err(format!("no name has `{}` in it; {names}", filter.part))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nothing_has_is_an_error() {
        let order = Order::parse(&["pika_hello".to_owned(), "nosuch".to_owned()]).unwrap();
        assert!(order.wants("client pika hello") && !order.wants("client pika rpc"));
        assert!(order.all_matched("clients").unwrap_err().contains("`nosuch`"));
        let order = Order::parse(&["pika".to_owned(), "pika hello".to_owned()]).unwrap();
        assert!(order.wants("client pika hello"));
        assert_eq!(order.all_matched("clients"), Ok(()));
    }
}
