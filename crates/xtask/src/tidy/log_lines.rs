//! Each line that the server logs at the level info or above must be explained to operators, with its level.
//!
//! A text of the log has constant parts and values. The longest constant part must be in a row of the page.

use super::SourceFile;
use crate::workspace::Workspace;

const PAGE: &str = "docs/logs-and-exit-codes.md";
const MACROS: [(&str, &str); 3] =
    [("tracing::error!(", "ERROR"), ("tracing::warn!(", "WARN"), ("tracing::info!(", "INFO")];
/// A shorter part says nothing: the rest of the text comes from a value.
const PART_CHARS_MIN: usize = 6;

pub fn complaints(workspace: &Workspace, files: &[SourceFile<'_>]) -> Result<Vec<String>, String> {
    let page = std::fs::read_to_string(workspace.root.join(PAGE)).map_err(|why| format!("{PAGE}: {why}"))?;
    let logging = files.iter().filter(|file| !file.is_test() && !file.shown.starts_with("crates/xtask"));
    Ok(logging.flat_map(|file| unexplained(&file.shown, &file.text, &page)).collect())
}

fn unexplained(file: &str, code: &str, page: &str) -> Vec<String> {
    let calls = MACROS.iter().flat_map(|(name, level)| code.split(name).skip(1).map(move |call| (call, level)));
    let parts = calls.filter_map(|(call, level)| Some((longest(&text(call)?), level)));
    parts
        .filter(|(part, level)| part.chars().count() >= PART_CHARS_MIN && !has_row(page, part, level))
        .map(|(part, level)| format!("{PAGE}: does not have the log line of {file} with the text `{part}` and {level}"))
        .collect()
}

fn has_row(page: &str, part: &str, level: &str) -> bool {
    page.lines().any(|row| row.contains(part) && row.split('|').nth(1).is_some_and(|levels| levels.contains(level)))
}

/// The first string of a macro call, with its escaped line breaks joined.
fn text(call: &str) -> Option<String> {
    let (text, _) = call.split_once('"')?.1.split_once('"')?;
    let mut lines = text.split("\\\n");
    let first = lines.next()?.to_owned();
    Some(lines.fold(first, |joined, line| joined + line.trim_start()))
}

/// The longest part of a text without values.
fn longest(text: &str) -> String {
    let parts = text.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest).trim());
    parts.max_by_key(|part| part.len()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"
        tracing::warn!(peer = address, "connection of {} is \
            too slow: {why}", user);
        tracing::error!("{sentence}");
        tracing::debug!("not for operators");
    "#;

    #[test]
    fn a_line_that_the_page_does_not_have_is_named() {
        assert_eq!(unexplained("a.rs", CODE, "| WARN | `connection of USER is too slow: ...` |"), Vec::<String>::new());
        let missing = format!("{PAGE}: does not have the log line of a.rs with the text `connection of` and WARN");
        for page in ["| WARN | `connection lost` |", "| INFO | `connection of USER is too slow: ...` |"] {
            assert_eq!(unexplained("a.rs", CODE, page).first(), Some(&missing), "{page}");
        }
    }
}
