//! Queues in the catalog: name, declaration, owner and bindings. The shard has their messages.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use ferrymq_model::{
    Access, Arguments, CatalogEntry, ConnectionId, DeclareQueue, Name, Object, QueueId, QueueOwner, QueueSpec, Refusal,
};

use hashbrown::HashMap;

use super::events::CatalogEvent;
use super::queue_arguments::{self, QueueKind};
use super::unbinding::Unbinding;
use super::{Caller, Catalog, arguments, entries, in_order, missing, shown, without_line_ends};
use crate::queue::QueueSettings;

/// How many queue ids are reserved with one entry in the journal.
const RESERVED_QUEUES: u64 = 1024;

/// A queue, as declared.
#[derive(Debug)]
pub struct QueueRecord {
    /// Its id.
    pub id: QueueId,
    /// Its type.
    pub kind: QueueKind,
    /// Its declaration.
    pub spec: QueueSpec,
    /// The connection that owns it, if it is exclusive.
    pub owner: QueueOwner,
    /// The settings for its shard, which has the same ones.
    pub settings: Arc<QueueSettings>,
    pub(super) bindings: BTreeSet<u64>,
}

impl QueueRecord {
    /// The consumer priority in a subscription's arguments.
    ///
    /// # Errors
    /// [`Refusal::PreconditionFailed`] for a wrong value and for an argument that is not implemented.
    pub fn subscription_priority(&self, arguments: &Arguments) -> Result<i64, Refusal> {
        queue_arguments::subscription_priority(&self.shown(), self.kind, arguments)
    }

    /// The consumer timeout of a subscription with these arguments, in milliseconds; `None` if neither they nor the
    /// queue set one. (AMQP-52)
    ///
    /// # Errors
    /// [`Refusal::PreconditionFailed`] for a wrong value.
    pub fn subscription_timeout_ms(&self, arguments: &Arguments) -> Result<Option<u64>, Refusal> {
        let own = queue_arguments::subscription_timeout_ms(&self.shown(), arguments)?;
        Ok(own.or(self.settings.consumer_timeout_ms))
    }

    fn shown(&self) -> String {
        shown(Object::Queue, &self.settings.name, &self.settings.vhost)
    }

    // AMQP-27
    fn check_owner(&self, matches: impl FnOnce(QueueOwner) -> bool) -> Result<(), Refusal> {
        if matches(self.owner) {
            return Ok(());
        }
        Err(Refusal::ResourceLocked(format!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
             exclusive property value does not match that of the original declaration.",
            self.shown()
        )))
    }

    pub(super) fn check_open_to(&self, connection: ConnectionId) -> Result<(), Refusal> {
        self.check_owner(|owner| owner == QueueOwner::Shared || owner == QueueOwner::Connection(connection))
    }
}

/// The answer to a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The queue.
    pub queue: QueueId,
    /// Its name, which the server may have chosen.
    pub name: Name,
    /// If it is new: its settings, which the shard must get before anyone else can find the queue.
    pub created: Option<Arc<QueueSettings>>,
}

