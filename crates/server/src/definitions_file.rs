//! The definitions file: reads it, imports it, and logs each entry that was left out.

use ferrymq_node::{DefinitionsError, Node};

use crate::settings::DefinitionsFile;

/// Imports the file. Leaves out what cannot be used, unless the import is strict.
///
/// # Errors
/// If the file cannot be read, or if the import is strict and an entry cannot be used. Then nothing was imported.
pub fn import(node: &Node, file: &DefinitionsFile) -> Result<(), String> {
    let name = file.path.display();
    let json = std::fs::read(&file.path)
        .map_err(|error| format!("definitions {name}: {error}; name another file, or leave the option out"))?;
    let imported = node.import_definitions(&json, file.strict).map_err(|error| match error {
        DefinitionsError::Strict(problems) => {
            for problem in &problems {
                tracing::error!("definitions {name}: {problem}");
            }
            let mistakes =
                if problems.len() == 1 { "1 mistake".to_owned() } else { format!("{} mistakes", problems.len()) };
            format!("definitions {name}: nothing was imported: definitions_strict is set, and the file has {mistakes}")
        }
        DefinitionsError::Unreadable(why) => format!("definitions {name}: {why}"),
    })?;
    for what in &imported.left_out {
        tracing::warn!("definitions {name}: left out: {what}");
    }
    for what in &imported.passed_over {
        tracing::warn!("definitions {name}: {what}");
    }
    let left_out = match imported.left_out.len() {
        0 => String::new(),
        count => format!("; {count} left out"),
    };
    tracing::info!("definitions {name}: imported: {}{left_out}", imported.summary());
    Ok(())
}
