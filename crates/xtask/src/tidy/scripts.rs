//! Each line of the protocol that is in scope needs a script that proves it, and each intended difference from
//! RabbitMQ must be documented for users.
//!
//! `conformance/amqp/scope.txt` numbers those lines; a script is named after its line, such as `016-topic.txt`.

use std::collections::BTreeSet;

use crate::conformance::suite;
use crate::workspace::Workspace;

const SCOPE: &str = "conformance/amqp/scope.txt";
const DIFFERENCES: &str = "docs/differences.md";

pub fn complaints(workspace: &Workspace) -> Result<Vec<String>, String> {
    let read = |path: &str| std::fs::read_to_string(workspace.root.join(path)).map_err(|why| format!("{path}: {why}"));
    let (scope, differences) = (read(SCOPE)?, read(DIFFERENCES)?);
    let suite = suite(workspace)?;
    let numbers = suite.scripts.iter().filter_map(|script| Some(script.name.split_once('-')?.0));
    let mut complaints = unscripted(&scope, &numbers.collect());
    for script in &suite.scripts {
        let recording = format!("conformance/amqp/recorded/{}.txt", script.name);
        if !workspace.root.join(&recording).exists() {
            complaints
                .push(format!("{recording}: missing; `cargo x conformance amqp --against ... --record` makes it"));
        }
        let untold = script.differences().filter(|reason| !differences.contains(*reason));
        complaints.extend(untold.map(|reason| format!("{DIFFERENCES}: does not say of {}: {reason}", script.name)));
    }
    Ok(complaints)
}

fn unscripted(scope: &str, scripted: &BTreeSet<&str>) -> Vec<String> {
    let lines = scope.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter(|line| !scripted.contains(line.split(' ').next().unwrap_or_default()))
        .map(|line| format!("{SCOPE}: no script proves line {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_script_is_named() {
        let scripted = BTreeSet::from(["001"]);
        let found = unscripted("# scope\n001 field tables\n002 frame limit\n", &scripted);
        assert_eq!(found, ["conformance/amqp/scope.txt: no script proves line 002 frame limit"]);
    }
}
