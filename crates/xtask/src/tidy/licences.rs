//! Every linked package must have a licence in the list of `deny.toml`.
//!
//! The list is read from that file, so `cargo deny`, if it is installed, uses the same one.

use crate::workspace::Workspace;

pub fn complaints(workspace: &Workspace) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(workspace.root.join("deny.toml")).map_err(|why| format!("deny.toml: {why}"))?;
    let deny: toml::Table = text.parse().map_err(|why| format!("deny.toml: {why}"))?;
    let allowed: Vec<&str> = deny["licenses"]["allow"]
        .as_array()
        .map(|list| list.iter().filter_map(toml::Value::as_str).collect())
        .unwrap_or_default();
    let is_allowed = |package: &&crate::workspace::Package| {
        package.licence.as_deref().is_some_and(|licence| any_allowed(licence, &allowed))
    };
    Ok(workspace
        .foreign
        .iter()
        .filter(|package| !is_allowed(package))
        .map(|package| {
            let licence = package.licence.as_deref().unwrap_or("none stated");
            format!("{} {}: licence `{licence}` is not on the list in deny.toml", package.name, package.version)
        })
        .collect())
}

/// Whether an SPDX expression can be met by the list. `/` is how old manifests write OR.
fn any_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = alternatives(&mut rest, allowed);
    met && rest.is_empty()
}

fn alternatives(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = conjunction(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= conjunction(words, allowed);
    }
    met
}

fn conjunction(words: &mut &[&str], allowed: &[&str]) -> bool {
    let mut met = single(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= single(words, allowed);
    }
    met
}

fn single(words: &mut &[&str], allowed: &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = alternatives(words, allowed);
            if let [")", rest @ ..] = *words {
                *words = rest;
            }
            met
        }
        [licence, "WITH", exception, rest @ ..] => {
            *words = rest;
            allowed.contains(licence) || allowed.contains(&format!("{licence} WITH {exception}").as_str())
        }
        [licence, rest @ ..] => {
            *words = rest;
            allowed.contains(licence)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::any_allowed;

    #[test]
    fn an_expression_is_met_by_one_alternative_and_all_of_a_conjunction() {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"];
        assert!(any_allowed("MIT OR GPL-3.0", &allowed));
        assert!(any_allowed("MIT/Apache-2.0", &allowed));
        assert!(any_allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed));
        assert!(any_allowed("Apache-2.0 WITH LLVM-exception", &allowed));
        assert!(!any_allowed("MIT AND GPL-3.0", &allowed));
        assert!(!any_allowed("(MIT OR Apache-2.0) AND BSD-3-Clause", &allowed));
        assert!(!any_allowed("AGPL-3.0", &allowed));
        assert!(!any_allowed("", &allowed));
    }
}
