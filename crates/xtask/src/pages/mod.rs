//! Runs the blocks of README and docs, from the pages themselves: commands work and print what the page shows, a
//! server starts with each configuration, and each Python program runs.
//!
//! Each page has its own network, `/tmp`, `/etc` and `/var/lib`, so that its ports and paths are free and nothing
//! is left. `ferrymq` and `cargo run --release` run the binary under test there.

mod block;
mod run;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::step::Tally;
use crate::workspace::Workspace;
use block::Block;

/// Every page with blocks that run is a test: `page docs/tls.md`.
pub fn run(workspace: &Workspace, wanted: impl Fn(&str) -> bool, tally: &mut Tally) -> Result<(), String> {
    let mut pages = vec![workspace.root.join("README.md"), workspace.root.join("CONTRIBUTING.md")];
    pages.extend(docs(&workspace.root.join("docs"))?);
    for path in pages {
        let shown = workspace.shown(&path).into_owned();
        let name = format!("page {shown}");
        if !wanted(&name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|why| format!("{shown}: {why}"))?;
        match Block::all(&text) {
            Err(why) => tally.record(&name, Err(why)),
            Ok(blocks) if blocks.iter().all(|block| block.commands.is_empty()) => {}
            Ok(blocks) => match why_not_here(workspace) {
                Some(why) => tally.skip(&name, &why),
                None => {
                    let ran = run::page(workspace, &blocks);
                    println!("{name} ... {}", if ran.is_ok() { "ok" } else { "FAILED" });
                    tally.record(&name, ran);
                }
            },
        }
    }
    Ok(())
}

fn docs(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut pages: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    pages.sort();
    Ok(pages)
}

/// Why pages cannot run on this machine, if they cannot.
fn why_not_here(workspace: &Workspace) -> Option<String> {
    if workspace.root.starts_with("/tmp") || workspace.target.starts_with("/tmp") {
        return Some("this checkout is in /tmp, which pages have one of their own of".to_owned());
    }
    let mut apart = run::apart();
    let tried = apart.arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there =
        |tool: &str| Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    match ["bash", "python3", "curl", "openssl"].into_iter().find(|tool| !is_there(tool)) {
        Some(missing) => Some(format!("there is no {missing} here")),
        None if !tried.is_ok_and(|status| status.success()) => {
            Some("this machine gives no network of its own (unshare --user --net)".to_owned())
        }
        None => None,
    }
}
