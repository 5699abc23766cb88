//! The catalog after a restart, from the journal's entries.

use ferrymq_model::{
    ApplyTo, CatalogEntry, EntryKind, Name, Object, PolicyScope, PolicySpec, QueueId, QueueOwner, Refusal, Table,
};
use serde::de::DeserializeOwned;
use std::{collections::BTreeSet, fmt};

use super::bindings::Target;
use super::entries::{
    self, BindingEntry, CounterEntry, ExchangeEntry, PermissionEntry, PolicyEntry, QUEUE_COUNTER, QueueEntry,
    TopicPermissionEntry, UserEntry, VhostEntry,
};

use super::exchanges::Exchange;
use super::{Catalog, delayed, queue_arguments, shown};

use crate::keyed::HashKey;

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

/// A catalog after a restart.
#[derive(Debug)]
pub struct Loaded {
    /// The catalog.
    pub catalog: Catalog,
    /// What was dropped, because what it belongs to does not exist.
    pub orphans: Vec<LoadError>,
}

/// Why an entry is not used.
enum Unfit {
    /// What it belongs to does not exist.
    Orphan(String),
    /// It is unreadable, or contains what no catalog contains.
    Unreadable(String),
}

impl From<String> for Unfit {
    fn from(why: String) -> Self {
        Self::Unreadable(why)
    }
}

impl From<Refusal> for Unfit {
    fn from(refusal: Refusal) -> Self {
        match &refusal {
            Refusal::NotFound { .. } | Refusal::VhostNotFound(_) | Refusal::NothingNamed(_) => {
                Self::Orphan(refusal.to_string())
            }
            _ => Self::Unreadable(refusal.to_string()),
        }
    }
}

impl Catalog {
    /// The catalog that these entries describe: the newest entry of each key counts, and deletions may be among
    /// them. Entries that name something that does not exist are dropped: their tombstones are appended to
    /// `changes`. The key is that of [`Catalog::fresh`].
    ///
    /// # Errors
    /// If an entry is unreadable.
    pub fn load(entries: &[CatalogEntry], key: HashKey, changes: &mut Vec<CatalogEntry>) -> Result<Loaded, LoadError> {
        let (mut catalog, mut orphans) = (Self::empty(key), Vec::new());
        let mut living: Vec<&CatalogEntry> = entries.iter().filter(|entry| entry.value.is_some()).collect();
        // Entries come after those that they refer to: the numbers of the kinds have this order.
        living.sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
        let mut orphaned = BTreeSet::new();
        for entry in living {
            let unfit = |why| LoadError { kind: entry.kind, key: entry.key.clone(), why };
            match catalog.take_in(entry, &mut orphaned) {
                Ok(()) => {}
                Err(Unfit::Unreadable(why)) => return Err(unfit(why)),
                Err(Unfit::Orphan(why)) => {
                    changes.push(CatalogEntry { value: None, ..entry.clone() });
                    orphans.push(unfit(why));
                }
            }
        }
        let vhosts: Vec<Name> = catalog.vhosts.keys().cloned().collect();
        for vhost in vhosts {
            catalog.apply_policies(&vhost);
        }
        // An auto-delete exchange whose last binding was deleted just before the crash is deleted now.
        for (vhost, exchange) in orphaned {
            let found = catalog.vhosts.get(&vhost).and_then(|vhost| vhost.exchanges.get(&exchange));
            if found.is_some_and(|exchange| exchange.spec.auto_delete && exchange.bindings.is_empty()) {
                catalog.remove_exchange(&vhost, exchange, changes);
            }
        }
        while catalog.unbind_some(changes) {}
        Ok(Loaded { catalog, orphans })
    }

