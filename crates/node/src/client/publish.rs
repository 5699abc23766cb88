//! Publishing: a batch is routed, decided during one hold of the shard's lock, then returned or confirmed.

use std::cell::Cell;

use ferrymq_broker::{Cacheable, Catalog, History, Published, Rights};
use ferrymq_model::{
    Event, MessageRef, Position, Publish, PublishExtras, PublishOutcome, QueueId, Refusal, ReturnReason, TransactionId,
};

use super::{
    Client,
    fan_out::{FanOut, HELD_TARGETS_MAX},
    message::{body_bytes, facts_of, kept_of, message_of},
    route_cache::RouteCache,
    transaction::not_open,
};
use crate::{
    connection::{
        ledger::Kind,
        mailbox::{Channel, Mailbox},
        transaction,
    },
    core::{node::Node, transition::Deferred},
    management::{counters::Batch, trace::TracePoint},
    routing::{
        envelope::{Routed, with_envelope},
        replies::ReplyTarget,
    },
};

/// About how long a unit of work takes, in nanoseconds.
const WORK_UNIT_NS: u64 = 130;

/// The targets of one publish.
pub(super) enum Route {
    /// These of the batch's targets.
    Queues(std::ops::Range<usize>),
    /// These too, but some did not accept it.
    Refused,
    /// The channel that waits for it as a direct reply.
    Answer(ReplyTarget),
    /// None: it is unroutable.
    None,
    /// It was refused, or its channel was refused before.
    Ignored,
}

impl Route {
    /// The outcome of a message that was routed to queues.
    pub(super) fn became(&mut self, published: Published) {
        if published.queues == 0 {
            // All its queues were deleted after it was routed.
            *self = Self::None;
        } else if published.refused {
            *self = Self::Refused;
        }
    }
}

impl Client {
    /// Decides the publishes that were collected so far, in portions that fill at most [`HELD_TARGETS_MAX`] queues,
    /// for at most `work_max`. The remaining ones then own their data. Spans point into `input`.
    pub(super) fn publish_collected(&mut self, input: &[u8], work_max: u64, events: &mut Vec<Event>) {
        self.has_published = true;
        if matches!(self.caller().rights, Rights::Expired) {
            // Permissions may have expired.
            self.routes = RouteCache::default();
        }
        if !self.fan_out_some(work_max) || !self.has_filed() {
            return;
        }
        let mut publishes = std::mem::take(&mut self.publishes);
        let mut targets = Vec::new();
        let mut rest = &mut publishes[..];
        // A refusal goes to the session at once, which may then have further commands.
        while !rest.is_empty() && (self.work.get() < work_max || !events.is_empty()) {
            targets.clear();
            let mut routes = Vec::with_capacity(rest.len());
            let wants_confirm = self.route_some(input, rest, work_max, &mut targets, &mut routes, events);
            // A publish to many queues is decided separately.
            let to_many = match routes.last() {
                Some(Route::Queues(range)) if range.len() > self.held_targets_max() => routes.pop(),
                _ => None,
            };
            let mut done = routes.len();
            if done > 0 {
                self.publish_routed(input, &rest[..done], &targets, routes, wants_confirm);
            }
            if let Some(Route::Queues(range)) = to_many {
                done += self.begin_fan_out(input, &rest[done..], &targets[range], wants_confirm);
                // If there is something to send, nothing is deferred.
                self.fan_out_some(if events.is_empty() { work_max } else { u64::MAX });
            }
            rest = &mut rest[done..];
            if self.fan_out.is_some() || self.filing.is_some() {
                break;
            }
        }
        let left = rest.len();
        publishes.drain(..publishes.len() - left);
        for publish in
            publishes.iter_mut().filter(|publish| publish.rare.as_ref().is_none_or(|rare| rare.head.is_none()))
        {
            *publish = transaction::kept(publish, &message_of(publish, input));
        }
        self.left_publishes = !publishes.is_empty() || self.fan_out.is_some();
        self.publishes = publishes;
    }

    /// [`HELD_TARGETS_MAX`], unless a sabotage of a test changes it.
    fn held_targets_max(&self) -> usize {
        #[cfg(test)]
        if self.node.counts_messages.load(std::sync::atomic::Ordering::Relaxed) {
            return usize::MAX;
        }
        HELD_TARGETS_MAX
    }

