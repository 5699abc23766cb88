//! The other half of the specification: the messages in a queue, who gets them, and when they leave.

use std::collections::{BTreeMap, BTreeSet};

use ferrymq_model::{Access, DeathReason, Settlement, Table, Time};

use super::policy::{Full, Policy, is_operators};
use super::{By, No, Reference, agree, refuse_if};

/// The target of a queue's dead letter: the queue, its list of targets, the message, and its reason.
pub type DeadLetterTargets<'a> = dyn Fn(&str, &[&str], u64, DeathReason) -> Vec<String> + 'a;

/// How many dead letters of a queue may be unconfirmed before those after them have to wait, too.
const UNCONFIRMED_MAX: usize = 32;

#[derive(Clone, Debug)]
pub struct Queue {
    pub durable: bool,
    pub owner: Option<u64>,
    pub(super) auto_delete: bool,
    pub(super) arguments: Table,
    pub(super) last_used: Time,
    /// In the order in which they arrived, wherever they are now.
    pub messages: Vec<Message>,
    /// In the order in which they were made.
    pub(super) subscriptions: Vec<u64>,
    /// Those with credit, in the order in which they are served.
    pub(super) turns: Vec<u64>,
    /// The single active consumer.
    pub active: Option<u64>,
    /// Its declaration.
    pub(super) own: Policy,
    /// Its declaration and policies together.
    pub policy: Policy,
    /// Messages to be dead-lettered, until the broker reports their outcome.
    pub(super) pending_dead_letters: Vec<(u64, DeathReason)>,
    /// With at-least-once dead-lettering: which queues have accepted it.
    pub(super) delivered_to: BTreeMap<u64, BTreeSet<String>>,
    /// Refused messages, until the broker reports their outcome.
    pub(super) turned_away: Vec<u64>,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub id: u64,
    pub bytes: u64,
    pub(super) persistent: bool,
    pub(super) priority: u8,
    pub(super) arrived: Time,
    /// Its own expiry; its queue may have it expire earlier.
    pub(super) expires: Option<Time>,
    pub stands: Stands,
    pub(super) redelivered: bool,
    pub(super) attempts: u32,
    /// Published in this step: a consumer may still get it, even if its TTL is 0.
    pub(super) new: bool,
}

/// Where a message of a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    Ready,
    /// With a consumer.
    Out,
    /// It is to be dead-lettered, and the broker has not reported its outcome yet.
    PendingDeadLetter,
}

/// A dead letter that the broker makes of a message: its content and targets are the test port's.
#[derive(Clone, Debug)]
pub struct RoutedMessage {
    pub id: u64,
    pub bytes: u64,
    pub persistent: bool,
    pub priority: u8,
    pub targets: Vec<String>,
}

/// The properties that a publisher sets.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    pub persistent: bool,
    pub priority: u8,
    pub expiration_ms: Option<u64>,
}

/// A published message. Its first key is its routing key, further ones are in its headers.
#[derive(Clone, Debug)]
pub struct Publish {
    pub exchange: String,
    pub keys: Vec<Vec<u8>>,
    pub headers: Table,
    pub envelope: Envelope,
    pub id: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) priority: i64,
}

