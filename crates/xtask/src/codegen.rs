//! `cargo x codegen`: writes the code that follows from a protocol's table in `spec/`.
//!
//! The output is committed, so that a build needs no generator; `tidy` generates it again and compares.

mod amqp091;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::workspace::Workspace;

/// A file as it should be.
struct Generated {
    path: PathBuf,
    text: String,
}

/// Writes every generated file that differs from its table.
pub fn run(workspace: &Workspace) -> Result<(), String> {
    for file in generate(workspace)? {
        if std::fs::read_to_string(&file.path).ok().as_ref() != Some(&file.text) {
            println!("writing {}", workspace.shown(&file.path));
            std::fs::write(&file.path, &file.text).map_err(|why| format!("{}: {why}", file.path.display()))?;
        }
    }
    Ok(())
}

/// One complaint for each generated file that differs from its table.
pub fn complaints(workspace: &Workspace) -> Result<Vec<String>, String> {
    let stale = |file: &Generated| std::fs::read_to_string(&file.path).ok().as_ref() != Some(&file.text);
    let complaint =
        |file: Generated| format!("{}: not what its table says; run `cargo x codegen`", workspace.shown(&file.path));
    Ok(generate(workspace)?.into_iter().filter(stale).map(complaint).collect())
}

fn generate(workspace: &Workspace) -> Result<Vec<Generated>, String> {
    let table = workspace.root.join("spec/amqp091.toml");
    let text = std::fs::read_to_string(&table).map_err(|why| format!("{}: {why}", table.display()))?;
    let spec = amqp091::Spec::parse(&text).map_err(|why| format!("{}: {why}", table.display()))?;
    let codec = workspace.root.join("crates/amqp091/src/codec");
    [("methods.rs", spec.methods()), ("reply_code.rs", spec.reply_codes())]
        .into_iter()
        .map(|(name, text)| Ok(Generated { path: codec.join(name), text: format_rust(workspace, &text)? }))
        .collect()
}

/// The text in the format of `cargo fmt`.
fn format_rust(workspace: &Workspace, text: &str) -> Result<String, String> {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--quiet"])
        .current_dir(&workspace.root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|why| format!("rustfmt: {why}"))?;
    let mut stdin = child.stdin.take().expect("the pipe was asked for above");
    stdin.write_all(text.as_bytes()).map_err(|why| format!("rustfmt: {why}"))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|why| format!("rustfmt: {why}"))?;
    if !output.status.success() {
        return Err("rustfmt refused what was generated".to_owned());
    }
    String::from_utf8(output.stdout).map_err(|why| format!("rustfmt: {why}"))
}
