//! The other half of the specification: what is in a queue, who gets it, and when it leaves.

use ferrymq_model::{Access, Settlement, Table, Time};

use super::{By, No, Reference, agree, refuse_if};

#[derive(Clone, Debug)]
pub struct Queue {
    pub durable: bool,
    pub owner: Option<u64>,
    pub(super) auto_delete: bool,
    pub(super) message_ttl_ms: Option<u64>,
    pub(super) unused_ms_max: Option<u64>,
    pub(super) arguments: Table,
    pub(super) last_used: Time,
    /// In the order in which they came, wherever they are now.
    pub messages: Vec<Message>,
    /// In the order in which they came.
    pub(super) subscriptions: Vec<u64>,
    /// Those with credit, in the order in which they are served.
    pub(super) turns: Vec<u64>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub id: u64,
    pub bytes: u64,
    pub(super) persistent: bool,
    pub(super) expires: Option<Time>,
    pub out: bool,
    pub(super) redelivered: bool,
    pub(super) attempts: u32,
    /// Published in this very step: a consumer may still have it, even if it may not wait at all.
    pub(super) new: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) priority: i64,
}

/// A message on its way to somebody, as the broker reports it.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    pub message: u64,
    pub redelivered: bool,
    pub attempts: u32,
    pub settled: bool,
}

impl Reference {
    pub fn consume(
        &mut self,
        by: By,
        name: &str,
        id: u64,
        no_ack: bool,
        exclusive: bool,
        priority: i64,
    ) -> Result<(), No> {
        let now = self.now;
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        let others = queue.subscriptions.clone();
        let taken = others.iter().any(|other| self.subscriptions[other].exclusive);
        refuse_if(taken || (exclusive && !others.is_empty()), No::AccessRefused)?;
        let queue = self.queues.get_mut(name).expect("it was just found");
        queue.subscriptions.push(id);
        queue.turns.push(id);
        queue.last_used = now;
        self.subscriptions.insert(id, Subscription { no_ack, exclusive, priority });
        Ok(())
    }

    pub fn cancel(&mut self, id: u64) {
        self.subscriptions.remove(&id);
        let Some((name, queue)) = self.queues.iter_mut().find(|(_, queue)| queue.subscriptions.contains(&id)) else {
            return;
        };
        queue.subscriptions.retain(|other| *other != id);
        queue.turns.retain(|other| *other != id);
        queue.last_used = self.now;
        if queue.auto_delete && queue.subscriptions.is_empty() {
            let name = name.clone();
            self.remove_queue(&name);
        }
    }

    /// The message it gets, and how many are ready behind it.
    pub fn get(&mut self, by: By, name: &str, no_ack: bool) -> Result<Option<(Given, u64)>, No> {
        let now = self.now;
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        queue.last_used = now;
        queue.expire(now);
        let Some(message) = queue.messages.iter_mut().find(|message| !message.out) else { return Ok(None) };
        let given = Given {
            message: message.id,
            redelivered: message.redelivered,
            attempts: message.attempts,
            settled: no_ack,
        };
        message.out = true;
        if no_ack {
            queue.messages.retain(|message| message.id != given.message);
        }
        queue.expire(now);
        Ok(Some((given, queue.ready().count() as u64)))
    }

    pub fn purge(&mut self, by: By, name: &str) -> Result<u64, No> {
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        let ready = queue.ready().count() as u64;
        queue.messages.retain(|message| message.out);
        Ok(ready)
    }