impl Catalog {
    /// Declares a queue, or checks that it exists with the same declaration. For an empty name the server chooses
    /// one, from `random`; a passive declaration must have a name.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without permission and for a reserved name; [`Refusal::ResourceLocked`] if it
    /// belongs to another connection; [`Refusal::PreconditionFailed`] for another declaration than before, a wrong
    /// argument and one that is not implemented; [`Refusal::NotFound`] for a passive declaration without a queue.
    pub fn declare_queue(
        &mut self,
        caller: &Caller<'_>,
        request: &DeclareQueue,
        random: u128,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<Declared, Refusal> {
        let mut name = without_line_ends(&request.queue);
        if request.passive {
            let found = self.queue(caller, &name, None)?;
            return Ok(Declared { queue: found.id, name, created: None });
        }
        let spec = self.with_queue_type(
            caller.vhost,
            QueueSpec {
                // An exclusive queue does not survive its connection, so it need not be durable.
                durable: request.durable && !request.exclusive,
                exclusive: request.exclusive,
                auto_delete: request.auto_delete,
                arguments: request.arguments.clone(),
            },
        );
        if name.is_empty() {
            let whose = shown(Object::Queue, "", caller.vhost);
            queue_arguments::check_server_named(queue_arguments::kind(&whose, &spec.arguments)?)?;
            name = server_named(random);
        } else if name.starts_with("amq.") {
            return Err(Refusal::AccessRefused(format!("queue name '{name}' contains reserved prefix 'amq.*'")));
        }
        self.check(caller, Access::Configure, Object::Queue, &name)?;
        let owner = if request.exclusive { QueueOwner::Connection(caller.connection) } else { QueueOwner::Shared };
        if let Some(declared) = self.same_queue(caller.vhost, &name, &spec, owner)? {
            return Ok(declared);
        }
        self.check_queue_limit(caller.vhost, &name)?;
        let whose = shown(Object::Queue, &name, caller.vhost);
        if let Some(exchange) = arguments::exchange_named("x-dead-letter-exchange", &whose, &spec.arguments)? {
            self.check(caller, Access::Read, Object::Queue, &name)?;
            self.check(caller, Access::Write, Object::Exchange, exchange)?;
        }
        self.make_queue(caller.vhost, name, spec, owner, changes)
    }

    /// Like [`Catalog::declare_queue`], for a shared queue that an operator sets up: without permission checks.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`]; [`Refusal::PreconditionFailed`] like there.
    pub fn put_queue(
        &mut self,
        vhost: &Name,
        name: &Name,
        spec: &QueueSpec,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<Declared, Refusal> {
        match self.same_queue(vhost, name, spec, QueueOwner::Shared)? {
            Some(declared) => Ok(declared),
            None => self.make_queue(vhost, name.clone(), spec.clone(), QueueOwner::Shared, changes),
        }
    }

    /// The queue of that name, if there is one: its declaration must be equivalent.
    fn same_queue(
        &self,
        vhost: &Name,
        name: &Name,
        spec: &QueueSpec,
        owner: QueueOwner,
    ) -> Result<Option<Declared>, Refusal> {
        let Some(id) = self.vhost(vhost)?.queues.get(name) else { return Ok(None) };
        let there = &self.queues[id];
        there.check_owner(|found| found == owner)?;
        queue_arguments::check_same(&there.shown(), there.kind, &there.spec, spec)?;
        Ok(Some(Declared { queue: *id, name: name.clone(), created: None }))
    }

    fn make_queue(
        &mut self,
        vhost: &Name,
        name: Name,
        spec: QueueSpec,
        owner: QueueOwner,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<Declared, Refusal> {
        let whose = shown(Object::Queue, &name, vhost);
        let kind = queue_arguments::kind(&whose, &spec.arguments)?;
        queue_arguments::check(&whose, kind, &spec)?;
        let policy = self.vhost(vhost)?.policies.of_queue(&name, kind);
        let settings = Arc::new(queue_arguments::settings(vhost, &name, kind, &spec, &policy));
        let queue = self.next_queue_id(changes);
        if spec.durable {
            changes.push(entries::queue(vhost, &name, queue, &spec));
        }
        self.insert_queue(queue, kind, spec.clone(), owner, settings.clone());
        self.record(|| CatalogEvent::QueueCreated { vhost: vhost.clone(), name: name.clone(), spec });
        Ok(Declared { queue, name, created: Some(settings) })
    }

    /// The queue of that name, if the caller has that access to it and it does not belong to another connection.
    /// (AMQP-55)
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`], [`Refusal::NotFound`] or [`Refusal::ResourceLocked`], checked in this order.
    pub fn queue(&self, caller: &Caller<'_>, name: &str, access: Option<Access>) -> Result<&QueueRecord, Refusal> {
        if let Some(access) = access {
            self.check(caller, access, Object::Queue, name)?;
        }
        let vhost = self.vhost(caller.vhost)?;
        let id = vhost.queues.get(name).ok_or_else(|| missing(Object::Queue, name, &vhost.name))?;
        let found = &self.queues[id];
        found.check_open_to(caller.connection)?;
        Ok(found)
    }

    /// Whether there is a queue of that name.
    #[must_use]
    pub fn has_queue(&self, vhost: &str, name: &str) -> bool {
        self.vhosts.get(vhost).is_some_and(|vhost| vhost.queues.contains_key(name))
    }

    /// The queue with that id.
    #[must_use]
    pub fn queue_by_id(&self, id: QueueId) -> Option<&QueueRecord> {
        self.queues.get(&id).map(Box::as_ref)
    }

    /// All queues of all vhosts, in the order of their declarations.
    pub fn queues(&self) -> impl Iterator<Item = &QueueRecord> {
        in_order(&self.queues).map(|(_, queue)| queue.as_ref())
    }

    /// The exclusive queues of a connection, in the order of their declarations.
    pub fn owned_by(&self, connection: ConnectionId) -> impl Iterator<Item = QueueId> {
        self.owned.get(&connection).into_iter().flatten().copied()
    }

    /// Removes a queue that its shard has deleted and written as deleted. Does nothing if it is already removed.
    /// [`Catalog::unbind_some`] removes its bindings.
    pub fn forget_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        give_back(&mut self.queues);
        if let QueueOwner::Connection(connection) = queue.owner
            && let Some(owned) = self.owned.get_mut(&connection)
        {
            owned.remove(&id);
            if owned.is_empty() {
                self.owned.remove(&connection);
            }
        }
        let vhost = self.vhosts.get_mut(&queue.settings.vhost).expect("a queue's vhost is there");
        vhost.queues.remove(&queue.settings.name);
        give_back(&mut vhost.queues);
        vhost.epoch.advance();
        let (vhost, name) = (queue.settings.vhost.clone(), queue.settings.name.clone());
        self.has_gone(Unbinding::of_queue(vhost, name, queue.bindings));
    }

    pub(super) fn insert_queue(
        &mut self,
        id: QueueId,
        kind: QueueKind,
        spec: QueueSpec,
        owner: QueueOwner,
        settings: Arc<QueueSettings>,
    ) {
        if let QueueOwner::Connection(connection) = owner {
            self.owned.entry(connection).or_default().insert(id);
        }
        let vhost = self.vhosts.get_mut(&settings.vhost).expect("a queue's vhost is there");
        vhost.queues.insert(settings.name.clone(), id);
        vhost.epoch.advance();
        let record = QueueRecord { id, kind, spec, owner, settings, bindings: BTreeSet::new() };
        self.queues.insert(id, Box::new(record));
    }

    pub(super) fn next_queue_id(&mut self, changes: &mut Vec<CatalogEntry>) -> QueueId {
        if self.next_queue == self.reserved_queues {
            self.reserved_queues += RESERVED_QUEUES;
            changes.push(entries::queue_counter(self.reserved_queues));
        }
        let id = QueueId(self.next_queue * QueueId::LANES);
        self.next_queue += 1;
        id
    }
}

/// Returns memory when much of it is free: a table that was large once may be small now.
pub(crate) fn give_back<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    const KEPT: usize = 1_024;
    if map.capacity() > KEPT && map.len() < map.capacity() / 8 {
        map.shrink_to((2 * map.len()).max(KEPT / 2));
    }
}

/// 22 random characters: the number in the base 64 alphabet that is safe in names and addresses (RFC 4648 section
/// 5), without padding.
#[must_use]
pub fn random_text(random: u128) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 128 bits are 21 characters of 6 bits and one of 2 bits, which are its highest ones.
    let six = |letter: u32| if letter < 21 { random >> (122 - 6 * letter) } else { random << 4 };
    (0..22).map(|letter| char::from(ALPHABET[(six(letter) & 63) as usize])).collect()
}

/// A queue's name that the server chooses. (AMQP-25)
fn server_named(random: u128) -> Name {
    Name::from(&*format!("amq.gen-{}", random_text(random)))
}

#[cfg(test)]
mod tests {
    use super::server_named;

    #[test]
    fn names_are_base_64_of_all_bits() {
        assert_eq!(&*server_named(0), "amq.gen-AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(&*server_named(1), "amq.gen-AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(&*server_named(u128::MAX), "amq.gen-_____________________w");
        assert_eq!(&*server_named(0x0102_0304 << 96), "amq.gen-AQIDBAAAAAAAAAAAAAAAAA");
    }
}

#[cfg(test)]
mod table_tests {
    use super::*;

    #[test]
    fn a_table_that_was_large_gives_its_memory_back() {
        const MANY: usize = 100_000;
        let mut table: HashMap<usize, usize> = (0..MANY).map(|number| (number, number)).collect();
        for number in 0..MANY {
            table.remove(&number);
            give_back(&mut table);
        }
        assert!(table.capacity() <= 2_048, "{}", table.capacity());
    }
}
