//! Carries out the steps of a session: the link between the pure session and the node.

use ferrymq_model::{Command, Event};
use ferrymq_node::Client;
use ferrymq_wire::{Encoder, Moment, Output, Received, Session, Step, Then};

use crate::connection_log::ConnectionLog;

/// A session and its connection to the node. It has no socket and reads no clock, so that conversations can run in
/// memory.
pub struct Pump {
    session: Box<dyn Session>,
    client: Client,
    /// Its memory is used again; it is empty between calls.
    out: Output,
    events: Vec<Event>,
    closing: bool,
    /// The peer should close the connection.
    peer_closes: bool,
    /// Why the session was told that the node blocks this connection's publishes.
    blocked: Option<String>,
    /// The work of this turn, in the node's units.
    done: u64,
    /// Input is left: see [`Pump::wants_rest`].
    wants_rest: bool,
    /// The session waits for an event.
    waits: bool,
    /// How many bytes of input the session needs before it can go on.
    wanted: usize,
    /// How many bytes of `out` are used, if steps of it are left for the next turn.
    suspended: Option<Portion>,
    /// How many more times the publisher checks the consumers for which it waits. After that its input is read in any
    /// case.
    looks_left: u8,
    /// The number of turns in a row in which deliveries to other connections have waited for more of the same input.
    held_turns: u8,
    log: ConnectionLog,
}

/// What a session has read at once.
struct Portion {
    received: Received,
    /// The same input does not continue directly.
    ends: bool,
}

/// The number of turns after which deliveries to other connections are no longer deferred until the input ends.
const HELD_TURNS_MAX: u8 = 8;

/// The units of work after which a turn ends as soon as the input that was read is used: about two milliseconds.
/// One unit is about the work of putting one small message into one queue; see [`Client::take_work`].
const TURN_WORK: u64 = 15_000;

/// The units of work after which a turn ends even if input is left, which must be kept for the next turn. One read
/// rarely causes so much work.
const TURN_WORK_MAX: u64 = 2 * TURN_WORK;

impl std::fmt::Debug for Pump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pump").field("client", &self.client).field("closing", &self.closing).finish_non_exhaustive()
    }
}

/// This many bytes of input count as one unit of work, too.
const WORK_BYTES: usize = 64;

/// How many times a publisher checks whether its consumers have caught up, before its input is read in any case.
const CONSUMER_LOOKS: u8 = 20;

/// The cost of checking whether there is work, in units of work.
const WORK_OF_LOOK: u64 = 16;

/// The encoding half of a connection: what the steps of its session change there.
pub trait Encoding {
    /// From now on effects are encoded with this.
    fn encode_with(&self, encoder: Box<dyn Encoder>);

    /// Offers the encoder again what it has stopped at on this channel. Returns how many bytes it made of that.
    fn resume(&self, channel: u16) -> usize;
}

