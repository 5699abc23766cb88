//! The state machine of one connection. It is pure: it takes bytes, events and the time, and returns frames and
//! commands.
//!
//! ```text
//!  AwaitHeader ── protocol header ──▶ AwaitStartOk ── start-ok ──▶ AwaitLogin ── logged in ──▶ AwaitTuneOk
//!       │                                      challenge ▼ ▲ secure-ok │                          │ tune-ok
//!       │ another protocol                         AwaitSecureOk       │ refused                  ▼
//!       ▼                                                              ▼                       AwaitOpen
//!    Closed ◀── a while ── Silent ◀── without the capability ──────────┤                          │ open
//!       ▲                                                              │ with it                  ▼
//!       ├───── close-ok, or too late ───── AwaitCloseOk ◀──────────────┘                      AwaitVhost
//!       │                                       ▲                                                 │ vhost opened
//!       │                                       └──── hard error, or the server closes ───────┐   ▼
//!       └──── the node is done ──── AwaitNode ◀──────────────── connection.close ───────────  Running
//! ```
//!
//! All states except `Running` have a deadline. `Running` has heartbeats.

mod channel;
mod content;
mod encoder;
mod greeting;
mod handshake;
mod heartbeat;
mod incomplete;
mod mechanism;
mod running;

use std::sync::Arc;

use ferrymq_model::{Ask, Event, Origin, Refusal};
use ferrymq_wire::{LogLine, Moment, Output, Parsed, Reader, Received, Session, Step, Then};

pub use encoder::FrameEncoder;
pub use greeting::Greeting;

use handshake::{AwaitLogin, AwaitOpen, AwaitSecureOk, AwaitStartOk, AwaitTuneOk, AwaitVhost};
use heartbeat::{Due, Heartbeat};
use incomplete::Incomplete;
use running::{Next, Running};

use crate::{
    codec::{
        Malformed,
        frame::{
            FRAME_END, Frame, FrameKind, HEARTBEAT, PROTOCOL_HEADER, PROTOCOL_HEADER_0_9, begun_body, frame, put_method,
        },
        methods::{ConnectionClose, ConnectionCloseOk, Method},
        reply_code::ReplyCode,
    },
    mapping::{self, Violation},
};

/// The largest frame before the handshake has set a limit, in bytes. It is RabbitMQ's value. (AMQP-2)
const HANDSHAKE_FRAME_BYTES_MAX: u32 = 8192;

/// After how many milliseconds the server closes the socket, if the login failed and the client does not get the
/// reason. It is RabbitMQ's value. (AMQP-3)
const SILENCE_MS: u64 = 3_000;

/// An error of the client, and the request with the error.
#[derive(Debug)]
struct Fault {
    origin: Origin,
    violation: Violation,
}

impl Fault {
    fn new(channel: u16, method: (u16, u16), violation: Violation) -> Self {
        Self { origin: mapping::origin(channel, method), violation }
    }

    /// The fault for a method that cannot be read. It has the numbers of class and method, if they have arrived.
    fn unreadable(channel: u16, payload: &[u8], malformed: Malformed) -> Self {
        let mut reader = Reader::new(payload);
        let method = match (malformed, reader.u16(), reader.u16()) {
            (Malformed::UnknownMethod { .. }, ..) => (0, 0),
            (_, Ok(class), Ok(method)) => (class, method),
            _ => (0, 0),
        };
        Self::new(channel, method, malformed.into())
    }
}

/// One connection that speaks AMQP 0-9-1.
#[derive(Debug)]
pub struct Connection {
    greeting: Arc<Greeting>,
    state: State,
    frame_bytes_max: u32,
    heartbeat: Heartbeat,
    incomplete: Incomplete,
    /// The rest of a frame that is taken in parts.
    part: Option<Part>,
    /// The deadline of the state; ignored in `Running` and `Closed`.
    state_ends: Moment,
    /// The client's name. It is kept until the connection is open.
    client_name: String,
}

/// The rest of a long body's frame that has not arrived. The body takes the bytes as they arrive, so the caller gives
/// no byte twice.
#[derive(Debug)]
struct Part {
    channel: u16,
    /// How many bytes of the payload are missing.
    missing: usize,
}

