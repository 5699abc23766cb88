//! Login, channels, and the end of a connection.

use std::sync::Arc;

use ferrymq_auth::{Exchange, Next};
use ferrymq_broker::Caller;
use ferrymq_model::{
    ChannelOptions, ClientFacts, ConfirmMode, Deliveries, Event, Login, Name, OnRefusal, Origin, Refusal, Reply,
    Settlement,
};

use super::{Client, route_cache::RouteCache};
use crate::{
    connection::{
        confirms::ChannelConfirms, ledger::Kind, mailbox::Subscription, peer::subscription_id, waiting_gets::ChannelGet,
    },
    core::transition::{CatalogLock, Deferred},
    login::authentication::Principal,
    management::{client_facts::KeptFacts, trace::ConnectionIdentity},
};

impl Client {
    /// Checks the login. The session answers the peer itself, because the answer depends on what the peer supports.
    pub(super) fn log_in(&mut self, login: Login, events: &mut Vec<Event>) {
        let checked = match login {
            Login::Begin { mechanism, response } => {
                return self.follow(Exchange::begin(mechanism, &response), events);
            }
            Login::Respond(response) => {
                let exchange = self.exchange.take().ok_or_else(|| "a response to no challenge".to_owned());
                return self.follow(exchange.and_then(|exchange| exchange.respond(&response)), events);
            }
            Login::Certificate => self.node.check_proof(self.connection.certificate_user(), self.loopback),
            Login::Password { user, password } => {
                self.claimed = user.clone();
                if self.node.is_checked_soon(&user, &password) {
                    self.node.check_password(&user, &password, self.loopback)
                } else {
                    let connection = &self.connection;
                    let checked = if self.loopback {
                        self.node.check_later(user, password, true, connection)
                    } else {
                        self.node.check_after_delay(user, password, &self.address, connection)
                    };
                    match checked {
                        Ok(()) => {
                            self.is_checked = true;
                            return self.take_login(events);
                        }
                        Err(refusal) => Err(refusal),
                    }
                }
            }
        };
        self.logged_in(checked, events);
    }

    /// Goes on with a login of several steps. A response that is not valid counts as a failed login.
    fn follow(&mut self, next: Result<Next, String>, events: &mut Vec<Event>) {
        match next {
            Ok(Next::Challenge(challenge, exchange)) => {
                self.claimed = exchange.user().clone();
                self.exchange = Some(Box::new(exchange));
                events.push(Event::Challenge(challenge));
            }
            Ok(Next::Password { user, password }) => self.log_in(Login::Password { user, password }, events),
            Err(why) => {
                self.count_login(false);
                self.logged_in(Err(Refusal::LoginMalformed(why)), events);
            }
        }
    }

    /// Counts a login from another machine for the delays of later ones.
    fn count_login(&self, succeeded: bool) {
        if self.loopback {
            return;
        }
        let mut failed = self.node.failed_logins.lock();
        if succeeded {
            failed.succeeded(&self.address, &self.claimed);
        } else {
            failed.failed(&self.address, &self.claimed, self.node.now());
        }
    }

    /// Takes the result of the login, if it is known now.
    pub(super) fn take_login(&mut self, events: &mut Vec<Event>) {
        let checked = self.connection.mailbox().login.take();
        if let Some(checked) = checked.filter(|_| self.is_checked) {
            self.is_checked = false;
            self.count_login(checked.is_ok());
            self.logged_in(*checked, events);
        }
    }

    /// The client acts for this user, who has logged in elsewhere.
    pub(crate) fn act_for(&mut self, principal: Principal) {
        self.principal = Some(principal);
    }

    fn logged_in(&mut self, checked: Result<Principal, Refusal>, events: &mut Vec<Event>) {
        match checked {
            Ok(principal) => {
                self.publish_authentication("user.authentication.success", &principal.name, None);
                self.principal = Some(principal);
                events.push(Event::LoggedIn);
            }
            Err(refusal) => {
                self.publish_authentication("user.authentication.failure", &self.claimed, Some(&refusal));
                events.push(Event::Refused { origin: Origin::default(), refusal });
            }
        }
    }

