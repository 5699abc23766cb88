//! The catalog: vhosts, exchanges, queues, bindings, users, permissions and policies; and the routing of messages.

mod access;
mod arguments;
mod bindings;
mod delayed;
mod draft;
mod entries;
mod events;
mod exchanges;
mod hashing;
mod headers;
mod history;
mod jms;
mod load;
mod named;
mod patterns;
mod policies;
mod policy_settings;
mod queue_arguments;
mod queues;
mod reports;
mod ring;
mod routing;
mod scopes;
mod targets;
mod topics;
mod unbinding;
mod vhosts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrymq_model::{CatalogEntry, ConnectionId, Name, Object, QueueId, Refusal, VhostSettings};
use hashbrown::HashMap;

pub use access::User;
pub use delayed::ScheduleChange;
pub(crate) use entries::queue_tombstone;
pub use events::{CatalogEvent, Outcome};
pub use history::{History, HistoryBudget, KeptMessage};
pub use load::{LoadError, Loaded};
pub use named::number as binding_number;
pub use policy_settings::policy_settings;
pub use queue_arguments::QueueKind;
pub(crate) use queues::give_back;
pub use queues::{Declared, QueueRecord, random_text};
pub use routing::{Cacheable, Envelope};
pub use scopes::Scopes;

use access::{Permission, TopicPermission};
use bindings::Binding;
use exchanges::Exchange;
use policies::Policies;
use unbinding::Unbinding;

use crate::keyed::{HashKey, KeyedTable};

/// All declarations of a node. Plain data: `node` keeps it under one reader-writer lock.
///
/// A durable change appends its [`CatalogEntry`]s to the caller's list, which belongs to one unit of the journal.
/// The change itself is complete when the call returns.
#[derive(Debug)]
pub struct Catalog {
    /// The key of the tables whose keys clients choose.
    key: HashKey,
    vhosts: KeyedTable<Name, Vhost>,
    /// Boxed, so that the table's free slots are small.
    queues: HashMap<QueueId, Box<QueueRecord>>,
    /// The exclusive queues of each connection.
    owned: HashMap<ConnectionId, BTreeSet<QueueId>>,
    users: HashMap<Name, User>,
    /// By vhost, then user.
    permissions: HashMap<Name, HashMap<Name, Permission>>,
    /// By vhost, then user and exchange.
    topic_permissions: HashMap<Name, HashMap<(Name, Name), TopicPermission>>,
    /// The next queue's number; its id is that times [`QueueId::LANES`].
    next_queue: u64,
    /// Numbers below this one are reserved in the journal.
    reserved_queues: u64,
    /// The changes, if somebody wants to know them.
    events: Option<Vec<CatalogEvent>>,
    /// Changes for the shard.
    schedule_changes: Vec<ScheduleChange>,
    /// The deleted queues and exchanges that still have bindings: by the number of bindings, then by the number of the
    /// deletion.
    unbinding: BTreeMap<(usize, u64), Unbinding>,
    /// The number of queues and exchanges that have been deleted.
    gone: u64,
    /// While bindings are removed: the number of the deletion that they belong to.
    unbinding_cause: Option<u64>,
}

#[derive(Debug)]
struct Vhost {
    name: Name,
    settings: VhostSettings,
    epoch: Epoch,
    exchanges: KeyedTable<Name, Exchange>,
    /// The default exchange's bindings.
    queues: KeyedTable<Name, QueueId>,
    /// The bindings by number. A number is never used twice. The bindings are boxed, so that free entries of the table
    /// are small.
    bindings: HashMap<u64, Box<Binding>>,
    /// The number of the next binding.
    next_binding: u64,
    /// The numbers of the bindings, by their identities as in the journal.
    binding_numbers: KeyedTable<Box<[u8]>, u64>,
    policies: Policies,
}

/// The caller of a request, and its vhost. Permissions are checked for it.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The vhost the connection works in.
    pub vhost: &'a Name,
    /// The user it logged in as.
    pub user: &'a Name,
    /// The source of the user's permissions.
    pub rights: Rights<'a>,
    /// The connection that owns its exclusive queues.
    pub connection: ConnectionId,
}

impl<'a> Caller<'a> {
    /// A caller with the catalog's permissions of its user.
    #[must_use]
    pub fn of_user(vhost: &'a Name, user: &'a Name, connection: ConnectionId) -> Self {
        Self { vhost, user, rights: Rights::OfUser, connection }
    }
}

/// The source of a caller's permissions.
#[derive(Clone, Copy, Debug, Default)]
pub enum Rights<'a> {
    /// In the catalog.
    #[default]
    OfUser,
    /// Its token.
    OfToken(&'a Scopes),
    /// None: its token has expired.
    Expired,
}