    /// Decides publishes that were routed, during one hold of the shard's lock.
    fn publish_routed(
        &mut self,
        input: &[u8],
        publishes: &[Publish],
        targets: &[QueueId],
        mut routes: Vec<Route>,
        wants_confirm: bool,
    ) {
        let now = self.node.now();
        let mut deferred = self.what_is_undrained();
        if self.node.firehose.is_on() {
            self.trace_published(input, publishes, &routes, targets, &mut deferred);
        }
        let mut ahead_in = None;
        let stored = self.node.decide(&mut deferred, |shard, ports| {
            let mut durable = false;
            for (publish, route) in publishes.iter().zip(&mut routes) {
                let message = message_of(publish, input);
                let range = match route {
                    Route::Queues(range) => range,
                    Route::Answer(target) => {
                        if self.node.deliver_reply(target, &message) {
                            ports.touch(&target.connection);
                        } else {
                            *route = Route::None;
                        }
                        continue;
                    }
                    Route::Refused | Route::None | Route::Ignored => continue,
                };
                let facts = facts_of(publish, &message, now);
                let targets = &targets[range.clone()];
                let (persistent, matched) = (publish.persistent, publish.matched());
                let published = shard.publish_matched(&message, &facts, persistent, targets, matched, ports);
                durable |= published.durable;
                ahead_in = published.ahead_in.or(ahead_in);
                route.became(published);
            }
            (durable && wants_confirm).then(|| ports.flushed_position())
        });
        self.pacing.published(ahead_in);
        self.worked(publishes.len().max(targets.len()) as u64);
        self.published(input, publishes, &routes, stored, deferred);
    }

    /// A publish goes to many queues, together with the following ones that have the same targets. Begins with
    /// that. Returns how many they are.
    fn begin_fan_out(
        &mut self,
        input: &[u8],
        publishes: &[Publish],
        targets: &[QueueId],
        wants_confirm: bool,
    ) -> usize {
        let first = &publishes[0];
        let alike = publishes.iter().take_while(|publish| self.goes_with(first, publish, input));
        let lengths = alike.map(|publish| message_of(publish, input).body.bytes().len());
        let count = FanOut::together(lengths);
        let publishes: Vec<Publish> =
            publishes[..count].iter().map(|publish| transaction::kept(publish, &message_of(publish, input))).collect();
        if self.node.firehose.is_on() {
            let mut deferred = self.what_is_undrained();
            let routes: Vec<Route> = publishes.iter().map(|_| Route::Queues(0..targets.len())).collect();
            self.trace_published(&[], &publishes, &routes, targets, &mut deferred);
            self.run_deferred(deferred);
        }
        self.fan_out = Some(FanOut::new(publishes, targets.to_vec(), wants_confirm).into());
        count
    }

    /// Whether a publish has the same route as the one that was routed just before, so that the catalog need not be
    /// asked.
    fn goes_with(&self, first: &Publish, publish: &Publish, input: &[u8]) -> bool {
        let (one, other) = (message_of(first, input), message_of(publish, input));
        std::ptr::eq(first, publish)
            || publish.rare.is_none()
                && publish.origin.channel == first.origin.channel
                && (one.exchange, one.routing_key) == (other.exchange, other.routing_key)
                && self.routes.knows(one.exchange.as_bytes(), one.routing_key)
    }

    /// The connections that wait for the end of the input.
    pub(super) fn what_is_undrained(&mut self) -> Deferred {
        Deferred { touched: std::mem::take(&mut self.undrained), ..Deferred::default() }
    }

    /// Publishes were decided: answers and counts them, and sends the results, unless more of the input may add to
    /// them.
    pub(super) fn published(
        &mut self,
        input: &[u8],
        publishes: &[Publish],
        routes: &[Route],
        stored: Option<Position>,
        mut deferred: Deferred,
    ) {
        self.answer(input, publishes, routes, stored);
        deferred.touch(&self.connection);
        if deferred.can_wait() {
            self.undrained = deferred.touched;
        } else {
            self.run_deferred(deferred);
        }
    }

    /// Traces a publish.
    fn trace_published(
        &self,
        input: &[u8],
        publishes: &[Publish],
        routes: &[Route],
        targets: &[QueueId],
        deferred: &mut Deferred,
    ) {
        let catalog = self.node.catalog.read();
        for (publish, route) in publishes.iter().zip(routes) {
            let targets = match route {
                Route::Queues(range) => &targets[range.clone()],
                Route::Ignored => continue,
                Route::Refused | Route::None | Route::Answer(_) => &[],
            };
            self.trace_publish(&catalog, publish, &message_of(publish, input), targets, deferred);
        }
    }

