//! The binaries and the tests must be built with the same features of every package. If a test needs one more,
//! everything that depends on that package would be built twice.

use std::collections::BTreeSet;

use crate::workspace::cargo;

pub fn complaints() -> Result<Vec<String>, String> {
    Ok(differences(&resolved("normal,build")?, &resolved("normal,build,dev")?))
}

/// Lines `package version|features`, as cargo resolves them for the whole workspace.
fn resolved(edges: &str) -> Result<BTreeSet<String>, String> {
    let mut tree = cargo();
    tree.args(["tree", "--workspace", "--locked", "--prefix", "none", "--edges", edges, "--format", "{p}|{f}"]);
    let output = tree.output().map_err(|why| format!("cargo tree: {why}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // A package that was shown before is marked.
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.replace(" (*)", "")).collect())
}

fn differences(binaries: &BTreeSet<String>, tests: &BTreeSet<String>) -> Vec<String> {
    let complaint = |line: &String| {
        let (package, features) = line.split_once('|').unwrap_or((line, ""));
        format!(
            "{package}: the tests want other features of it than `{features}`; say them in [workspace.dependencies]"
        )
    };
    binaries.difference(tests).map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_only_the_tests_want_is_named() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
        let binaries = set(&["a v1|std", "b v1|"]);
        assert!(differences(&binaries, &set(&["a v1|std", "b v1|", "only-for-tests v1|"])).is_empty());
        let found = differences(&binaries, &set(&["a v1|std,test-util", "b v1|"]));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a v1: the tests want other features of it than `std`"), "{}", found[0]);
    }
}