/// Counts the changes of a vhost that may change a route or a permission. A cached answer is valid as long as the
/// count does not change. It can be read without the catalog's lock.
#[derive(Clone, Debug, Default)]
pub struct Epoch(Arc<AtomicU64>);

impl Epoch {
    /// The current count.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn advance(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl Catalog {
    /// The catalog of a new data directory: the vhost `/`, and the user `guest` with that password hash and all
    /// permissions. Tables by names that clients choose have this key.
    #[must_use]
    pub fn fresh(guest_password_hash: &str, key: HashKey, changes: &mut Vec<CatalogEntry>) -> Self {
        let mut catalog = Self::empty(key);
        let (root, guest) = (Name::from("/"), Name::from("guest"));
        catalog.put_vhost(&root, changes);
        catalog.put_user(&guest, guest_password_hash, &["administrator".to_owned()], changes);
        catalog.set_permission(&guest, &root, [".*"; 3], changes).expect("the pattern for everything is well formed");
        catalog
    }

    fn empty(key: HashKey) -> Self {
        Self {
            key,
            vhosts: KeyedTable::with_hasher(key),
            queues: HashMap::new(),
            owned: HashMap::new(),
            users: HashMap::new(),
            permissions: HashMap::new(),
            topic_permissions: HashMap::new(),
            next_queue: 1,
            reserved_queues: 1,
            events: None,
            schedule_changes: Vec::new(),
            unbinding: BTreeMap::new(),
            gone: 0,
            unbinding_cause: None,
        }
    }

    /// Adds a vhost, unless it exists.
    pub fn put_vhost(&mut self, name: &Name, changes: &mut Vec<CatalogEntry>) {
        if !self.vhosts.contains_key(name) {
            self.vhosts.insert(name.clone(), Vhost::new(name, self.key));
            changes.push(entries::vhost(name, &VhostSettings::default()));
        }
    }

    /// All vhosts, in the order of their names.
    pub fn vhosts(&self) -> impl Iterator<Item = &Name> {
        in_order(&self.vhosts).map(|(name, _)| name)
    }

    /// The change counter of a vhost, to keep and watch.
    #[must_use]
    pub fn epoch(&self, vhost: &str) -> Option<Epoch> {
        self.vhosts.get(vhost).map(|vhost| vhost.epoch.clone())
    }

    fn vhost(&self, name: &str) -> Result<&Vhost, Refusal> {
        self.vhosts.get(name).ok_or_else(|| no_vhost(name))
    }

    fn vhost_mut(&mut self, name: &str) -> Result<&mut Vhost, Refusal> {
        self.vhosts.get_mut(name).ok_or_else(|| no_vhost(name))
    }
}

impl Vhost {
    fn new(name: &Name, key: HashKey) -> Self {
        Self {
            name: name.clone(),
            settings: VhostSettings::default(),
            epoch: Epoch::default(),
            exchanges: exchanges::predeclared(key),
            queues: KeyedTable::with_hasher(key),
            bindings: HashMap::new(),
            next_binding: 0,
            binding_numbers: KeyedTable::with_hasher(key),
            policies: Policies::default(),
        }
    }

    /// The entries that are written when a vhost is deleted, besides those of its queues, exchanges and bindings.
    fn tombstones(&self) -> impl Iterator<Item = CatalogEntry> {
        self.policies.names().map(|(scope, policy)| entries::policy_tombstone(&self.name, scope, policy))
    }

    fn exchange(&self, name: &str) -> Result<&Exchange, Refusal> {
        self.exchanges.get(name).ok_or_else(|| missing(Object::Exchange, name, &self.name))
    }
}

/// The entries of a table in the order of their keys. A hash table has another order in each process, and the same
/// calls must have the same results.
fn in_order<K: Ord, V, S>(table: &HashMap<K, V, S>) -> impl Iterator<Item = (&K, &V)> {
    let mut entries: Vec<(&K, &V)> = table.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries.into_iter()
}

fn no_vhost(name: &str) -> Refusal {
    Refusal::VhostNotFound(Name::from(name))
}

fn missing(object: Object, name: &str, vhost: &Name) -> Refusal {
    Refusal::NotFound { object, name: Name::from(name), vhost: vhost.clone() }
}

/// An object, as RabbitMQ's texts name it.
fn shown(object: Object, name: &str, vhost: &str) -> String {
    format!("{object} '{name}' in vhost '{vhost}'")
}

/// As in RabbitMQ, line ends are removed from names in declarations and deletions. (AMQP-26)
fn without_line_ends(name: &Name) -> Name {
    if name.contains(['\r', '\n']) { Name::from(&*name.replace(['\r', '\n'], "")) } else { name.clone() }
}
