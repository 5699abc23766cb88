//! Exchanges, queues and bindings.

use ferrymq_broker::{Catalog, DeleteWhen, Shard};
use ferrymq_model::{
    Access, BindCommand, CatalogEntry, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Destination, Name,
    Origin, Position, QueueCounts, Refusal, Reply,
};

use super::Client;
use crate::{
    core::transition::{CatalogLock, Deferred, Transition},
    management::catalog_change,
};

/// A queue that was declared, new or not.
struct QueueFound {
    name: Name,
    counts: QueueCounts,
    durable: bool,
}

impl Client {
    pub(super) fn declare_exchange(&mut self, origin: Origin, command: &DeclareExchange) -> Result<(), Refusal> {
        let caller = self.caller();
        self.node.unbind_exchange(caller.vhost, &command.exchange);
        let ((), after) =
            self.change_catalog(|catalog, changes| catalog.declare_exchange(&caller, command, changes))?;
        self.reply(origin, Some(after), Reply::ExchangeDeclared);
        Ok(())
    }

    pub(super) fn delete_exchange(&mut self, origin: Origin, command: &DeleteExchange) -> Result<(), Refusal> {
        let caller = self.caller();
        let ((), after) = self.change_catalog(|catalog, changes| catalog.delete_exchange(&caller, command, changes))?;
        self.reply(origin, Some(after), Reply::ExchangeDeleted);
        Ok(())
    }

    pub(super) fn bind(&mut self, origin: Origin, command: &BindCommand) -> Result<(), Refusal> {
        let command = self.with_queue_named(origin.channel, command)?;
        let caller = self.caller();
        let (mut deferred, mut catalog) = (Deferred::default(), self.node.catalog.write());
        let lock = CatalogLock::Write(&mut catalog);
        let (bound, mut after) = self.node.decide_with(lock, &mut deferred, |shard, ports| {
            catalog_change::apply(shard, ports, Some(caller.user), |_, ports, changes| {
                ports.catalog().bind(&caller, &command, changes)
            })
        });
        if let Ok(Some(bound)) = &bound
            && let Some(history) = catalog.history(caller.vhost, &bound.exchange)
        {
            after = self.replay(&catalog, &history, bound, &mut deferred).unwrap_or(after);
        }
        drop(catalog);
        self.node.run_deferred(deferred, Some(&self.connection));
        bound?;
        self.reply(origin, Some(after), Reply::Bound);
        Ok(())
    }

    pub(super) fn unbind(&mut self, origin: Origin, command: &BindCommand) -> Result<(), Refusal> {
        let command = self.with_queue_named(origin.channel, command)?;
        let caller = self.caller();
        let ((), after) = self.change_catalog(|catalog, changes| catalog.unbind(&caller, &command, changes))?;
        self.reply(origin, Some(after), Reply::Unbound);
        Ok(())
    }

    fn change_catalog<T>(
        &self,
        change: impl FnOnce(&mut Catalog, &mut Vec<CatalogEntry>) -> Result<T, Refusal>,
    ) -> Result<(T, Position), Refusal> {
        self.node.change_catalog_alone(Some(self.caller().user), Some(&self.connection), change)
    }

    /// An empty queue name means the queue that was declared last on the channel. Then an empty key means that name
    /// too, as in RabbitMQ. (AMQP-25)
    fn with_queue_named(&self, channel: u16, command: &BindCommand) -> Result<BindCommand, Refusal> {
        let mut command = command.clone();
        if let Destination::Queue(name) = &mut command.destination
            && name.is_empty()
        {
            *name = self.queue_name(channel, name)?;
            if command.key.is_empty() {
                command.key = name.as_bytes().to_vec();
            }
        }
        Ok(command)
    }

