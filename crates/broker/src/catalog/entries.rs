//! The catalog's entries in the journal: their keys, and their values as named fields, so that fields can be added.

use ferrymq_model::{
    BindingSpec, CatalogEntry, EntryKind, ExchangeSpec, Name, PolicyScope, PolicySpec, QueueId, QueueSpec, Table,
    UserLimits, VhostSettings,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::User;
use super::bindings::Target;

#[derive(Serialize, Deserialize)]
pub(super) struct VhostEntry {
    pub name: String,
    #[serde(default)]
    pub settings: VhostSettings,
}

#[derive(Serialize, Deserialize)]
pub(super) struct UserEntry {
    pub name: String,
    pub password_hash: String,
    pub tags: Vec<String>,
    #[serde(default)]
    pub limits: UserLimits,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PermissionEntry {
    pub user: String,
    pub vhost: String,
    pub configure: String,
    pub write: String,
    pub read: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TopicPermissionEntry {
    pub user: String,
    pub vhost: String,
    pub exchange: String,
    pub write: String,
    pub read: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PolicyEntry {
    pub vhost: String,
    pub name: String,
    pub operator: bool,
    pub pattern: String,
    pub apply_to: String,
    pub priority: i64,
    pub definition: Table,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ExchangeEntry {
    pub vhost: String,
    pub name: String,
    pub spec: ExchangeSpec,
    /// The id of its schedule, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct QueueEntry {
    pub vhost: String,
    pub name: String,
    pub id: u64,
    pub spec: QueueSpec,
}

#[derive(Serialize, Deserialize)]
pub(super) struct BindingEntry {
    pub vhost: String,
    /// The id distinguishes a redeclared queue from the one that was bound; 0 if the target is an exchange.
    pub queue_id: u64,
    pub spec: BindingSpec,
}

#[derive(Serialize, Deserialize)]
pub(super) struct CounterEntry {
    pub value: u64,
}

pub(super) const QUEUE_COUNTER: &[u8] = b"queues";

pub(super) fn vhost(name: &Name, settings: &VhostSettings) -> CatalogEntry {
    let value = VhostEntry { name: name.to_string(), settings: settings.clone() };
    put(EntryKind::Vhost, key(&[name.as_bytes()]), &value)
}

pub(super) fn user(name: &Name, user: &User) -> CatalogEntry {
    let User { password_hash, tags, limits } = user.clone();
    let value = UserEntry { name: name.to_string(), password_hash, tags, limits };
    put(EntryKind::User, key(&[name.as_bytes()]), &value)
}

pub(super) fn permission(user: &Name, vhost: &Name, [configure, write, read]: [&str; 3]) -> CatalogEntry {
    let value = PermissionEntry {
        user: user.to_string(),
        vhost: vhost.to_string(),
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    put(EntryKind::Permission, key(&[vhost.as_bytes(), user.as_bytes()]), &value)
}

pub(super) fn permission_tombstone(user: &Name, vhost: &Name) -> CatalogEntry {
    gone(EntryKind::Permission, key(&[vhost.as_bytes(), user.as_bytes()]))
}

pub(super) fn user_tombstone(name: &Name) -> CatalogEntry {
    gone(EntryKind::User, key(&[name.as_bytes()]))
}

pub(super) fn vhost_tombstone(name: &Name) -> CatalogEntry {
    gone(EntryKind::Vhost, key(&[name.as_bytes()]))
}

fn topic_permission_key(user: &Name, vhost: &Name, exchange: &Name) -> Vec<u8> {
    key(&[vhost.as_bytes(), user.as_bytes(), exchange.as_bytes()])
}

pub(super) fn topic_permission(user: &Name, vhost: &Name, exchange: &Name, [write, read]: [&str; 2]) -> CatalogEntry {
    let value = TopicPermissionEntry {
        user: user.to_string(),
        vhost: vhost.to_string(),
        exchange: exchange.to_string(),
        write: write.to_owned(),
        read: read.to_owned(),
    };
    put(EntryKind::TopicPermission, topic_permission_key(user, vhost, exchange), &value)
}

pub(super) fn topic_permission_tombstone(user: &Name, vhost: &Name, exchange: &Name) -> CatalogEntry {
    gone(EntryKind::TopicPermission, topic_permission_key(user, vhost, exchange))
}

fn policy_key(vhost: &Name, scope: PolicyScope, name: &Name) -> Vec<u8> {
    key(&[vhost.as_bytes(), &[u8::from(scope == PolicyScope::Operator)], name.as_bytes()])
}

pub(super) fn policy(vhost: &Name, scope: PolicyScope, name: &Name, spec: &PolicySpec) -> CatalogEntry {
    let value = PolicyEntry {
        vhost: vhost.to_string(),
        name: name.to_string(),
        operator: scope == PolicyScope::Operator,
        pattern: spec.pattern.clone(),
        apply_to: spec.apply_to.as_str().to_owned(),
        priority: spec.priority,
        definition: spec.definition.clone(),
    };
    put(EntryKind::Policy, policy_key(vhost, scope, name), &value)
}

pub(super) fn policy_tombstone(vhost: &Name, scope: PolicyScope, name: &Name) -> CatalogEntry {
    gone(EntryKind::Policy, policy_key(vhost, scope, name))
}

pub(super) fn exchange(vhost: &Name, name: &Name, spec: &ExchangeSpec, schedule: Option<QueueId>) -> CatalogEntry {
    let (vhost_name, spec, schedule) = (vhost.to_string(), spec.clone(), schedule.map(|id| id.0));
    let value = ExchangeEntry { vhost: vhost_name, name: name.to_string(), spec, schedule };
    put(EntryKind::Exchange, key(&[vhost.as_bytes(), name.as_bytes()]), &value)
}

pub(super) fn exchange_tombstone(vhost: &Name, name: &Name) -> CatalogEntry {
    gone(EntryKind::Exchange, key(&[vhost.as_bytes(), name.as_bytes()]))
}

pub(super) fn queue(vhost: &Name, name: &Name, id: QueueId, spec: &QueueSpec) -> CatalogEntry {
    let value = QueueEntry { vhost: vhost.to_string(), name: name.to_string(), id: id.0, spec: spec.clone() };
    put(EntryKind::Queue, id.0.to_be_bytes().to_vec(), &value)
}

/// The queue was deleted. The key is only its id, so that the deletion can be written without the catalog.
pub(crate) fn queue_tombstone(id: QueueId) -> CatalogEntry {
    gone(EntryKind::Queue, id.0.to_be_bytes().to_vec())
}

/// What distinguishes a binding from all others: source, target, key and arguments, which must be sorted. A queue's
/// id includes its vhost.
pub(super) fn binding_identity(
    vhost: &str,
    source: &str,
    target: &Target,
    binding_key: &[u8],
    arguments: &Table,
) -> Box<[u8]> {
    let (source, arguments) = (source.as_bytes(), encode(arguments));
    let identity = match target {
        Target::Queue(id) => key(&[&id.0.to_be_bytes(), source, binding_key, &arguments]),
        // The first part is shorter than an id, so that it cannot be a queue's.
        Target::Exchange(name) => key(&[b"x", vhost.as_bytes(), name.as_bytes(), source, binding_key, &arguments]),
    };
    identity.into_boxed_slice()
}

pub(super) fn binding(vhost: &Name, identity: &[u8], target: &Target, spec: BindingSpec) -> CatalogEntry {
    let queue_id = match target {
        Target::Queue(id) => id.0,
        Target::Exchange(_) => 0,
    };
    put(EntryKind::Binding, identity.to_vec(), &BindingEntry { vhost: vhost.to_string(), queue_id, spec })
}

pub(super) fn binding_tombstone(identity: &[u8]) -> CatalogEntry {
    gone(EntryKind::Binding, identity.to_vec())
}

pub(super) fn queue_counter(reserved: u64) -> CatalogEntry {
    put(EntryKind::Counter, QUEUE_COUNTER.to_vec(), &CounterEntry { value: reserved })
}

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("an entry of plain values can be encoded")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|why| why.to_string())
}

/// The parts one after the other, each but the last with its length before it, so that different keys never have
/// the same bytes.
fn key(parts: &[&[u8]]) -> Vec<u8> {
    let (last, rest) = parts.split_last().expect("a key has a part");
    let mut key = Vec::with_capacity(parts.iter().map(|part| part.len() + 2).sum());
    for part in rest {
        let len = u16::try_from(part.len()).expect("names and keys are at most 255 bytes");
        key.extend_from_slice(&len.to_be_bytes());
        key.extend_from_slice(part);
    }
    key.extend_from_slice(last);
    key
}

fn put(kind: EntryKind, key: Vec<u8>, value: &impl Serialize) -> CatalogEntry {
    CatalogEntry { kind, key, value: Some(encode(value)) }
}

fn gone(kind: EntryKind, key: Vec<u8>) -> CatalogEntry {
    CatalogEntry { kind, key, value: None }
}