/// A delivery, as the broker reports it.
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
        let queue = self.queues.get_mut(name).expect("it was just found");
        let alone = others.is_empty() && !queue.policy.single_active;
        refuse_if(taken || (exclusive && !alone), No::AccessRefused)?;
        queue.subscriptions.push(id);
        if !queue.policy.single_active {
            queue.turns.push(id);
        } else if queue.active.is_none() {
            queue.turns.push(id);
            queue.active = Some(id);
        }
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
        if queue.active == Some(id) {
            let highest = queue.subscriptions.iter().map(|other| self.subscriptions[other].priority).max();
            let mut others = queue.subscriptions.iter().copied();
            queue.active = others.find(|other| Some(self.subscriptions[other].priority) == highest);
            queue.turns = queue.active.into_iter().collect();
        }
        queue.last_used = self.now;
        if queue.auto_delete && queue.subscriptions.is_empty() {
            let name = name.clone();
            self.remove_queue(&name);
        }
    }

    /// The message of a get, and how many are ready after it.
    pub fn get(&mut self, by: By, name: &str, no_ack: bool) -> Result<Option<(Given, u64)>, No> {
        let now = self.now;
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        queue.last_used = now;
        queue.pass_away(now);
        let Some(message) = queue.front() else { return Ok(None) };
        let given = Given {
            message: message.id,
            redelivered: message.redelivered,
            attempts: message.attempts,
            settled: no_ack,
        };
        queue.give(given.message, no_ack);
        queue.pass_away(now);
        Ok(Some((given, queue.ready().count() as u64)))
    }

    pub fn purge(&mut self, by: By, name: &str) -> Result<u64, No> {
        let queue = self.queue_for(by, Some(Access::Read), name)?;
        let at_least_once = queue.policy.at_least_once;
        let goes = |message: &Message| {
            message.stands == Stands::Ready || (at_least_once && message.stands == Stands::PendingDeadLetter)
        };
        let left = queue.messages.extract_if(.., |message| goes(message)).count();
        queue.pending_dead_letters.clear();
        Ok(left as u64)
    }

    /// A delivery of this message is settled. The queue may be deleted meanwhile.
    pub fn settle(&mut self, name: &str, id: u64, settlement: Settlement) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        match settlement {
            Settlement::Accept => queue.messages.retain(|message| message.id != id),
            Settlement::Reject => queue.end(id, DeathReason::Rejected),
            Settlement::Release { .. } | Settlement::Fail { .. } => {
                let Some(message) = queue.messages.iter_mut().find(|message| message.id == id) else { return };
                message.stands = Stands::Ready;
                message.redelivered = true;
                message.attempts += 1;
                if queue.policy.attempts_max.is_some_and(|max| message.attempts > max) {
                    queue.end(id, DeathReason::DeliveryLimit);
                }
            }
        }
    }

    /// A connection's exclusive queues are deleted with it. (Its subscriptions and deliveries have ended before.)
    pub fn disconnect(&mut self, connection: u64) {
        let owned = |(_, queue): &(&String, &Queue)| queue.owner == Some(connection);
        let names: Vec<_> = self.queues.iter().filter(owned).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_queue(name));
    }

    pub fn advance(&mut self, now: Time) {
        self.now = now;
        let is_over = |queue: &Queue| {
            let unused_ms_max = queue.policy.unused_ms_max;
            queue.subscriptions.is_empty() && unused_ms_max.is_some_and(|ms| queue.last_used.after_ms(ms) <= now)
        };
        let over = |(_, queue): &(&String, &Queue)| is_over(queue);
        let names: Vec<_> = self.queues.iter().filter(over).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_queue(name));
    }

    /// What is durable is recovered; unsettled messages are ready again.
    pub fn restart(&mut self) {
        self.subscriptions.clear();
        self.queues.retain(|_, queue| queue.durable);
        for queue in self.queues.values_mut() {
            queue.subscriptions.clear();
            queue.turns.clear();
            queue.active = None;
            queue.last_used = self.now;
            queue.messages.retain(|message| message.persistent || queue.own.quorum);
            queue.turned_away.clear();
            queue.delivered_to.clear();
            queue.pending_dead_letters.retain(|_| queue.policy.at_least_once);
            queue
                .pending_dead_letters
                .sort_unstable_by_key(|(id, _)| queue.messages.iter().position(|message| message.id == *id));
            for message in queue.messages.iter_mut().filter(|message| message.stands != Stands::Ready) {
                if queue.pending_dead_letters.iter().any(|(id, _)| *id == message.id) {
                    continue;
                }
                message.stands = Stands::Ready;
                message.redelivered = true;
            }
        }
        self.in_flight.clear();
        self.restart_exchanges();
    }

    /// The queues of this name have another policy from now on, or none.
    pub fn set_policy(&mut self, name: &str, policy: Policy) {
        self.policies.insert(name.to_owned(), policy);
        self.apply_policies();
    }

    pub fn set_operators(&mut self, policy: Option<Policy>) {
        self.operators = policy;
        self.apply_policies();
    }

    /// The settings that policies give the queue of this name.
    pub(super) fn policy_of(&self, name: &str) -> Policy {
        let users = self.policies.get(name).copied().unwrap_or_default();
        users.with(self.operators.filter(|_| is_operators(name)).unwrap_or_default())
    }

    fn apply_policies(&mut self) {
        let policies: Vec<_> = self.queues.keys().map(|name| self.policy_of(name)).collect();
        for (queue, policy) in self.queues.values_mut().zip(policies) {
            let policy = queue.own.with(policy);
            if queue.policy != policy {
                queue.policy = policy;
                queue.last_used = self.now;
            }
        }
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
        self.seen(given.message);
        let (now, queue) = (self.now, self.queues.get_mut(name).expect("it was just found"));
        queue.pass_away(now);
        // Pending dead letters may have to wait for space.
        if let Some((id, reason)) = queue.death_at_the_front(now)
            && !queue.is_passing()
        {
            return Err(format!("a delivery from {name}, where {id} should have gone before: {reason:?}"));
        }
        let message = queue.front().ok_or_else(|| format!("a delivery from {name}, which has nothing ready"))?;
        agree("the message", &given.message, &message.id)?;
        agree("redelivered", &given.redelivered, &message.redelivered)?;
        agree("attempts", &given.attempts, &message.attempts)?;
        agree("settled with the delivery", &given.settled, &no_ack)?;
        queue.give(given.message, no_ack);
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

    /// A message left, and was dead-lettered or not.
    pub fn dead_lettered(
        &mut self,
        name: &str,
        id: u64,
        reason: DeathReason,
        dead_letter: Option<RoutedMessage>,
    ) -> Result<(), String> {
        self.seen(id);
        let now = self.now;
        let queue = self.queues.get_mut(name).ok_or_else(|| format!("a death in {name}, which is not there"))?;
        if queue.turned_away.first() == Some(&id) {
            queue.turned_away.remove(0);
            self.in_flight.extend(dead_letter);
            return agree("the reason", &reason, &DeathReason::MaxLength);
        }
        if queue.policy.at_least_once {
            if !queue.pending_dead_letters.contains(&(id, reason)) {
                return Err(format!("{name} has no dead letter of {id} to publish: {reason:?}"));
            }
            self.deliver_unconfirmed(name, id, dead_letter);
            return Ok(());
        }
        agree("the death", &Some((id, reason)), &queue.next_death(now))?;
        queue.pending_dead_letters.retain(|(pending_dead_letters, _)| *pending_dead_letters != id);
        queue.messages.retain(|message| message.id != id);
        if let Some(dead_letter) = dead_letter {
            self.post(&dead_letter);
        }
        Ok(())
    }

    /// An at-least-once dead letter goes to all targets with space, and its message leaves with the last target.
    fn deliver_unconfirmed(&mut self, name: &str, id: u64, dead_letter: Option<RoutedMessage>) {
        let mut delivered_to =
            self.queues.get_mut(name).expect("it is there").delivered_to.remove(&id).unwrap_or_default();
        let mut full = false;
        for target in dead_letter.iter().flat_map(|dead_letter| &dead_letter.targets) {
            let dead_letter = dead_letter.as_ref().expect("it has targets");
            let message = dead_letter.message(self.now);
            let queue = self.queues.get_mut(target).expect("a target is there");
            if delivered_to.contains(target) {
                continue;
            }
            if queue.refuses(dead_letter.bytes) {
                full = true;
            } else {
                queue.arrive(message);
                delivered_to.insert(target.clone());
            }
        }
        let queue = self.queues.get_mut(name).expect("it is there");
        if full || delivered_to.is_empty() {
            self.met.push("a dead letter is unconfirmed");
            queue.delivered_to.insert(id, delivered_to);
        } else {
            self.met.push("an at-least-once dead letter arrives");
            queue.pending_dead_letters.retain(|(pending_dead_letters, _)| *pending_dead_letters != id);
            queue.messages.retain(|message| message.id != id);
        }
    }

    /// The broker has put a message into its queues: if it is a dead letter that was under way, it arrives now.
    pub fn seen(&mut self, id: u64) {
        if let Some(at) = self.in_flight.iter().position(|dead_letter| dead_letter.id == id) {
            let dead_letter = self.in_flight.remove(at);
            self.post(&dead_letter);
        }
    }

    fn post(&mut self, dead_letter: &RoutedMessage) {
        let message = dead_letter.message(self.now);
        for name in &dead_letter.targets {
            self.queues.get_mut(name).expect("a target is there").arrive(message.clone());
        }
    }

    /// The broker has nothing more to do: nothing deliverable is left. `targets` returns the targets of a queue's
    /// dead letter, for a reason.
    pub fn check_idle(&mut self, targets: &DeadLetterTargets<'_>) -> Result<(), String> {
        agree("dead letters that went nowhere", &0, &self.in_flight.len())?;
        for (name, queue) in self.queues.iter().filter(|(_, queue)| queue.policy.at_least_once) {
            // Those after it have to wait for these.
            for (id, reason) in queue.pending_dead_letters.iter().take(UNCONFIRMED_MAX) {
                let (targets, bytes) = (targets(name, queue.policy.dead_letters_to, *id, *reason), 8);
                let delivered_to = |target: &String| {
                    queue.delivered_to.get(id).is_some_and(|delivered_to| delivered_to.contains(target))
                };
                let mut open = targets.iter().filter(|target| !delivered_to(target));
                if open.clone().count() == 0 && !targets.is_empty() {
                    return Err(format!("everybody has the dead letter of {id} in {name}, and it is still there"));
                }
                if let Some(target) = open.find(|target| !self.queues[*target].refuses(bytes)) {
                    return Err(format!("the dead letter of {id} waits in {name}, and {target} has room"));
                }
            }
        }
        for (name, queue) in &mut self.queues {
            queue.messages.iter_mut().for_each(|message| message.new = false);
            queue.pass_away(self.now);
            if !queue.turned_away.is_empty() || queue.next_death(self.now).is_some() {
                return Err(format!("{name} has messages that have come to their end"));
            }
            if queue.ready().next().is_some() && !queue.turns.is_empty() {
                return Err(format!("{name} has ready messages and subscriptions with credit"));
            }
        }
        Ok(())
    }
}

