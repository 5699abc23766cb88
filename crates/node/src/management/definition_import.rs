//! An import of definitions: each entry is applied to the catalog as a whole or not at all. Entries come after
//! those that they need.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrymq_auth::passwords;
use ferrymq_broker::{Catalog, QueueSettings, policy_settings};
use ferrymq_model::{
    ApplyTo, CatalogEntry, Destination, ExchangeKind, ExchangeSpec, Name, Object, PolicyScope, PolicySpec, QueueId,
    QueueSpec, Refusal, Table, VhostSettings,
};
use serde_json::Value as Json;

use crate::{
    core::node::GUEST,
    management::{
        definition_entries::{Entry, most_like, name, unknown_key},
        definition_limits::{self, VHOST_LIMITS},
        definitions::Imported,
    },
};

/// The maximum length of an entry: it must fit into a record of the journal.
const ITEM_BYTES_MAX: usize = 96 << 10;

/// The vhost of entries that name none, as in an export of one vhost.
const VHOST_KEY: &str = "original_vhost_name";
const VHOST: &str = "/";

/// The keys of a user's name and plain password.
const PASSWORD_KEYS: [&str; 2] = ["name", "password"];

/// Keys of the file that say where it comes from.
const ORIGIN: [&str; 8] = [
    "rabbit_version",
    "rabbitmq_version",
    "product_name",
    "product_version",
    "rabbitmq_definition_format",
    "original_cluster_name",
    VHOST_KEY,
    "explanation",
];

/// A list in the file.
struct List {
    name: &'static str,
    /// The keys that its entries may have.
    keys: &'static [&'static str],
    take: fn(&mut Import<'_>, Entry<'_>) -> Step,
}

/// The result of one entry: an error without its place.
type Step = Result<(), String>;

const LISTS: [List; 10] = [
    List {
        name: "users",
        keys: &["name", "password", "password_hash", "hashing_algorithm", "tags", "limits"],
        take: |import, entry| import.user(entry),
    },
    List {
        name: "vhosts",
        keys: &[
            "name",
            "metadata",
            "description",
            "tags",
            "default_queue_type",
            "limits",
            "tracing",
            "protected_from_deletion",
        ],
        take: |import, entry| import.vhost(entry),
    },
    List {
        name: "permissions",
        keys: &["user", "vhost", "configure", "write", "read"],
        take: |import, entry| import.permission(entry),
    },
    List {
        name: "topic_permissions",
        keys: &["user", "vhost", "exchange", "write", "read"],
        take: |import, entry| import.topic_permission(entry),
    },
    List {
        name: "exchanges",
        keys: &["name", "vhost", "type", "durable", "auto_delete", "internal", "arguments", "policy"],
        take: |import, entry| import.exchange(entry),
    },
    List {
        name: "policies",
        keys: &["vhost", "name", "pattern", "apply-to", "definition", "priority"],
        take: |import, entry| import.policy(entry),
    },
    List {
        name: "parameters",
        keys: &["component", "vhost", "name", "value"],
        take: |import, entry| import.parameter(entry),
    },
    List { name: "global_parameters", keys: &["name", "value"], take: |import, entry| import.global_parameter(entry) },
    List {
        name: "queues",
        keys: &["name", "vhost", "durable", "auto_delete", "arguments", "type", "policy"],
        take: |import, entry| import.queue(entry),
    },
    List {
        name: "bindings",
        keys: &["source", "vhost", "destination", "destination_type", "routing_key", "arguments", "properties_key"],
        take: |import, entry| import.binding(entry),
    },
];

/// The stored forms of the plain passwords in a file, by user, for [`Import::new`]. `before` is the stored form that
/// a user has now. It stays if the password is the same; else the password is hashed with the next salt. This takes
/// tens of milliseconds for each user.
pub fn stored_passwords(
    file: &Json,
    before: impl Fn(&str) -> Option<String>,
    mut salt: impl FnMut() -> [u8; 16],
) -> BTreeMap<String, String> {
    let users = file.get("users").and_then(Json::as_array).into_iter().flatten();
    let [name_key, password_key] = PASSWORD_KEYS;
    let plain = users.filter_map(|user| Some((user.get(name_key)?.as_str()?, user.get(password_key)?.as_str()?)));
    let stored = |(name, password): (&str, &str)| {
        let same = before(name).filter(|before| passwords::matches(password.as_bytes(), before));
        (name.to_owned(), same.unwrap_or_else(|| passwords::hash(password.as_bytes(), salt())))
    };
    plain.map(stored).collect()
}

