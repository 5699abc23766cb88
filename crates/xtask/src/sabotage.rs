//! `cargo x sabotage [FILTER]`: faults on purpose in the broker, each of which must make a test fail.
//!
//! Each fault is a patch in `crates/broker/sabotages`: a sentence, and then lines that are replaced, `-` by `+`, below
//! `--- FILE`. In a copy of the crate all patches are applied, so it is built once. `SABOTAGED` in a patch is a
//! condition: it is true in the process whose environment names the patch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::step::{self, Tally};
use crate::workspace::{Workspace, cargo};

/// The test that each of them must fail.
const TEST: &str = "sequences::two_hundred_sequences_agree";
/// The environment variable that names one of them.
const VARIABLE: &str = "FERRYMQ_SABOTAGE";

/// The module that the copy has and the crate has not.
const SWITCH: &str = r#"//! Which sabotage is switched on.

pub(crate) fn is(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("FERRYMQ_SABOTAGE").ok()).as_deref() == Some(name)
}
"#;

struct Sabotage {
    name: String,
    hunks: Vec<Hunk>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Hunk {
    /// Below the crate's folder.
    file: String,
    old: String,
    new: String,
}

/// The files of a crate, with their paths below its folder.
type Files = BTreeMap<String, String>;

pub fn run(workspace: &Workspace, filter: Option<&str>) -> Result<(), String> {
    let mut tally = Tally::default();
    try_all(workspace, |name| filter.is_none_or(|filter| name.contains(filter)), &mut tally)?;
    match filter {
        Some(filter) if tally.is_empty() => Err(format!("no sabotage has `{filter}` in its name")),
        _ => tally.close(),
    }
}

/// Builds the broker with all of them, and runs the test with each wanted one, and with none.
pub fn try_all(workspace: &Workspace, wanted: impl Fn(&str) -> bool, tally: &mut Tally) -> Result<(), String> {
    let sabotages = read(workspace)?;
    let titles: Vec<(String, &str)> =
        sabotages.iter().map(|one| (format!("sabotage {}", one.name), one.name.as_str())).collect();
    let titles: Vec<&(String, &str)> = titles.iter().filter(|(title, _)| wanted(title)).collect();
    if titles.is_empty() {
        return Ok(());
    }
    let copy = write_copy(workspace, &sabotages)?;
    step::run("build of the sabotaged broker", test(workspace, &copy).arg("--no-run"))?;
    let without = play(workspace, &copy, "none")?;
    if !without.status.success() {
        return Err(format!("{TEST} fails without a sabotage:\n{}", String::from_utf8_lossy(&without.stdout)));
    }
    let failed = format!("test {TEST} ... FAILED");
    for (title, name) in titles {
        println!("== {title}");
        let output = play(workspace, &copy, name)?;
        let noticed = String::from_utf8_lossy(&output.stdout).lines().any(|line| line == failed);
        tally.record(title, if noticed { Ok(()) } else { Err(format!("{TEST} did not notice it")) });
    }
    Ok(())
}

/// One complaint for each patch that does not fit the broker's source any more.
pub fn complaints(workspace: &Workspace) -> Result<Vec<String>, String> {
    let mut files = crate_files(&workspace.root.join(CRATE))?;
    let apply = |one: &Sabotage| apply(one, &mut files).err();
    Ok(read(workspace)?.iter().filter_map(apply).collect())
}

const CRATE: &str = "crates/broker";

fn read(workspace: &Workspace) -> Result<Vec<Sabotage>, String> {
    let folder = workspace.root.join(CRATE).join("sabotages");
    let mut files = Files::new();
    read_below(&folder, &folder, &mut files)?;
    files.iter().map(|(file, text)| Ok(Sabotage { name: name_of(file)?, hunks: hunks(file, text)? })).collect()
}

fn name_of(file: &str) -> Result<String, String> {
    file.strip_suffix(".patch").map(str::to_owned).ok_or_else(|| format!("{CRATE}/sabotages/{file}: not a patch"))
}

fn hunks(file: &str, text: &str) -> Result<Vec<Hunk>, String> {
    let mut hunks: Vec<Hunk> = Vec::new();
    let lines = text.lines().skip_while(|line| !line.starts_with("--- "));
    for line in lines {
        if let Some(file) = line.strip_prefix("--- ") {
            hunks.push(Hunk { file: file.to_owned(), ..Hunk::default() });
            continue;
        }
        let hunk = hunks.last_mut().expect("the first line opens one");
        let (side, line) = match (line.strip_prefix('-'), line.strip_prefix('+')) {
            (Some(line), _) => (&mut hunk.old, line),
            (_, Some(line)) => (&mut hunk.new, line),
            _ => return Err(format!("{CRATE}/sabotages/{file}: `{line}` does not begin with - or +")),
        };
        side.push_str(line);
        side.push('\n');
    }
    let is_sabotage = hunks.iter().any(|hunk| hunk.new.contains("SABOTAGED"));
    if is_sabotage { Ok(hunks) } else { Err(format!("{CRATE}/sabotages/{file}: it never says SABOTAGED")) }
}

/// Replaces the lines, which must be there once.
fn apply(sabotage: &Sabotage, files: &mut Files) -> Result<(), String> {
    let condition = format!("crate::sabotage::is(\"{}\")", sabotage.name);
    for hunk in &sabotage.hunks {
        let complaint = |what: &str| {
            let Hunk { file, old, .. } = hunk;
            format!("{CRATE}/sabotages/{}.patch: {what} in {file}:\n{old}", sabotage.name)
        };
        let text = files.get_mut(&hunk.file).ok_or_else(|| complaint("there is no such file"))?;
        match text.matches(&hunk.old).count() {
            1 => *text = text.replace(&hunk.old, &hunk.new.replace("SABOTAGED", &condition)),
            0 => return Err(complaint("these lines are not")),
            count => return Err(complaint(&format!("these lines are {count} times"))),
        }
    }
    Ok(())
}

/// Writes the crate with all sabotages into a workspace of its own, and returns its folder.
fn write_copy(workspace: &Workspace, sabotages: &[Sabotage]) -> Result<PathBuf, String> {
    let copy = workspace.target.join("sabotage");
    let mut files = crate_files(&workspace.root.join(CRATE))?;
    for sabotage in sabotages {
        apply(sabotage, &mut files)?;
    }
    files.insert("src/sabotage.rs".to_owned(), SWITCH.to_owned());
    files.get_mut("src/lib.rs").expect("a library has it").push_str("\nmod sabotage;\n");
    let root = |file: &str| {
        let path = workspace.root.join(file);
        std::fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))
    };
    let mut written: Files = files.into_iter().map(|(file, text)| (format!("broker/{file}"), text)).collect();
    written.insert("Cargo.toml".to_owned(), manifest(&root("Cargo.toml")?, &workspace.root));
    written.insert("Cargo.lock".to_owned(), root("Cargo.lock")?);
    let mut stale = Files::new();
    if copy.exists() {
        read_below(&copy, &copy, &mut stale)?;
    }
    for file in stale.keys().filter(|file| !written.contains_key(*file)) {
        std::fs::remove_file(copy.join(file)).map_err(|why| format!("{file}: {why}"))?;
    }
    // Cargo builds again what is newer than before.
    for (file, text) in written.iter().filter(|(file, text)| stale.get(*file) != Some(*text)) {
        let path = copy.join(file);
        let folder = path.parent().expect("it is below the copy's folder");
        let done = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
        done.map_err(|why| format!("{}: {why}", path.display()))?;
    }
    Ok(copy)
}

