//! The form of files: each opens with a paragraph, functions fit a screen, files have about 600 lines at most.
//!
//! Existing excess is in `ratchet.txt` beside this file and may only shrink. A line there that allows more than is
//! needed is a complaint too, so that the limits are lowered when the code gets better (`--bless` does it).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::SourceFile;
use crate::workspace::Workspace;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
const RATCHET: &str = "crates/xtask/src/tidy/ratchet.txt";

/// What is too long, by file or `file fn name`, with its lines.
type Excess = BTreeMap<String, usize>;

pub fn complaints(workspace: &Workspace, files: &[SourceFile<'_>], bless: bool) -> Result<Vec<String>, String> {
    let path = workspace.root.join(RATCHET);
    let text = std::fs::read_to_string(&path).map_err(|why| format!("{RATCHET}: {why}"))?;
    let allowed = parse_ratchet(&text)?;
    let excess = files.iter().filter(|file| !file.is_generated()).fold(Excess::new(), |mut all, file| {
        all.extend(excess_of(file));
        all
    });
    let mut complaints: Vec<String> =
        files.iter().filter(|file| !opens_with_paragraph(file)).map(no_paragraph).collect();
    if bless {
        let lowered = lowered(&allowed, &excess);
        std::fs::write(&path, write_ratchet(&lowered)).map_err(|why| format!("{RATCHET}: {why}"))?;
        complaints.extend(compare(&lowered, &excess));
    } else {
        complaints.extend(compare(&allowed, &excess));
    }
    Ok(complaints)
}

fn opens_with_paragraph(file: &SourceFile<'_>) -> bool {
    file.is_generated() || file.text.starts_with("//!")
}

fn no_paragraph(file: &SourceFile<'_>) -> String {
    format!("{}: open the file with a `//!` paragraph that says what it is for", file.shown)
}

fn excess_of(file: &SourceFile<'_>) -> Excess {
    let mut functions = Functions { file: &file.shown, excess: Excess::new() };
    functions.visit_file(&file.syntax);
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        functions.excess.insert(file.shown.clone(), lines);
    }
    functions.excess
}

fn compare(allowed: &Excess, excess: &Excess) -> Vec<String> {
    let grown = excess.iter().filter_map(|(what, lines)| {
        let limit = if what.contains(" fn ") { FUNCTION_LINES_MAX } else { FILE_LINES_MAX };
        match allowed.get(what) {
            None => Some(format!("{what}: {lines} lines, more than {limit}; split it")),
            Some(most) if lines > most => {
                Some(format!("{what}: grew from {most} to {lines} lines; it may only shrink"))
            }
            Some(_) => None,
        }
    });
    let slack = allowed.iter().filter(|(what, most)| excess.get(*what).is_none_or(|lines| lines < *most));
    grown
        .chain(slack.map(|(what, _)| format!("{what}: shorter than {RATCHET} allows; run `cargo x tidy --bless`")))
        .collect()
}

fn lowered(allowed: &Excess, excess: &Excess) -> Excess {
    let keep = |(what, most): (&String, &usize)| excess.get(what).map(|lines| (what.clone(), *lines.min(most)));
    allowed.iter().filter_map(keep).collect()
}

fn parse_ratchet(text: &str) -> Result<Excess, String> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (lines, what) = line.split_once(' ').ok_or_else(|| format!("{RATCHET}: `{line}`"))?;
            let lines = lines.parse().map_err(|why| format!("{RATCHET}: `{line}`: {why}"))?;
            Ok((what.to_owned(), lines))
        })
        .collect()
}

fn write_ratchet(excess: &Excess) -> String {
    let mut text = String::from("# Lines that each of these may have at most. It may shrink, never grow.\n");
    for (what, lines) in excess {
        writeln!(text, "{lines} {what}").expect("a string takes everything");
    }
    text
}

struct Functions<'a> {
    file: &'a str,
    excess: Excess,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        if lines > FUNCTION_LINES_MAX {
            self.excess.insert(format!("{} fn {}", self.file, signature.ident), lines);
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.measure(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excess(entries: &[(&str, usize)]) -> Excess {
        entries.iter().map(|(what, lines)| ((*what).to_owned(), *lines)).collect()
    }

    #[test]
    fn a_long_function_is_measured_from_its_signature_to_its_brace() {
        let text = format!("fn long() {{\n{}}}\nfn short() {{\n}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX));
        let mut functions = Functions { file: "a.rs", excess: Excess::new() };
        functions.visit_file(&syn::parse_file(&text).unwrap());
        assert_eq!(functions.excess, excess(&[("a.rs fn long", FUNCTION_LINES_MAX + 2)]));
    }

    #[test]
    fn the_ratchet_complains_of_growth_and_of_slack() {
        let allowed = excess(&[("a.rs", 700), ("b.rs", 700), ("c.rs", 700)]);
        let found = compare(&allowed, &excess(&[("a.rs", 701), ("b.rs", 650), ("c.rs", 700), ("d.rs", 601)]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(
            lowered(&allowed, &excess(&[("a.rs", 701), ("b.rs", 650)])),
            excess(&[("a.rs", 700), ("b.rs", 650)])
        );
    }

    #[test]
    fn the_ratchet_is_read_back_as_written() {
        let some = excess(&[("a.rs", 700), ("b.rs fn long", 90)]);
        assert_eq!(parse_ratchet(&write_ratchet(&some)).unwrap(), some);
    }
}
