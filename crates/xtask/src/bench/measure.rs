//! One run of the load generator against one server.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::health;
use super::loads::{Kind, Load};
use super::server::Server;

/// The load of a neighbour: few messages, whose latencies are measured, and an idle connection with a heartbeat each
/// second.
const NEIGHBOUR: [&str; 6] = ["--load", "transient", "--rate", "1000", "--heartbeat", "1"];
/// So many seconds more does a flood take than its neighbour, so that the neighbour never has the server for itself.
const FLOOD_SECONDS_MORE: u64 = 2;
/// How long a load runs before the server is asked to stop.
const FLOOD_BEFORE_END: Duration = Duration::from_millis(1_500);
/// The approximate number of samples of a run with a lagging consumer.
const SAMPLES: u64 = 120;

/// The generator's report, which is void unless it has verified every message. That of a neighbour is the field
/// `neighbour` in the flood's.
pub fn run(binary: &Path, server: &mut Server, load: &Load, seconds: u64) -> Result<Value, String> {
    match load.kind {
        Kind::Throughput | Kind::Cost { .. } => whole(binary, server, load, &[], seconds),
        Kind::Lag => {
            let every = (seconds / SAMPLES).max(1).to_string();
            whole(binary, server, load, &["--sample-seconds", &every], seconds)
        }
        Kind::Neighbour => {
            let mut report = beside(binary, server, load, seconds)?;
            if server.is_ours() {
                report["end_ms"] = json!(end_beside(binary, server, load)?.as_secs_f64() * 1e3);
            }
            Ok(report)
        }
    }
}

fn whole(binary: &Path, server: &Server, load: &Load, more: &[&str], seconds: u64) -> Result<Value, String> {
    let args: Vec<&str> = load.args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    report(load, server, &finish(start(binary, server, load.measure, &args, seconds)?)?)
}

/// Measures a neighbour, heartbeats and health checks beside a load.
fn beside(binary: &Path, server: &Server, load: &Load, seconds: u64) -> Result<Value, String> {
    let flood = flood(binary, server, load, seconds + FLOOD_SECONDS_MORE)?;
    let checks = server.health.map(health::Checks::start);
    let neighbour = start(binary, server, "latency", &NEIGHBOUR, seconds).and_then(finish);
    let health = checks.map(health::Checks::finish);
    // The load is ended before an error is returned.
    let flood = finish(flood);
    let neighbour = report(load, server, &neighbour?)?;
    let mut flood = report(load, server, &flood?)?;
    flood["neighbour"] = neighbour;
    flood["health_ms_max"] = json!(health.transpose()?.map(|longest| longest.as_secs_f64() * 1e3));
    let rate = ["deliveries_per_second", "operations_per_second"].iter().find_map(|name| flood.get(*name)).cloned();
    flood["beside_per_second"] = json!(rate);
    Ok(flood)
}

/// How long the server takes to end beside the load after SIGTERM. It is started again.
fn end_beside(binary: &Path, server: &mut Server, load: &Load) -> Result<Duration, String> {
    let args: Vec<&str> = load.args.iter().map(String::as_str).collect();
    let mut flood = command(binary, server, load.measure, &args, 60)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| format!("{}: {why}", binary.display()))?;
    thread::sleep(FLOOD_BEFORE_END);
    let took = server.end_and_start_again();
    // The kill may fail, because the load has ended when the server closed its connections.
    let _gone = flood.kill();
    let _gone = flood.wait();
    took
}

fn flood(binary: &Path, server: &Server, load: &Load, seconds: u64) -> Result<Child, String> {
    let args: Vec<&str> = load.args.iter().map(String::as_str).collect();
    start(binary, server, load.measure, &args, seconds)
}

fn start(binary: &Path, server: &Server, measure: &str, args: &[&str], seconds: u64) -> Result<Child, String> {
    let started = command(binary, server, measure, args, seconds).stderr(Stdio::inherit()).spawn();
    started.map_err(|why| format!("{}: {why}", binary.display()))
}

fn command(binary: &Path, server: &Server, measure: &str, args: &[&str], seconds: u64) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["bench", "amqp", measure, "--json"])
        .args(args)
        .args(["--port", &server.port.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(["--server-pid", &server.pid.to_string()])
        .stdout(Stdio::piped());
    command
}

fn finish(child: Child) -> Result<Output, String> {
    child.wait_with_output().map_err(|why| format!("the load generator: {why}"))
}

fn report(load: &Load, server: &Server, output: &Output) -> Result<Value, String> {
    if !output.status.success() {
        return Err(format!("the load `{}` failed against {}", load.name, server.name));
    }
    serde_json::from_slice(&output.stdout).map_err(|why| format!("the report: {why}"))
}