/// An import that goes on with another loan of the catalog: what is known so far.
#[derive(Default)]
pub struct Progress {
    vhost: Option<String>,
    without_vhost: usize,
    imported: Imported,
    /// The list and the entry with which it goes on.
    list: usize,
    at: usize,
}

impl Progress {
    /// What was imported.
    pub fn imported(self) -> Imported {
        self.imported
    }
}

/// What follows from an import.
pub struct Made {
    /// For the journal.
    pub changes: Vec<CatalogEntry>,
    /// New queues, for the shard.
    pub created: Vec<(QueueId, Arc<QueueSettings>)>,
    /// Queues whose settings a policy changed.
    pub changed: Vec<(QueueId, Arc<QueueSettings>)>,
    /// Vhosts whose tracing begins or ends.
    pub traced: Vec<(Name, bool)>,
}

/// A running import.
pub struct Import<'a> {
    catalog: &'a mut Catalog,
    /// The stored forms of plain passwords, by user.
    passwords: &'a BTreeMap<String, String>,
    /// The vhost of entries that name none.
    vhost: String,
    /// How many entries name none.
    without_vhost: usize,
    made: Made,
    pub imported: Imported,
    /// Whether users in the file replace the user whose password everybody knows.
    closes_default_user: bool,
}

impl<'a> Import<'a> {
    pub fn new(catalog: &'a mut Catalog, passwords: &'a BTreeMap<String, String>) -> Self {
        Self {
            catalog,
            passwords,
            vhost: VHOST.to_owned(),
            without_vhost: 0,
            made: Made { changes: Vec::new(), created: Vec::new(), changed: Vec::new(), traced: Vec::new() },
            imported: Imported::default(),
            closes_default_user: true,
        }
    }

    /// The user whose password everybody knows stays: for an operator who imports into a running server.
    pub fn keeping_default_user(self) -> Self {
        Self { closes_default_user: false, ..self }
    }

    /// Imports what can be used of a whole file, which must be an object.
    pub fn take_in(&mut self, file: &Json) {
        self.begin(file);
        for list in &LISTS {
            if let Some(items) = self.items(file, list) {
                self.take_items(list, 0, items);
            }
        }
        self.end(file);
    }

    /// Looks at the file as a whole.
    pub fn begin(&mut self, file: &Json) {
        if let Some(vhost) = file.get(VHOST_KEY).and_then(Json::as_str) {
            vhost.clone_into(&mut self.vhost);
        }
        let known = || ORIGIN.into_iter().chain(LISTS.iter().map(|list| list.name));
        for key in file.as_object().into_iter().flat_map(|file| file.keys()) {
            if !known().any(|known| known == key) {
                self.leave_out(unknown_key(key, known()));
            }
        }
    }

    /// Imports at most `count` entries, from where an earlier import has stopped. Returns what the next one needs, and
    /// whether there is something for it.
    pub fn take_some(&mut self, file: &Json, before: Progress, count: usize) -> (Progress, bool) {
        let Progress { vhost, without_vhost, imported, mut list, mut at } = before;
        (self.without_vhost, self.imported) = (without_vhost, imported);
        match vhost {
            Some(vhost) => self.vhost = vhost,
            None => self.begin(file),
        }
        let mut left = count;
        while let Some(found) = LISTS.get(list).filter(|_| left > 0) {
            let items = if at == 0 {
                self.items(file, found)
            } else {
                file.get(found.name).and_then(Json::as_array).map(Vec::as_slice)
            };
            let items = items.unwrap_or_default();
            let end = (at + left).min(items.len());
            self.take_items(found, at, &items[at..end]);
            left -= end - at;
            (list, at) = if end == items.len() { (list + 1, 0) } else { (list, end) };
        }
        let is_over = list == LISTS.len();
        if is_over {
            self.end(file);
        }
        let vhost = Some(std::mem::take(&mut self.vhost));
        let (without_vhost, imported) = (self.without_vhost, std::mem::take(&mut self.imported));
        (Progress { vhost, without_vhost, imported, list, at }, !is_over)
    }