    pub(super) fn declare_queue(&mut self, origin: Origin, mut command: DeclareQueue) -> Result<(), Refusal> {
        let channel = origin.channel;
        if command.passive {
            command.queue = self.queue_name(channel, &command.queue)?;
            if self.node.replies.find(command.queue.as_bytes()).is_some() {
                // Not a queue, but somebody waits for replies there.
                let reply = Reply::QueueDeclared { queue: command.queue, messages: 0, consumers: 1 };
                self.reply(origin, None, reply);
                return Ok(());
            }
        }
        let caller = self.caller();
        let change = |shard: &mut Shard, ports: &mut Transition<'_>, changes: &mut Vec<CatalogEntry>| {
            self.declare_queue_with(&command, shard, ports, changes)
        };
        let (declared, after) = self.node.change_catalog(Some(caller.user), Some(&self.connection), change);
        let QueueFound { name, counts, durable } = declared?;
        self.with_channel(channel, |channel| channel.last_queue = Some(name.clone()));
        // AMQP-32
        let reply = Reply::QueueDeclared { queue: name, messages: counts.ready, consumers: counts.subscriptions };
        self.reply(origin, Some(after).filter(|_| durable), reply);
        Ok(())
    }

    fn declare_queue_with(
        &self,
        command: &DeclareQueue,
        shard: &mut Shard,
        ports: &mut Transition<'_>,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<QueueFound, Refusal> {
        let (caller, now) = (self.caller(), ports.now());
        let mut declared = ports.catalog().declare_queue(&caller, command, self.node.random(), changes)?;
        if declared.created.is_none() && !shard.has(declared.queue) {
            // The queue has just been deleted by its shard, and the catalog does not know it yet.
            ports.catalog().forget_queue(declared.queue);
            declared = ports.catalog().declare_queue(&caller, command, self.node.random(), changes)?;
        }
        match declared.created.take() {
            Some(settings) => shard.create(declared.queue, settings, now, ports),
            None => shard.used(declared.queue, now),
        }
        let counts = shard.counts(declared.queue).expect("the queue was made or found");
        let durable = ports.catalog().queue_by_id(declared.queue).is_some_and(|queue| queue.spec.durable);
        Ok(QueueFound { name: declared.name, counts, durable })
    }

    pub(super) fn delete_queue(&mut self, origin: Origin, command: &DeleteQueue) -> Result<(), Refusal> {
        let name = self.queue_name(origin.channel, &command.queue)?;
        let when = DeleteWhen { unused: command.if_unused, empty: command.if_empty };
        let caller = self.caller();
        let (mut deferred, mut catalog) = (Deferred::default(), self.node.catalog.write());
        let lock = CatalogLock::Write(&mut catalog);
        let deleted = self.node.decide_with(lock, &mut deferred, |shard, ports| {
            let (deleted, after) = catalog_change::apply(shard, ports, Some(caller.user), |shard, ports, _| {
                let queue = match ports.catalog().queue(&caller, &name, Some(Access::Configure)) {
                    Ok(found) => found.id,
                    // Deleting a queue that does not exist succeeds. (AMQP-30)
                    Err(Refusal::NotFound { .. }) => return Ok(0),
                    Err(refusal) => return Err(refusal),
                };
                let messages = shard.delete(queue, when, ports)?;
                self.node.failed.remove(queue);
                ports.forget_gone();
                Ok(messages)
            });
            let messages = deleted?;
            // Before the connection is told that its subscriptions are cancelled: clients rely on that order.
            let mut mailbox = self.connection.mailbox();
            mailbox.reply(origin, Some(after), Reply::QueueDeleted { messages });
            Ok(())
        });
        drop(catalog);
        self.await_journal();
        self.run_deferred(deferred);
        deleted
    }

    pub(super) fn purge_queue(&mut self, origin: Origin, queue: &Name) -> Result<(), Refusal> {
        let name = self.queue_name(origin.channel, queue)?;
        let queue = self.node.catalog.read().queue(&self.caller(), &name, Some(Access::Read))?.id;
        let mut deferred = Deferred::default();
        let (messages, after) =
            self.node.decide(&mut deferred, |shard, ports| (shard.purge(queue, ports), ports.flushed_position()));
        self.node.failed.remove(queue);
        self.reply(origin, Some(after).filter(|_| messages > 0), Reply::QueuePurged { messages });
        self.run_deferred(deferred);
        self.node.gets_are_ready(&[queue]);
        Ok(())
    }
}