#[derive(Debug)]
enum State {
    /// The client must send its protocol header.
    AwaitHeader,
    AwaitStartOk(AwaitStartOk),
    AwaitLogin(AwaitLogin),
    AwaitSecureOk(AwaitSecureOk),
    AwaitTuneOk(AwaitTuneOk),
    AwaitOpen(AwaitOpen),
    AwaitVhost(AwaitVhost),
    Running(Running),
    /// The client has closed the connection, and the node removes everything that belongs to it.
    AwaitNode,
    /// The server has closed the connection.
    AwaitCloseOk,
    /// The login failed, and the client does not get the reason. The server waits before it closes the socket, so that
    /// guessing passwords takes time.
    Silent,
    Closed,
}

impl Connection {
    /// A new connection.
    #[must_use]
    pub fn new(greeting: Arc<Greeting>) -> Self {
        Self {
            greeting,
            state: State::AwaitHeader,
            frame_bytes_max: HANDSHAKE_FRAME_BYTES_MAX,
            heartbeat: Heartbeat::new(0, Moment(0)),
            incomplete: Incomplete::default(),
            part: None,
            state_ends: Moment(0),
            client_name: String::new(),
        }
    }

    /// Reads the protocol header (section 4.2.2). Returns how many bytes it used.
    fn protocol_header(&mut self, input: &[u8], out: &mut Output) -> usize {
        let length = PROTOCOL_HEADER.len();
        if [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9].iter().any(|header| input.starts_with(header)) {
            out.send(|out| out.extend_from_slice(&self.greeting.start));
            self.state = State::AwaitStartOk(AwaitStartOk);
            return length;
        }
        let beginning = &input[..input.len().min(length)];
        if [PROTOCOL_HEADER, PROTOCOL_HEADER_0_9].iter().any(|header| header.starts_with(beginning)) {
            return 0;
        }
        out.steps.push(ends(true, format!("not the header of AMQP 0-9-1: {}", beginning.escape_ascii())));
        out.send(|out| out.extend_from_slice(&PROTOCOL_HEADER));
        self.close(out);
        input.len()
    }

