//! Carries out what a session asks for: the joint between the pure session and the node.

use ferrymq_model::Event;
use ferrymq_node::Client;
use ferrymq_wire::{Encoder, Moment, Output, Session, Step};

/// A session together with its connection to the node. Owns no socket and reads no clock, so that conversations can be
/// played in memory.
pub struct Pump {
    session: Box<dyn Session>,
    client: Client,
    /// Kept for its memory; empty between calls.
    out: Output,
    events: Vec<Event>,
    closing: bool,
    /// The end is for the peer to make.
    peer_closes: bool,
    /// The session was told that the node has no room for what this connection publishes.
    blocked: bool,
}

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("client", &self.client).field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// How effects are encoded from some point on, given to whoever encodes them.
pub type EncodeWith<'a> = &'a mut dyn FnMut(Box<dyn Encoder>);

impl Pump {
    /// A session that begins, and its connection.
    #[must_use]
    pub fn new(session: Box<dyn Session>, client: Client) -> Self {
        Self {
            session,
            client,
            out: Output::default(),
            events: Vec::new(),
            closing: false,
            peer_closes: false,
            blocked: false,
        }
    }

    /// The connection was accepted.
    pub fn opened(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        let mut out = Output::default();
        self.session.opened(now, &mut out);
        self.carry_out(&mut out, &[], now, encode_with);
    }

    /// Bytes have come from the peer; says how many of them are done with. The rest must be offered again.
    pub fn input(&mut self, input: &[u8], now: Moment, encode_with: EncodeWith<'_>) -> usize {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            if self.closing || self.session.is_closed() {
                return input.len();
            }
            let mut out = std::mem::take(&mut self.out);
            let received = self.session.receive(rest, now, &mut out);
            self.carry_out(&mut out, rest, now, encode_with);
            self.out = out;
            consumed += received.consumed;
            if !received.paused {
                self.client.uploads(self.session.held_bytes(), &mut self.events);
                self.tell_events(now, encode_with);
                self.tell_room(now, encode_with);
                return consumed;
            }
        }
    }

    /// Time has passed, or the node woke this connection: looks at the session's deadline and at the node's events, and
    /// lets subscriptions that waited for the socket go on.
    pub fn attend(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        if self.session.deadline().is_some_and(|deadline| deadline <= now) {
            let mut out = Output::default();
            self.session.timeout(now, &mut out);
            self.carry_out(&mut out, &[], now, encode_with);
        }
        self.client.take_events(&mut self.events);
        self.tell_events(now, encode_with);
        self.tell_room(now, encode_with);
        self.client.resume();
    }

    /// Whether nobody has logged in yet: checking a password takes tens of milliseconds of computing, on purpose.
    #[must_use]
    pub fn expects_login(&self) -> bool {
        !self.client.is_logged_in()
    }

    /// Tells the session when its publishes have to wait, and when they need not any more.
    fn tell_room(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        if self.client.is_blocked() != self.blocked {
            let reason = self.client.block_reason();
            self.blocked = reason.is_some();
            self.events.push(reason.map_or(Event::Unblocked, Event::Blocked));
            self.tell_events(now, encode_with);
        }
    }

    /// The socket took bytes.
    pub fn written(&mut self) {
        self.client.written();
    }

    /// When `attend` should be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.session.deadline()
    }

    /// Whether the socket should be closed, once what waits for it is written.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether it is for the peer to close the socket.
    #[must_use]
    pub fn peer_closes(&self) -> bool {
        self.peer_closes
    }

    /// Ends the connection. What was decided for it before may still be on its way; the peer is woken when that has left.
    pub fn end(&mut self) {
        self.client.end();
    }

    /// Whether everything has left that this connection was to send.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.client.is_drained()
    }

    /// Whether the node asks this connection to stop reading for now: there is no room for what it publishes.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.client.is_paused()
    }

    fn carry_out(&mut self, out: &mut Output, input: &[u8], now: Moment, encode_with: EncodeWith<'_>) {
        for step in out.steps.drain(..) {
            if self.closing {
                break;
            }
            match step {
                Step::Send(range) => self.client.frames(input, &out.bytes[range], &mut self.events),
                Step::Command(command) => self.client.command(input, command, &mut self.events),
                Step::Encode(encoder) => {
                    self.client.finish(input, &mut self.events);
                    encode_with(encoder);
                }
                Step::Close | Step::LetClose => {
                    self.client.finish(input, &mut self.events);
                    self.peer_closes = matches!(step, Step::LetClose);
                    self.closing = true;
                }
                Step::Log(text) => tracing::warn!(peer = self.client.address(), "{text}"),
            }
            self.tell_events(now, encode_with);
        }
        self.client.finish(input, &mut self.events);
        out.clear();
        self.tell_events(now, encode_with);
    }

    fn tell_events(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        while !self.events.is_empty() {
            for event in std::mem::take(&mut self.events) {
                let mut out = Output::default();
                self.session.event(event, now, &mut out);
                self.carry_out(&mut out, &[], now, encode_with);
            }
        }
    }
}
