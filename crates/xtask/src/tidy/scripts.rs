//! Each line of the protocol's surface that is in scope has a conversation that proves it.
//!
//! `conformance/amqp/scope.txt` numbers those lines; a script is called after the line it proves, `016-topic.txt`.

use std::collections::BTreeSet;

use crate::workspace::Workspace;

const SCOPE: &str = "conformance/amqp/scope.txt";

pub fn complaints(workspace: &Workspace) -> Result<Vec<String>, String> {
    let path = workspace.root.join(SCOPE);
    let scope = std::fs::read_to_string(&path).map_err(|why| format!("{SCOPE}: {why}"))?;
    let folder = path.parent().expect("the file is in a folder");
    let entries = std::fs::read_dir(folder).map_err(|why| format!("{SCOPE}: {why}"))?;
    let scripted: BTreeSet<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.split_once('-')?.0.to_owned()))
        .collect();
    Ok(unscripted(&scope, &scripted))
}

fn unscripted(scope: &str, scripted: &BTreeSet<String>) -> Vec<String> {
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
        let scripted = BTreeSet::from(["001".to_owned()]);
        let found = unscripted("# scope\n001 field tables\n002 frame limit\n", &scripted);
        assert_eq!(found, ["conformance/amqp/scope.txt: no script proves line 002 frame limit"]);
    }
}