    /// Takes a frame of the handshake.
    fn handshake(&mut self, frame: &Frame<'_>, now: Moment, out: &mut Output) -> Result<(), Fault> {
        if frame.kind == FrameKind::Heartbeat && frame.channel == 0 {
            return Ok(());
        }
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return Err(running::unexpected(frame, "no channel can be open during the handshake".into()));
        }
        let method = Method::read(frame.payload).map_err(|malformed| Fault::unreadable(0, frame.payload, malformed))?;
        self.state = match (std::mem::replace(&mut self.state, State::Closed), &method) {
            (State::AwaitStartOk(state), Method::ConnectionStartOk(start_ok)) => {
                self.client_name = handshake::client_name(start_ok.client_properties);
                State::AwaitLogin(state.start_ok(start_ok, &self.greeting, out)?)
            }
            (State::AwaitSecureOk(state), Method::ConnectionSecureOk(secure_ok)) => {
                State::AwaitLogin(state.secure_ok(secure_ok, out))
            }
            (State::AwaitTuneOk(state), Method::ConnectionTuneOk(tune_ok)) => {
                let tuned = state.tune_ok(*tune_ok, &self.greeting, out)?;
                self.frame_bytes_max = tuned.frame_bytes_max;
                self.heartbeat = Heartbeat::new(tuned.heartbeat_ms, now);
                State::AwaitOpen(tuned)
            }
            (State::AwaitOpen(state), Method::ConnectionOpen(open)) => State::AwaitVhost(state.open(open, out)),
            (_, Method::ConnectionClose(close)) => {
                out.steps.push(closed_by_client(close));
                out.send(|out| put_method(out, 0, &ConnectionCloseOk));
                out.steps.push(Step::AwaitPeerClose);
                State::Closed
            }
            (_, method) => {
                let text = format!("{} does not belong here in the handshake", method.name());
                return Err(Fault::new(0, method.id(), Violation::new(ReplyCode::ChannelError, text)));
            }
        };
        Ok(())
    }

    /// Takes a frame after the server has closed the connection. Only close-ok counts. If the client has sent a close
    /// at the same time, the server answers it.
    fn closing(&mut self, frame: &Frame<'_>, out: &mut Output) {
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return;
        }
        match Method::read(frame.payload) {
            Ok(Method::ConnectionCloseOk(_)) => self.close(out),
            Ok(Method::ConnectionClose(_)) => {
                out.send(|out| put_method(out, 0, &ConnectionCloseOk));
                self.close(out);
            }
            _ => {}
        }
    }

    /// Takes one frame. Returns the position of the next one, and whether the caller must pause.
    fn frame(&mut self, frame: &Frame<'_>, input: &[u8], end: usize, now: Moment, out: &mut Output) -> (usize, bool) {
        let done = match &mut self.state {
            State::Running(running) => running.frame(frame, input, end, &self.greeting.limits, out),
            State::AwaitCloseOk => {
                self.closing(frame, out);
                Ok(Next::Read(end))
            }
            _ => self.handshake(frame, now, out).map(|()| Next::Read(end)),
        };
        match done {
            Ok(Next::Read(at)) => (at, false),
            Ok(Next::Pause(at)) => (at, true),
            Ok(Next::Close) => {
                self.enter(State::AwaitNode, now);
                (end, true)
            }
            Err(fault) => {
                self.fail(&fault, now, out);
                (end, false)
            }
        }
    }

    /// Closes the connection after malformed input. Nothing after it can be read, not even the close-ok.
    fn malformed(&mut self, malformed: Malformed, now: Moment, out: &mut Output) {
        if !matches!(self.state, State::AwaitCloseOk) {
            self.fail(&Fault::new(0, (0, 0), malformed.into()), now, out);
        }
        self.close(out);
    }

    /// Starts to take the last frame of the input in parts, if this is possible. Returns whether it did.
    fn begins_part(&mut self, rest: &[u8]) -> bool {
        let (State::Running(running), Some((channel, bytes, payload))) = (&mut self.state, begun_body(rest)) else {
            return false;
        };
        // A short frame is faster to take as a whole.
        if (bytes as usize) <= self.greeting.limits.copy_bytes_max || !running.takes_part_of(channel, bytes) {
            return false;
        }
        running.take_part(channel, payload);
        self.part = Some(Part { channel, missing: bytes as usize - payload.len() });
        true
    }

    /// Takes more of a frame. Returns how many bytes it took, and whether the frame has ended.
    fn go_on_with_part(&mut self, input: &[u8], now: Moment, out: &mut Output) -> (usize, bool) {
        let Some(Part { channel, missing }) = self.part.take() else { return (0, true) };
        let (payload, rest) = input.split_at(missing.min(input.len()));
        if let State::Running(running) = &mut self.state {
            running.take_part(channel, payload);
        }
        match rest.first() {
            None => {
                self.part = Some(Part { channel, missing: missing - payload.len() });
                (payload.len(), false)
            }
            Some(&FRAME_END) => {
                if let State::Running(running) = &mut self.state {
                    running.end_frame(channel, &self.greeting.limits, out);
                }
                (payload.len() + 1, true)
            }
            Some(&other) => {
                self.malformed(Malformed::FrameEnd(other), now, out);
                (payload.len(), true)
            }
        }
    }

    /// Closes the connection because of the client's mistake. First the node removes everything that belongs to the
    /// connection, then the close is sent.
    fn fail(&mut self, fault: &Fault, now: Moment, out: &mut Output) {
        let orderly = fault.violation.code == ReplyCode::ConnectionForced;
        out.steps.push(ends(!orderly, fault.violation.log_text()));
        if matches!(self.state, State::Running(_)) {
            out.request(fault.origin.unanswered(true), Ask::CloseConnection);
        }
        // In the handshake, each error closes the connection.
        let connection = Origin { channel: 0, ..fault.origin };
        out.send(|out| {
            mapping::put_close(out, connection, &fault.violation);
        });
        self.enter(State::AwaitCloseOk, now);
    }

    /// Answers a login that the node refused. The client gets the reason only if it has the capability for that.
    /// (AMQP-3)
    fn refuse_login(&mut self, login: &AwaitLogin, refusal: &Refusal, now: Moment, out: &mut Output) {
        if matches!(refusal, Refusal::LoginMalformed(_)) {
            return self.fail(&Fault::new(0, login.method, Violation::from(refusal)), now, out);
        }
        out.steps.push(Step::Log(LogLine::LoginRefused(refusal.to_string())));
        if login.client.capabilities.authentication_failure_close {
            let text = format!(
                "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                login.client.mechanism.name()
            );
            let violation = Violation::new(ReplyCode::AccessRefused, text);
            let origin = mapping::origin(0, (0, 0));
            out.send(|out| {
                mapping::put_close(out, origin, &violation);
            });
            self.enter(State::AwaitCloseOk, now);
        } else {
            self.state = State::Silent;
            self.state_ends = now.after_ms(SILENCE_MS);
        }
    }

    /// Notes that `taken` bytes of the input were taken and `rest` bytes were not.
    fn is_incomplete(&mut self, taken: usize, rest: usize, now: Moment) {
        if let State::Running(running) = &self.state {
            let ms = self.greeting.limits.incomplete_ms_max;
            self.incomplete.read(taken, rest, now, ms, || running.gathered_bytes() > 0);
        }
    }

    fn enter(&mut self, state: State, now: Moment) {
        self.state = state;
        self.state_ends = now.after_ms(self.greeting.limits.handshake_ms_max);
    }

    fn close(&mut self, out: &mut Output) {
        self.state = State::Closed;
        out.steps.push(Step::Close);
    }

    fn awaits_node(&self) -> bool {
        matches!(self.state, State::AwaitLogin(_) | State::AwaitVhost(_) | State::AwaitNode)
    }
}

