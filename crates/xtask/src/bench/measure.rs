//! One run of the load generator against one server.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::loads::{Kind, Load};
use super::server::Server;

/// The load of a neighbour: few messages, each of which is timed.
const NEIGHBOUR: [&str; 4] = ["--load", "transient", "--rate", "1000"];
/// So many seconds more does a flood take than its neighbour, so that the neighbour never has the server for itself.
const FLOOD_SECONDS_MORE: u64 = 2;

/// The generator's report, which is void unless it has verified every message. That of a neighbour is the field `neighbour` in
/// the flood's.
pub fn run(binary: &Path, server: &Server, load: &Load, seconds: u64) -> Result<Value, String> {
    match load.kind {
        Kind::Throughput => report(load, server, &finish(start(binary, server, "throughput", &load.args, seconds)?)?),
        Kind::Neighbour => {
            let flood = start(binary, server, "throughput", &load.args, seconds + FLOOD_SECONDS_MORE)?;
            let args: Vec<String> = NEIGHBOUR.iter().map(|&word| word.to_owned()).collect();
            let neighbour = start(binary, server, "latency", &args, seconds).and_then(finish);
            // The flood ends in any case before anything is said.
            let flood = finish(flood);
            let neighbour = report(load, server, &neighbour?)?;
            let mut flood = report(load, server, &flood?)?;
            flood["neighbour"] = neighbour;
            Ok(flood)
        }
    }
}

fn start(binary: &Path, server: &Server, measure: &str, args: &[String], seconds: u64) -> Result<Child, String> {
    Command::new(binary)
        .args(["bench", "amqp", measure, "--json"])
        .args(args)
        .args(["--port", &server.port.to_string()])
        .args(["--seconds", &seconds.to_string()])
        .args(["--server-pid", &server.pid.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|why| format!("{}: {why}", binary.display()))
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
