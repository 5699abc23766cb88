//! The configuration file: TOML, flattened to the keys of the options.

use std::path::Path;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{ConfigurationError, Definition, OPTIONS, value::Form};

/// An option's value, as the file has it.
pub struct Entry {
    pub option: &'static Definition,
    pub value: String,
    /// File, line and key, for errors.
    pub place: String,
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<Entry>, ConfigurationError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigurationError {
        place: format!("configuration file {shown}"),
        problem: format!("it cannot be read: {error}"),
    })?;
    parse(&shown, &text)
}

/// Reads the text of the file `shown`.
pub fn parse(shown: &str, text: &str) -> Result<Vec<Entry>, ConfigurationError> {
    let table = DeTable::parse(text).map_err(|error| ConfigurationError {
        place: shown.to_owned(),
        problem: format!("it is not TOML: {}", error.to_string().trim_end()),
    })?;
    let mut reading = Reading { shown, text, entries: Vec::new() };
    reading.table("", table.get_ref())?;
    Ok(reading.entries)
}

struct Reading<'a> {
    shown: &'a str,
    text: &'a str,
    entries: Vec<Entry>,
}

impl Reading<'_> {
    fn table(&mut self, above: &str, table: &DeTable<'_>) -> Result<(), ConfigurationError> {
        for (name, value) in table {
            let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
            let line = 1 + self.text[..name.span().start].matches('\n').count();
            let place = format!("{} line {line}, {key}", self.shown);
            let failed = |problem: String| ConfigurationError { place: place.clone(), problem };
            if let DeValue::Table(inner) = value.get_ref() {
                self.table(&key, inner)?;
                continue;
            }
            let option = OPTIONS.iter().find(|option| option.key == key).ok_or_else(|| failed(no_such(&key)))?;
            let value = text_of(option, value).map_err(failed)?;
            self.entries.push(Entry { option, value, place });
        }
        Ok(())
    }
}

fn text_of(option: &Definition, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.to_string()),
        DeValue::Boolean(value) if matches!(option.form, Form::Switch) => Ok(value.to_string()),
        DeValue::Array(values) if option.is_list() => {
            let texts: Option<Vec<&str>> = values.iter().map(|value| value.get_ref().as_str()).collect();
            texts.map(|texts| texts.join(",")).ok_or_else(|| "every value of the list is a text in quotes".into())
        }
        other => Err(format!("it takes {}, not {}", option.form.placeholder(), other.type_str())),
    }
}

fn no_such(key: &str) -> String {
    let nearest = OPTIONS
        .iter()
        .map(|option| (strsim::jaro(option.key, key), option.key))
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    match nearest {
        Some((_, meant)) => format!("there is no such option; did you mean {meant}?"),
        None => "there is no such option; docs/configuration.md has them all".into(),
    }
}