impl Session for Connection {
    fn opened(&mut self, now: Moment, _: &mut Output) {
        self.enter(State::AwaitHeader, now);
    }

    fn receive(&mut self, input: &[u8], now: Moment, out: &mut Output) -> Received {
        self.heartbeat.received(now);
        let mut at = 0;
        loop {
            match self.state {
                State::AwaitHeader => {
                    let taken = self.protocol_header(input, out);
                    if taken == 0 {
                        return Received { consumed: 0, then: Then::More { at_least: PROTOCOL_HEADER.len() } };
                    }
                    at += taken;
                    continue;
                }
                State::Silent | State::Closed => {
                    return Received { consumed: input.len(), then: Then::More { at_least: 0 } };
                }
                _ if self.awaits_node() => return Received { consumed: at, then: Then::Wait },
                _ => {}
            }
            let mut rest = input.get(at..).unwrap_or_default();
            if self.part.is_some() {
                let (taken, is_over) = self.go_on_with_part(rest, now, out);
                at += taken;
                if !is_over {
                    self.is_incomplete(at, 0, now);
                    return Received { consumed: at, then: Then::More { at_least: 1 } };
                }
                if out.is_full() {
                    return Received { consumed: at, then: Then::Again };
                }
                if matches!(self.state, State::Closed) {
                    continue;
                }
                rest = input.get(at..).unwrap_or_default();
            }
            match frame(rest, self.frame_bytes_max) {
                Parsed::Frame(frame, bytes) => {
                    let (next, paused) = self.frame(&frame, input, at + bytes, now, out);
                    at = next;
                    if paused || out.is_full() {
                        return Received { consumed: at, then: Then::Again };
                    }
                }
                Parsed::Incomplete(_) if self.begins_part(rest) => at = input.len(),
                Parsed::Incomplete(wanted) => {
                    self.is_incomplete(at, rest.len(), now);
                    return Received { consumed: at, then: Then::More { at_least: wanted } };
                }
                Parsed::Malformed(malformed) => self.malformed(malformed, now, out),
            }
        }
    }

