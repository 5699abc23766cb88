//! Subscriptions, single gets, and the credit that limits both.

use ferrymq_broker::Subscriber;
use ferrymq_model::{Access, ConsumeCommand, GetCommand, Name, Object, Origin, QosCommand, Refusal, Reply};

use super::Client;
use crate::{
    connection::{mailbox::Get, peer::subscription_id},
    core::transition::{Aftermath, CatalogLock},
};

impl Client {
    pub(super) fn consume(&mut self, command: ConsumeCommand) -> Result<(), Refusal> {
        let channel = command.origin.channel;
        let name = self.queue_name(channel, &command.queue)?;
        let catalog = self.node.catalog.read();
        let found = catalog.queue(&self.caller(), &name, Some(Access::Read))?;
        let (queue, priority) = (found.id, found.subscription_priority(&command.arguments)?);
        self.node.failed.check(&[queue])?;
        let tag = self.consumer_tag(channel, command.tag)?;
        let timeout_ms = found.subscription_timeout_ms(&command.arguments)?;
        let timeout_ms = timeout_ms.unwrap_or(self.node.limits().consumer_timeout_ms);
        let number =
            self.connection.mailbox().subscribe(tag.clone(), name.clone(), channel, command.no_ack, timeout_ms);
        let id = subscription_id(self.connection.id, number);
        let subscriber = Subscriber { id, no_ack: command.no_ack, exclusive: command.exclusive, priority };
        let told = (channel, tag.clone(), name, command.no_ack, command.exclusive);
        let (now, mut aftermath) = (self.node.now(), Aftermath::default());
        let result = self.node.decide_with(CatalogLock::Read(&catalog), &mut aftermath, |shard, ports| {
            shard.consume(queue, subscriber, now)?;
            ports.watch_for(timeout_ms);
            // In the mailbox before any delivery, because the shard's lock is held.
            self.connection.mailbox().reply(command.origin, command.no_wait, None, Reply::Subscribed { tag });
            ports.touch(&self.connection);
            Ok(())
        });
        if result.is_err() {
            self.connection.mailbox().unsubscribe(number);
        }
        drop(catalog);
        // Before the answer leaves: who has read it finds the event in its queues.
        if result.is_ok() {
            self.tell_subscribed(told, &command.arguments);
        }
        self.settle_down(aftermath);
        result
    }

    /// The tag that the client gave, or a new one. A tag identifies one subscription of its channel.
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

    pub(super) fn cancel(&mut self, origin: Origin, tag: &Name, no_wait: bool) -> Result<(), Refusal> {
        self.cancel_replies(origin.channel, tag);
        let ended = {
            let mut mailbox = self.connection.mailbox();
            let number = mailbox.subscription(origin.channel, tag);
            number.and_then(|number| Some((number, mailbox.unsubscribe(number)?)))
        };
        let (now, mut aftermath) = (self.node.now(), Aftermath::default());
        let catalog = self.node.catalog.read();
        self.node.decide_unit(CatalogLock::Read(&catalog), &mut aftermath, |shard, ports| {
            if let Some((number, _)) = &ended {
                shard.cancel(subscription_id(self.connection.id, *number), now, ports);
            }
            let reply = Reply::Unsubscribed { tag: tag.clone() };
            self.connection.mailbox().reply(origin, no_wait, None, reply);
        });
        drop(catalog);
        self.settle_down(aftermath);
        if let Some((_, subscription)) = ended {
            self.connection.tell_unsubscribed(&self.node, &subscription);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, command: &GetCommand) -> Result<(), Refusal> {
        let channel = command.origin.channel;
        let name = self.queue_name(channel, &command.queue)?;
        let queue = self.node.catalog.read().queue(&self.caller(), &name, Some(Access::Read))?.id;
        self.node.failed.check(&[queue])?;
        let get = Get { origin: command.origin, queue, no_ack: command.no_ack };
        if self.node.get(&self.connection, get) {
            return Ok(());
        }
        Err(Refusal::NotFound { object: Object::Queue, name, vhost: self.caller().vhost.clone() })
    }

    /// As in RabbitMQ: a global limit is the channel's and applies at once, the other one is the limit of each
    /// subscription that is made later.
    pub(super) fn qos(&mut self, command: QosCommand) -> Result<(), Refusal> {
        let waiting = {
            let mut mailbox = self.connection.mailbox();
            if let Some(channel) = mailbox.channels.get_mut(&command.origin.channel) {
                if command.global {
                    channel.prefetch_global = command.prefetch;
                } else {
                    channel.prefetch = command.prefetch;
                }
            }
            // Before any delivery that the new limit allows: clients rely on that order.
            mailbox.reply(command.origin, false, None, Reply::QosSet);
            mailbox.take_waiting(self.connection.id)
        };
        self.go_on(&waiting);
        Ok(())
    }

    pub(super) fn flow(&mut self, origin: Origin, active: bool) -> Result<(), Refusal> {
        if !active && !self.node.limits().flow_can_stop {
            return Err(Refusal::NotImplemented("active=false".to_owned()));
        }
        let waiting = {
            let mut mailbox = self.connection.mailbox();
            if let Some(channel) = mailbox.channels.get_mut(&origin.channel) {
                channel.active = active;
            }
            mailbox.reply(origin, false, None, Reply::FlowSet { active });
            mailbox.take_waiting(self.connection.id)
        };
        self.go_on(&waiting);
        Ok(())
    }
}