    pub(super) fn open_vhost(
        &mut self,
        origin: Origin,
        vhost: Name,
        client: Option<Box<ClientFacts>>,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let catalog = self.node.catalog.read();
        let caller = self.caller_in(&vhost);
        catalog.check_entry(&caller)?;
        let connections_max = catalog.vhost_settings(&vhost)?.connections_max;
        let limits = catalog.user_limits(caller.user);
        let usage_counters = self.node.counters.enter(&vhost, connections_max, caller.user, limits)?;
        self.epoch = catalog.epoch(&vhost);
        drop(catalog);
        let identity = ConnectionIdentity {
            vhost: vhost.clone(),
            user: self.principal().name.clone(),
            connection: self.connection.name(),
            connected_at: self.node.wall(),
            client: client.map(|facts| Box::new(KeptFacts::of(*facts))),
        };
        // A session opens one vhost.
        self.connection.identity.get_or_init(|| identity);
        self.connection.usage_counters.get_or_init(|| usage_counters);
        self.vhost = Some(vhost);
        self.reply(origin, None, Reply::VhostOpened);
        events.push(Event::VhostOpened);
        self.publish_connection_created();
        Ok(())
    }

    /// A new token applies from now on. Without tokens nothing changes; clients that renew tokens expect success.
    /// (AMQP-4)
    pub(super) fn renew_login(&mut self, origin: Origin, secret: &[u8]) -> Result<(), Refusal> {
        let renewed = self.node.renewed(self.principal(), secret).map_err(|why| {
            tracing::warn!(peer = self.address, "new secret of user '{}' refused: {why}", self.principal().name);
            Refusal::NotAllowed("New secret was refused by one of the backends".to_owned())
        })?;
        if let Some(renewed) = renewed {
            self.principal = Some(renewed);
            // Cached routes were allowed by the old token.
            self.routes = RouteCache::default();
        }
        self.reply(origin, None, Reply::LoginRenewed);
        Ok(())
    }

    pub(super) fn open_channel(&mut self, origin: Origin, options: ChannelOptions) -> Result<(), Refusal> {
        let Caller { vhost, user, .. } = self.caller();
        let limits = self.node.catalog.read().user_limits(user);
        self.node.counters.open_channel(vhost, user, limits)?;
        let mut mailbox = self.connection.mailbox();
        mailbox.open_channel(origin.channel, options);
        mailbox.reply(origin, None, Reply::ChannelOpened);
        drop(mailbox);
        self.publish_channel_created(origin.channel);
        Ok(())
    }

    pub(super) fn close_channel(&mut self, origin: Origin) -> Result<(), Refusal> {
        self.end_channel(origin.channel);
        self.reply(origin, None, Reply::ChannelClosed);
        Ok(())
    }

    pub(super) fn close_connection(&mut self, origin: Origin, events: &mut Vec<Event>) -> Result<(), Refusal> {
        self.end();
        self.reply(origin, None, Reply::ConnectionClosed);
        events.push(Event::ConnectionClosed);
        Ok(())
    }

    pub(super) fn select_confirms(&mut self, origin: Origin, mode: ConfirmMode) -> Result<(), Refusal> {
        self.with_channel(origin.channel, |channel| {
            // AMQP-36
            if channel.is_transactional {
                return Err(Refusal::PreconditionFailed("cannot switch from tx to confirm mode".to_owned()));
            }
            if mode == ConfirmMode::Counted && channel.on_refusal == OnRefusal::GoOn {
                let text = "publishes of a channel that goes on after a refusal are confirmed one by one";
                return Err(Refusal::CommandInvalid(text.to_owned()));
            }
            channel.confirms.get_or_insert_with(|| ChannelConfirms::new(mode));
            Ok(())
        })?;
        self.reply(origin, None, Reply::ConfirmSelected);
        Ok(())
    }