    /// What follows from it.
    pub fn made(self) -> Made {
        self.made
    }

    /// All entries are taken in.
    pub fn end(&mut self, file: &Json) {
        if self.without_vhost > 0 && file.get(VHOST_KEY).is_none() {
            self.pass_over(format!(
                "entries without the key 'vhost' ({}) are for vhost '{VHOST}'; for another one, add \"{VHOST_KEY}\": \"NAME\" \
                 to the file",
                self.without_vhost
            ));
        }
        if self.closes_default_user {
            self.close_default_user(file);
        }
    }

    /// The entries of a list, if the file has it.
    fn items<'f>(&mut self, file: &'f Json, list: &List) -> Option<&'f [Json]> {
        match file.get(list.name) {
            None | Some(Json::Null) => None,
            Some(Json::Array(items)) => Some(items),
            Some(_) => {
                self.leave_out(format!("{}: it must be a list, in []", list.name));
                None
            }
        }
    }

    /// Imports some entries of a list, of which the first has this number.
    fn take_items(&mut self, list: &List, first: usize, items: &[Json]) {
        let mut taken = 0;
        if list.keys.contains(&"vhost") {
            self.without_vhost += items.iter().filter(|item| item.get("vhost").is_none_or(Json::is_null)).count();
        }
        for (at, item) in (first..).zip(items) {
            let place = || place(list.name, at, item);
            if item.to_string().len() > ITEM_BYTES_MAX {
                self.leave_out(format!("{}[{at}]: it is longer than {ITEM_BYTES_MAX} bytes", list.name));
                continue;
            }
            let unknown = Entry::of(item).map(|entry| entry.unknown_keys(list.keys)).unwrap_or_default();
            match Entry::of(item).and_then(|entry| (list.take)(self, entry)) {
                Ok(()) => taken += 1,
                Err(problem) => self.leave_out(format!("{}: {problem}", place())),
            }
            for problem in unknown {
                self.leave_out(format!("{}: {problem}", place()));
            }
        }
        match self.imported.taken.last_mut().filter(|(name, _)| *name == list.name) {
            Some((_, before)) => *before += taken,
            None => self.imported.taken.push((list.name, taken)),
        }
    }

    fn user(&mut self, entry: Entry<'_>) -> Step {
        let [name_key, password_key] = PASSWORD_KEYS;
        let name = entry.name(name_key)?;
        let (password, hash) = (entry.text_if_any(password_key)?, entry.text_if_any("password_hash")?);
        let stored = match (password, hash) {
            (Some(_), _) => {
                self.passwords.get(&*name).cloned().expect("every plain password was hashed before the import")
            }
            (None, Some(hash)) => passwords::stored_form(entry.text_if_any("hashing_algorithm")?, hash)?,
            (None, None) => String::new(),
        };
        let tags = entry.texts("tags")?.unwrap_or_default();
        let limits = Some(entry.any("limits")).filter(|limits| !limits.is_null());
        let limits = limits.map(definition_limits::user_limits).transpose()?;
        let same = |there: &ferrymq_broker::User| there.password_hash == stored && there.tags == tags;
        if !self.catalog.user(&name).is_some_and(same) {
            self.catalog.put_user(&name, &stored, &tags, &mut self.made.changes);
        }
        match limits {
            Some(limits) => self.catalog.set_user_limits(&name, limits, &mut self.made.changes).map_err(said),
            None => Ok(()),
        }
    }

    /// A file with its own users replaces the user whose password everybody knows. That user is deleted last, and
    /// only if somebody else can log in.
    fn close_default_user(&mut self, file: &Json) {
        let Some(users) = file.get("users").and_then(Json::as_array).filter(|users| !users.is_empty()) else { return };
        let brought = users.iter().any(|user| user.get("name").and_then(Json::as_str) == Some(GUEST));
        let is_default =
            self.catalog.user(GUEST).is_some_and(|guest| passwords::matches(GUEST.as_bytes(), &guest.password_hash));
        if brought || !is_default {
            return;
        }
        if !self.catalog.others_can_log_in(GUEST) {
            return self.pass_over(
                "user 'guest' keeps its default password, because nobody else could log in: give one of the users a \
                 password and permissions in a vhost",
            );
        }
        self.catalog.delete_user(&Name::from(GUEST), &mut self.made.changes).expect("it was just found");
        self.pass_over(
            "user 'guest' had its default password and was deleted, because users were brought who can log in",
        );
    }

    fn vhost(&mut self, entry: Entry<'_>) -> Step {
        let name = entry.name("name")?;
        let before = self.catalog.vhost_settings(&name).cloned().unwrap_or_else(|_| VhostSettings::default());
        let settings = definition_limits::vhost_settings(entry, &before)?;
        let traced = entry.flag("tracing")?;
        self.catalog.put_vhost(&name, &mut self.made.changes);
        self.catalog.set_vhost_settings(&name, settings, &mut self.made.changes).map_err(said)?;
        self.made.traced.extend(traced.map(|traced| (name, traced)));
        Ok(())
    }

    /// The vhost of an entry.
    fn vhost_of(&self, entry: Entry<'_>) -> Result<Name, String> {
        match entry.text_if_any("vhost")? {
            Some(vhost) => name(vhost),
            None => name(&self.vhost),
        }
    }

    fn vhost_limits(&mut self, vhost: &Name, limits: &Json) -> Step {
        let before = self.catalog.vhost_settings(vhost).map_err(said)?.clone();
        let settings = definition_limits::limited(before, limits)?;
        self.catalog.set_vhost_settings(vhost, settings, &mut self.made.changes).map_err(said)
    }

    fn global_parameter(&mut self, entry: Entry<'_>) -> Step {
        self.pass_over(format!("global parameter '{}' has no meaning here", entry.text("name")?));
        Ok(())
    }

    fn permission(&mut self, entry: Entry<'_>) -> Step {
        let patterns = [entry.text("configure")?, entry.text("write")?, entry.text("read")?];
        let (user, vhost) = (entry.name("user")?, self.vhost_of(entry)?);
        self.catalog.set_permission(&user, &vhost, patterns, &mut self.made.changes).map_err(said)
    }

    fn topic_permission(&mut self, entry: Entry<'_>) -> Step {
        let patterns = [entry.text("write")?, entry.text("read")?];
        let (user, vhost, exchange) = (entry.name("user")?, self.vhost_of(entry)?, entry.name("exchange")?);
        self.catalog.set_topic_permission(&user, &vhost, &exchange, patterns, &mut self.made.changes).map_err(said)
    }

    fn policy(&mut self, entry: Entry<'_>) -> Step {
        self.set_policy(&self.vhost_of(entry)?, PolicyScope::User, &entry.name("name")?, entry)
    }

    fn parameter(&mut self, entry: Entry<'_>) -> Step {
        let (component, own) = (entry.text("component")?, entry.name("name")?);
        match component {
            "operator_policy" => {
                let value = entry.inner("value")?.ok_or("key 'value' is missing; add it")?;
                self.set_policy(&self.vhost_of(entry)?, PolicyScope::Operator, &own, value)
            }
            VHOST_LIMITS => self.vhost_limits(&self.vhost_of(entry)?, entry.any("value")),
            other => {
                self.pass_over(format!("parameter '{own}' of component '{other}' has no meaning here"));
                Ok(())
            }
        }
    }

    fn set_policy(&mut self, vhost: &Name, scope: PolicyScope, policy: &Name, value: Entry<'_>) -> Step {
        let spec = PolicySpec {
            pattern: value.text("pattern")?.to_owned(),
            apply_to: ApplyTo::parse(value.text_if_any("apply-to")?.unwrap_or("all")).map_err(said)?,
            priority: value.whole("priority")?.unwrap_or(0),
            definition: value.table("definition")?,
        };
        let set = self.catalog.set_policy(vhost, scope, policy, &spec, &mut self.made.changes);
        self.made.changed.extend(set.map_err(|refusal| with_suggestion(said(refusal), &spec.definition))?);
        Ok(())
    }

    fn exchange(&mut self, entry: Entry<'_>) -> Step {
        let (vhost, own) = (self.vhost_of(entry)?, entry.name("name")?);
        if own.is_empty() || own.starts_with("amq.") || self.catalog.exchange(&vhost, &own).is_ok() {
            return Ok(());
        }
        let kind = entry.text("type")?;
        let kind = ExchangeKind::parse(kind).ok_or_else(|| {
            format!("exchanges of type '{kind}' are not built; take it out of the file, with its bindings")
        })?;
        let spec = ExchangeSpec {
            kind,
            durable: durable(entry)?,
            auto_delete: entry.flag("auto_delete")?.unwrap_or(false),
            internal: entry.flag("internal")?.unwrap_or(false),
            arguments: entry.table("arguments")?,
        };
        self.catalog.put_exchange(&vhost, &own, &spec, &mut self.made.changes).map_err(said)
    }

    fn queue(&mut self, entry: Entry<'_>) -> Step {
        let (vhost, own) = (self.vhost_of(entry)?, entry.name("name")?);
        if self.catalog.has_queue(&vhost, &own) {
            return Ok(());
        }
        if own.starts_with("amq.") {
            self.pass_over(format!("queue '{own}' in vhost '{vhost}' has a name that the server chooses"));
            return Ok(());
        }
        let auto_delete = entry.flag("auto_delete")?.unwrap_or(false);
        let arguments = entry.table("arguments")?;
        let spec = QueueSpec { durable: durable(entry)?, exclusive: false, auto_delete, arguments };
        let declared = self.catalog.put_queue(&vhost, &own, &spec, &mut self.made.changes).map_err(said)?;
        self.made.created.extend(declared.created.map(|settings| (declared.queue, settings)));
        Ok(())
    }

    fn binding(&mut self, entry: Entry<'_>) -> Step {
        let (vhost, source, destination) = (self.vhost_of(entry)?, entry.name("source")?, entry.name("destination")?);
        let key = name(entry.text_if_any("routing_key")?.unwrap_or_default())?;
        let arguments = entry.table("arguments")?;
        let destination = match entry.text("destination_type")? {
            // Every queue has this binding without a declaration.
            "queue" if source.is_empty() && destination == key => return Ok(()),
            "queue" => Destination::Queue(destination),
            "exchange" => Destination::Exchange(destination),
            other => return Err(format!("key 'destination_type' is '{other}'; it must be queue or exchange")),
        };
        let bound =
            self.catalog.put_binding(&vhost, &source, &destination, key.as_bytes(), &arguments, &mut self.made.changes);
        bound.map_err(|refusal| {
            // A file that rabbitmqctl has written lacks internal exchanges, but has their bindings.
            let is_exchange = matches!(&refusal, Refusal::NotFound { object: Object::Exchange, .. });
            let hint = if is_exchange { ". rabbitmqctl leaves internal exchanges out of what it exports" } else { "" };
            format!("{}{hint}", said(refusal))
        })
    }

    fn leave_out(&mut self, what: String) {
        self.imported.left_out.push(what);
    }

    fn pass_over(&mut self, what: impl Into<String>) {
        self.imported.passed_over.push(what.into());
    }
}