    fn take_in(&mut self, entry: &CatalogEntry, orphaned: &mut BTreeSet<(Name, Name)>) -> Result<(), Unfit> {
        match entry.kind {
            EntryKind::Vhost => {
                let VhostEntry { name, settings } = value(entry)?;
                let name = stored(&name)?;
                self.put_vhost(&name, &mut Vec::new());
                self.set_vhost_settings(&name, settings, &mut Vec::new())?;
            }
            EntryKind::User => {
                let UserEntry { name, password_hash, tags, limits } = value(entry)?;
                let name = stored(&name)?;
                self.put_user(&name, &password_hash, &tags, &mut Vec::new());
                self.set_user_limits(&name, limits, &mut Vec::new())?;
            }
            EntryKind::Permission => {
                let PermissionEntry { user, vhost, configure, write, read } = value(entry)?;
                self.set_permission(&stored(&user)?, &stored(&vhost)?, [&configure, &write, &read], &mut Vec::new())?;
            }
            EntryKind::Exchange => {
                let ExchangeEntry { vhost, name, spec, schedule } = value(entry)?;
                delayed::check(&spec)?;
                let vhost = self.vhost_mut(&vhost)?;
                let (schedule, key) = (schedule.map(QueueId), *vhost.exchanges.hasher());
                vhost.exchanges.insert(stored(&name)?, Exchange { schedule, ..Exchange::new(spec, key) });
            }
            EntryKind::Queue => {
                let QueueEntry { vhost, name, id, spec } = value(entry)?;
                self.vhost(&vhost)?;
                let (vhost, name) = (stored(&vhost)?, stored(&name)?);
                let kind = queue_arguments::kind(&shown(Object::Queue, &name, &vhost), &spec.arguments)?;
                // Policies come later, and look at every queue then.
                let settings = queue_arguments::settings(&vhost, &name, kind, &spec, &Table::default());
                self.insert_queue(QueueId(id), kind, spec, QueueOwner::Shared, settings.into());
            }
            EntryKind::Binding => self.take_in_binding(entry, orphaned)?,
            EntryKind::Counter if entry.key == QUEUE_COUNTER => {
                let CounterEntry { value: reserved } = value(entry)?;
                (self.next_queue, self.reserved_queues) = (reserved, reserved);
            }
            EntryKind::Counter => return Err(Unfit::Unreadable("unknown counter".to_owned())),
            EntryKind::Policy => self.take_in_policy(value(entry)?)?,
            // See `PreparedTransaction::load`.
            EntryKind::PreparedTransaction => {}
            EntryKind::TopicPermission => {
                let TopicPermissionEntry { user, vhost, exchange, write, read } = value(entry)?;
                let (user, vhost, exchange) = (stored(&user)?, stored(&vhost)?, stored(&exchange)?);
                self.set_topic_permission(&user, &vhost, &exchange, [&write, &read], &mut Vec::new())?;
            }
        }
        Ok(())
    }

    fn take_in_binding(&mut self, entry: &CatalogEntry, orphaned: &mut BTreeSet<(Name, Name)>) -> Result<(), Unfit> {
        let BindingEntry { vhost, queue_id, spec } = value(entry)?;
        let (vhost, source) = (stored(&vhost)?, stored(&spec.source)?);
        let target = match &spec.exchange {
            Some(name) => Target::Exchange(stored(name)?),
            None => Target::Queue(QueueId(queue_id)),
        };
        if let Target::Queue(id) = &target
            && !self.queues.contains_key(id)
        {
            orphaned.insert((vhost, source));
            return Err(Unfit::Orphan(format!("the queue with number {} is not there", id.0)));
        }
        let found = self.vhost(&vhost)?;
        found.exchange(&source)?;
        if let Target::Exchange(name) = &target
            && let Err(missing) = found.exchange(name)
        {
            orphaned.insert((vhost, source));
            return Err(missing.into());
        }
        self.insert_binding(&vhost, &source, &target, &spec.key, spec.arguments, true);
        Ok(())
    }
}

impl Catalog {
    /// It was checked when it was set, and applies after everything has been loaded.
    fn take_in_policy(&mut self, entry: PolicyEntry) -> Result<(), Unfit> {
        let PolicyEntry { vhost, name, operator, pattern, apply_to, priority, definition } = entry;
        let apply_to = ApplyTo::parse(&apply_to)?;
        let scope = if operator { PolicyScope::Operator } else { PolicyScope::User };
        let spec = PolicySpec { pattern, apply_to, priority, definition };
        let found = self.vhost_mut(&vhost)?;
        Ok(found.policies.put(scope, &stored(&name)?, spec)?)
    }
}

fn value<T: DeserializeOwned>(entry: &CatalogEntry) -> Result<T, String> {
    entries::decode(entry.value.as_deref().expect("only living entries are taken in"))
}

fn stored(name: &str) -> Result<Name, String> {
    Name::parse(name.as_bytes()).map_err(|why| format!("name '{name}': {why:?}"))
}
