//! A connection's side of the node: carries out its session's commands, one batch after the other.
//!
//! Publishes and settlements are collected and decided together, during one hold of the shard's lock. Everything
//! else is carried out at once. Everything that is decided for a connection goes through its mailbox, so it leaves
//! in the order in which it was decided.

pub(crate) mod consume;
mod declare;
mod events;
mod fan_out;
mod filing;
mod held;
mod history;
mod lifecycle;
mod message;
mod pacing;
mod prepare;
mod publish;
mod replies;
mod route_cache;
mod settle;
mod transaction;

use std::{cell::Cell, collections::VecDeque, fmt, sync::Arc};

use ferrymq_auth::Exchange;
use ferrymq_broker::{Caller, Epoch, SequenceRange};
use ferrymq_model::{
    Ask, Command, Event, Name, Origin, Outcome, Position, Publish, QueueId, Refusal, Reply, Request, Settlement,
    SubscriptionId,
};
use ferrymq_storage::Filing;

use crate::{
    connection::{ledger::Kind, mailbox::Channel, peer::Connection, transaction::kept_bytes},
    core::{
        node::{Node, WORK_OF_CHANGE},
        touched::Touched,
        transition::Deferred,
    },
    login::authentication::Principal,
    session::{attach::Claim, redelivery::Redelivery, table::SessionKey},
};
use fan_out::FanOut;
use held::HeldCommands;
use pacing::Pacing;
use route_cache::RouteCache;

/// After this many units of work, the remaining collected publishes wait for the next turn.
const WORK_AT_ONCE: u64 = 4_096;

/// The node's side of one connection. The connection's task owns it; dropping it ends the connection.
pub struct Client {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Arc<Connection>,
    address: String,
    loopback: bool,
    principal: Option<Principal>,
    /// The user name that the client sent.
    claimed: Name,
    /// A login of several steps that has begun, and waits for the client's response.
    exchange: Option<Box<Exchange>>,
    /// Its password is being checked.
    is_checked: bool,
    vhost: Option<Name>,
    /// Publishes that are not decided yet.
    publishes: Vec<Publish>,
    /// Connections that have something to send, but so little that the rest of the input may add to it. Empty
    /// between inputs.
    undrained: Touched,
    /// Settlements that are not decided yet.
    settled: Vec<SequenceRange>,
    settlement: Settlement,
    /// Deliveries were settled whose credit subscriptions may use.
    credit_is_back: bool,
    /// The number of changes of the vhost, which make cached routes invalid.
    epoch: Option<Epoch>,
    routes: RouteCache,
    /// The bindings that ask to be named, of the publish that was routed last.
    matched: Vec<(QueueId, u64)>,
    has_published: bool,
    pacing: Pacing,
    /// Messages for many queues that have not been put into all of them yet.
    fan_out: Option<Box<FanOut>>,
    /// The first of `publishes` waits until its body is in its own file.
    filing: Option<Filing>,
    /// No body is written to a file of its own for now.
    never_files: bool,
    /// Commands that wait for gets of their channels.
    held: HeldCommands,
    /// There is `fan_out`, or `publishes` were too many for one turn.
    left_publishes: bool,
    /// Some of `undrained` wait only for their turn.
    is_sending: bool,
    /// Units of work since the last call of `take_work`.
    work: Cell<u64>,
    /// The client session that the connection has.
    pub(crate) session: Option<Box<SessionKey>>,
    /// The session that it waits for.
    pub(crate) claim: Option<Box<Claim>>,
    /// What is to be delivered once more, before anything else is.
    pub(crate) redeliveries: Option<VecDeque<Redelivery>>,
    ended: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new(node: Arc<Node>, connection: Arc<Connection>, address: String, loopback: bool) -> Self {
        Self {
            node,
            connection,
            address,
            loopback,
            principal: None,
            claimed: Name::default(),
            exchange: None,
            is_checked: false,
            vhost: None,
            publishes: Vec::new(),
            undrained: Touched::default(),
            settled: Vec::new(),
            settlement: Settlement::Accept,
            credit_is_back: false,
            epoch: None,
            routes: RouteCache::default(),
            matched: Vec::new(),
            has_published: false,
            pacing: Pacing::default(),
            fan_out: None,
            filing: None,
            never_files: false,
            held: HeldCommands::default(),
            left_publishes: false,
            is_sending: false,
            work: Cell::new(0),
            session: None,
            claim: None,
            redeliveries: None,
            ended: false,
        }
    }

    /// The peer's address, for logs.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The user who has logged in.
    #[must_use]
    pub fn user(&self) -> Option<&Name> {
        self.principal.as_ref().map(|principal| &principal.name)
    }

    /// The vhost that was opened.
    #[must_use]
    pub fn vhost(&self) -> Option<&Name> {
        self.vhost.as_ref()
    }