    /// A channel stays with its client, without what ends with the connection. If a refusal has ended it, it ends.
    fn leave_channel(&mut self, channel: u16) {
        if self.with_channel(channel, |channel| channel.refused) {
            return self.end_channel(channel);
        }
        let bytes = self.connection.mailbox().roll_back_all(channel);
        self.connection.account.subtract(Kind::Transactions, bytes);
        let (mut held, replies) = (Vec::new(), self.with_channel(channel, |channel| channel.reply_address.take()));
        if let Some(replies) = replies {
            self.node.replies.remove(&replies.address);
        }
        let gets = self.with_channel(channel, |channel| std::mem::take(&mut channel.gets));
        self.forget_gets(&gets);
        self.connection.mailbox().settle_gets(channel, &mut held);
        let Caller { vhost, user, .. } = self.caller();
        self.node.counters.close_channel(vhost, user);
        if !held.is_empty() {
            let (now, mut deferred) = (self.node.now(), Deferred::default());
            self.node.decide(&mut deferred, |shard, ports| shard.settle(&held, Settlement::FAIL, now, ports));
            self.run_deferred(deferred);
        }
    }

    /// These gets are given up.
    fn forget_gets(&self, gets: &[ChannelGet]) {
        let mut waiting = self.node.gets.lock();
        gets.iter().for_each(|get| waiting.remove(get.queue, get.number));
    }

    /// Ends a channel's subscriptions and requeues what it holds.
    fn end_channel(&mut self, channel: u16) {
        let mut held = Vec::new();
        let ended = {
            let mut mailbox = self.connection.mailbox();
            self.connection.account.subtract(Kind::Transactions, mailbox.roll_back_all(channel));
            mailbox.settle(channel, Deliveries::All, &mut held);
            mailbox.remove_channel(channel)
        };
        let mut over = Vec::new();
        if let Some((channel, subscriptions)) = ended {
            let Caller { vhost, user, .. } = self.caller();
            self.node.counters.close_channel(vhost, user);
            self.forget_gets(&channel.gets);
            if let Some(replies) = channel.reply_address {
                self.node.replies.remove(&replies.address);
            }
            over = subscriptions;
        }
        let (ended, over): (Vec<u32>, Vec<Subscription>) = over.into_iter().unzip();
        if ended.is_empty() && held.is_empty() {
            self.publish_channel_closed(channel, &over);
            return;
        }
        let mut deferred = Deferred::default();
        let now = self.node.now();
        let catalog = self.node.catalog.read();
        self.node.decide_unit(CatalogLock::Read(&catalog), &mut deferred, |shard, ports| {
            shard.settle(&held, Settlement::FAIL, now, ports);
            for (number, pull_ends) in ended.iter().zip(over.iter().map(|one| one.pull_ends)) {
                ports.forget_pull_timer(&self.connection, *number, pull_ends);
                shard.cancel(subscription_id(self.connection.id(), *number), now, ports);
            }
        });
        drop(catalog);
        self.run_deferred(deferred);
        self.publish_channel_closed(channel, &over);
    }

    /// Whether everything that was decided for this connection has left. After its end, its peer is notified when
    /// that may have become true.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.connection.is_drained()
    }

    /// Ends everything of this connection. The second call does nothing.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.end_all_held();
        self.holds(0, 0);
        self.redeliveries = None;
        if self.left_publishes {
            // They arrived before the end.
            self.decide_collected(&[], &mut Vec::new());
        }
        // The owners of the remaining connections send what this client had no turn for.
        self.undrained.take().iter().for_each(|connection| connection.wake());
        let is_kept = self.leave_session();
        let channels = self.connection.mailbox().channel_numbers();
        for channel in channels {
            if is_kept {
                self.leave_channel(channel);
            } else {
                self.end_channel(channel);
            }
        }
        if is_kept {
            self.park_session();
        }
        if let (Some(vhost), Some(principal)) = (&self.vhost, &self.principal) {
            self.node.counters.leave(vhost, &principal.name, principal.token.is_none());
        }
        self.node.disconnect(&Arc::clone(&self.connection));
        self.release_session();
        self.publish_connection_closed();
        self.connection.end();
    }
}