/// The manifest of the copy's workspace: ours, with the copy as its only member.
fn manifest(ours: &str, root: &Path) -> String {
    let line = |line: &str| match line.split_once(" = ") {
        Some(("members", _)) => "members = [\"broker\"]\n".to_owned(),
        Some(("default-members", _)) => String::new(),
        Some(("ferrymq-broker", _)) => "ferrymq-broker = { path = \"broker\" }\n".to_owned(),
        Some((name, _)) if name.starts_with("ferrymq-") => {
            format!("{}\n", line.replace("path = \"", &format!("path = \"{}/", root.display())))
        }
        _ => format!("{line}\n"),
    };
    ours.lines().map(line).collect()
}

/// The crate's files that its tests are built of.
fn crate_files(folder: &Path) -> Result<Files, String> {
    let mut files = Files::new();
    for part in ["src", "tests", "benches"] {
        read_below(folder, &folder.join(part), &mut files)?;
    }
    let manifest = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|why| format!("{}: {why}", manifest.display()))?;
    files.insert("Cargo.toml".to_owned(), text);
    Ok(files)
}

fn read_below(root: &Path, folder: &Path, files: &mut Files) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|why| format!("{}: {why}", folder.display()))?.path();
        if path.is_dir() {
            read_below(root, &path, files)?;
        } else {
            let text = std::fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))?;
            let name = path.strip_prefix(root).expect("it is below the root").to_string_lossy();
            files.insert(name.replace('\\', "/"), text);
        }
    }
    Ok(())
}

