//! The trait of a session: the state machine of one connection in one protocol.
//!
//! A session is pure. It takes the peer's bytes, events and the time, and returns steps: bytes for the peer and
//! commands for the node, in order. It owns no socket, reads no clock and never waits.
//!
//! The node's decisions come back in two ways. *Effects* go to the connection's socket through its [`Encoder`], in the
//! order in which the threads decided them; the session does not see them. *Events* go to the session: they are the
//! decisions that change its own state.

use ferrymq_model::{Ask, Command, Effect, Event, Origin, Request};

use crate::Outbox;

/// Time since the start of the process, in milliseconds. Heartbeats and handshakes use it. Unlike
/// [`ferrymq_model::Time`], it has no meaning in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment, `ms` milliseconds later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 if `earlier` is later.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One step of the server's work. The server does the steps in order.
#[derive(Debug)]
pub enum Step {
    /// Send these bytes of [`Output::bytes`] to the peer, after all effects decided so far, except those at which the
    /// encoder has stopped: these bytes pass them.
    Send(std::ops::Range<usize>),
    /// Give this command to the node.
    Command(Command),
    /// Use this encoder for effects from now on: the handshake has set the limits.
    Encode(Box<dyn Encoder>),
    /// Something that the session shares with its encoder has changed for this channel, such as a window: offer the
    /// encoder the effects again at which it has stopped, in order.
    Resume {
        /// The channel that [`Encoded::Stopped`] has named.
        channel: u16,
    },
    /// This session takes the place of the one that returns the step, which has used none of the bytes that the other one
    /// is to read. It has been opened already.
    HandOver(Box<dyn Session>),
    /// Send the waiting bytes, then close the socket. Ignore all steps that follow.
    Close,
    /// Like `Close`, but the peer closes the socket: it has asked for the end and has its answer. If the server closed
    /// the socket first, clients would report a lost connection.
    AwaitPeerClose,
    /// Write this line to the log.
    Log(LogLine),
}

/// A line for the log. The caller adds the user, the vhost and the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// The connection is open.
    Opened {
        /// The client's name and version, or the client's name for this connection; empty if it gives none.
        client: String,
    },
    /// The login was refused. Contains the reason.
    LoginRefused(String),
    /// A channel was closed because of an error in a request on it.
    ChannelError {
        /// Its number.
        channel: u16,
        /// The protocol's reply code and its text.
        text: String,
    },
    /// The connection ends. Only the first such line of a connection counts.
    Ends {
        /// Whether the connection ends with an error: neither side closes it in the regular way.
        wrong: bool,
        /// The reason, with the protocol's reply code if there is one.
        why: String,
    },
}

impl std::fmt::Display for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opened { client } => write!(f, "opened by {client}"),
            Self::LoginRefused(why) => write!(f, "login refused: {why}"),
            Self::ChannelError { channel, text } => write!(f, "channel {channel}: {text}"),
            Self::Ends { why, .. } => f.write_str(why),
        }
    }
}

/// The output of a session. It is used again for each call; the caller empties it.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes for the peer; each `Step::Send` names its part of them.
    pub bytes: Vec<u8>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Output {
    /// At this number of steps a session pauses. So the input of one client is carried out in portions, and other
    /// clients take their turns in between.
    pub const STEPS_MAX: usize = 128;

    /// Appends the frames that `write` makes. They are one step, or they are added to the last step if that is a
    /// `Send`.
    pub fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        match self.steps.last_mut() {
            Some(Step::Send(range)) if range.end == start => range.end = end,
            _ => self.steps.push(Step::Send(start..end)),
        }
    }

    /// Appends a command.
    #[inline]
    pub fn command(&mut self, command: Command) {
        self.steps.push(Step::Command(command));
    }

    /// Appends a request.
    pub fn request(&mut self, origin: Origin, ask: Ask) {
        self.command(Command::Request(Request { origin, ask }));
    }

    /// Whether there are so many steps that the session should pause: see [`Then::Again`].
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.steps.len() >= Self::STEPS_MAX
    }

    /// Empties the output. The memory is kept.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.steps.clear();
    }
}

/// How far a session has read its input, and what it needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes of the input it has used. The caller gives the rest again, followed by the bytes that arrived
    /// after it.
    pub consumed: usize,
    /// What happens before the next call.
    pub then: Then,
}

/// What happens before a session reads again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More input is needed. The rest and what follows should have at least this many bytes at the next call, or 0 if
    /// the session does not know. The caller gathers them once, however long they are.
    More {
        /// In bytes.
        at_least: usize,
    },
    /// The caller carries out the steps and calls again with the rest, even if no more has arrived: a command decides
    /// how the next bytes are read, or the output is full.
    Again,
    /// The session waits for an event. Until it has got one, nothing is read from the peer and nothing is offered.
    Wait,
}

/// The state machine of one connection.
///
/// The caller carries out the steps of each call in order, before the next call. A step may cause an event; the caller
/// returns it to the session before the remaining steps. A refused command does not stop later commands on other
/// channels. The node ignores later commands on the same channel until the session closes that channel.
pub trait Session: Send + std::fmt::Debug {
    /// The connection is accepted. If the server speaks first in the protocol, the session does so here.
    fn opened(&mut self, now: Moment, out: &mut Output);

    /// Reads the peer's bytes. Spans of the commands point into `input`.
    fn receive(&mut self, input: &[u8], now: Moment, out: &mut Output) -> Received;

    /// Takes the result of a command, or a request of the server such as to close.
    fn event(&mut self, event: Event, now: Moment, out: &mut Output);

    /// When the server must call [`Session::timeout`]; `None` if it need not. The server asks after each call of
    /// another method.
    fn deadline(&self) -> Option<Moment>;

    /// The deadline has come: a heartbeat is due, or a handshake takes too long.
    fn timeout(&mut self, now: Moment, out: &mut Output);

    /// How many bytes the session holds of messages that have arrived only in part.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Whether the session reads no more from the peer. Then the caller drops the rest of the input.
    fn is_closed(&self) -> bool;
}

/// How far an effect was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Encoded {
    /// Completely, or it is nothing for the peer.
    Whole,
    /// Not at all, or up to the end of a frame. The caller keeps the effect with those that wait on the same channel
    /// and offers it again after [`Step::Resume`].
    Stopped {
        /// The channel on which it waits: whatever the protocol has a window for.
        channel: u16,
    },
}

/// Turns effects into the protocol's bytes, one after the other, on the thread that drains the connection's mailbox.
///
/// An encoder can stop, even in the middle of a message, where the peer's window is shut (AMQP 1.0, section 2.5.6). Then
/// it knows how much of the message it has written, and the caller keeps the effect. From then until
/// [`Encoder::resume`] is called, it answers [`Encoded::Stopped`] to each effect that must not come before that one,
/// whatever the window is meanwhile. It encodes all others, such as those of other channels, and confirms where the
/// protocol has no window for them. The session's own bytes ([`Effect::Frames`]) never wait, because the peer may need
/// them to open its window. So what must come after a message is a reply and not a frame of the session.
///
/// What waits counts like bytes that wait for the socket: it stops deliveries, and the ledger of memory knows it. It does
/// not stop the server reading the peer, who is to open the window. What still waits when the connection ends is dropped.
pub trait Encoder: Send + std::fmt::Debug {
    /// Appends the effect's frames.
    fn encode(&mut self, effect: &Effect<'_>, out: &mut Outbox) -> Encoded;

    /// The effects at which the encoder has stopped on this channel are offered again now, the first of them first,
    /// until it stops once more.
    fn resume(&mut self, channel: u16) {
        let _ = channel;
    }
}
