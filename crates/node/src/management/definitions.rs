//! Definitions: users, vhosts, permissions, policies, queues, exchanges and bindings as RabbitMQ exports them in
//! JSON. They are imported at once and without permission checks.
//!
//! Everything that can be used is written in one unit of the journal. What cannot be used is left out and reported.
//! For a strict caller the import is tried on a draft of the catalog first, and nothing is imported if there is an
//! error.
//!
//! A second import of the same file changes nothing. What exists already under the same name stays as it is, except
//! for users, permissions and policies, which become what the file says. RabbitMQ does the same.

use std::{collections::BTreeMap, fmt};

use ferrymq_broker::{Catalog, Shard};
use ferrymq_model::{CatalogEntry, Name};
use serde_json::Value as Json;

use crate::{
    core::{node::Node, transition::Transition},
    management::definition_import::{Import, Made, Progress, stored_passwords},
};

/// How many entries an operator's import takes in during one hold of the locks.
const PORTION: usize = 128;

/// What was imported, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many things of each kind are now as the file says, such as `("users", 2)`.
    pub taken: Vec<(&'static str, usize)>,
    /// Entries that cannot be used, and unknown keys: one sentence each, which begins with the place.
    pub left_out: Vec<String>,
    /// What has no meaning here, and what became of the default user: one sentence each.
    pub passed_over: Vec<String>,
}

impl Imported {
    /// What was imported, in words: `2 users, 1 vhost`.
    #[must_use]
    pub fn summary(&self) -> String {
        let counted = |(kind, count): &(&str, usize)| {
            let noun = kind.replace('_', " ");
            let noun = match (*count, noun.strip_suffix("ies"), noun.strip_suffix('s')) {
                (1, Some(stem), _) => format!("{stem}y"),
                (1, None, Some(one)) => one.to_owned(),
                _ => noun,
            };
            format!("{count} {noun}")
        };
        let counted: Vec<String> = self.taken.iter().filter(|(_, count)| *count > 0).map(counted).collect();
        if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") }
    }
}

/// Why nothing was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionsError {
    /// The file cannot be read as definitions: why.
    Unreadable(String),
    /// The import is strict, and these cannot be used: a sentence each.
    Strict(Vec<String>),
}

impl fmt::Display for DefinitionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => f.write_str(why),
            Self::Strict(left_out) => write!(
                f,
                "nothing was imported, because definitions_strict is set and this cannot be used: {}",
                left_out.join("; ")
            ),
        }
    }
}

impl std::error::Error for DefinitionsError {}

impl Node {
    /// Imports definitions as RabbitMQ exports them. Leaves out what cannot be used, unless the import is `strict`.
    ///
    /// # Errors
    /// If this is not JSON or not an object; for a strict import also if anything in it cannot be used or is
    /// unknown. Then nothing was imported.
    pub fn import_definitions(&self, json: &[u8], strict: bool) -> Result<Imported, DefinitionsError> {
        let parsed = parse(json)?;
        let passwords = self.passwords_of(&parsed);
        let (imported, _) = self.change_catalog(None, None, |shard, ports, changes| {
            if strict {
                let left_out = try_on(ports.catalog(), &parsed, &passwords)?;
                if !left_out.is_empty() {
                    return Err(DefinitionsError::Strict(left_out));
                }
            }
            let mut import = Import::new(ports.catalog(), &passwords);
            import.take_in(&parsed);
            let imported = std::mem::take(&mut import.imported);
            let made = import.made();
            Ok((imported, apply(made, shard, ports, changes)))
        });
        let (imported, traced) = imported?;
        traced.iter().for_each(|(vhost, on)| self.trace(vhost, *on));
        Ok(imported)
    }

    /// Like [`Node::import_definitions`], for an operator: the default user stays, and the entries are imported in portions,
    /// so that others can use the catalog in between. After a crash some of them may be missing.
    pub(super) fn import_for_operator(&self, json: &[u8]) -> Result<Imported, DefinitionsError> {
        let parsed = parse(json)?;
        let passwords = self.passwords_of(&parsed);
        let (mut progress, mut goes_on) = (Progress::default(), true);
        while goes_on {
            let before = std::mem::take(&mut progress);
            let (next, _) = self.change_catalog(None, None, |shard, ports, changes| {
                let mut import = Import::new(ports.catalog(), &passwords).keeping_default_user();
                let next = import.take_some(&parsed, before, PORTION);
                let made = import.made();
                (next, apply(made, shard, ports, changes))
            });
            let ((next, more), traced) = next;
            traced.iter().for_each(|(vhost, on)| self.trace(vhost, *on));
            (progress, goes_on) = (next, more);
        }
        Ok(progress.imported())
    }

    /// The stored forms of the plain passwords in a file. Before any lock: hashing each of them takes tens of milliseconds.
    fn passwords_of(&self, parsed: &Json) -> BTreeMap<String, String> {
        let before = |user: &str| self.catalog.read().user(user).map(|user| user.password_hash.clone());
        stored_passwords(parsed, before, || self.salt())
    }
}

/// Takes the results of an import to the journal and to the shard. Returns the vhosts whose tracing begins or ends.
fn apply(
    made: Made,
    shard: &mut Shard,
    ports: &mut Transition<'_>,
    changes: &mut Vec<CatalogEntry>,
) -> Vec<(Name, bool)> {
    let Made { changes: made, created, changed, traced } = made;
    changes.extend(made);
    let now = ports.now();
    for (queue, settings) in created {
        shard.create(queue, settings, now, ports);
    }
    for (queue, settings) in changed {
        shard.configure(queue, settings, now);
    }
    traced
}

/// What cannot be used, determined without a change.
fn try_on(
    catalog: &Catalog,
    parsed: &Json,
    passwords: &BTreeMap<String, String>,
) -> Result<Vec<String>, DefinitionsError> {
    let mut draft = catalog.draft().map_err(|why| DefinitionsError::Unreadable(why.to_string()))?;
    let mut import = Import::new(&mut draft, passwords);
    import.take_in(parsed);
    Ok(import.imported.left_out)
}

/// Reads JSON, with or without a byte order mark.
fn parse(json: &[u8]) -> Result<Json, DefinitionsError> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let parsed: Json = serde_json::from_slice(json).map_err(|why| {
        let (line, column) = (why.line(), why.column());
        DefinitionsError::Unreadable(format!(
            "line {line}, column {column}: this is not JSON: {}; export the file again, or mend it there",
            without_place(&why)
        ))
    })?;
    if parsed.is_object() {
        return Ok(parsed);
    }
    let right = "it must be an object, with keys such as users, vhosts and queues";
    Err(DefinitionsError::Unreadable(format!("the whole: {right}")))
}

/// The parser's text without ` at line 1 column 2`, which is before it already.
fn without_place(why: &serde_json::Error) -> String {
    let text = why.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}