    /// Traces a publish to these queues.
    pub(super) fn trace_publish(
        &self,
        catalog: &Catalog,
        publish: &Publish,
        message: &MessageRef<'_>,
        targets: &[QueueId],
        deferred: &mut Deferred,
    ) {
        let Some(identity) = self.connection.identity.get() else { return };
        let names = targets.iter().filter_map(|target| Some(&*catalog.queue_by_id(*target)?.settings.name)).collect();
        let (channel, point) = (publish.origin.channel, TracePoint::Published(names));
        let trace_message = self.node.firehose.trace_message(
            identity,
            channel,
            message,
            publish.more_keys(),
            &point,
            &self.node.dialects,
        );
        deferred.trace_messages.extend(trace_message);
    }

    /// Routes the first publishes, until they fill [`HELD_TARGETS_MAX`] queues, and refuses those that are not
    /// allowed. Stops before a publish whose body must be in a file first. Returns whether any of them wants a
    /// confirm.
    fn route_some(
        &mut self,
        input: &[u8],
        publishes: &mut [Publish],
        work_max: u64,
        targets: &mut Vec<QueueId>,
        routes: &mut Vec<Route>,
        events: &mut Vec<Event>,
    ) -> bool {
        let (mut last, mut wants_confirm) = (None, false);
        for publish in publishes {
            let channel = publish.origin.channel;
            let mode = match last {
                Some((last, mode)) if last == channel => mode,
                _ => {
                    let mailbox = self.connection.mailbox();
                    wants_confirm |= mailbox.confirms(channel);
                    mailbox
                        .state
                        .channels
                        .get(&channel)
                        .map_or(PublishMode::Nothing, |channel| PublishMode::of(channel))
                }
            };
            last = Some((channel, mode));
            if !matches!(mode, PublishMode::Nothing) && self.files_body(publish, input) {
                break;
            }
            let transaction = publish.rare.as_ref().and_then(|rare| rare.transaction);
            let routed = match (mode, transaction) {
                (PublishMode::Nothing, _) => Ok(Route::Ignored),
                (_, Some(id)) => self.keep_for_commit(publish, id, input, targets),
                (PublishMode::All, None) => self.route_one(publish, input, targets, Purpose::Publish),
                (PublishMode::ForCommit, None) => {
                    self.keep_for_commit(publish, TransactionId::SELECTED, input, targets)
                }
            };
            routes.push(routed.unwrap_or_else(|refusal| {
                let mut mailbox = self.connection.mailbox();
                mailbox.refuse(publish.origin, &refusal, events);
                if !mailbox.goes_on(channel) {
                    last = Some((channel, PublishMode::Nothing));
                }
                Route::Ignored
            }));
            if targets.len() >= self.held_targets_max() || self.work.get() >= work_max {
                break;
            }
        }
        wants_confirm
    }

    /// Routes the publish. Sets its reply address, if it asks for one.
    fn route_one(
        &mut self,
        publish: &mut Publish,
        input: &[u8],
        targets: &mut Vec<QueueId>,
        purpose: Purpose<'_>,
    ) -> Result<Route, Refusal> {
        if publish.rare.as_ref().is_some_and(|rare| rare.wants_replies) {
            *publish = self.with_reply_address(publish, input)?;
        }
        let range = self.route(publish, input, targets, purpose)?;
        if !self.matched.is_empty() || !publish.matched().is_empty() {
            publish.rare.get_or_insert_default().matched = std::mem::take(&mut self.matched);
        }
        self.node.failed.check(&targets[range.clone()])?;
        if !range.is_empty() {
            return Ok(Route::Queues(range));
        }
        let message = message_of(publish, input);
        let answer = self.node.replies.find(message.routing_key).filter(|_| message.exchange.is_empty());
        Ok(answer.map_or(Route::None, Route::Answer))
    }

