//! `cargo x tidy`: the rules that a compiler does not check.
//!
//! Every rule returns complaints, each with the file and what to do about it; nothing is fixed silently. Generated
//! files (with `@generated` in their first lines) are exempt from the rules about length.

mod arrows;
mod features;
mod licences;
mod log_lines;
mod names;
mod purity;
mod scripts;
mod shape;

use std::path::{Path, PathBuf};

use crate::codegen;
use crate::sabotage;
use crate::workspace::{Package, Workspace};

/// One Rust file of this workspace, read and parsed once for all rules.
struct SourceFile<'a> {
    package: &'a Package,
    path: PathBuf,
    /// Relative to the root of the checkout, with `/`.
    shown: String,
    text: String,
    syntax: syn::File,
}

impl SourceFile<'_> {
    fn is_generated(&self) -> bool {
        self.text.lines().take(5).any(|line| line.contains("@generated"))
    }

    /// Whether the file is built only for tests, by its folder and name.
    fn is_test(&self) -> bool {
        let below = self.path.strip_prefix(&self.package.folder).unwrap_or(&self.path);
        below.starts_with("tests")
            || below.starts_with("src/tests")
            || below.starts_with("benches")
            || self.shown.ends_with("tests.rs")
    }
}

pub fn run(workspace: &Workspace, bless: bool) -> Result<(), String> {
    println!("== tidy");
    let files = read_sources(workspace)?;
    let mut complaints = arrows::complaints(workspace);
    complaints.extend(features::complaints()?);
    complaints.extend(licences::complaints(workspace)?);
    complaints.extend(codegen::complaints(workspace)?);
    complaints.extend(scripts::complaints(workspace)?);
    complaints.extend(sabotage::complaints(workspace)?);
    complaints.extend(log_lines::complaints(workspace, &files)?);
    complaints.extend(files.iter().flat_map(names::complaints));
    complaints.extend(files.iter().flat_map(purity::complaints));
    complaints.extend(shape::complaints(workspace, &files, bless)?);
    for complaint in &complaints {
        println!("tidy: {complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        1 => Err("tidy: 1 complaint".to_owned()),
        count => Err(format!("tidy: {count} complaints")),
    }
}

fn read_sources(workspace: &Workspace) -> Result<Vec<SourceFile<'_>>, String> {
    let mut files = Vec::new();
    for package in &workspace.members {
        let mut paths = Vec::new();
        rust_files(&package.folder, &mut paths)?;
        paths.sort();
        for path in paths {
            let shown = workspace.shown(&path).into_owned();
            let text = std::fs::read_to_string(&path).map_err(|why| format!("{shown}: {why}"))?;
            let syntax = syn::parse_file(&text).map_err(|why| format!("{shown}: {why}"))?;
            files.push(SourceFile { package, path, shown, text, syntax });
        }
    }
    Ok(files)
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|why| format!("{}: {why}", folder.display()))?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}
