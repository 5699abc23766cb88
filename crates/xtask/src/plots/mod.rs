//! `cargo x plots [FILE [FOLDER]]`: makes pictures (SVG) from the reports that `cargo x bench --json FILE` has written.
//! Without a file, from all reports in `docs/plots`.

mod graph;
mod lag;
mod rows;
mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::workspace::Workspace;

pub fn run(workspace: &Workspace, args: &[String]) -> Result<(), String> {
    let own = workspace.root.join("docs/plots");
    let (files, folder) = match args {
        [] => (reports_in(&own)?, own),
        [file] => (vec![PathBuf::from(file)], own),
        [file, folder] => (vec![PathBuf::from(file)], PathBuf::from(folder)),
        _ => return Err("plots [FILE [FOLDER]]".to_owned()),
    };
    fs::create_dir_all(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    for file in files {
        for (name, picture) in pictures(&file)? {
            let file = folder.join(name);
            println!("{}", file.display());
            fs::write(&file, picture).map_err(|why| format!("{}: {why}", file.display()))?;
        }
    }
    Ok(())
}

/// The reports in a folder, by name.
fn reports_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let broken = |why| format!("{}: {why}", folder.display());
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(broken)?.collect();
    let mut files: Vec<PathBuf> = entries.map_err(broken)?.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

/// All pictures of a file of reports: name and text.
fn pictures(file: &Path) -> Result<Vec<(String, String)>, String> {
    let text = fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))?;
    let reports: Value = serde_json::from_str(&text).map_err(|why| format!("{}: {why}", file.display()))?;
    let mut pictures = Vec::new();
    for (name, title, kind, path, unit) in rows::PICTURES {
        let rows = rows::rows(&reports, kind, path, unit)?;
        if !rows.is_empty() {
            pictures.push((format!("{name}.svg"), rows::picture(title, &rows)));
        }
    }
    pictures.extend(graph::pictures(&reports)?);
    pictures.extend(lag::pictures(&reports)?);
    Ok(pictures)
}

/// The elements of a list; none if it is not a list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pictures in the repository are those of the reports in it.
    #[test]
    fn the_committed_pictures_are_those_of_the_committed_reports() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plots");
        let mut drawn: Vec<String> = Vec::new();
        for file in reports_in(&folder).unwrap() {
            for (name, picture) in pictures(&file).unwrap() {
                let committed = fs::read_to_string(folder.join(&name)).unwrap_or_default();
                assert!(committed == picture, "docs/plots/{name} is old: run `cargo x plots`");
                drawn.push(name);
            }
        }
        let committed = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut committed: Vec<String> = committed.filter(|name| name.ends_with(".svg")).collect();
        committed.sort();
        drawn.sort();
        assert_eq!(drawn, committed);
    }
}