fn test(workspace: &Workspace, copy: &Path) -> Command {
    let mut test = cargo();
    test.args(["test", "--profile", "checked", "--package", "ferrymq-broker", "--test", "it"]);
    // The dependencies are built already.
    test.env("CARGO_TARGET_DIR", &workspace.target).current_dir(copy);
    test
}

fn play(workspace: &Workspace, copy: &Path, sabotage: &str) -> Result<Output, String> {
    let mut test = test(workspace, copy);
    test.args(["--quiet", "--", "--exact", TEST, "--format", "pretty"]).env(VARIABLE, sabotage);
    test.output().map_err(|why| format!("cargo test: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "A light that never goes off.\n\n--- src/lib.rs\n-    on()\n+    SABOTAGED || on()\n";

    fn patched(source: &str) -> Result<String, String> {
        let mut files = Files::from([("src/lib.rs".to_owned(), source.to_owned())]);
        let sabotage = Sabotage { name: "light".to_owned(), hunks: hunks("light.patch", PATCH)? };
        apply(&sabotage, &mut files)?;
        Ok(files.remove("src/lib.rs").unwrap())
    }

    #[test]
    fn a_patch_must_fit_once() {
        let expected = "fn is_on() {\n    crate::sabotage::is(\"light\") || on()\n}\n";
        assert_eq!(patched("fn is_on() {\n    on()\n}\n").unwrap(), expected);
        assert!(patched("fn is_on() {\n    off()\n}\n").unwrap_err().contains("these lines are not"));
        assert!(patched("    on()\n    on()\n").unwrap_err().contains("2 times"));
        assert!(hunks("dark.patch", "Nothing.\n--- src/lib.rs\n-a\n+b\n").is_err());
        assert!(hunks("dark.patch", "Nothing.\n--- src/lib.rs\n-a\n+SABOTAGED\nc\n").is_err());
    }

    #[test]
    fn the_copy_is_a_workspace_of_its_own() {
        let ours = "members = [\"crates/*\"]\ndefault-members = [\"crates/server\"]\n\
                    ferrymq-broker = { path = \"crates/broker\" }\nferrymq-model = { path = \"crates/model\" }\nbytes = \"1\"\n";
        let copied = "members = [\"broker\"]\nferrymq-broker = { path = \"broker\" }\n\
                      ferrymq-model = { path = \"/here/crates/model\" }\nbytes = \"1\"\n";
        assert_eq!(manifest(ours, Path::new("/here")), copied);
    }
}