    /// Checks the publish, and keeps it until its channel commits. (AMQP-37)
    fn keep_for_commit(
        &mut self,
        publish: &mut Publish,
        id: TransactionId,
        input: &[u8],
        targets: &mut Vec<QueueId>,
    ) -> Result<Route, Refusal> {
        if !self.with_channel(publish.origin.channel, |channel| channel.transactions.contains_key(&id)) {
            return Err(not_open(id));
        }
        self.route_one(publish, input, targets, Purpose::Check(&Cell::new(false)))?;
        let kept = transaction::kept(publish, &message_of(publish, input));
        let bytes = transaction::kept_bytes(&kept);
        self.connection.account.add(Kind::Transactions, bytes);
        self.node.look_at_ledger_if_due();
        if let Some(refusal) = self.connection.take_ledger_close() {
            // It must not be committed. A channel that goes on does not end the connection: the session must.
            let mut mailbox = self.connection.mailbox();
            if mailbox.goes_on(publish.origin.channel) {
                mailbox.events.push(Event::Close(refusal.clone()));
                self.connection.wake();
            }
            drop(mailbox);
            self.connection.account.subtract(Kind::Transactions, bytes);
            return Err(refusal);
        }
        self.with_channel(publish.origin.channel, |channel| {
            let transaction = channel.transactions.entry(id).or_default();
            transaction.publishes.push(kept);
            transaction.bytes += bytes;
        });
        Ok(Route::Ignored)
    }

    // Inlined, a cached route is found without a call.
    #[inline(always)]
    pub(super) fn route(
        &mut self,
        publish: &Publish,
        input: &[u8],
        targets: &mut Vec<QueueId>,
        purpose: Purpose<'_>,
    ) -> Result<std::ops::Range<usize>, Refusal> {
        let start = targets.len();
        let epoch = self.epoch.as_ref().map_or(0, ferrymq_broker::Epoch::now);
        let is_plain = |rare: &PublishExtras| rare.user.is_none() && rare.more_keys.is_empty();
        if publish.rare.as_deref().is_none_or(is_plain) {
            let source = publish.source(input);
            let (exchange, routing_key) = (publish.exchange.of(source), publish.routing_key.of(source));
            if let Some(queues) = self.routes.find(epoch, exchange, routing_key) {
                targets.extend_from_slice(queues);
                return Ok(start..targets.len());
            }
        }
        self.route_uncached(publish, input, targets, purpose).map(|()| start..targets.len())
    }

    fn route_uncached(
        &mut self,
        publish: &Publish,
        input: &[u8],
        targets: &mut Vec<QueueId>,
        purpose: Purpose<'_>,
    ) -> Result<(), Refusal> {
        if publish.exchange.of(publish.source(input)).is_empty() && publish.more_keys().is_empty() {
            // The default exchange has one queue for each key, and so nothing to compare.
            return self.route_anew(publish, input, targets, purpose);
        }
        let began = self.node.host.nanoseconds();
        let routed = self.route_anew(publish, input, targets, purpose);
        // Clients decide how long the comparison takes.
        self.worked((self.node.host.nanoseconds() - began) / WORK_UNIT_NS);
        routed
    }

    /// Asks the catalog for the route of a publish, and caches it if it also holds for publishes like it.
    fn route_anew(
        &mut self,
        publish: &Publish,
        input: &[u8],
        targets: &mut Vec<QueueId>,
        purpose: Purpose<'_>,
    ) -> Result<(), Refusal> {
        let message = message_of(publish, input);
        let catalog = self.node.catalog.read();
        let caller = self.caller();
        let more_keys = publish.more_keys();
        catalog.may_publish(&caller, message.exchange, message.routing_key, more_keys)?;
        // As in RabbitMQ, the error about the permission comes first.
        if let Some(claimed) = publish.rare.as_ref().and_then(|rare| rare.user.as_ref())
            && claimed != caller.user
        {
            catalog.check_claim(&caller, claimed)?;
        }
        let mut queues = Vec::new();
        let (cacheable, matched) = self.node.route(&catalog, caller.vhost, publish, &message, purpose, &mut queues)?;
        drop(catalog);
        self.matched = matched;
        targets.extend_from_slice(&queues);
        if cacheable == Cacheable::UntilEpoch && more_keys.is_empty() {
            self.routes.keep(message.exchange, message.routing_key, queues);
        }
        Ok(())
    }

