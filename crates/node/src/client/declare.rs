//! Exchanges, queues and bindings.

use ferrymq_broker::DeleteWhen;
use ferrymq_model::{
    Access, BindCommand, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Destination, Name, Origin,
    Position, Refusal, Reply,
};

use super::Client;
use crate::transition::{Aftermath, CatalogLock};

impl Client {
    pub(super) fn declare_exchange(&mut self, command: &DeclareExchange) -> Result<(), Refusal> {
        let caller = self.caller();
        let after = self
            .node
            .change_catalog(caller.user, |catalog, changes| catalog.declare_exchange(&caller, command, changes))?;
        self.changed(command.origin, command.no_wait, after, Reply::ExchangeDeclared);
        Ok(())
    }

    pub(super) fn delete_exchange(&mut self, command: &DeleteExchange) -> Result<(), Refusal> {
        let caller = self.caller();
        let after = self
            .node
            .change_catalog(caller.user, |catalog, changes| catalog.delete_exchange(&caller, command, changes))?;
        self.changed(command.origin, command.no_wait, after, Reply::ExchangeDeleted);
        Ok(())
    }

    pub(super) fn bind(&mut self, command: &BindCommand) -> Result<(), Refusal> {
        let command = self.with_queue_named(command)?;
        let mut changes = Vec::new();
        let mut catalog = self.node.catalog.write();
        let bound = catalog.bind(&self.caller(), &command, &mut changes)?;
        let happenings = catalog.take_happenings();
        match bound.and_then(|bound| Some((catalog.history(self.caller().vhost, &bound.exchange)?, bound))) {
            Some((history, bound)) => self.replay(catalog, &history, &bound, &changes),
            None => {
                drop(catalog);
                let after = (!changes.is_empty()).then(|| self.node.write_changes(&changes));
                self.changed(command.origin, command.no_wait, after, Reply::Bound);
            }
        }
        self.node.tell_happenings(happenings, Some(self.caller().user));
        Ok(())
    }

    pub(super) fn unbind(&mut self, command: &BindCommand) -> Result<(), Refusal> {
        let command = self.with_queue_named(command)?;
        let caller = self.caller();
        let after =
            self.node.change_catalog(caller.user, |catalog, changes| catalog.unbind(&caller, &command, changes))?;
        self.changed(command.origin, command.no_wait, after, Reply::Unbound);
        Ok(())
    }

    /// An empty queue name stands for the one last declared; an empty key then stands for that name too, as in RabbitMQ.
    fn with_queue_named(&self, command: &BindCommand) -> Result<BindCommand, Refusal> {
        let mut command = command.clone();
        if let Destination::Queue(name) = &mut command.destination
            && name.is_empty()
        {
            *name = self.queue_name(command.origin.channel, name)?;
            if command.key.is_empty() {
                command.key = name.as_bytes().to_vec();
            }
        }
        Ok(command)
    }

    /// Exchanges or bindings have changed: answers, when that is durable, and sees to what it means for dead letters.
    pub(super) fn changed(&self, origin: Origin, no_wait: bool, after: Option<Position>, reply: Reply) {
        self.reply(origin, no_wait, after, reply);
        self.node.routes_changed(Some(&self.connection));
    }

