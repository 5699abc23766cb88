//! The catalog after a restart, from what was durable.

use ferrymq_model::{CatalogEntry, EntryKind, Name, Object, QueueId, QueueOwner, Table};
use hashbrown::HashMap;
use serde::de::DeserializeOwned;
use std::fmt;

use super::bindings::Target;
use super::entries::{
    self, BindingEntry, CounterEntry, ExchangeEntry, PermissionEntry, PolicyEntry, QUEUE_COUNTER, QueueEntry,
    TopicPermissionEntry, UserEntry, VhostEntry,
};
use super::exchanges::Exchange;
use super::policies::{ApplyTo, PolicyScope, PolicySpec};
use super::{Catalog, delayed, queue_arguments, shown};

/// An entry that cannot be read, or that contradicts another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// What the entry describes.
    pub kind: EntryKind,
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog entry {:?} {}: {}", self.kind, self.key.escape_ascii(), self.why)
    }
}

impl std::error::Error for LoadError {}

impl Catalog {
    /// The catalog that these entries describe, the newest of each key; deleted ones may be among them. Bindings of
    /// queues that have gone without them are dropped, and their tombstones appended to `changes`.
    ///
    /// # Errors
    /// Where an entry cannot be read, or names a vhost or exchange that is not there.
    pub fn load(entries: &[CatalogEntry], changes: &mut Vec<CatalogEntry>) -> Result<Self, LoadError> {
        let mut catalog = Self::empty();
        let mut living: Vec<&CatalogEntry> = entries.iter().filter(|entry| entry.value.is_some()).collect();
        // What others refer to comes first: the kinds are numbered so.
        living.sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
        let mut orphaned = HashMap::new();
        for entry in living {
            catalog.take_in(entry, &mut orphaned, changes).map_err(|why| LoadError {
                kind: entry.kind,
                key: entry.key.clone(),
                why,
            })?;
        }
        let vhosts: Vec<Name> = catalog.vhosts.keys().cloned().collect();
        for vhost in vhosts {
            catalog.apply_policies(&vhost);
        }
        // An auto-delete exchange whose last binding went in the crash goes now.
        for (vhost, exchange) in orphaned.into_keys() {
            let found = catalog.vhosts.get(&vhost).and_then(|vhost| vhost.exchanges.get(&exchange));
            if found.is_some_and(|exchange| exchange.spec.auto_delete && exchange.bindings.is_empty()) {
                catalog.remove_exchange(&vhost, exchange, changes);
            }
        }
        Ok(catalog)
    }