    /// Returns mandatory messages that are unroutable, then confirms: in this order, for each message. (AMQP-34) Counts
    /// all that were decided.
    fn answer(&self, input: &[u8], publishes: &[Publish], routes: &[Route], stored: Option<Position>) {
        let mut decided = Batch::default();
        let mut mailbox = self.connection.mailbox();
        for (publish, route) in publishes.iter().zip(routes) {
            if matches!(route, Route::Ignored) {
                continue;
            }
            decided.add(body_bytes(publish));
            if publish.mandatory && matches!(route, Route::None) {
                let message = message_of(publish, input);
                mailbox.effects.returned(publish.origin.channel, ReturnReason::Unroutable, &message);
            }
        }
        let mut from = 0;
        while from < publishes.len() {
            let channel = publishes[from].origin.channel;
            let count = publishes[from..].iter().take_while(|publish| publish.origin.channel == channel).count();
            if mailbox.confirms(channel) {
                let range = from..from + count;
                note_outcomes(&mut mailbox, &publishes[range.clone()], &routes[range], stored);
            }
            from += count;
        }
        let durable = self.node.durable_position();
        let wakes = mailbox.confirm(durable);
        let waits = mailbox.awaits_journal(durable) && !std::mem::replace(&mut mailbox.awaiting, true);
        drop(mailbox);
        if wakes {
            self.connection.wake();
        }
        if waits {
            self.node.await_journal(&self.connection);
        }
        if let Some(counters) = self.connection.usage_counters.get() {
            counters.published(decided);
        }
    }
}

/// Notes what became of publishes of one channel, which has confirms.
fn note_outcomes(mailbox: &mut Mailbox, publishes: &[Publish], routes: &[Route], stored: Option<Position>) {
    let channel = publishes[0].origin.channel;
    let each = mailbox.confirms_each(channel);
    let (mut decided, mut refused) = (0, Vec::new());
    for (publish, route) in publishes.iter().zip(routes) {
        let outcome = match route {
            Route::Ignored => continue,
            Route::Refused => PublishOutcome::Refused,
            Route::None => PublishOutcome::Unroutable,
            Route::Queues(_) | Route::Answer(_) => PublishOutcome::Accepted,
        };
        decided += 1;
        if each {
            mailbox.published_one(publish.origin, outcome, stored);
        } else if outcome == PublishOutcome::Refused {
            refused.push(decided);
        }
    }
    mailbox.published(channel, decided, &refused, stored);
}

/// What a channel does with publishes.
#[derive(Clone, Copy)]
enum PublishMode {
    /// It was refused something, and ignores them.
    Nothing,
    All,
    /// They wait for a commit.
    ForCommit,
}

impl PublishMode {
    fn of(channel: &Channel) -> Self {
        match channel {
            Channel { refused: true, .. } => Self::Nothing,
            Channel { is_transactional: true, .. } => Self::ForCommit,
            _ => Self::All,
        }
    }
}

/// Why a message is routed.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    Publish,
    /// To check whether it may be published; it is published later, or never. Set if an exchange would keep the
    /// message.
    Check(&'a Cell<bool>),
}

impl Node {
    /// The queues of a message that was routed before, and the bindings that ask to be named; none if its exchange was
    /// deleted meanwhile.
    pub(super) fn route_again(&self, catalog: &Catalog, vhost: &str, publish: &Publish) -> Routed {
        let (message, mut targets) = (message_of(publish, &[]), Vec::new());
        match self.route(catalog, vhost, publish, &message, Purpose::Publish, &mut targets) {
            Ok((_, matched)) => Routed { targets, matched },
            Err(_) => Routed::default(),
        }
    }

    /// Fills `targets` with the queues of a message. Returns how long the result is valid, and the bindings that ask to be
    /// named.
    fn route(
        &self,
        catalog: &Catalog,
        vhost: &str,
        publish: &Publish,
        message: &MessageRef<'_>,
        purpose: Purpose<'_>,
        targets: &mut Vec<QueueId>,
    ) -> Result<(Cacheable, Vec<(QueueId, u64)>), Refusal> {
        let more_keys = publish.more_keys();
        // Under the catalog's lock: a binding that is made at the same time gets the message exactly once.
        let keep = |history: &History| match purpose {
            Purpose::Publish => self.keep(history, kept_of(publish, message)),
            Purpose::Check(keeps) => keeps.set(true),
        };
        let (cacheable, matched) =
            with_envelope(&self.dialects, message, &|| self.random() as u64, &keep, |envelope| {
                catalog.route(vhost, message.exchange, message.routing_key, more_keys, envelope, targets)
            });
        Ok((cacheable?, matched))
    }
}
