//! Scripted conversations between a client, the session and a scripted node, with a fake clock.
//!
//! A script is a file of lines. These lines are the input: `C: FRAME` or `C2: FRAME` the client sends a frame (on
//! channel 2; else 1, or 0 for the connection's own); `E: EVENT` the node reports an event; `F: EFFECT` the node
//! decides an effect, and its event, if it has one, follows; `T: MS` the clock advances by this many milliseconds.
//! These lines are the expected output. They must be complete and in this order, after the lines that cause them: `S:
//! FRAME` a frame for the client; `N: COMMAND` a command for the node; `L: TEXT` a line for the log; `X` the server
//! closes the connection; `X: client` the client must close it. If an expected line ends with `...`, only the beginning
//! is compared.
//!
//! Each script is played three times: line by line, with all neighbouring frames in one read, and octet by octet.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use ferrymq_amqp091::{Connection, Greeting};
use ferrymq_model::{
    BodyRef, Effect, Event, Limits, Mechanism, MessageRef, Name, Object, Origin, Refusal, Reply, ReturnReason,
    ServerProperties,
};
use ferrymq_wire::{Encoded, Encoder, LogLine, Moment, Outbox, Output, Session, Step, Then};

use super::{show::show, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    LineByLine,
    AllAtOnce,
    OctetByOctet,
}

struct Conversation {
    session: Connection,
    encoder: Option<Box<dyn Encoder>>,
    now: Moment,
    /// The input that the session has not used yet.
    input: Vec<u8>,
    /// The output that is not compared yet.
    said: VecDeque<String>,
}

impl Conversation {
    fn new(limits: Limits) -> Self {
        let offered = [Mechanism::AmqPlain, Mechanism::Plain, Mechanism::RabbitCrDemo];
        let greeting = Arc::new(Greeting::offering(&offered, &ServerProperties::default(), limits));
        let mut session = Connection::new(greeting);
        session.opened(Moment(0), &mut Output::default());
        Self { session, encoder: None, now: Moment(0), input: Vec::new(), said: VecDeque::new() }
    }

    fn receive(&mut self) {
        loop {
            let mut out = Output::default();
            let received = self.session.receive(&self.input, self.now, &mut out);
            let silent = out.steps.is_empty();
            self.carry_out(out);
            self.input.drain(..received.consumed);
            // A session that waits for the node stays paused and has no output.
            if matches!(received.then, Then::More { .. }) || silent {
                break;
            }
        }
    }

    fn event(&mut self, event: Event) {
        let mut out = Output::default();
        self.session.event(event, self.now, &mut out);
        self.carry_out(out);
        self.receive();
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        while let Some(deadline) = self.session.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now || self.now == end, "a deadline that has passed does not come again");
            self.now = deadline.max(self.now);
            let mut out = Output::default();
            self.session.timeout(self.now, &mut out);
            self.carry_out(out);
        }
        self.now = end;
    }

    fn carry_out(&mut self, out: Output) {
        for step in out.steps {
            match step {
                Step::Send(range) => self.sent(&out.bytes[range]),
                Step::Command(command) => self.said.push_back(format!("N: {}", show(&command, &self.input))),
                Step::Encode(encoder) => self.encoder = Some(encoder),
                Step::HandOver(session) => panic!("{session:?} takes the place of a session of AMQP 0-9-1"),
                Step::Resume { channel } => panic!("the encoder never stops, and channel {channel} goes on"),
                Step::Close => {
                    self.said.push_back("X".to_owned());
                    assert!(self.session.is_closed());
                }
                Step::AwaitPeerClose => {
                    self.said.push_back("X: client".to_owned());
                    assert!(self.session.is_closed());
                }
                // Without this, each conversation would have this line. Most clients here have no name.
                Step::Log(LogLine::Opened { client }) if client.is_empty() => {}
                Step::Log(line) => self.said.push_back(format!("L: {line}")),
            }
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        for (channel, line) in text::lines(bytes) {
            let number = if channel < 2 { String::new() } else { channel.to_string() };
            self.said.push_back(format!("S{number}: {line}"));
        }
    }

    /// Encodes an effect. A refusal is also an event for the session.
    fn effect(&mut self, line: &str) {
        let mut outbox = Outbox::default();
        let encoder = self.encoder.as_mut().expect("the handshake has set the encoder");
        with_effect(line, &mut |effect| assert_eq!(encoder.encode(effect, &mut outbox), Encoded::Whole));
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = outbox.slices(&mut slices);
        self.sent(&slices[..count].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>());
        if let Some(refusal) = line.strip_prefix("refused ") {
            let (origin, refusal) = refused(refusal);
            self.event(Event::Refused { origin, refusal });
        }
    }
}