    /// Whether the login succeeded.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.principal.is_some()
    }

    /// Whether this connection's publishes are blocked. (AMQP-9)
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.has_published && self.node.is_stalled() || self.filing_reason().is_some()
    }

    /// Why this connection's publishes are blocked.
    #[must_use]
    pub fn block_reason(&self) -> Option<String> {
        self.filing_reason().or_else(|| self.is_blocked().then(|| self.node.stall_reason()))
    }

    /// Whether this connection should not be read for now: its publishes are blocked, or it sends requests without
    /// reading the answers.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        let held = self.has_published && self.node.holds_publishers() || self.node.holds_everybody();
        let held = held || self.connection.account.is_blocked();
        self.is_checked || held || self.is_filing() || self.held.is_full() || self.connection.mailbox().is_flooded()
    }

    /// Sends the session's own bytes, after everything that was decided so far.
    pub fn frames(&mut self, input: &[u8], bytes: &[u8], events: &mut Vec<Event>) {
        self.decide(input, events);
        self.connection.mailbox().effects.frames(bytes);
        self.drain();
    }

    /// Carries out a command, or keeps it until [`Client::finish`]. Spans point into `input`.
    #[inline]
    pub fn command(&mut self, input: &[u8], command: Command, events: &mut Vec<Event>) {
        match command {
            Command::Publish(publish) if self.only_collects() => self.collect(input, publish, events),
            command => self.command_in_turn(input, command, events),
        }
    }

    /// Whether a publish is collected, and nothing else has to be done before.
    #[inline]
    fn only_collects(&self) -> bool {
        !self.ended && !self.held.may_hold() && !self.has_settled()
    }

    fn command_in_turn(&mut self, input: &[u8], command: Command, events: &mut Vec<Event>) {
        let is_close = matches!(&command, Command::Request(Request { ask: Ask::CloseConnection, .. }));
        if self.ended && !is_close {
            // It was read together with what ended the connection.
            return;
        }
        if self.is_held(&command) {
            self.hold(input, command);
        } else {
            self.take(input, command, events);
        }
    }

    /// Carries out a command whose turn it is, or collects it.
    fn take(&mut self, input: &[u8], command: Command, events: &mut Vec<Event>) {
        match command {
            Command::Publish(publish) => {
                if self.has_settled() {
                    self.decide(input, events);
                }
                self.collect(input, publish, events);
            }
            Command::Settle(settle) => {
                let settlement = match settle.outcome {
                    Outcome::Settled(settlement) => settlement,
                    Outcome::AcceptedIdKept | Outcome::Extended { .. } => Settlement::Accept,
                };
                if self.has_collected() || settlement != self.settlement {
                    self.decide(input, events);
                }
                self.settlement = settlement;
                self.collect_settle(settle, events);
            }
            Command::Login(login) => {
                self.decide(input, events);
                self.worked(WORK_OF_CHANGE);
                self.log_in(login, events);
                self.drain();
            }
            Command::Request(request) => {
                self.decide(input, events);
                if self.is_on_ended_channel(&request) {
                    return;
                }
                self.worked(WORK_OF_CHANGE);
                self.carry_out(request, events);
                // The answers for the session.
                events.append(&mut self.connection.mailbox().events);
                self.drain();
            }
        }
    }

    /// Keeps a publish until there are as many as are decided at once.
    #[inline]
    fn collect(&mut self, input: &[u8], publish: Publish, events: &mut Vec<Event>) {
        self.publishes.push(publish);
        if self.publishes.len() >= self.node.limits().batch_messages_max {
            self.decide_some(input, events);
        }
    }

    /// The input is over: decides what was collected, and sends the results of this input and the one before.
    pub fn finish(&mut self, input: &[u8], events: &mut Vec<Event>) {
        self.decide(input, events);
    }

    /// The same input continues: decides collected publishes, up to a limit. Deliveries to other connections may
    /// wait for the rest of the input. Returns whether all are decided. If not, the caller must not ask the node
    /// for anything else before this has returned true, and the remaining ones do not need the input any more.
    pub fn decide_some(&mut self, input: &[u8], events: &mut Vec<Event>) -> bool {
        if self.has_collected() {
            self.publish_collected(input, WORK_AT_ONCE, events);
        }
        !self.has_collected()
    }

    /// Whether there are too many collected publishes for one turn: [`Client::decide_some`] continues with them.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.publishes.len() >= self.node.limits().batch_messages_max || self.left_publishes
    }

    /// Whether there are collected publishes that are not decided.
    #[must_use]
    pub fn has_collected(&self) -> bool {
        !self.publishes.is_empty() || self.fan_out.is_some()
    }

    /// Decides what was collected. Deliveries to other connections may wait for the rest of the input.
    pub fn decide_collected(&mut self, input: &[u8], events: &mut Vec<Event>) {
        if self.has_collected() {
            self.publish_collected(input, u64::MAX, events);
        }
        if self.has_settled() {
            self.settle_collected();
        }
    }

    /// The work for this connection since the last call, in units: one is about the work of putting a small message
    /// into one queue and delivering it.
    pub fn take_work(&mut self) -> u64 {
        self.work.take()
    }

    /// Whether the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Adds this much work.
    fn worked(&self, units: u64) {
        self.work.set(self.work.get() + units);
    }

    /// Sends what was decided; see [`Node::run_deferred`]. If there are very many receivers,
    /// [`Client::go_on_sending`] sends the rest.
    pub(crate) fn run_deferred(&mut self, mut deferred: Deferred) {
        self.worked(self.node.run_deferred_for_now(&mut deferred, Some(&self.connection)));
        self.is_sending |= !deferred.touched.is_empty();
        self.undrained.add_all(deferred.touched.take());
    }

    /// Whether some connections have not been sent what was decided: see [`Client::go_on_sending`].
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Sends more of what was decided, to some hundred connections.
    pub fn go_on_sending(&mut self) {
        self.is_sending = false;
        let touched = std::mem::take(&mut self.undrained);
        self.run_deferred(Deferred { touched, ..Deferred::default() });
    }

    /// Sends what others have left in this connection's mailbox for its owner.
    pub fn send_what_waits(&mut self) {
        // Draining an empty mailbox would notify the owner of an ending connection, who calls this.
        if !self.connection.is_drained() {
            self.drain();
        }
    }

    /// The session keeps `uploads` bytes of incomplete messages, and `unread` bytes of input wait for it. If all
    /// connections together hold too much memory, the one that holds the most is closed.
    pub fn holds(&mut self, uploads: usize, unread: usize) {
        self.connection.account.set(Kind::Uploads, uploads + self.filing_bytes());
        self.connection.account.set(Kind::Unread, unread);
        self.count_waiting();
        self.node.look_at_ledger_if_due();
    }

    /// Counts the memory of requests that wait.
    fn count_waiting(&self) {
        let collected: usize = self.publishes.iter().map(kept_bytes).sum();
        // A body that is written to its file counts as an upload.
        let collected = collected.saturating_sub(self.filing_bytes());
        self.connection.account.set(Kind::Waiting, self.held.bytes() + collected);
    }

    /// Decides what was collected, and sends the results.
    fn decide(&mut self, input: &[u8], events: &mut Vec<Event>) {
        if self.has_collected() {
            self.publish_collected(input, u64::MAX, events);
        }
        if !self.undrained.is_empty() {
            self.go_on_sending();
        }
        if self.has_settled() {
            self.settle_collected();
        }
    }

    /// Whether the request is for a channel that is not open, or that a refusal has ended.
    fn is_on_ended_channel(&self, request: &Request) -> bool {
        !request.ask.concerns_ended_channels()
            && self
                .connection
                .mailbox()
                .state
                .channels
                .get(&request.origin.channel)
                .is_none_or(|channel| channel.refused)
    }

    fn carry_out(&mut self, request: Request, events: &mut Vec<Event>) {
        let Request { mut origin, ask } = request;
        let result = match ask {
            Ask::OpenVhost { vhost, properties_bytes_max, client } => {
                self.connection.set_properties_bytes_max(properties_bytes_max);
                self.open_vhost(origin, vhost, client, events)
            }
            Ask::Attach(attach) => self.attach(origin, attach),
            Ask::KeepSession { ms } => self.keep_session(origin, ms),
            Ask::OpenChannel(options) => {
                let opened = self.open_channel(origin, options);
                // One channel too many is refused for the whole connection; clients do not wait for that on the
                // channel.
                origin.token = 0;
                opened
            }
            Ask::CloseChannel => {
                self.end_held(origin.channel, events);
                self.close_channel(origin)
            }
            Ask::CloseConnection => self.close_connection(origin, events),
            Ask::DeclareExchange(command) => self.declare_exchange(origin, &command),
            Ask::DeleteExchange(command) => self.delete_exchange(origin, &command),
            Ask::DeclareQueue(command) => self.declare_queue(origin, command),
            Ask::DeleteQueue(command) => self.delete_queue(origin, &command),
            Ask::PurgeQueue(queue) => self.purge_queue(origin, &queue),
            Ask::Bind(command) => self.bind(origin, &command),
            Ask::Unbind(command) => self.unbind(origin, &command),
            Ask::Subscribe(command) => self.subscribe(origin, command),
            Ask::Unsubscribe(tag) => self.unsubscribe(origin, &tag),
            Ask::Get(command) => self.get(origin, &command),
            Ask::SetCredit(command) => self.set_credit(origin, &command),
            Ask::Flow { active } => self.flow(origin, active),
            Ask::SelectConfirms(mode) => self.select_confirms(origin, mode),
            Ask::SubscribeReplies { tag, prefix } => self.subscribe_replies(origin, tag, &prefix),
            Ask::Recover => self.recover(origin),
            Ask::SelectTransactions => self.select_transactions(origin),
            Ask::Begin(transaction) => self.begin(origin, transaction),
            Ask::Commit(transaction) => self.commit(origin, transaction),
            Ask::RollBack(transaction) => self.roll_back(origin, transaction),
            Ask::Prepare { transaction, name } => self.prepare(origin, transaction, name),
            Ask::CommitPrepared(name) => self.decide_prepared(origin, &name, true),
            Ask::RollBackPrepared(name) => self.decide_prepared(origin, &name, false),
            Ask::ListPrepared => self.list_prepared(origin),
            Ask::RenewLogin(secret) => self.renew_login(origin, &secret),
        };
        if let Err(refusal) = result {
            self.connection.mailbox().refuse(origin, &refusal, events);
        }
    }

    /// Handles events that others left for this connection's session, sends what waited for the journal, and carries out
    /// what waited for gets.
    pub fn take_events(&mut self, events: &mut Vec<Event>) {
        self.take_events_of_others(events);
        self.go_on_with_held(events);
    }

    fn take_events_of_others(&mut self, events: &mut Vec<Event>) {
        if self.is_checked {
            self.take_login(events);
        }
        let mut mailbox = self.connection.mailbox();
        events.append(&mut mailbox.events);
        let (is_granted, is_overdue) = (std::mem::take(&mut mailbox.is_claim_granted), mailbox.overdue);
        drop(mailbox);
        if is_overdue {
            self.node.send_durable(&self.connection, self.node.durable_position());
        }
        if is_granted {
            self.take_claim(events);
        }
    }

    /// Continues subscriptions that waited for the socket.
    pub fn resume(&mut self) {
        self.redeliver_some();
        let waiting = self.connection.mailbox().take_waiting(self.connection.id());
        self.go_on(&waiting);
    }

    /// These subscriptions have credit again.
    fn go_on(&mut self, waiting: &[SubscriptionId]) {
        if !waiting.is_empty() {
            let mut deferred = Deferred::default();
            self.node.decide(&mut deferred, |shard, _| shard.credit(waiting));
            self.run_deferred(deferred);
        }
    }

    /// The socket accepted bytes.
    pub fn written(&mut self) {
        if self.connection.written() {
            self.resume();
        }
        if self.has_ready_commands() {
            self.connection.wake();
        }
        self.node.look_at_ledger_if_due();
    }

    /// Sends what is in this connection's mailbox, and continues its subscriptions as long as the socket accepts
    /// it.
    pub(crate) fn drain(&mut self) {
        if self.connection.drain() {
            self.resume();
        }
    }

    fn principal(&self) -> &Principal {
        self.principal.as_ref().expect("a session logs in before it does anything")
    }

    /// The caller, for the catalog.
    pub(crate) fn caller(&self) -> Caller<'_> {
        self.caller_in(self.vhost.as_ref().expect("a session opens its vhost before it does anything in it"))
    }

    fn caller_in<'a>(&'a self, vhost: &'a Name) -> Caller<'a> {
        let principal = self.principal();
        let rights = principal.rights(|| self.node.wall());
        Caller { vhost, user: &principal.name, rights, connection: self.connection.id() }
    }

    fn with_channel<T>(&self, channel: u16, f: impl FnOnce(&mut Channel) -> T) -> T {
        f(self
            .connection
            .mailbox()
            .state
            .channels
            .get_mut(&channel)
            .expect("commands on closed channels were sorted out"))
    }

    /// The queue's name; if it is empty, the name that was declared last on the channel. (AMQP-25)
    fn queue_name(&self, channel: u16, queue: &Name) -> Result<Name, Refusal> {
        if !queue.is_empty() {
            return Ok(queue.clone());
        }
        let last = self.with_channel(channel, |channel| channel.last_queue.clone());
        last.ok_or_else(|| Refusal::NothingNamed("no previously declared queue".to_owned()))
    }

    /// Answers a command. If it changed something durable, or found what another connection has just changed, the
    /// answer waits until that is on disk.
    pub(crate) fn reply(&self, origin: Origin, after: Option<Position>, reply: Reply) {
        let after = after.filter(|position| *position > self.node.durable_position());
        self.connection.mailbox().reply(origin, after, reply);
        if after.is_some() {
            self.await_journal();
        }
    }

    /// Something in the mailbox may wait for the journal.
    fn await_journal(&self) {
        if !std::mem::replace(&mut self.connection.mailbox().awaiting, true) {
            self.node.await_journal(&self.connection);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}