    pub(super) fn declare_queue(&mut self, mut command: DeclareQueue) -> Result<(), Refusal> {
        let channel = command.origin.channel;
        if command.passive {
            command.queue = self.queue_name(channel, &command.queue)?;
            if self.node.replies.find(command.queue.as_bytes()).is_some() {
                // Not a queue, but somebody waits for answers there.
                let reply = Reply::QueueDeclared { queue: command.queue, messages: 0, consumers: 1 };
                self.reply(command.origin, command.no_wait, None, reply);
                return Ok(());
            }
        }
        let (mut changes, mut aftermath) = (Vec::new(), Aftermath::default());
        let now = self.node.now();
        let mut catalog = self.node.catalog.write();
        let mut declared = catalog.declare_queue(&self.caller(), &command, self.node.random(), &mut changes)?;
        let lock = CatalogLock::Write(&mut catalog);
        let (counts, after) = self.node.decide_unit(lock, &mut aftermath, |shard, ports| {
            if declared.created.is_none() && !shard.has(declared.queue) {
                // It has just gone by itself, and the catalog has not heard of it yet.
                let (catalog, random) = (ports.catalog(), self.node.random());
                catalog.forget_queue(declared.queue, &mut changes);
                declared = catalog.declare_queue(&self.caller(), &command, random, &mut changes)?;
            }
            match declared.created.take() {
                Some(settings) => {
                    for lane in 0..=settings.priority_max {
                        ports.create_queue(declared.queue.lane(lane), settings.durable);
                    }
                    shard.open(declared.queue, settings, &[], now);
                    shard.routes_changed();
                }
                None => shard.used(declared.queue, now),
            }
            ports.write_changes(&changes);
            let counts = shard.counts(declared.queue).expect("the queue was made or found");
            Ok((counts, (!changes.is_empty()).then(|| ports.flushed_position())))
        })?;
        let happenings = catalog.take_happenings();
        drop(catalog);
        self.with_channel(channel, |channel| channel.last_queue = Some(declared.name.clone()));
        let reply =
            Reply::QueueDeclared { queue: declared.name, messages: counts.ready, consumers: counts.subscriptions };
        self.reply(command.origin, command.no_wait, after, reply);
        self.settle_down(aftermath);
        self.node.tell_happenings(happenings, Some(self.caller().user));
        Ok(())
    }

    pub(super) fn delete_queue(&mut self, command: &DeleteQueue) -> Result<(), Refusal> {
        let name = self.queue_name(command.origin.channel, &command.queue)?;
        let when = DeleteWhen { unused: command.if_unused, empty: command.if_empty };
        let mut aftermath = Aftermath::default();
        let mut catalog = self.node.catalog.write();
        let found = catalog.queue(&self.caller(), &name, Some(Access::Configure)).map(|found| found.id);
        match found {
            // A queue that is not there is as good as deleted.
            Err(Refusal::NotFound { .. }) => {
                self.reply(command.origin, command.no_wait, None, Reply::QueueDeleted { messages: 0 });
            }
            Err(refusal) => return Err(refusal),
            Ok(queue) => self.node.decide_unit(CatalogLock::Write(&mut catalog), &mut aftermath, |shard, ports| {
                let messages = shard.delete(queue, when, ports)?;
                self.node.failed.remove(queue);
                ports.forget_gone(shard);
                let after = Some(ports.flushed_position());
                // Before the word to this connection that its subscriptions are gone: clients count on that order.
                let mut mailbox = self.connection.mailbox();
                mailbox.reply(command.origin, command.no_wait, after, Reply::QueueDeleted { messages });
                Ok(())
            })?,
        }
        let happenings = catalog.take_happenings();
        drop(catalog);
        self.await_journal();
        self.settle_down(aftermath);
        self.node.tell_happenings(happenings, Some(self.caller().user));
        Ok(())
    }

    pub(super) fn purge_queue(&mut self, origin: Origin, queue: &Name, no_wait: bool) -> Result<(), Refusal> {
        let name = self.queue_name(origin.channel, queue)?;
        let queue = self.node.catalog.read().queue(&self.caller(), &name, Some(Access::Read))?.id;
        let mut aftermath = Aftermath::default();
        let (messages, after) =
            self.node.decide(&mut aftermath, |shard, ports| (shard.purge(queue, ports), ports.flushed_position()));
        self.node.failed.remove(queue);
        self.reply(origin, no_wait, Some(after).filter(|_| messages > 0), Reply::QueuePurged { messages });
        self.settle_down(aftermath);
        Ok(())
    }
}
