//! The file of definitions: read, taken in, and a line in the log for each thing in it that was not.

use ferrymq_node::{DefinitionsError, Node};

use crate::settings::DefinitionsFile;

/// Sets up what the file says. What cannot be used is left out, unless the file is to be taken strictly.
///
/// # Errors
/// Where the file cannot be read, or is to be taken strictly and something in it cannot be used: then nothing was taken in.
pub fn import(node: &Node, file: &DefinitionsFile) -> Result<(), String> {
    let name = file.path.display();
    let json = std::fs::read(&file.path)
        .map_err(|error| format!("definitions {name}: {error}; name another file, or leave the option out"))?;
    let imported = node.import_definitions(&json, file.strict).map_err(|error| match error {
        DefinitionsError::Strict(problems) => {
            for problem in &problems {
                tracing::error!("definitions {name}: {problem}");
            }
            let count = problems.len();
            format!("definitions {name}: nothing was taken in, because of {count} things in it and definitions_strict")
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
    tracing::info!("definitions {name}: taken in: {}{left_out}", imported.summary());
    Ok(())
}