    fn take_in(
        &mut self,
        entry: &CatalogEntry,
        orphaned: &mut HashMap<(Name, Name), ()>,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), String> {
        match entry.kind {
            EntryKind::Vhost => {
                let VhostEntry { name, settings } = value(entry)?;
                let name = stored(&name)?;
                self.put_vhost(&name, &mut Vec::new());
                self.set_vhost_settings(&name, settings, &mut Vec::new()).map_err(|no| no.to_string())?;
            }
            EntryKind::User => {
                let UserEntry { name, password_hash, tags, limits } = value(entry)?;
                let name = stored(&name)?;
                self.put_user(&name, &password_hash, &tags, &mut Vec::new());
                self.set_user_limits(&name, limits, &mut Vec::new()).map_err(|no| no.to_string())?;
            }
            EntryKind::Permission => {
                let PermissionEntry { user, vhost, configure, write, read } = value(entry)?;
                self.set_permission(&stored(&user)?, &stored(&vhost)?, [&configure, &write, &read], &mut Vec::new())
                    .map_err(|refusal| refusal.to_string())?;
            }
            EntryKind::Exchange => {
                let ExchangeEntry { vhost, name, spec, schedule } = value(entry)?;
                delayed::check(&spec).map_err(|refusal| refusal.to_string())?;
                let vhost = self.vhost_mut(&vhost).map_err(|refusal| refusal.to_string())?;
                let schedule = schedule.map(QueueId);
                vhost.exchanges.insert(stored(&name)?, Exchange { schedule, ..Exchange::new(spec) });
            }
            EntryKind::Queue => {
                let QueueEntry { vhost, name, id, spec } = value(entry)?;
                self.vhost(&vhost).map_err(|refusal| refusal.to_string())?;
                let (vhost, name) = (stored(&vhost)?, stored(&name)?);
                let kind = queue_arguments::kind(&shown(Object::Queue, &name, &vhost), &spec.arguments)
                    .map_err(|refusal| refusal.to_string())?;
                // Policies come later, and look at every queue then.
                let settings = queue_arguments::settings(&vhost, &name, kind, &spec, &Table::default());
                self.insert_queue(QueueId(id), kind, spec, QueueOwner::Shared, settings);
            }
            EntryKind::Binding => self.take_in_binding(entry, orphaned, changes)?,
            EntryKind::Counter if entry.key == QUEUE_COUNTER => {
                let CounterEntry { value: reserved } = value(entry)?;
                (self.next_queue, self.reserved_queues) = (reserved, reserved);
            }
            EntryKind::Counter => return Err("unknown counter".to_owned()),
            EntryKind::Policy => self.take_in_policy(value(entry)?)?,
            EntryKind::TopicPermission => {
                let TopicPermissionEntry { user, vhost, exchange, write, read } = value(entry)?;
                let (user, vhost, exchange) = (stored(&user)?, stored(&vhost)?, stored(&exchange)?);
                self.set_topic_permission(&user, &vhost, &exchange, [&write, &read], &mut Vec::new())
                    .map_err(|refusal| refusal.to_string())?;
            }
        }
        Ok(())
    }

    fn take_in_binding(
        &mut self,
        entry: &CatalogEntry,
        orphaned: &mut HashMap<(Name, Name), ()>,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), String> {
        let BindingEntry { vhost, queue_id, spec } = value(entry)?;
        let (vhost, source) = (stored(&vhost)?, stored(&spec.source)?);
        let target = match &spec.exchange {
            Some(name) => Target::Exchange(stored(name)?),
            None => Target::Queue(QueueId(queue_id)),
        };
        if let Target::Queue(id) = &target
            && !self.queues.contains_key(id)
        {
            changes.push(entries::binding_tombstone(&entry.key));
            orphaned.insert((vhost, source), ());
            return Ok(());
        }
        let found = self.vhost(&vhost).map_err(|no| no.to_string())?;
        found.exchange(&source).map_err(|no| no.to_string())?;
        if let Target::Exchange(name) = &target {
            found.exchange(name).map_err(|no| no.to_string())?;
        }
        self.insert_binding(&vhost, &source, &target, &spec.key, spec.arguments, true);
        Ok(())
    }
}

impl Catalog {
    /// It was checked when it was set, and applies once everything has been loaded.
    fn take_in_policy(&mut self, entry: PolicyEntry) -> Result<(), String> {
        let PolicyEntry { vhost, name, operator, pattern, apply_to, priority, definition } = entry;
        let apply_to = ApplyTo::parse(&apply_to).map_err(|refusal| refusal.to_string())?;
        let scope = if operator { PolicyScope::Operator } else { PolicyScope::User };
        let spec = PolicySpec { pattern, apply_to, priority, definition };
        let found = self.vhost_mut(&vhost).map_err(|refusal| refusal.to_string())?;
        found.policies.put(scope, &stored(&name)?, spec).map_err(|refusal| refusal.to_string())
    }
}

fn value<T: DeserializeOwned>(entry: &CatalogEntry) -> Result<T, String> {
    entries::decode(entry.value.as_deref().expect("only living entries are taken in"))
}

fn stored(name: &str) -> Result<Name, String> {
    Name::parse(name.as_bytes()).map_err(|why| format!("name '{name}': {why:?}"))
}