/// Reads `CHANNEL CLASS.METHOD REFUSAL`.
fn refused(line: &str) -> (Origin, Refusal) {
    let [channel, method, refusal] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let row = text::ROWS.iter().find(|row| row.name == method).unwrap();
    let origin = Origin {
        channel: channel.parse().unwrap(),
        token: u32::from(row.class) << 16 | u32::from(row.method),
        ..Origin::default()
    };
    let (kind, text) = refusal.split_once(' ').unwrap();
    let text = text.to_owned();
    let refusal = match kind {
        "no-queue" => {
            Refusal::NotFound { object: Object::Queue, name: Name::from(text.as_str()), vhost: Name::from("/") }
        }
        "no-vhost" => Refusal::VhostNotFound(Name::from(text.as_str())),
        "locked" => Refusal::ResourceLocked(text),
        "access" => Refusal::AccessRefused(text),
        "precondition" => Refusal::PreconditionFailed(text),
        "not-allowed" => Refusal::NotAllowed(text),
        "fault" => Refusal::Fault(text),
        "login" => Refusal::LoginFailed(text),
        "login-malformed" => Refusal::LoginMalformed(text),
        other => panic!("no refusal {other}"),
    };
    (origin, refusal)
}

fn event(line: &str) -> Event {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("logged-in", _) => Event::LoggedIn,
        ("challenge", text) => Event::Challenge(text.as_bytes().to_vec()),
        ("vhost-opened", _) => Event::VhostOpened,
        ("connection-closed", _) => Event::ConnectionClosed,
        ("blocked", why) => Event::Blocked(why.to_owned()),
        ("unblocked", _) => Event::Unblocked,
        ("close", why) => Event::Close(Refusal::ConnectionForced(why.to_owned())),
        ("refused", rest) => {
            let (origin, refusal) = refused(rest);
            Event::Refused { origin, refusal }
        }
        other => panic!("no event {other:?}"),
    }
}

/// Calls `encode` with the effect that a line describes.
fn with_effect(line: &str, encode: &mut dyn FnMut(&Effect<'_>)) {
    let words: Vec<&str> = line.split(' ').collect();
    let channel = words.get(1).and_then(|word| word.parse().ok()).unwrap_or_default();
    let number = |at: usize| words[at].parse().unwrap();
    let last = words[words.len() - 1];
    let body = if last.contains('*') { text::hex(last) } else { last.as_bytes().to_vec() };
    let shared = Bytes::from(body.clone());
    let message = |body| MessageRef {
        dialect: ferrymq_amqp091::DIALECT,
        exchange: "ex",
        routing_key: b"key",
        properties: &[0x10, 0, 2],
        annotations: &[],
        body,
    };
    match words[0] {
        "deliver" => encode(&Effect::Deliver {
            channel,
            tag: words[2],
            delivery_tag: number(3),
            redelivered: words[4] != "new",
            attempts: words[4].strip_prefix("again-").map(|count| count.parse().unwrap()),
            message: message(BodyRef::Inline(&body)),
        }),
        "deliver-shared" => encode(&Effect::Deliver {
            channel,
            tag: words[2],
            delivery_tag: number(3),
            redelivered: words[4] == "again",
            attempts: None,
            message: message(BodyRef::Shared(&shared)),
        }),
        "got" => encode(&Effect::Got {
            channel,
            delivery_tag: number(2),
            redelivered: false,
            attempts: None,
            remaining: number(3),
            message: message(BodyRef::Inline(&body)),
        }),
        "return" => {
            let reason = ReturnReason::Unroutable;
            encode(&Effect::Return { channel, reason, message: message(BodyRef::Inline(&body)) });
        }
        "confirm" => {
            encode(&Effect::Confirm { channel, publish_tag: number(2), multiple: words.contains(&"multiple") });
        }
        "cancelled" => encode(&Effect::Cancelled { channel, tag: words[2] }),
        "refused" => {
            let (origin, refusal) = refused(line.strip_prefix("refused ").unwrap());
            encode(&Effect::Refused { origin, refusal: &refusal });
        }
        // If two requests have the same reply, `METHOD` after it names the request.
        "bound" | "unbound" if words.len() > 2 => {
            let origin = refused(&format!("{channel} {} fault x", words[2])).0;
            encode(&Effect::Reply { origin, reply: &reply(&words) });
        }
        "not-confirmed" => encode(&Effect::NotConfirmed { channel, publish_tag: number(2) }),
        _ => encode(&Effect::Reply { origin: Origin { channel, ..Origin::default() }, reply: &reply(&words) }),
    }
}

fn reply(words: &[&str]) -> Reply {
    let name = |at: usize| Name::from(words[at]);
    let number = |at: usize| words[at].parse().unwrap();
    match words[0] {
        "vhost-opened" => Reply::VhostOpened,
        "channel-opened" => Reply::ChannelOpened,
        "channel-closed" => Reply::ChannelClosed,
        "connection-closed" => Reply::ConnectionClosed,
        "exchange-declared" => Reply::ExchangeDeclared,
        "exchange-deleted" => Reply::ExchangeDeleted,
        "queue-declared" => Reply::QueueDeclared { queue: name(2), messages: number(3), consumers: number(4) as u32 },
        "queue-deleted" => Reply::QueueDeleted { messages: number(2) },
        "queue-purged" => Reply::QueuePurged { messages: number(2) },
        "bound" => Reply::Bound,
        "unbound" => Reply::Unbound,
        "qos-set" => Reply::CreditSet,
        "subscribed" => Reply::Subscribed { tag: name(2) },
        "unsubscribed" => Reply::Unsubscribed { tag: name(2) },
        "get-empty" => Reply::GetEmpty,
        "flow-set" => Reply::FlowSet { active: words[2] == "active" },
        "recovered" => Reply::Recovered,
        "tx-selected" => Reply::TxSelected,
        "tx-committed" => Reply::TxCommitted,
        "tx-rolled-back" => Reply::TxRolledBack,
        "login-renewed" => Reply::LoginRenewed,
        "confirm-selected" => Reply::ConfirmSelected,
        _ => panic!("no effect {words:?}"),
    }
}

/// Plays a script. `{handshake}` in it is replaced by the lines of `handshake.txt`.
fn play(script: &str, pace: Pace, limits: &Limits) {
    let script = script.replace("{handshake}", include_str!("conversations/handshake.txt"));
    let mut talk = Conversation::new(limits.clone());
    let mut pending = Vec::new();
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (what, rest) = line.split_once(": ").unwrap_or((line, ""));
        let from_client = what.strip_prefix('C').map(|number| number.parse().unwrap_or(1));
        let spoken = from_client.is_some() || ["E", "F", "T"].contains(&what);
        if spoken && (from_client.is_none() || pending.is_empty()) {
            flush(&mut talk, &mut pending, pace);
            assert_eq!(talk.said, Vec::<String>::new(), "before `{line}` ({pace:?})");
        }
        match (from_client, what) {
            (Some(channel), _) => pending.push(text::frame(rest, channel)),
            (None, "E") => talk.event(event(rest)),
            (None, "F") => talk.effect(rest),
            (None, "T") => talk.advance(rest.parse().unwrap()),
            _ => {
                flush(&mut talk, &mut pending, pace);
                let said =
                    talk.said.pop_front().unwrap_or_else(|| panic!("there is no output, and `{line}` is expected"));
                match line.strip_suffix("...") {
                    Some(beginning) => assert!(said.starts_with(beginning), "`{said}` is not `{line}` ({pace:?})"),
                    None => assert_eq!(said, line, "({pace:?})"),
                }
            }
        }
    }
    flush(&mut talk, &mut pending, pace);
    assert_eq!(talk.said, Vec::<String>::new(), "at the end ({pace:?})");
}

