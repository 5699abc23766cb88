//! A connection uses a client session, and leaves it behind.

use std::sync::Arc;

use ferrymq_broker::{Ports, SequenceRange};
use ferrymq_model::{
    Attach, ConnectionId, Deliveries, Event, Origin, Refusal, Reply, Settlement, SubscriptionId, Time, UserLimits,
};

use super::{
    redelivery::Redelivery,
    table::{Found, SESSIONS_MAX, SessionKey},
};
use crate::{
    client::Client,
    connection::{
        credit::Pull,
        effects::Effects,
        mailbox::{ClientState, Mailbox},
        peer::{Connection, Peer, subscription_id},
    },
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
};

/// The socket of a session that has no connection.
#[derive(Debug)]
struct NoSocket;

impl Peer for NoSocket {
    fn send(&self, _: &Effects) {}

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {}
}

/// A session that another connection must give up first.
#[derive(Debug)]
pub(crate) struct Claim {
    origin: Origin,
    attach: Attach,
}

impl Client {
    /// Uses a session, or waits until another connection has given it up.
    pub(crate) fn attach(&mut self, origin: Origin, attach: Attach) -> Result<(), Refusal> {
        if self.session.is_some() || self.claim.is_some() {
            return Err(Refusal::CommandInvalid("the connection has a session".to_owned()));
        }
        if !self.connection.mailbox().state.channels.is_empty() {
            return Err(Refusal::CommandInvalid("a session must be attached before a channel is open".to_owned()));
        }
        let (key, user) = (self.session_key(&attach), self.caller().user.clone());
        let node = self.node.clone();
        let mut core = node.core.lock();
        if core.sessions.get_mut(&key).is_some_and(|session| session.user != user) {
            return Err(Refusal::AccessRefused(format!("session '{}' belongs to another user", attach.session)));
        }
        if core.sessions.is_full() && core.sessions.get_mut(&key).is_none() {
            return Err(Refusal::ResourceLimit(format!("there are {SESSIONS_MAX} sessions")));
        }
        match core.sessions.attach(&key, &user, attach.keep_ms, &self.connection) {
            Found::Nothing => {
                drop(core);
                self.session = Some(key.into());
                self.attached(origin, false);
            }
            Found::Held(holder, waited) => {
                drop(core);
                // The holder was told when the first one came.
                let loses = waited.unwrap_or(holder);
                loses.mailbox().events.push(Event::Close(Refusal::TakenOver));
                loses.wake();
                self.claim = Some(Claim { origin, attach }.into());
            }
            Found::Kept(kept) if attach.is_fresh => {
                drop(core);
                self.session = Some(key.into());
                node.end_kept(&kept);
                self.attached(origin, false);
            }
            Found::Kept(kept) => {
                // Subscriptions and exclusive queues belong to the number of the connection, which stays.
                let (own, number) = (self.connection.id(), kept.id());
                core.connections[number.0 as usize] = Some(self.connection.clone());
                self.connection.set_id(number);
                core.free_slot(own.0 as usize);
                let state = kept.mailbox().take_state();
                self.connection.mailbox().put_state(state);
                drop(core);
                self.session = Some(key.into());
                self.go_on_with_session();
                self.attached(origin, true);
            }
        }
        Ok(())
    }

    /// Another connection has given the session up.
    pub(crate) fn take_claim(&mut self, events: &mut Vec<Event>) {
        let Some(claim) = self.claim.take() else { return };
        let Claim { origin, attach } = *claim;
        if let Err(refusal) = self.attach(origin, attach) {
            self.connection.mailbox().refuse(origin, &refusal, events);
        }
        events.append(&mut self.connection.mailbox().events);
        self.drain();
    }

    /// The session is kept for another time after the end of the connection.
    pub(crate) fn keep_session(&mut self, origin: Origin, ms: u64) -> Result<(), Refusal> {
        let none = || Refusal::CommandInvalid("the connection has no session".to_owned());
        let key = self.session.as_ref().ok_or_else(none)?;
        self.node.core.lock().sessions.get_mut(key).ok_or_else(none)?.keep_ms = ms;
        self.reply(origin, None, Reply::SessionKept);
        Ok(())
    }