    /// A delivery of this message comes to its end. The queue may have gone meanwhile.
    pub fn settle(&mut self, name: &str, id: u64, settlement: Settlement) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        match settlement {
            Settlement::Accept | Settlement::Reject => queue.messages.retain(|message| message.id != id),
            Settlement::Release => {
                for message in queue.messages.iter_mut().filter(|message| message.id == id) {
                    message.out = false;
                    message.redelivered = true;
                    message.attempts += 1;
                }
            }
        }
    }

    /// A connection's queues go with it. (Its subscriptions and deliveries have ended before.)
    pub fn disconnect(&mut self, connection: u64) {
        let owned = |(_, queue): &(&String, &Queue)| queue.owner == Some(connection);
        let names: Vec<_> = self.queues.iter().filter(owned).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_queue(name));
    }

    pub fn advance(&mut self, now: Time) {
        self.now = now;
        let is_over = |queue: &Queue| {
            queue.subscriptions.is_empty() && queue.unused_ms_max.is_some_and(|ms| queue.last_used.after_ms(ms) <= now)
        };
        let over = |(_, queue): &(&String, &Queue)| is_over(queue);
        let names: Vec<_> = self.queues.iter().filter(over).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_queue(name));
    }

    /// What is durable comes back; what was out is ready again.
    pub fn restart(&mut self) {
        self.subscriptions.clear();
        self.queues.retain(|_, queue| queue.durable);
        for queue in self.queues.values_mut() {
            queue.subscriptions.clear();
            queue.turns.clear();
            queue.last_used = self.now;
            queue.messages.retain(|message| message.persistent);
            for message in queue.messages.iter_mut().filter(|message| message.out) {
                message.out = false;
                message.redelivered = true;
            }
        }
        self.restart_exchanges();
    }

    // What the broker decides by itself.

    /// The next in turn among those of the highest priority.
    fn next_in_turn(&self, queue: &Queue) -> Option<u64> {
        let highest = queue.turns.iter().map(|id| self.subscriptions[id].priority).max()?;
        queue.turns.iter().copied().find(|id| self.subscriptions[id].priority == highest)
    }

    /// A message was given to a subscription.
    pub fn delivered(&mut self, name: &str, subscription: u64, given: Given) -> Result<(), String> {
        let queue = self.queues.get(name).ok_or_else(|| format!("a delivery from {name}, which is not there"))?;
        let next = self.next_in_turn(queue);
        agree("the subscription in turn", &Some(subscription), &next)?;
        let no_ack = self.subscriptions[&subscription].no_ack;
        let (now, queue) = (self.now, self.queues.get_mut(name).expect("it was just found"));
        queue.expire(now);
        let message = queue.messages.iter_mut().find(|message| !message.out);
        let message = message.ok_or_else(|| format!("a delivery from {name}, which has nothing ready"))?;
        agree("the message", &given.message, &message.id)?;
        agree("redelivered", &given.redelivered, &message.redelivered)?;
        agree("attempts", &given.attempts, &message.attempts)?;
        agree("settled with the delivery", &given.settled, &no_ack)?;
        message.out = true;
        if no_ack {
            queue.messages.retain(|message| message.id != given.message);
        }
        queue.turns.retain(|id| *id != subscription);
        queue.turns.push(subscription);
        Ok(())
    }

    /// A subscription had no credit when its turn came.
    pub fn refused(&mut self, subscription: u64) -> Result<(), String> {
        let found = self.queues.values().find(|queue| queue.turns.contains(&subscription));
        let queue = found.ok_or_else(|| format!("subscription {subscription} was offered something out of turn"))?;
        agree("the subscription in turn", &Some(subscription), &self.next_in_turn(queue))?;
        for queue in self.queues.values_mut() {
            queue.turns.retain(|id| *id != subscription);
        }
        Ok(())
    }

    /// A subscription has credit again.
    pub fn credited(&mut self, subscription: u64) {
        for queue in self.queues.values_mut().filter(|queue| queue.subscriptions.contains(&subscription)) {
            queue.turns.push(subscription);
        }
    }

    /// The broker has come to rest: nothing that could be delivered is left.
    pub fn rest(&mut self) -> Result<(), String> {
        for (name, queue) in &mut self.queues {
            queue.messages.iter_mut().for_each(|message| message.new = false);
            queue.expire(self.now);
            if queue.ready().next().is_some() && !queue.turns.is_empty() {
                return Err(format!("{name} has ready messages and subscriptions with credit"));
            }
        }
        Ok(())
    }
}

impl Queue {
    pub fn ready(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| !message.out)
    }

    /// Time acts at the front only.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some(front) = self.messages.iter().position(|message| !message.out) {
            let message = &self.messages[front];
            if message.new || message.expires.is_none_or(|time| time > now) {
                return;
            }
            self.messages.remove(front);
        }
    }
}
