//! Names without meaning: a type that is named after its form and not after what it is in the field.

use syn::visit::{self, Visit};

use super::SourceFile;

const EMPTY_WORDS: &[&str] =
    &["manager", "handler", "helper", "helpers", "util", "utils", "common", "base", "impl", "info", "misc", "params"];

pub fn complaints(file: &SourceFile<'_>) -> Vec<String> {
    if file.is_generated() {
        return Vec::new();
    }
    let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
    let mut types = TypeNames::default();
    types.visit_file(&file.syntax);
    std::iter::once(stem.into_owned())
        .chain(types.names)
        .filter_map(|name| {
            let why = why_empty(&name)?;
            Some(format!("{}: the name `{name}` {why}; say what it is in the field", file.shown))
        })
        .collect()
}

fn why_empty(name: &str) -> Option<String> {
    if name.ends_with(|last: char| ('2'..='9').contains(&last)) && !is_standard(name) {
        return Some("is a number away from another".to_owned());
    }
    let word = words(name).into_iter().find(|word| EMPTY_WORDS.contains(&word.as_str()))?;
    Some(format!("has `{word}` in it"))
}

/// Names whose digits are a standard's own: `Sha256`, `Utf8`, `Mqtt5`.
fn is_standard(name: &str) -> bool {
    ["Sha", "Utf", "Crc", "Mqtt", "Lz", "U", "I", "V", "lz", "utf", "crc", "v"]
        .contains(&name.trim_end_matches(|last: char| last.is_ascii_digit()))
}

/// `QueueManager` and `queue_manager` are both `queue`, `manager`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter.is_uppercase() {
            words.push(String::new());
        }
        if letter != '_' {
            words.last_mut().expect("starts with one word").extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[derive(Default)]
struct TypeNames {
    names: Vec<String>,
}

impl<'ast> Visit<'ast> for TypeNames {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.names.push(item.ident.to_string());
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.names.push(item.ident.to_string());
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.names.push(item.ident.to_string());
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.names.push(item.ident.to_string());
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.names.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::why_empty;

    #[test]
    fn empty_words_are_found_as_whole_words_only() {
        for bad in ["QueueManager", "frame_utils", "BaseQueue", "Queue2"] {
            assert!(why_empty(bad).is_some(), "{bad}");
        }
        for good in ["Queues", "Database", "Baseline", "Sha256", "Implication", "amqp091"] {
            assert!(why_empty(good).is_none(), "{good}");
        }
    }
}