    fn event(&mut self, event: Event, now: Moment, out: &mut Output) {
        self.state = match (std::mem::replace(&mut self.state, State::Closed), event) {
            (State::AwaitLogin(state), Event::LoggedIn) => State::AwaitTuneOk(state.logged_in(&self.greeting, out)),
            (State::AwaitLogin(state), Event::Challenge(challenge)) => {
                State::AwaitSecureOk(state.challenged(&challenge, out))
            }
            (State::AwaitLogin(state), Event::Refused { refusal, .. }) => {
                return self.refuse_login(&state, &refusal, now, out);
            }
            (State::AwaitVhost(state), Event::VhostOpened) => {
                out.steps.push(Step::Log(LogLine::Opened { client: std::mem::take(&mut self.client_name) }));
                State::Running(state.opened())
            }
            (State::AwaitNode, Event::ConnectionClosed) => {
                out.steps.push(Step::AwaitPeerClose);
                State::Closed
            }
            (State::Running(mut running), Event::Refused { origin, refusal }) => {
                let violation = Violation::from(&refusal);
                if violation.code.is_hard() {
                    out.steps.push(ends(true, violation.log_text()));
                    out.request(origin.unanswered(true), Ask::CloseConnection);
                    return self.enter(State::AwaitCloseOk, now);
                }
                let (channel, text) = (origin.channel, violation.log_text());
                out.steps.push(Step::Log(LogLine::ChannelError { channel, text }));
                running.refused(origin, out);
                State::Running(running)
            }
            (State::AwaitVhost(_), Event::Refused { refusal, .. }) => {
                out.steps.push(ends(true, Violation::from(&refusal).log_text()));
                return self.enter(State::AwaitCloseOk, now);
            }
            (State::Running(mut running), Event::Blocked(reason)) => {
                running.blocked(reason, now);
                self.heartbeat.pause();
                State::Running(running)
            }
            (State::Running(mut running), Event::Unblocked) => {
                running.unblocked(out);
                self.heartbeat.resume(now);
                State::Running(running)
            }
            (State::AwaitHeader, Event::Close(_)) => return self.close(out),
            (state @ (State::AwaitCloseOk | State::Silent | State::Closed | State::AwaitNode), Event::Close(_)) => {
                state
            }
            (state, Event::Close(refusal)) => {
                self.state = state;
                return self.fail(&Fault::new(0, (0, 0), Violation::from(&refusal)), now, out);
            }
            // The event belongs to a command that came before the client or the server closed the connection.
            (state, _) => state,
        };
    }

    fn deadline(&self) -> Option<Moment> {
        match &self.state {
            State::Running(running) => {
                let deadlines = [running.deadline(), self.heartbeat.deadline(), self.incomplete.deadline()];
                deadlines.into_iter().flatten().min()
            }
            State::Closed => None,
            _ => Some(self.state_ends),
        }
    }

    fn timeout(&mut self, now: Moment, out: &mut Output) {
        match &mut self.state {
            State::Closed => {}
            State::Running(running) => {
                running.timeout(now, out);
                let (ms, is_read) = (self.greeting.limits.incomplete_ms_max, !self.heartbeat.is_paused());
                if self.incomplete.has_stopped(now, ms, is_read, running.gathered()) {
                    let why = format!("nothing more of an incomplete frame or message has arrived for {ms} ms");
                    return self.fail(&Fault::new(0, (0, 0), Violation::from(&Refusal::ResourceLimit(why))), now, out);
                }
                match self.heartbeat.due(now) {
                    Due::Nothing => {}
                    Due::Send => out.send(|out| out.extend_from_slice(&HEARTBEAT)),
                    Due::GiveUp => {
                        out.steps.push(ends(true, "missed heartbeats from client".into()));
                        self.close(out);
                    }
                }
            }
            _ if now < self.state_ends => {}
            State::Silent | State::AwaitCloseOk | State::AwaitNode => self.close(out),
            _ => {
                out.steps.push(ends(true, "the handshake took too long".into()));
                self.close(out);
            }
        }
    }

    fn held_bytes(&self) -> usize {
        match &self.state {
            State::Running(running) => running.gathered_bytes(),
            _ => 0,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}

/// The log line for the end of the connection.
fn ends(wrong: bool, why: String) -> Step {
    Step::Log(LogLine::Ends { wrong, why })
}

/// The log line for a connection that the client has closed. Some clients report their own error with a code.
fn closed_by_client(close: &ConnectionClose<'_>) -> Step {
    let wrong = close.reply_code != ReplyCode::ReplySuccess.number() && close.reply_code != 0;
    ends(wrong, format!("closed by the client: {} {}", close.reply_code, close.reply_text))
}
