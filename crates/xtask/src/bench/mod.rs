//! `cargo x bench`: FerryMQ's release build and RabbitMQ, where it is installed, under the same loads on this machine.
//!
//! Runs alternate between the servers, so that other load on the machine affects both. The report has the median
//! and the ratio: absolute figures of different machines or days cannot be compared.

mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::step;
use crate::workspace::{Workspace, cargo};
use server::Server;

/// The presets of `ferrymq bench amqp`.
const LOADS: [&str; 2] = ["transient", "durable"];

struct Options {
    runs: usize,
    seconds: u64,
}

/// One run's figures.
struct Figures {
    deliveries_per_second: f64,
    deliveries_per_server_cpu_second: f64,
    anonymous_bytes_max: f64,
}

pub fn run(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    let options = Options::read(args)?;
    step::run("build", cargo().args(["build", "--release", "--package", "ferrymq-server"]))?;
    let target = workspace.root.join("target");
    let binary = target.join("release/ferrymq");
    let folder = target.join("bench");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    }

    let mut servers = vec![Server::ferrymq(&binary, &folder.join("ferrymq"))?];
    match Server::rabbitmq(&folder.join("rabbitmq"))? {
        Some(peer) => servers.push(peer),
        None => println!("RabbitMQ is not installed here (Debian: apt-get install rabbitmq-server): no ratios"),
    }
    for load in LOADS {
        let mut figures: Vec<Vec<Figures>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 1..=options.runs {
            for (server, figures) in servers.iter().zip(&mut figures) {
                let measured = measure(&binary, server, load, options.seconds)?;
                println!(
                    "{load:<10} {round}/{} {:<9} {:>9.0} /s",
                    options.runs, server.name, measured.deliveries_per_second
                );
                figures.push(measured);
            }
        }
        print_medians(load, &servers, &figures);
    }
    Ok(())
}

impl Options {
    fn read(args: &[String]) -> Result<Self, String> {
        let mut options = Self { runs: 5, seconds: 30 };
        for pair in args.chunks(2) {
            let number = pair.get(1).and_then(|value| value.parse::<u64>().ok()).filter(|&number| number > 0);
            match (pair[0].as_str(), number) {
                ("--runs", Some(number)) => options.runs = number as usize,
                ("--seconds", Some(number)) => options.seconds = number,
                ("--runs" | "--seconds", None) => return Err(format!("{} wants a number from 1", pair[0])),
                (other, _) => return Err(format!("no option `{other}`: bench [--runs N] [--seconds N]")),
            }
        }
        Ok(options)
    }
}

/// One run of the load generator. Its figures count only if it has verified every message.
fn measure(binary: &Path, server: &Server, load: &str, seconds: u64) -> Result<Figures, String> {
    let output = Command::new(binary)
        .args(["bench", "amqp", "throughput", "--json", "--load", load])
        .args(["--port", &server.port.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(["--server-pid", &server.pid.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|why| format!("{}: {why}", binary.display()))?;
    if !output.status.success() {
        return Err(format!("the load `{load}` failed against {}", server.name));
    }
    let report: Value = serde_json::from_slice(&output.stdout).map_err(|why| format!("the report: {why}"))?;
    let number = |name: &str| report[name].as_f64().ok_or_else(|| format!("no `{name}` in the report"));
    Ok(Figures {
        deliveries_per_second: number("deliveries_per_second")?,
        deliveries_per_server_cpu_second: number("deliveries_per_server_cpu_second")?,
        anonymous_bytes_max: number("server_anonymous_bytes_max")?,
    })
}

fn print_medians(load: &str, servers: &[Server], figures: &[Vec<Figures>]) {
    println!();
    println!("{load:<10} {:>12} {:>21} {:>14} {:>8}", "deliveries/s", "(lowest - highest)", "/s server CPU", "RAM MiB");
    for (server, figures) in servers.iter().zip(figures) {
        let of = |figure: fn(&Figures) -> f64| Spread::of(figures.iter().map(figure));
        let rate = of(|figures| figures.deliveries_per_second);
        let per_cpu = of(|figures| figures.deliveries_per_server_cpu_second);
        let memory = of(|figures| figures.anonymous_bytes_max);
        println!(
            "{:<10} {:>12.0} {:>21} {:>14.0} {:>8.1}",
            server.name,
            rate.median,
            format!("({:.0} - {:.0})", rate.lowest, rate.highest),
            per_cpu.median,
            memory.highest / f64::from(1 << 20)
        );
    }
    if let [ours, peer] = figures {
        let ratio = |figure: fn(&Figures) -> f64| {
            Spread::of(ours.iter().map(figure)).median / Spread::of(peer.iter().map(figure)).median
        };
        println!(
            "{:<10} {:>12.2} {:>21} {:>14.2}",
            "ratio",
            ratio(|figures| figures.deliveries_per_second),
            "",
            ratio(|figures| figures.deliveries_per_server_cpu_second)
        );
    }
    println!();
}

/// The result of several runs.
#[derive(Debug, PartialEq)]
struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
}

impl Spread {
    /// Of at least one figure.
    fn of(figures: impl Iterator<Item = f64>) -> Self {
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
        let options = read("--seconds 3 --runs 2").unwrap();
        assert_eq!((options.runs, options.seconds), (2, 3));
        for wrong in ["--runs", "--runs 0", "--runs x", "--other 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
