//! Commands that wait, because an earlier get of their channel waits for the disk.
//!
//! The answer to a get does not name the queue, so answers of a channel may not overtake each other. While a get whose
//! answer is for the peer waits, everything that its channel sends later waits, in order: publishes and settlements,
//! too, because a settlement may mean the message of the get, and a publish or a settlement belongs to the transaction
//! that is open when its turn comes. Requests whose answers the session gets pass, because their tokens tell them apart.
//! Nothing waits when the channel or the connection closes. Other channels go on, until so much waits that the
//! connection is not read.

use std::collections::{BTreeMap, VecDeque};

use ferrymq_model::{Answer, Ask, Command, Event, Request, Table, Value};

use super::{Client, message::message_of};
use crate::connection::transaction::{kept, kept_bytes};

/// When so many commands of a connection wait, the connection is not read.
const COMMANDS_MAX: usize = 128;

/// The same for their memory in bytes.
const BYTES_MAX: usize = 64 << 10;

/// The commands of a connection that wait. There is none unless a get may wait: then nothing has to be looked up for a
/// command, and an idle connection needs no memory for it.
#[derive(Debug, Default)]
pub(super) struct HeldCommands(Option<Box<ByChannel>>);

#[derive(Debug, Default)]
struct ByChannel {
    /// By channel, in their order. No queue is empty.
    channels: BTreeMap<u16, VecDeque<Command>>,
    count: usize,
    bytes: usize,
}

impl HeldCommands {
    /// A get of the connection waits.
    pub fn begin(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Whether there may be any.
    #[inline]
    pub fn may_hold(&self) -> bool {
        self.0.is_some()
    }

    /// The memory that they take, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.bytes)
    }

    /// Whether so much waits that the connection is not to be read.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.count >= COMMANDS_MAX || held.bytes >= BYTES_MAX)
    }

    /// The channels with commands that wait, from this one on, each with its first command.
    fn channels(&self, from: u16) -> impl Iterator<Item = (u16, &Command)> {
        let channels = self.0.iter().flat_map(move |held| held.channels.range(from..));
        channels.filter_map(|(channel, queue)| Some((*channel, queue.front()?)))
    }

    fn push(&mut self, channel: u16, command: Command) {
        let held = self.0.get_or_insert_default();
        held.count += 1;
        held.bytes += command_bytes(&command);
        held.channels.entry(channel).or_default().push_back(command);
    }

    fn pop(&mut self, channel: u16) -> Option<Command> {
        let held = self.0.as_mut()?;
        let queue = held.channels.get_mut(&channel)?;
        let command = queue.pop_front()?;
        if queue.is_empty() {
            held.channels.remove(&channel);
        }
        held.count -= 1;
        held.bytes -= command_bytes(&command);
        Some(command)
    }
}

impl Client {
    /// Whether a command waits for a get of its channel, or for other commands that do.
    #[inline]
    pub(super) fn is_held(&self, command: &Command) -> bool {
        self.held.0.as_ref().is_some_and(|held| self.waits_for_get(held, command))
    }

    #[cold]
    fn waits_for_get(&self, held: &ByChannel, command: &Command) -> bool {
        let Some(channel) = channel_of(command).filter(|_| !passes(command)) else { return false };
        held.channels.contains_key(&channel) || self.awaits_get(channel, command)
    }

    fn awaits_get(&self, channel: u16, command: &Command) -> bool {
        let mailbox = self.connection.mailbox();
        mailbox.awaits_get(channel)
            || matches!(command, Command::Request(Request { ask: Ask::Get(_), .. }))
                && mailbox.awaits_many_gets(channel)
    }

    /// Keeps a command until its turn. Spans point into `input`.
    pub(super) fn hold(&mut self, input: &[u8], command: Command) {
        let command = match command {
            Command::Publish(publish) => Command::Publish(kept(&publish, &message_of(&publish, input))),
            other => other,
        };
        if let Some(channel) = channel_of(&command) {
            self.held.push(channel, command);
        }
    }

    /// Whether so much waits for gets that the connection is not to be read.
    #[inline]
    #[must_use]
    pub fn waits_for_gets(&self) -> bool {
        self.held.is_full()
    }

    /// Whether a command must stay with the caller, because of that. One that closes something need not.
    #[inline]
    #[must_use]
    pub fn is_held_up(&self, command: &Command) -> bool {
        self.waits_for_gets() && !is_close(command)
    }