fn durable(entry: Entry<'_>) -> Result<bool, String> {
    entry.flag("durable")?.ok_or_else(|| "key 'durable' is missing; add it, as true or false".to_owned())
}

/// The place of an entry: its list, its number from 0, and its name.
fn place(list: &str, at: usize, item: &Json) -> String {
    let said = |key: &str| item.get(key).and_then(Json::as_str);
    let name = said("name").or_else(|| said("user")).or_else(|| said("source"));
    match (name, said("vhost")) {
        (Some(name), Some(vhost)) => format!("{list}[{at}] ('{name}' in vhost '{vhost}')"),
        (Some(name), None) => format!("{list}[{at}] ('{name}')"),
        _ => format!("{list}[{at}]"),
    }
}

/// A refusal in the words of somebody who can change the file.
#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn said(refusal: Refusal) -> String {
    match &refusal {
        Refusal::VhostNotFound(vhost) => format!("vhost '{vhost}' is not there; add it to vhosts"),
        Refusal::NotFound { object, name, .. } => format!("{object} '{name}' is not there; add it to {object}s"),
        Refusal::NothingNamed(text) => format!("{text}; add it to users"),
        other => other.to_string(),
    }
}

/// What is wrong with a policy, and the most similar known setting.
fn with_suggestion(problem: String, definition: &Table) -> String {
    let is_named = |key: &str| problem.contains("not known") && problem.contains(&format!("'{key}'"));
    let unknown = definition.iter().map(|(key, _)| key).find(|key| is_named(key));
    match unknown.and_then(|key| most_like(key, policy_settings())) {
        Some(meant) => format!("{problem}; did you mean '{meant}'?"),
        None => problem,
    }
}
