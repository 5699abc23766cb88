//! Carries out what a session asks for: the joint between the pure session and the node.

use ferrymq_model::{Command, Event};
use ferrymq_node::Client;
use ferrymq_wire::{Encoder, Moment, Output, Received, Session, Step};

use crate::connection_log::ConnectionLog;

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
    /// Why the session was told that the node has no room for what this connection publishes.
    blocked: Option<String>,
    /// What was done in this turn, in the node's units of work.
    done: u64,
    /// Input was left over: see [`Pump::wants_rest`].
    wants_rest: bool,
    /// What `out` holds, where steps of it are left for the next turn.
    suspended: Option<Portion>,
    /// How often consumers are looked at, who are waited for, until input is read again.
    looks_left: u32,
    /// Turns in a row whose deliveries to others wait for more of the same input.
    held_turns: u32,
    log: ConnectionLog,
}

/// What a session has read at once.
struct Portion {
    received: Received,
    /// The session waits for the node and has nothing more to say.
    waits: bool,
    /// No more of the same input follows at once.
    ends: bool,
}

/// Turns after which deliveries to others do not wait for more of the same input any longer.
const HELD_TURNS_MAX: u32 = 8;

/// Units of work after which a turn is over, as soon as what was read is taken: about two milliseconds. A unit is about what
/// it takes to put one small message into one queue; see [`Client::take_work`].
const TURN_WORK: u64 = 15_000;

/// Units of work after which a turn is over although input is left over, which has to be kept until the next one. What is
/// read at once rarely makes so much.
const TURN_WORK_MAX: u64 = 2 * TURN_WORK;

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("client", &self.client).field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// So many bytes of input are a unit of work, too.
const WORK_BYTES: usize = 64;

/// How often a publisher looks whether its consumers have caught up, before it is read on in any case.
const CONSUMER_LOOKS: u32 = 20;

/// What it takes to look whether there is something to do, in units of work.
const WORK_OF_LOOK: u64 = 16;

/// How effects are encoded from some point on, given to whoever encodes them.
pub type EncodeWith<'a> = &'a mut dyn FnMut(Box<dyn Encoder>);

impl Pump {
    /// A session that begins, and its connection.
    #[must_use]
    pub fn new(session: Box<dyn Session>, client: Client, log: ConnectionLog) -> Self {
        Self {
            session,
            client,
            out: Output::default(),
            events: Vec::new(),
            closing: false,
            peer_closes: false,
            blocked: None,
            done: 0,
            wants_rest: false,
            suspended: None,
            looks_left: 0,
            held_turns: 0,
            log,
        }
    }

    /// Others have had their turn, and this connection's next one begins; where what it published waits for its consumers,
    /// without its input for a while.
    pub fn begin_turn(&mut self) {
        self.done = 0;
        if self.client.is_ahead() {
            self.looks_left = CONSUMER_LOOKS;
            // What others are to get does not wait with it.
            self.client.go_on_sending();
        }
    }

    /// Whether this connection is not read because consumers are to catch up first. [`Pump::look_at_consumers`] is to be
    /// called every millisecond then.
    #[must_use]
    pub fn waits_for_consumers(&self) -> bool {
        self.looks_left > 0
    }

    /// Looks whether consumers have caught up.
    pub fn look_at_consumers(&mut self) {
        self.looks_left -= 1;
        if !self.client.is_still_ahead() {
            self.looks_left = 0;
        }
    }

    /// Goes on in any case.
    pub fn wait_for_nobody(&mut self) {
        self.looks_left = 0;
    }

    /// Whether so much was done that others should have their turn.
    #[must_use]
    pub fn turn_is_over(&self) -> bool {
        self.done >= TURN_WORK
    }

    /// Whether the rest of the input is to be offered again as soon as the connection is not paused and has its turn, even
    /// if nothing more has come.
    #[must_use]
    pub fn wants_rest(&self) -> bool {
        self.wants_rest
    }

    /// The connection was accepted.
    pub fn opened(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        let mut out = Output::default();
        self.session.opened(now, &mut out);
        self.carry_out(&mut out, &[], None, now, encode_with);
    }

    /// Bytes have come from the peer, behind those that were left over; says how many of them are done with. Stops where they
    /// are far too much for one turn. The rest must be offered again: see [`Pump::wants_rest`].
    pub fn input(&mut self, input: &[u8], now: Moment, encode_with: EncodeWith<'_>) -> usize {
        let mut consumed = 0;
        self.wants_rest = false;
        while !self.wants_rest {
            let rest = &input[consumed..];
            if self.closing || self.session.is_closed() {
                return input.len();
            }
            if self.client.is_sending() {
                self.client.go_on_sending();
                self.wants_rest = self.count_work();
                continue;
            }
            let mut out = std::mem::take(&mut self.out);
            let portion = self.suspended.take().unwrap_or_else(|| {
                let received = self.session.receive(rest, now, &mut out);
                let waits = received.paused && received.consumed == 0 && out.steps.is_empty();
                // What is on its way to others waits for more of the same input, unless that ends here.
                let ends = !(received.paused && out.is_full());
                Portion { received, waits, ends }
            });
            let done = self.carry_out(&mut out, rest, Some(&portion), now, encode_with);
            self.out = out;
            self.wants_rest = self.count_work();
            if !done {
                self.suspended = Some(portion);
                self.wants_rest |= self.client.is_filing();
                continue;
            }
            consumed += portion.received.consumed;
            self.done += (portion.received.consumed / WORK_BYTES) as u64;
            if portion.received.paused && !portion.waits {
                continue;
            }
            self.tell_events(now, encode_with);
            self.tell_room(now, encode_with);
            self.wants_rest = portion.waits || self.client.is_sending() || self.client.has_collected();
            self.held_turns = 0;
            return consumed;
        }
        self.held_turns += 1;
        if self.held_turns >= HELD_TURNS_MAX || self.is_paused() {
            self.held_turns = 0;
            self.client.go_on_sending();
        }
        consumed
    }