    /// The connection ends. Returns whether its session is kept; otherwise everything that belongs to it must end, and
    /// then [`Client::release_session`] must be called.
    pub(crate) fn leave_session(&mut self) -> bool {
        if let Some(claim) = self.claim.take() {
            let key = self.session_key(&claim.attach);
            self.node.core.lock().sessions.give_up(&key, &self.connection);
        }
        let Some(key) = &self.session else { return false };
        let keep_ms = self.node.core.lock().sessions.get_mut(key).map_or(0, |session| session.keep_ms);
        keep_ms > 0
    }

    /// Leaves the session behind without a connection.
    pub(crate) fn park_session(&mut self) {
        let Some(key) = self.session.take() else { return };
        let (node, now) = (self.node.clone(), self.node.now());
        let kept = Connection::new(
            ConnectionId(0),
            self.connection.serial,
            Arc::new(NoSocket),
            node.durable.clone(),
            node.ledger.clone(),
            &node.limits,
        );
        let kept = Arc::new(kept);
        let (mut deferred, mut held) = (Deferred::default(), Vec::new());
        let next = {
            let mut core = node.core.lock();
            let (number, slot) = (self.connection.id(), core.take_slot());
            kept.set_id(number);
            let state = self.connection.mailbox().take_state();
            let mut mailbox = kept.mailbox();
            mailbox.put_state(state);
            mailbox.leave_connection(&mut held);
            let subscriptions = mailbox.subscription_ids(number);
            drop(mailbox);
            core.shard.pause(&subscriptions);
            core.connections[number.0 as usize] = Some(kept.clone());
            // The connection, which has nothing any more, needs a number of its own until it has ended.
            self.connection.set_id(ConnectionId(slot as u64));
            core.connections[slot] = Some(self.connection.clone());
            let keep_ms = core.sessions.get_mut(&key).map_or(0, |session| session.keep_ms);
            core.sessions.detach(&key, Some((kept.clone(), now.after_ms(keep_ms))))
        };
        node.decide(&mut deferred, |shard, ports| shard.settle(&held, Settlement::FAIL, ports.now(), ports));
        self.run_deferred(deferred);
        grant(next);
    }

    /// Everything of the session has ended.
    pub(crate) fn release_session(&mut self) {
        let Some(key) = self.session.take() else { return };
        let next = self.node.core.lock().sessions.detach(&key, None);
        grant(next);
    }

    fn session_key(&self, attach: &Attach) -> SessionKey {
        (self.caller().vhost.clone(), attach.session.clone())
    }

    /// The state of a kept session is in the mailbox: what is outstanding is to be delivered once more.
    fn go_on_with_session(&mut self) {
        let now = self.node.now();
        let mut mailbox = self.connection.mailbox();
        let outstanding = mailbox.outstanding(now);
        let channels = mailbox.state.channels.len();
        let waits = mailbox.awaits_journal(self.node.durable_position());
        mailbox.awaiting = waits;
        drop(mailbox);
        self.redeliveries = Some(outstanding.into());
        for _ in 0..channels {
            let (vhost, user) = (self.caller().vhost, self.caller().user);
            // They were counted when they were opened; without limits nothing is refused.
            let _ = self.node.counters.open_channel(vhost, user, UserLimits::default());
        }
        if waits {
            self.node.await_journal(&self.connection);
        }
    }

    /// Answers. What is outstanding follows with the next [`Client::resume`], when the session has had the answer.
    fn attached(&mut self, origin: Origin, was_there: bool) {
        let kept_ids = if was_there { self.connection.mailbox().kept_ids() } else { Vec::new() };
        self.reply(origin, None, Reply::Attached { was_there, kept_ids });
        if self.is_redelivering() {
            self.connection.wake();
        }
    }
}

/// A connection that has waited for a session tries again.
fn grant(next: Option<Arc<Connection>>) {
    if let Some(next) = next {
        next.mailbox().is_claim_granted = true;
        next.wake();
    }
}

impl Node {
    /// Kept sessions end whose time is over.
    pub(crate) fn end_sessions(self: &Arc<Self>, now: Time) {
        let ended = self.core.lock().sessions.take_ended(now);
        for kept in &ended {
            self.end_kept(kept);
        }
    }

