//! `cargo x bench`: FerryMQ's release build and RabbitMQ, where it is installed, under the same loads on this machine.
//!
//! Runs alternate between the servers, so that whatever else the machine does hits both, and what is reported is the
//! median and the ratio: absolute figures of different machines or days do not compare. All reports of the load
//! generator are kept as JSON, of which `cargo x plots` makes pictures.

mod health;
mod loads;
mod measure;
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::step;
use crate::workspace::{Workspace, cargo};
use loads::{Kind, Load};
use server::Server;

const USAGE: &str =
    "bench [--runs N] [--seconds N] [--loads NAME,...] [--json FILE] [--binary FILE] [--servers both|ferrymq]";

struct Options {
    runs: usize,
    seconds: u64,
    loads: Vec<Load>,
    /// Where the reports go.
    json: Option<PathBuf>,
    /// What is measured instead of this checkout's release build.
    binary: Option<PathBuf>,
    /// Whether RabbitMQ is measured, too.
    with_rabbitmq: bool,
}

pub fn run(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    let options = Options::read(args)?;
    let target = workspace.root.join("target");
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            step::run("build", cargo().args(["build", "--release", "--package", "ferrymq-server"]))?;
            target.join("release/ferrymq")
        }
    };
    let folder = target.join("bench");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    }

    let mut servers = servers(&options, &binary, &folder)?;
    let file = options.json.clone().unwrap_or_else(|| folder.join("bench.json"));
    let mut measured = Vec::new();
    for load in &options.loads {
        let mut reports: Vec<Vec<Value>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 1..=options.runs {
            for (server, reports) in servers.iter_mut().zip(&mut reports) {
                let report = match measure::run(&binary, server, load, options.seconds) {
                    Ok(report) => report,
                    // For example, it cannot deliver in time what was published. That must not end the other loads.
                    Err(why) if !server.is_ours() => {
                        println!("{:<20} {round}/{} {:<9} void: {why}", load.name, options.runs, server.name);
                        continue;
                    }
                    Err(why) => return Err(why),
                };
                let (figure, unit) = headline(load.kind);
                println!(
                    "{:<20} {round}/{} {:<9} {:>11.0} {unit}",
                    load.name,
                    options.runs,
                    server.name,
                    number(&report, figure)?
                );
                reports.push(report);
            }
        }
        print_medians(load, &servers, &reports)?;
        let by_server: Vec<Value> = servers
            .iter()
            .zip(&reports)
            .filter(|(_, reports)| !reports.is_empty())
            .map(|(server, reports)| json!({"server": server.name, "reports": reports}))
            .collect();
        let mut entry = json!({"load": load.name, "kind": load.kind.word(), "servers": by_server});
        if let Kind::Cost { graph, value } = load.kind {
            (entry["graph"], entry["value"]) = (json!(graph), json!(value));
        }
        measured.push(entry);
        // After each load, so that what was measured stays if a later one fails.
        let all = json!({"seconds": options.seconds, "loads": measured});
        fs::write(&file, format!("{all:#}\n")).map_err(|why| format!("{}: {why}", file.display()))?;
    }
    println!("all reports: {}", file.display());
    Ok(())
}

fn servers(options: &Options, binary: &Path, folder: &Path) -> Result<Vec<Server>, String> {
    let mut servers = vec![Server::ferrymq(binary, &folder.join("ferrymq"))?];
    if options.with_rabbitmq {
        match Server::rabbitmq(&folder.join("rabbitmq"))? {
            Some(peer) => servers.push(peer),
            None => println!("RabbitMQ is not installed here (Debian: apt-get install rabbitmq-server): no ratios"),
        }
    }
    Ok(servers)
}

impl Options {
    fn read(args: &[String]) -> Result<Self, String> {
        let loads = loads::chosen("transient,durable")?;
        let mut options = Self { runs: 5, seconds: 30, loads, json: None, binary: None, with_rabbitmq: true };
        for pair in args.chunks(2) {
            let value = pair.get(1).ok_or_else(|| format!("{} wants a value: {USAGE}", pair[0]))?;
            let from_one = || {
                let number = value.parse::<u64>().ok().filter(|&number| number > 0);
                number.ok_or_else(|| format!("{} wants a number from 1", pair[0]))
            };
            match pair[0].as_str() {
                "--runs" => options.runs = from_one()? as usize,
                "--seconds" => options.seconds = from_one()?,
                "--loads" => options.loads = loads::chosen(value)?,
                "--json" => options.json = Some(PathBuf::from(value)),
                "--binary" => options.binary = Some(PathBuf::from(value)),
                "--servers" => match value.as_str() {
                    "both" => options.with_rabbitmq = true,
                    "ferrymq" => options.with_rabbitmq = false,
                    _ => return Err("--servers wants both or ferrymq".to_owned()),
                },
                other => return Err(format!("no option `{other}`: {USAGE}")),
            }
        }
        Ok(options)
    }
}

