//! Which crate may depend on which: the complete list.
//!
//! Few dependencies keep a new protocol at three places to change, so a dependency that is not in this list is an
//! error.

use crate::workspace::{DependencyKind, Package, Workspace};

const ROOMS: &[&str] = &["amqp091", "kafka", "mqtt", "stomp", "amqp10", "openwire", "rocketmq", "zmtp"];

/// Crates that test from outside. They may depend on any crate except the server: they run its binary.
const OUTSIDE: &[&str] = &["xtask", "conformance", "conformance-lapin", "conformance-proof", "fuzz"];

pub fn complaints(workspace: &Workspace) -> Vec<String> {
    workspace.members.iter().flat_map(of_package).collect()
}

fn of_package(package: &Package) -> Vec<String> {
    let from = package.short();
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    let mut complaints: Vec<String> = normal
        .filter_map(|dependency| dependency.name.strip_prefix("ferrymq-"))
        .filter(|to| !is_allowed(from, to))
        .map(|to| format!("arrow {from} -> {to} is not allowed (ARCHITECTURE, Overview; tidy/arrows.rs)"))
        .collect();
    let to_server = package.dependencies.iter().any(|dependency| dependency.name == "ferrymq-server");
    if to_server {
        complaints.push(format!("arrow {from} -> server: nothing depends on the server, not even tests"));
    }
    complaints
}

fn is_allowed(from: &str, to: &str) -> bool {
    match from {
        "model" => false,
        "wire" | "broker" | "auth" | "storage" | "cluster" | "admin" => to == "model",
        "node" => ["model", "broker", "auth", "storage", "cluster"].contains(&to),
        "server" => ["model", "wire", "storage", "node", "admin"].contains(&to) || ROOMS.contains(&to),
        "testkit" => ["model", "storage"].contains(&to),
        room if ROOMS.contains(&room) || room == "probe" => ["wire", "model"].contains(&to),
        outside => OUTSIDE.contains(&outside) && to != "server",
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn rooms_know_wire_and_model_only() {
        assert!(is_allowed("amqp091", "wire"));
        assert!(is_allowed("server", "mqtt"));
        assert!(!is_allowed("mqtt", "broker"));
        assert!(!is_allowed("mqtt", "amqp091"));
        assert!(!is_allowed("storage", "wire"));
        assert!(is_allowed("node", "auth"));
        assert!(!is_allowed("auth", "broker"));
        assert!(!is_allowed("xtask", "server"));
        assert!(is_allowed("testkit", "storage"));
        assert!(!is_allowed("node", "testkit"));
        assert!(!is_allowed("server", "testkit"));
        assert!(!is_allowed("model", "wire"));
        assert!(!is_allowed("unheard-of", "model"));
    }
}