    /// So many bytes of input are kept until they are offered again. Called after each call of [`Pump::input`].
    pub fn kept(&mut self, unread: usize) {
        self.client.holds(self.session.held_bytes(), unread);
    }

    /// Says whether so much was done that even what was read already has to wait.
    fn count_work(&mut self) -> bool {
        self.done += self.client.take_work();
        self.done >= TURN_WORK_MAX
    }

    /// Time has passed, or the node woke this connection: looks at the session's deadline and at the node's events, and
    /// lets subscriptions that waited for the socket go on.
    pub fn attend(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        // However little there is to do: who is woken again and again has its turns, too.
        self.done += WORK_OF_LOOK;
        if self.session.deadline().is_some_and(|deadline| deadline <= now) {
            let mut out = Output::default();
            self.session.timeout(now, &mut out);
            self.carry_out(&mut out, &[], None, now, encode_with);
        }
        self.client.take_events(&mut self.events);
        self.tell_events(now, encode_with);
        self.tell_room(now, encode_with);
        self.client.send_what_waits();
        self.client.resume();
        self.wants_rest |= self.client.is_sending();
        self.count_work();
    }

    /// Tells the session when its publishes have to wait, and when they need not any more.
    fn tell_room(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        let reason = self.client.block_reason();
        if reason != self.blocked {
            self.blocked.clone_from(&reason);
            self.events.push(reason.map_or(Event::Unblocked, Event::Blocked));
            self.tell_events(now, encode_with);
        }
    }

    /// The socket took bytes.
    pub fn written(&mut self) {
        self.done += WORK_OF_LOOK;
        self.client.written();
        self.count_work();
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

    /// The connection is over, for the log: how the socket ended, where the session has not said why.
    pub fn log_end(&mut self, socket: std::io::Result<()>) {
        self.log.ended(socket, &self.client);
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

    /// Carries out the session's steps, which came of a portion of input or of something else. Says whether all is done: of
    /// a portion, publishes may be left for the next turn, and with them the steps behind them.
    fn carry_out(
        &mut self,
        out: &mut Output,
        input: &[u8],
        portion: Option<&Portion>,
        now: Moment,
        encode_with: EncodeWith<'_>,
    ) -> bool {
        let mut steps = out.steps.drain(..);
        loop {
            let next = steps.next();
            let publishes = matches!(next, Some(Step::Command(Command::Publish(_))));
            // Whatever is no publish comes behind those before it; so does another one, where they were too much at once.
            if self.client.is_behind() || !publishes && self.client.has_collected() {
                let decided = match portion {
                    Some(_) => self.client.decide_some(input, &mut self.events),
                    None => {
                        self.client.decide_collected(input, &mut self.events);
                        true
                    }
                };
                self.tell_events(now, encode_with);
                if !decided {
                    let left = next.into_iter().chain(steps).collect();
                    out.steps = left;
                    return false;
                }
            }
            match next {
                None => break,
                Some(_) if self.closing => break,
                Some(Step::Send(range)) => self.client.frames(input, &out.bytes[range], &mut self.events),
                Some(Step::Command(command)) => self.client.command(input, command, &mut self.events),
                Some(Step::Encode(encoder)) => {
                    self.client.finish(input, &mut self.events);
                    encode_with(encoder);
                }
                Some(end @ (Step::Close | Step::LetClose)) => {
                    self.client.finish(input, &mut self.events);
                    self.peer_closes = matches!(end, Step::LetClose);
                    self.closing = true;
                }
                Some(Step::Log(line)) => self.log.line(line, &self.client),
            }
            self.tell_events(now, encode_with);
        }
        drop(steps);
        if portion.is_none_or(|portion| portion.ends) {
            self.client.finish(input, &mut self.events);
        } else {
            self.client.decide_collected(input, &mut self.events);
        }
        out.clear();
        self.tell_events(now, encode_with);
        true
    }

    fn tell_events(&mut self, now: Moment, encode_with: EncodeWith<'_>) {
        while !self.events.is_empty() {
            for event in std::mem::take(&mut self.events) {
                let mut out = Output::default();
                self.session.event(event, now, &mut out);
                self.carry_out(&mut out, &[], None, now, encode_with);
            }
        }
    }
}