    /// Whether commands that waited for gets can go on.
    #[must_use]
    pub fn has_ready_commands(&self) -> bool {
        self.next_channel(0).is_some() && !self.has_collected() && !self.connection.mailbox().is_flooded()
    }

    /// The first channel with commands of which one can go on, from this one on.
    fn next_channel(&self, from: u16) -> Option<u16> {
        let mut channels = self.held.channels(from);
        channels.find(|(channel, command)| !self.awaits_get(*channel, command)).map(|(channel, _)| channel)
    }

    /// Carries out the commands that waited for gets which have their answers now.
    pub(super) fn go_on_with_held(&mut self, events: &mut Vec<Event>) {
        if self.held.0.is_none() {
            return;
        }
        let mut next = self.next_channel(0);
        while let Some(channel) = next {
            // A publish before it may wait for its turn, or for its file.
            if self.has_collected() && !self.decide_some(b"", events) {
                return;
            }
            // Answers to gets need no credit: those of a client that does not read them wait in the queues.
            if self.connection.mailbox().is_flooded() {
                break;
            }
            if let Some(command) = self.held.pop(channel) {
                self.take(b"", command, events);
            }
            next = self.next_channel(channel);
        }
        self.decide(b"", events);
        if self.held.channels(0).next().is_none() && !self.connection.mailbox().has_waiting_gets() {
            self.held = HeldCommands::default();
        }
    }

    /// A channel ends: what it sent before, and what waits for a get that will have no answer, is carried out now. Nobody
    /// gets answers, which could be taken for the one to the get. Gets are given up.
    pub(super) fn end_held(&mut self, channel: u16, events: &mut Vec<Event>) {
        self.never_files = true;
        while let Some(mut command) = self.held.pop(channel) {
            if let Command::Request(Request { origin, ask }) = &mut command {
                if matches!(ask, Ask::Get(_)) {
                    continue;
                }
                *origin = origin.unanswered(origin.answer != Answer::Session);
            }
            self.take(b"", command, events);
        }
        self.decide(b"", events);
        self.never_files = false;
    }

    /// The connection ends: see [`Client::end_held`].
    pub(super) fn end_all_held(&mut self) {
        loop {
            let next = self.held.channels(0).next().map(|(channel, _)| channel);
            let Some(channel) = next else { return };
            self.end_held(channel, &mut Vec::new());
        }
    }
}

fn channel_of(command: &Command) -> Option<u16> {
    match command {
        Command::Login(_) => None,
        Command::Publish(publish) => Some(publish.origin.channel),
        Command::Settle(settle) => Some(settle.origin.channel),
        Command::Request(request) => Some(request.origin.channel),
    }
}

fn is_close(command: &Command) -> bool {
    matches!(command, Command::Request(Request { ask: Ask::CloseChannel | Ask::CloseConnection, .. }))
}

/// Whether a command never waits. Gets do, so that the number of those that wait for the disk has a limit.
fn passes(command: &Command) -> bool {
    let is_of_session =
        |request: &Request| request.origin.answer == Answer::Session && !matches!(request.ask, Ask::Get(_));
    is_close(command) || matches!(command, Command::Request(request) if is_of_session(request))
}

/// About the memory that a command takes, in bytes.
fn command_bytes(command: &Command) -> usize {
    let more = match command {
        Command::Publish(publish) => kept_bytes(publish),
        Command::Request(Request { ask, .. }) => ask_bytes(ask),
        Command::Settle(_) | Command::Login(_) => 0,
    };
    size_of::<Command>() + more
}

/// About the memory of the names and arguments of a request, in bytes.
fn ask_bytes(ask: &Ask) -> usize {
    /// Two names of usual lengths.
    const NAMES_BYTES: usize = 128;
    let arguments = match ask {
        Ask::DeclareExchange(command) => table_bytes(&command.arguments),
        Ask::DeclareQueue(command) => table_bytes(&command.arguments),
        Ask::Bind(command) | Ask::Unbind(command) => table_bytes(&command.arguments),
        Ask::Subscribe(command) => table_bytes(&command.arguments),
        Ask::CommitPrepared(name) | Ask::RollBackPrepared(name) | Ask::RenewLogin(name) | Ask::Prepare { name, .. } => {
            name.len()
        }
        _ => 0,
    };
    NAMES_BYTES + arguments
}

fn table_bytes(table: &Table) -> usize {
    table.iter().map(|(key, value)| key.len() + size_of::<(String, Value)>() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(values) => values.iter().map(|value| size_of::<Value>() + value_bytes(value)).sum(),
        Value::Table(table) => table_bytes(table),
        _ => 0,
    }
}