impl Pump {
    /// A new session and its connection.
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
            waits: false,
            wanted: 0,
            suspended: None,
            looks_left: 0,
            held_turns: 0,
            log,
        }
    }

    /// Starts the connection's next turn, after other connections had theirs. If it must wait for its consumers, its
    /// input is not read for a while.
    pub fn begin_turn(&mut self) {
        self.done = 0;
        let owes = self.client.is_sending() || self.client.has_collected() || self.suspended.is_some();
        if !self.waits_for_consumers() && !owes && self.client.is_ahead() {
            // Deliveries to other connections do not wait.
            self.client.go_on_sending();
            self.looks_left = if self.client.is_sending() { 0 } else { CONSUMER_LOOKS };
        }
    }

    /// Whether the connection is not read because its consumers lag. Then the caller must call
    /// [`Pump::look_at_consumers`] every millisecond.
    #[must_use]
    pub fn waits_for_consumers(&self) -> bool {
        self.looks_left > 0
    }

    /// Checks whether the consumers have caught up.
    pub fn look_at_consumers(&mut self) {
        self.looks_left -= 1;
        if !self.client.is_still_ahead() {
            self.looks_left = 0;
        }
    }

    /// Reads on in any case.
    pub fn wait_for_nobody(&mut self) {
        self.looks_left = 0;
    }

    /// Whether the turn did so much that other connections should have theirs.
    #[must_use]
    pub fn turn_is_over(&self) -> bool {
        self.done >= TURN_WORK
    }

    /// Whether the rest of the input must be offered again as soon as the connection is not paused and has its next
    /// turn, even if no more input has arrived.
    #[must_use]
    pub fn wants_rest(&self) -> bool {
        self.wants_rest
    }

    /// The connection was accepted.
    pub fn opened(&mut self, now: Moment, encoding: &dyn Encoding) {
        let mut out = Output::default();
        self.session.opened(now, &mut out);
        self.carry_out(&mut out, &[], None, now, encoding);
    }

    /// Bytes have arrived after those that were left. Returns how many are used. Stops if they are far too many for
    /// one turn. The rest must be offered again: see [`Pump::wants_rest`].
    pub fn input(&mut self, input: &[u8], now: Moment, encoding: &dyn Encoding) -> usize {
        let mut consumed = 0;
        self.wants_rest = false;
        self.wanted = 0;
        // Another thread may have closed a channel, and this input may have the client's answer.
        self.client.take_events(&mut self.events);
        self.tell_events(now, encoding);
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
            if self.waits && self.suspended.is_none() {
                // What the session waits for may come of what was collected before.
                if self.client.has_collected() {
                    self.client.decide_some(input, &mut self.events);
                    self.tell_events(now, encoding);
                }
                self.wants_rest = self.count_work() || self.client.has_collected() || !self.waits;
                return consumed;
            }
            let mut out = std::mem::take(&mut self.out);
            let portion = self.suspended.take().unwrap_or_else(|| {
                let received = self.session.receive(rest, now, &mut out);
                // An event that a step causes ends the wait.
                self.waits = received.then == Then::Wait;
                // Deliveries to other connections are deferred while the same input continues.
                let ends = !(received.then == Then::Again && out.is_full());
                Portion { received, ends }
            });
            let done = self.carry_out(&mut out, rest, Some(&portion), now, encoding);
            self.out = out;
            self.wants_rest = self.count_work();
            if !done {
                self.suspended = Some(portion);
                self.wants_rest |= self.client.is_filing() || self.client.waits_for_gets();
                continue;
            }
            consumed += portion.received.consumed;
            self.done += (portion.received.consumed / WORK_BYTES) as u64;
            let is_next = match portion.received.then {
                Then::Again => true,
                Then::Wait => !self.waits,
                Then::More { at_least } => {
                    self.wanted = at_least;
                    false
                }
            };
            if is_next {
                continue;
            }
            self.wants_rest = false;
            self.tell_events(now, encoding);
            self.tell_room(now, encoding);
            self.wants_rest |= self.owes();
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

    /// This many bytes of input are kept until they are offered again. Called after each call of [`Pump::input`].
    pub fn kept(&mut self, unread: usize) {
        self.client.holds(self.session.held_bytes(), unread);
    }

    /// Returns whether the turn did so much that even the input that was read must wait.
    fn count_work(&mut self) -> bool {
        self.done += self.client.take_work();
        self.done >= TURN_WORK_MAX
    }

    /// Time has passed, or the node has notified this connection: checks the session's deadline and the node's
    /// events, and continues subscriptions that waited for the socket.
    pub fn attend(&mut self, now: Moment, encoding: &dyn Encoding) {
        // Even if there is little to do: a connection that is notified again and again has turns, too.
        self.done += WORK_OF_LOOK;
        if self.session.deadline().is_some_and(|deadline| deadline <= now) {
            let mut out = Output::default();
            self.session.timeout(now, &mut out);
            // The session may wait for something else now; it says so when it is asked again.
            self.wants_rest |= std::mem::take(&mut self.waits);
            self.carry_out(&mut out, &[], None, now, encoding);
        }
        self.client.take_events(&mut self.events);
        self.tell_events(now, encoding);
        self.tell_room(now, encoding);
        self.client.send_what_waits();
        self.client.resume();
        self.wants_rest |= self.owes();
        self.count_work();
    }

    /// Whether the client has work for another turn.
    fn owes(&self) -> bool {
        self.client.is_sending() || self.client.has_collected() || self.client.has_ready_commands()
    }

    /// Tells the session when its publishes are blocked, and when they are not any more.
    fn tell_room(&mut self, now: Moment, encoding: &dyn Encoding) {
        let reason = self.client.block_reason();
        if reason != self.blocked {
            self.blocked.clone_from(&reason);
            self.events.push(reason.map_or(Event::Unblocked, Event::Blocked));
            self.tell_events(now, encoding);
        }
    }

    /// The socket accepted bytes, of which so many are of files.
    pub fn written(&mut self, file_bytes: usize) {
        self.done += WORK_OF_LOOK + (file_bytes / WORK_BYTES) as u64;
        self.client.written();
        self.count_work();
    }

    /// The latest time for the next call of `attend`.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.session.deadline()
    }

    /// Whether the socket should be closed, after everything that waits for it is written.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether the peer should close the socket.
    #[must_use]
    pub fn peer_closes(&self) -> bool {
        self.peer_closes
    }

    /// The connection has ended, for the log: says how the socket ended if the session has given no reason.
    pub fn log_end(&mut self, socket: std::io::Result<()>) {
        self.log.ended(socket, &self.client);
    }

    /// Ends the connection. Effects that were decided before may still be under way; the peer is notified when they
    /// have left.
    pub fn end(&mut self) {
        self.client.end();
    }

    /// Whether everything that this connection has to send has left.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.client.is_drained()
    }

    /// Whether nothing is to be read from the peer for now: there is no space for its publishes, or the session waits
    /// for an event.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_waiting() || self.client.is_paused()
    }

    /// Whether the session waits for an event, and nothing is left to do that may cause it.
    fn is_waiting(&self) -> bool {
        let owes = self.suspended.is_some() || self.client.has_collected() || self.client.is_sending();
        self.waits && !owes
    }

    /// How many bytes of input the session needs before it can go on; 0 if it does not know.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Carries out the session's steps, which come from input or from something else. Returns whether all are done:
    /// publishes of an input, and the steps after them, may be left for the next turn.
    fn carry_out(
        &mut self,
        out: &mut Output,
        input: &[u8],
        portion: Option<&Portion>,
        now: Moment,
        encoding: &dyn Encoding,
    ) -> bool {
        let mut steps = out.steps.drain(..);
        loop {
            let next = steps.next();
            if !self.decide_before(next.as_ref(), input, portion, now, encoding) {
                let left = next.into_iter().chain(steps).collect();
                out.steps = left;
                return false;
            }
            match next {
                None => break,
                Some(_) if self.closing => break,
                Some(Step::Send(range)) => self.client.frames(input, &out.bytes[range], &mut self.events),
                Some(Step::Command(command)) => self.client.command(input, command, &mut self.events),
                Some(Step::Encode(encoder)) => {
                    self.client.finish(input, &mut self.events);
                    encoding.encode_with(encoder);
                }
                Some(Step::Resume { channel }) => {
                    self.done += WORK_OF_LOOK + (encoding.resume(channel) / WORK_BYTES) as u64;
                    self.client.written();
                }
                Some(Step::HandOver(session)) => {
                    self.session = session;
                    // It reads what the other one has left.
                    self.wants_rest = true;
                }
                Some(end @ (Step::Close | Step::AwaitPeerClose)) => {
                    self.client.finish(input, &mut self.events);
                    self.peer_closes = matches!(end, Step::AwaitPeerClose);
                    self.closing = true;
                }
                Some(Step::Log(line)) => self.log.line(line, &self.client),
            }
            self.tell_events(now, encoding);
        }
        drop(steps);
        if portion.is_none_or(|portion| portion.ends) {
            self.client.finish(input, &mut self.events);
        } else {
            self.client.decide_collected(input, &mut self.events);
        }
        out.clear();
        self.tell_events(now, encoding);
        true
    }

    /// Decides what must be decided before the next step. Returns whether it is done, and the step can be carried out now.
    fn decide_before(
        &mut self,
        next: Option<&Step>,
        input: &[u8],
        portion: Option<&Portion>,
        now: Moment,
        encoding: &dyn Encoding,
    ) -> bool {
        let publishes = matches!(next, Some(Step::Command(Command::Publish(_))));
        let mut is_done = true;
        // A step that is not a publish follows the publishes before it; so does another publish, if they were too many
        // for one call.
        if self.client.is_behind() || !publishes && self.client.has_collected() {
            match portion {
                Some(_) => is_done = self.client.decide_some(input, &mut self.events),
                None => self.client.decide_collected(input, &mut self.events),
            }
            self.tell_events(now, encoding);
        }
        let is_held_up = matches!(next, Some(Step::Command(command)) if self.client.is_held_up(command));
        if is_done && is_held_up && portion.is_some() {
            // What was collected points into the input.
            self.client.finish(input, &mut self.events);
            self.tell_events(now, encoding);
            is_done = false;
        }
        is_done
    }

    #[inline]
    fn tell_events(&mut self, now: Moment, encoding: &dyn Encoding) {
        if !self.events.is_empty() {
            self.tell_all_events(now, encoding);
        }
    }

    fn tell_all_events(&mut self, now: Moment, encoding: &dyn Encoding) {
        while !self.events.is_empty() {
            if std::mem::take(&mut self.waits) {
                // What was left can be read now.
                self.wants_rest = true;
            }
            for event in std::mem::take(&mut self.events) {
                let mut out = Output::default();
                self.session.event(event, now, &mut out);
                self.carry_out(&mut out, &[], None, now, encoding);
            }
        }
    }
}
