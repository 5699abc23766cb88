//! The contract of a session: the state machine of one connection in one protocol.
//!
//! A session is pure. It is given the peer's bytes, events and the time; it answers with steps: bytes for the peer and
//! commands for the node, in order. It owns no socket, reads no clock and never waits.
//!
//! What the node decides comes back in two ways. *Effects* go to the connection's socket through its [`Encoder`], in the
//! order in which they were decided, whichever thread decided them; the session does not see them. *Events* tell the
//! session what changes its own state.

use ferrymq_model::{Command, Effect, Event};

use crate::Outbox;

/// Time since the process began, in milliseconds. Heartbeats and handshakes count by it; unlike [`ferrymq_model::Time`] it
/// means nothing to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment, `ms` milliseconds later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 if it lies ahead.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One thing to be done, in order.
#[derive(Debug)]
pub enum Step {
    /// Send these bytes of [`Output::bytes`] to the peer, behind all effects decided so far.
    Send(std::ops::Range<usize>),
    /// Ask this of the node.
    Command(Command),
    /// From here on effects are encoded with this: what the handshake settled is known.
    Encode(Box<dyn Encoder>),
    /// Send what is on its way, then close the socket. Nothing that follows is carried out.
    Close,
    /// As `Close`, but it is the peer who closes the socket: it has asked for the end and was answered. Clients take an end
    /// that comes before their own for a lost connection.
    LetClose,
    /// For the log.
    Log(LogLine),
}

/// What a session has to tell the log. Who it is about is added by those who write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogLine {
    /// The peer may work from now on. What its program calls itself; empty where it does not say.
    Opened {
        /// A name and a version, or what the program calls this connection.
        client: String,
    },
    /// The login was refused, and why.
    LoginRefused(String),
    /// A part of the connection has ended because of what the peer asked for on it.
    ChannelError {
        /// Its number.
        channel: u16,
        /// The protocol's code for the reason, and its text.
        text: String,
    },
    /// The connection is about to end, and why. The first such line holds.
    Ends {
        /// Whether something went wrong: neither side has asked for the end in good order.
        wrong: bool,
        /// The reason, with the protocol's code for it if there is one.
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

/// What a session answers with. Reused from call to call; the caller empties it.
#[derive(Debug, Default)]
pub struct Output {
    /// Bytes for the peer; `Step::Send` says which and when.
    pub bytes: Vec<u8>,
    /// What to do.
    pub steps: Vec<Step>,
}

impl Output {
    /// At so many steps a session pauses, so that one client's input is carried out in portions and others have their
    /// turn between them.
    pub const STEPS_MAX: usize = 128;

    /// Appends frames that `write` makes, as one step; joins them to a `Send` just before.
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
    pub fn command(&mut self, command: Command) {
        self.steps.push(Step::Command(command));
    }

    /// Whether there is so much to do that the session should pause: see [`Received::paused`].
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.steps.len() >= Self::STEPS_MAX
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.steps.clear();
    }
}

/// How far a session read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the input it has done with. The rest is offered again, with more behind it.
    pub consumed: usize,
    /// The session wants its steps carried out, and their events, before it reads on: a command's outcome decides how the
    /// next bytes are understood, or the output is full. Call again with the rest even if nothing more has arrived.
    pub paused: bool,
    /// How many bytes the input should hold at least before it is worth calling again; 0 where it cannot say.
    pub wanted: usize,
}

/// The state machine of one connection.
///
/// The caller carries out the steps of each call before it makes the next one, in order, and gives back each event that
/// this brings, before the remaining steps of that batch. A command that is refused does not stop the commands behind it
/// on other channels; those on the same channel are ignored by the node until the session closes the channel.
pub trait Session: Send {
    /// The connection was accepted. A session whose protocol lets the server speak first does so here.
    fn opened(&mut self, now: Moment, out: &mut Output);

    /// Reads the peer's bytes. Spans of the commands point into `input`.
    fn receive(&mut self, input: &[u8], now: Moment, out: &mut Output) -> Received;

    /// Learns what became of a command, or what the server wants.
    fn event(&mut self, event: Event, now: Moment, out: &mut Output);

    /// When [`Session::timeout`] is to be called; `None` where nothing is awaited. Asked after every other call.
    fn deadline(&self) -> Option<Moment>;

    /// The deadline has come: heartbeats, handshakes that take too long.
    fn timeout(&mut self, now: Moment, out: &mut Output);

    /// Bytes it keeps of what has arrived in part, such as messages of which frames are missing.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Whether nothing further is read from the peer: the rest of its input is thrown away.
    fn is_closed(&self) -> bool;
}

/// Turns effects into the protocol's bytes. Called for one effect after the other, by whichever thread drains the
/// connection's mailbox.
pub trait Encoder: Send + std::fmt::Debug {
    /// Appends the effect's frames.
    fn encode(&mut self, effect: &Effect<'_>, out: &mut Outbox);
}