/// Gives the session the frames that the client has sent.
fn flush(talk: &mut Conversation, pending: &mut Vec<Vec<u8>>, pace: Pace) {
    let frames = std::mem::take(pending);
    let reads: Vec<Vec<u8>> = match pace {
        Pace::LineByLine => frames,
        Pace::AllAtOnce if frames.is_empty() => Vec::new(),
        Pace::AllAtOnce => vec![frames.concat()],
        Pace::OctetByOctet => frames.concat().into_iter().map(|octet| vec![octet]).collect(),
    };
    for read in reads {
        talk.input.extend(read);
        talk.receive();
    }
}

fn check(script: &str) {
    check_with(script, &Limits::default());
}

fn check_with(script: &str, limits: &Limits) {
    for pace in [Pace::LineByLine, Pace::AllAtOnce, Pace::OctetByOctet] {
        play(script, pace, limits);
    }
}

/// One test for each script.
macro_rules! conversations {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            check(include_str!(concat!("conversations/", stringify!($name), ".txt")));
        }
    )*};
}

conversations! {
    another_protocol
    another_version
    blocked
    blocked_untold
    channel_close_crossing
    channel_close_overtakes
    channel_errors
    channel_not_open
    channel_twice
    channels_max
    client_name
    content
    content_missing
    content_too_long
    content_unannounced
    copies
    deliveries
    delivery_count
    expiration
    frame_too_large
    handshake_channel
    handshake_order
    handshake_pipelined
    handshake_too_slow
    hard_refusal
    heartbeat_on_channel
    heartbeats
    hello
    immediate
    login
    login_amqplain
    login_amqplain_garbage
    login_amqplain_missing
    login_amqplain_type
    login_challenge_unanswered
    login_in_two_steps
    login_mechanism
    login_response
    login_response_empty
    login_response_too_long
    login_response_twice
    login_response_unasked
    login_silent
    malformed_frame
    malformed_table
    message_too_large
    transactions
    recover
    recover_to_the_same
    replies
    replies_with_acks
    exchange_bindings
    renewed_login
    prefetch_size
    requests
    server_closes
    servers_method
    tune_larger
    tune_no_limit
    tune_too_small
    undecodable
    unknown_method
    version_0_9
    vhost_missing
}