    /// A kept session ends: its subscriptions end, and its deliveries are requeued.
    fn end_kept(self: &Arc<Self>, kept: &Arc<Connection>) {
        let (mut held, mut ended) = (Vec::new(), Vec::new());
        {
            let mut mailbox = kept.mailbox();
            for channel in mailbox.channel_numbers() {
                mailbox.settle(channel, Deliveries::All, &mut held);
                let removed = mailbox.remove_channel(channel);
                ended.extend(removed.into_iter().flat_map(|(_, subscriptions)| subscriptions));
            }
        }
        let (mut deferred, catalog) = (Deferred::default(), self.catalog.read());
        let open = self.decide_if_open(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            ports.begin_unit();
            shard.settle(&held, Settlement::FAIL, ports.now(), ports);
            for (number, subscription) in &ended {
                ports.forget_pull_timer(kept, *number, subscription.pull_ends);
                shard.cancel(subscription_id(kept.id(), *number), ports.now(), ports);
            }
            ports.end_unit();
        });
        drop(catalog);
        if open.is_some() {
            self.run_deferred(deferred, None);
            self.disconnect(kept);
        }
    }
}

impl Mailbox {
    /// The state of the client leaves.
    fn take_state(&mut self) -> ClientState {
        self.is_parked = true;
        std::mem::take(&mut self.state)
    }

    /// The state of a client comes. Nothing is delivered until [`Mailbox::unpark`].
    fn put_state(&mut self, state: ClientState) {
        self.is_parked = true;
        self.state = state;
    }

    /// What came between the end of the connection and this: answers of gets, whose messages are requeued, and refusals
    /// that nobody has seen.
    fn leave_connection(&mut self, held: &mut Vec<SequenceRange>) {
        for number in self.channel_numbers() {
            self.settle_gets(number, held);
            if let Some(channel) = self.state.channels.get_mut(&number) {
                channel.refused = false;
            }
        }
    }

    /// New deliveries follow, after the ends of subscriptions. Returns the subscriptions that wait, all of them, and the
    /// pulls among them.
    pub(crate) fn unpark(&mut self, connection: ConnectionId) -> (Vec<SubscriptionId>, Vec<SubscriptionId>, Vec<Pull>) {
        self.is_parked = false;
        for (channel, tag) in std::mem::take(&mut self.state.cancelled) {
            self.effects.cancelled(channel, tag);
        }
        let pulls = self.subscription_numbers().into_iter().map(|number| self.pull_of(number)).collect();
        (self.take_waiting(connection), self.subscription_ids(connection), pulls)
    }

    fn subscription_ids(&self, connection: ConnectionId) -> Vec<SubscriptionId> {
        self.subscription_numbers().into_iter().map(|number| subscription_id(connection, number)).collect()
    }

    /// The numbers of all subscriptions, ascending.
    fn subscription_numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.state.subscriptions.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// The deliveries to be delivered once more, by channel and in their order. Their consumer timeouts begin again.
    fn outstanding(&mut self, now: Time) -> Vec<Redelivery> {
        let mut outstanding = Vec::new();
        for number in self.channel_numbers() {
            let Some(channel) = self.state.channels.get_mut(&number) else { continue };
            channel.unacked.begin_again(now);
            let left = channel.unacked.outstanding().filter(|(_, delivery)| !delivery.is_accepted);
            outstanding.extend(left.map(|(id, delivery)| Redelivery {
                channel: number,
                id,
                subscription: delivery.subscription,
                place: delivery.place,
            }));
        }
        outstanding
    }

    /// The ids in use of accepted messages, with their channels.
    fn kept_ids(&self) -> Vec<(u16, u64)> {
        let of = |number: u16| {
            let outstanding =
                self.state.channels.get(&number).into_iter().flat_map(|found| found.unacked.outstanding());
            outstanding.filter(|(_, delivery)| delivery.is_accepted).map(move |(id, _)| (number, id))
        };
        self.channel_numbers().into_iter().flat_map(of).collect()
    }

    /// The numbers of all channels, ascending.
    pub(crate) fn channel_numbers(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.state.channels.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}