impl Queue {
    pub fn ready(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|message| message.stands == Stands::Ready)
    }

    /// Messages and bytes that stand there.
    pub fn count(&self, stands: Stands) -> (u64, u64) {
        let there = self.messages.iter().filter(|message| message.stands == stands);
        there.fold((0, 0), |(messages, bytes), message| (messages + 1, bytes + message.bytes))
    }

    fn has_dead_letters(&self) -> bool {
        !self.policy.dead_letters_to.is_empty()
    }

    /// A message is to leave, and may be dead-lettered. One that exceeds the delivery limit must be found first: until
    /// then it comes back in a crash.
    fn end(&mut self, id: u64, reason: DeathReason) {
        if self.has_dead_letters() || reason == DeathReason::DeliveryLimit {
            self.messages.iter_mut().filter(|one| one.id == id).for_each(|one| one.stands = Stands::PendingDeadLetter);
            self.pending_dead_letters.push((id, reason));
        } else {
            self.messages.retain(|message| message.id != id);
        }
    }

    /// A message arrives, if the queue accepts it.
    pub(super) fn arrive(&mut self, message: Message) -> bool {
        if self.refuses(message.bytes) {
            if self.policy.full == Full::RefuseAndDeadLetter && self.has_dead_letters() {
                self.turned_away.push(message.id);
            }
            return false;
        }
        self.messages.push(message);
        true
    }

    /// Whether a new message with this many bytes is refused.
    fn refuses(&self, bytes: u64) -> bool {
        self.policy.full != Full::DropHead && self.is_over(1, bytes)
    }

    /// The first in the highest lane.
    fn front(&self) -> Option<&Message> {
        let lane = |message: &Message| message.priority.min(self.policy.priority_max);
        let highest = self.ready().map(lane).max();
        self.ready().find(|message| Some(lane(message)) == highest)
    }

    /// A ready message leaves for a consumer.
    fn give(&mut self, id: u64, settled: bool) {
        self.messages.iter_mut().filter(|one| one.id == id).for_each(|one| one.stands = Stands::Out);
        if settled {
            self.messages.retain(|message| message.id != id);
        }
    }

    fn is_expired(&self, message: &Message, now: Time) -> bool {
        let waited = |ms: u64| message.arrived.after_ms(ms) <= now;
        message.expires.is_some_and(|time| time <= now) || self.policy.message_ttl_ms.is_some_and(waited)
    }

    /// Whether more is ready than is allowed, or would be with this much more.
    fn is_over(&self, messages: u64, bytes: u64) -> bool {
        let (mut messages, mut bytes) = (messages, bytes);
        for stands in
            [Stands::Ready, Stands::PendingDeadLetter].into_iter().take(if self.policy.at_least_once { 2 } else { 1 })
        {
            let (there, their_bytes) = self.count(stands);
            messages += there;
            bytes += their_bytes;
        }
        self.policy.messages_max.is_some_and(|max| messages > max)
            || self.policy.bytes_max.is_some_and(|max| bytes > max)
    }

    /// Which message leaves next, and why. Limits and expiry act at the front only.
    fn next_death(&self, now: Time) -> Option<(u64, DeathReason)> {
        if let Some(pending_dead_letters) = self.pending_dead_letters.first().filter(|_| !self.policy.at_least_once) {
            return Some(*pending_dead_letters);
        }
        self.death_at_the_front(now)
    }

    fn death_at_the_front(&self, now: Time) -> Option<(u64, DeathReason)> {
        let front = self.front()?;
        if self.policy.full == Full::DropHead && self.is_over(0, 0) {
            return Some((front.id, DeathReason::MaxLength));
        }
        self.is_expired(front, now).then_some((front.id, DeathReason::Expired))
    }

    /// Whether all ready messages were just published: a consumer may get them, even if their TTL is 0.
    fn is_passing(&self) -> bool {
        self.ready().count() == 1 && self.ready().all(|message| message.new)
    }

    /// Without dead-lettering, deaths are not reported.
    fn pass_away(&mut self, now: Time) {
        while !self.has_dead_letters()
            && !self.is_passing()
            && let Some((id, _)) = self.next_death(now)
        {
            self.pending_dead_letters.retain(|(pending_dead_letters, _)| *pending_dead_letters != id);
            self.messages.retain(|message| message.id != id);
        }
    }
}

impl RoutedMessage {
    fn message(&self, now: Time) -> Message {
        let Self { id, bytes, persistent, priority, .. } = *self;
        Message { persistent, priority, ..Message::new(id, bytes, now) }
    }
}

impl Message {
    pub(super) fn new(id: u64, bytes: u64, arrived: Time) -> Self {
        Self {
            id,
            bytes,
            persistent: false,
            priority: 0,
            arrived,
            expires: None,
            stands: Stands::Ready,
            redelivered: false,
            attempts: 0,
            new: true,
        }
    }
}
