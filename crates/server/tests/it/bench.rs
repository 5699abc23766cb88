//! Tests of the load generator with the server of the same binary: each command succeeds, and its report has the
//! figures.

use serde_json::Value;

use crate::running::{Folder, Running, ferrymq};

/// A server whose log shows the connections of the generator.
fn start(data: &Folder) -> Running {
    Running::start_logged(data, ferrymq().args(["serve", "--listen", "amqp=127.0.0.1:0"]))
}

/// Runs `ferrymq bench amqp` for a second and returns its report.
fn report(server: &Running, pid: u32, command: &str) -> Value {
    let address = server.address("amqp");
    let output = ferrymq()
        .args(["bench", "amqp"])
        .args(command.split_whitespace())
        .args(["--seconds", "1", "--json", "--uri", &format!("amqp://{address}")])
        .args(["--server-pid", &pid.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {report}"))
}

#[test]
fn each_load_runs_and_is_verified() {
    let data = Folder::created();
    let server = start(&data);
    let pid = server.id();
    for load in [
        "throughput --warm-up 0",
        "throughput --warm-up 0 --load durable --queues 7",
        "throughput --warm-up 0 --fan-out 600",
        "throughput --warm-up 0 --bindings 300",
        "throughput --warm-up 0 --bindings 300 --exchange direct",
        "throughput --warm-up 0 --load durable --backlog 5000",
        "latency --warm-up 0 --rate 500 --heartbeat 1",
        "lag --rate 5000",
        "lag --load durable --size 20000 --rate 1000 --share 10",
    ] {
        let report = report(&server, pid, load);
        assert!(number(&report, "checked_messages") > 0.0, "{load}");
        assert_eq!((number(&report, "lost"), number(&report, "doubled")), (0.0, 0.0), "{load}");
    }
    for kind in ["binds", "declares", "subscribes"] {
        let report = report(&server, pid, &format!("churn --clients 2 --kind {kind}"));
        assert!(number(&report, "operations_per_second") > 0.0, "{kind}");
    }
}

#[test]
fn a_lagging_consumer_leaves_its_part_for_the_drain() {
    let data = Folder::created();
    let server = start(&data);
    let report = report(&server, server.id(), "lag --rate 20000 --share 25 --ack-multiple 50 --prefetch 100");
    let (checked, drained) = (number(&report, "checked_messages"), number(&report, "backlog_messages"));
    assert!(drained >= checked * 0.7, "{drained} of {checked}");
    assert!(number(&report, "server_anonymous_bytes_max") > 0.0);
}
