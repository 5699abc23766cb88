//! Subscriptions, single gets, and the credit that limits both.

use std::sync::Arc;

use ferrymq_broker::{Shard, Subscriber};
use ferrymq_model::{Access, GetCommand, Name, Object, Origin, Refusal, Reply, SetCredit, Subscribe};

use super::Client;
use crate::{
    connection::{
        credit::Pull,
        mailbox::Get,
        peer::{Connection, subscription_id},
    },
    core::{
        gets::GetOutcome,
        transition::{CatalogLock, Deferred, Transition},
    },
};

impl Client {
    pub(super) fn subscribe(&mut self, origin: Origin, mut wanted: Subscribe) -> Result<(), Refusal> {
        let channel = origin.channel;
        wanted.queue = self.queue_name(channel, &wanted.queue)?;
        let catalog = self.node.catalog.read();
        let found = catalog.queue(&self.caller(), &wanted.queue, Some(Access::Read))?;
        let (queue, priority) = (found.id, found.subscription_priority(&wanted.arguments)?);
        self.node.failed.check(&[queue])?;
        wanted.tag = self.consumer_tag(channel, wanted.tag)?;
        let timeout_ms = found.subscription_timeout_ms(&wanted.arguments)?;
        let timeout_ms = timeout_ms.unwrap_or(self.node.limits().consumer_timeout_ms);
        let number = self.connection.mailbox().subscribe(channel, &wanted, timeout_ms);
        let id = subscription_id(self.connection.id(), number);
        let subscriber = Subscriber { id, no_ack: wanted.no_ack, exclusive: wanted.exclusive, priority };
        let Subscribe { queue: name, tag, no_ack, exclusive, arguments, .. } = wanted;
        let created = (channel, tag.clone(), name, no_ack, exclusive);
        let (now, mut deferred) = (self.node.now(), Deferred::default());
        let result = self.node.decide_with(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            shard.consume(queue, subscriber, now)?;
            ports.watch_for(timeout_ms);
            // In the mailbox before any delivery, because the shard's lock is held.
            let mut mailbox = self.connection.mailbox();
            mailbox.reply(origin, None, Reply::Subscribed { tag });
            let pull = mailbox.pull_of(number);
            drop(mailbox);
            begin_pull(&self.connection, pull, shard, ports);
            ports.touch(&self.connection);
            Ok(())
        });
        if result.is_err() {
            self.connection.mailbox().unsubscribe(number);
        }
        drop(catalog);
        // Before the answer leaves: who has read it finds the event in its queues.
        if result.is_ok() {
            self.publish_consumer_created(created, &arguments);
        }
        self.run_deferred(deferred);
        result
    }

    /// The tag that the client gave, or a new one. A tag identifies one subscription of its channel. (AMQP-47)
    pub(super) fn consumer_tag(&self, channel: u16, tag: Name) -> Result<Name, Refusal> {
        if tag.is_empty() {
            let tag = format!("amq.ctag-{}", ferrymq_broker::random_text(self.node.random()));
            return Ok(Name::from(&*tag));
        }
        let is_replies = self
            .with_channel(channel, |channel| channel.reply_address.as_ref().is_some_and(|replies| replies.tag == tag));
        if is_replies || self.connection.mailbox().subscription(channel, &tag).is_some() {
            return Err(Refusal::NotAllowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        Ok(tag)
    }

    // AMQP-46
    pub(super) fn unsubscribe(&mut self, origin: Origin, tag: &Name) -> Result<(), Refusal> {
        self.cancel_replies(origin.channel, tag);
        let ended = {
            let mut mailbox = self.connection.mailbox();
            let number = mailbox.subscription(origin.channel, tag);
            number.and_then(|number| Some((number, mailbox.unsubscribe(number)?)))
        };
        let (now, mut deferred) = (self.node.now(), Deferred::default());
        let catalog = self.node.catalog.read();
        self.node.decide_unit(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            if let Some((number, subscription)) = &ended {
                ports.forget_pull_timer(&self.connection, *number, subscription.pull_ends);
                shard.cancel(subscription_id(self.connection.id(), *number), now, ports);
            }
            let reply = Reply::Unsubscribed { tag: tag.clone() };
            self.connection.mailbox().reply(origin, None, reply);
        });
        drop(catalog);
        self.run_deferred(deferred);
        if let Some((_, subscription)) = ended {
            self.connection.publish_consumer_deleted(&self.node, &subscription);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, origin: Origin, command: &GetCommand) -> Result<(), Refusal> {
        let name = self.queue_name(origin.channel, &command.queue)?;
        let queue = self.node.catalog.read().queue(&self.caller(), &name, Some(Access::Read))?.id;
        self.node.failed.check(&[queue])?;
        let (channel_serial, has_free_id) =
            self.with_channel(origin.channel, |channel| (channel.serial, channel.unacked.has_free_id()));
        if !has_free_id {
            return Err(Refusal::ResourceLimit("all delivery ids of the channel are in use".to_owned()));
        }
        let get = Get { origin, queue, no_ack: command.no_ack, channel_serial };
        match self.node.get(&self.connection, get) {
            GetOutcome::Answered => Ok(()),
            GetOutcome::Waits => {
                self.held.begin();
                Ok(())
            }
            GetOutcome::Gone => {
                Err(Refusal::NotFound { object: Object::Queue, name, vhost: self.caller().vhost.clone() })
            }
        }
    }

    pub(super) fn set_credit(&mut self, origin: Origin, set: &SetCredit) -> Result<(), Refusal> {
        let (waiting, pull) = {
            let mut mailbox = self.connection.mailbox();
            let Some(pull) = mailbox.set_credit(origin.channel, set) else {
                return Err(Refusal::PreconditionFailed(format!("there is no credit to set for {:?}", set.of)));
            };
            // Before any delivery that the new limit allows: clients rely on that order. (AMQP-41)
            mailbox.reply(origin, None, Reply::CreditSet);
            (mailbox.take_waiting(self.connection.id()), pull)
        };
        let mut deferred = Deferred::default();
        self.node.decide(&mut deferred, |shard, ports| {
            shard.credit(&waiting);
            begin_pull(&self.connection, pull, shard, ports);
        });
        self.run_deferred(deferred);
        Ok(())
    }

    pub(super) fn flow(&mut self, origin: Origin, active: bool) -> Result<(), Refusal> {
        // AMQP-53
        if !active && !self.node.limits().flow_can_stop {
            return Err(Refusal::NotImplemented("active=false".to_owned()));
        }
        let waiting = {
            let mut mailbox = self.connection.mailbox();
            if let Some(channel) = mailbox.state.channels.get_mut(&origin.channel) {
                channel.active = active;
            }
            mailbox.reply(origin, None, Reply::FlowSet { active });
            mailbox.take_waiting(self.connection.id())
        };
        self.go_on(&waiting);
        Ok(())
    }
}

/// What is left of a pull will lapse.
pub(crate) fn begin_pull(connection: &Arc<Connection>, pull: Pull, shard: &mut Shard, ports: &mut Transition<'_>) {
    match pull {
        Pull::None => {}
        Pull::Over(number) => {
            connection.mailbox().lapse(number);
            ports.touch(connection);
        }
        Pull::UntilEmpty(number) => {
            ports.touch(connection);
            shard.drain(subscription_id(connection.id(), number), ports);
        }
        Pull::Within(number, ms) => {
            let end = ports.now().after_ms(ms);
            ports.set_pull_timer(connection, number, Some(end));
        }
    }
}