/// What a load is known by: the path of the figure in a report, and its unit.
fn headline(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Throughput => ("/deliveries_per_second", "/s"),
        Kind::Neighbour => ("/neighbour/delivery_us/p99", "us p99"),
        Kind::Cost { .. } => ("/deliveries_per_server_cpu_second", "/s server CPU"),
        Kind::Lag => ("/drained_per_second", "/s drained"),
    }
}

/// A figure of a report, by its path.
pub fn number(report: &Value, path: &str) -> Result<f64, String> {
    report.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("no `{path}` in the report"))
}

/// The columns of a load's table: heading, path, by what the figure is divided, whether the highest is shown.
fn columns(kind: Kind) -> &'static [(&'static str, &'static str, f64)] {
    const MIB: f64 = (1 << 20) as f64;
    match kind {
        Kind::Throughput | Kind::Cost { .. } => &[
            ("deliveries/s", "/deliveries_per_second", 1.0),
            ("/s server CPU", "/deliveries_per_server_cpu_second", 1.0),
            ("RAM MiB", "/server_anonymous_bytes_max", MIB),
        ],
        Kind::Neighbour => &[
            ("p50 ms", "/neighbour/delivery_us/p50", 1_000.0),
            ("p99 ms", "/neighbour/delivery_us/p99", 1_000.0),
            ("p99.9 ms", "/neighbour/delivery_us/p99_9", 1_000.0),
            ("longest ms", "/neighbour/delivery_us/max", 1_000.0),
            ("heartbeat ms", "/neighbour/heartbeat_gap_ms_max", 1.0),
            ("health ms", "/health_ms_max", 1.0),
            ("end ms", "/end_ms", 1.0),
            ("beside it/s", "/beside_per_second", 1.0),
        ],
        Kind::Lag => &[
            ("published/s", "/publishes_per_second", 1.0),
            ("delivered/s", "/deliveries_per_second", 1.0),
            ("gap ms", "/consumer_gap_ms_max", 1.0),
            ("drained/s", "/drained_per_second", 1.0),
            ("RAM MiB", "/server_anonymous_bytes_max", MIB),
        ],
    }
}

fn print_medians(load: &Load, servers: &[Server], reports: &[Vec<Value>]) -> Result<(), String> {
    println!("\n{:<20} {:>14} {:>12} {:>12} {:>12} {:>8}", load.name, "", "median", "lowest", "highest", "ratio");
    for (heading, path, unit) in columns(load.kind) {
        let mut spreads = Vec::new();
        for (server, reports) in servers.iter().zip(reports) {
            // RabbitMQ has no health check here and is not asked to stop. Its runs may all be void.
            if !server.is_ours() && reports.iter().all(|report| report.pointer(path).is_none_or(Value::is_null)) {
                continue;
            }
            let figures: Result<Vec<f64>, String> =
                reports.iter().map(|report| number(report, path).map(|figure| figure / unit)).collect();
            spreads.push(Spread::of(figures?.into_iter()));
        }
        for (server, spread) in servers.iter().zip(&spreads) {
            let ratio = match &spreads[..] {
                [ours, peer] if spread == ours => format!("{:.2}", ours.median / peer.median),
                _ => String::new(),
            };
            println!(
                "{:<20} {heading:>14} {:>12} {:>12} {:>12} {ratio:>8}",
                server.name,
                shown(spread.median),
                shown(spread.lowest),
                shown(spread.highest)
            );
        }
    }
    println!();
    Ok(())
}

/// Three digits or more.
fn shown(figure: f64) -> String {
    if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}

/// The result of several runs.
#[derive(Debug, PartialEq)]
pub struct Spread {
    pub lowest: f64,
    pub median: f64,
    pub highest: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self { lowest: sorted[0], median: (low + high) / 2.0, highest: sorted[sorted.len() - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Spread { lowest: 1.0, median: 3.0, highest: 9.0 });
        assert_eq!(spread(&[4.0, 1.0]).median, 2.5);
        assert_eq!(spread(&[7.0]).median, 7.0);
    }

    #[test]
    fn options_are_numbers_from_one() {
        let read = |line: &str| Options::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = read("--seconds 3 --runs 2 --loads durable-65536,neighbour").unwrap();
        assert_eq!((options.runs, options.seconds, options.loads.len()), (2, 3, 17));
        assert!(options.with_rabbitmq && !read("--servers ferrymq").unwrap().with_rabbitmq);
        for wrong in ["--runs", "--runs 0", "--runs x", "--other 1", "--loads other", "--servers x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
