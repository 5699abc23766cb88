//! A small protocol for tests of the port, with what AMQP 0-9-1 does not have: windows, at which its encoder stops in the
//! middle of a message.
//!
//! A client sends `LINES 1` and then one request in each line. Channels 1 and 2 are open. A delivery is written in pieces
//! of four octets, one in each line, and each piece takes one from the window of its channel. Answers wait behind the
//! deliveries of their channel, returned messages pass them. Instead of a delivery `file POSITION BYTES`, the encoder sends that
//! stretch of its file, between two lines.
//!
//! ```text
//! C: declare Q            S: 1 queue has N     (ready messages)
//! C: subscribe CHANNEL Q  S: CHANNEL subscribed
//! C: publish Q TEXT       S: CHANNEL TEXT      (the last piece with a full stop)
//! C: return TEXT          S: 1 returned
//! C: window CHANNEL N                          (N pieces more)
//! C: ping                 S: pong
//! ```

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read, Write},
    sync::Arc,
};

use ferrymq_model::{
    Arguments, Ask, Body, ChannelOptions, Command, Credit, DeclareQueue, DialectId, Effect, Event, FileStretch, Login,
    Name, OnRefusal, Origin, Publish, Reply, SentFile, Span, Subscribe,
};
use ferrymq_wire::{Encoded, Encoder, Moment, Outbox, Output, Received, Session, Step, Then};
use parking_lot::Mutex;

/// What a client sends first.
pub const HEADER: &[u8] = b"LINES 1\n";

/// The length of a piece of a message, in octets.
const PIECE_BYTES: usize = 4;

/// How many pieces the client takes on each channel. Session and encoder share it.
type Windows = Arc<Mutex<BTreeMap<u16, u32>>>;

/// The session.
#[derive(Debug, Default)]
pub struct Lines {
    windows: Windows,
    file: Option<Arc<dyn SentFile>>,
    state: State,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    AwaitHeader,
    AwaitNode,
    Running,
    Closed,
}

impl Lines {
    /// A session whose encoder sends stretches of a file.
    pub fn with_file(file: Arc<dyn SentFile>) -> Self {
        Self { file: Some(file), ..Self::default() }
    }

    /// Carries out the request in `input[start..end]`.
    fn request(&mut self, input: &[u8], start: usize, end: usize, out: &mut Output) {
        let line = std::str::from_utf8(&input[start..end]).unwrap();
        let span = |word: &str| Span {
            start: (start + word.as_ptr() as usize - line.as_ptr() as usize) as u32,
            len: word.len() as u32,
        };
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match *words {
            ["declare", queue] => out.request(origin(1), declare(queue)),
            ["subscribe", channel, queue] => out.request(origin(channel.parse().unwrap()), subscribe(queue)),
            ["publish", queue, text] => out.command(publish(span(queue), span(text))),
            ["return", text] => out.command(publish(span(text), span(text))),
            ["window", channel, more] => {
                let channel = channel.parse().unwrap();
                *self.windows.lock().entry(channel).or_default() += more.parse::<u32>().unwrap();
                out.steps.push(Step::Resume { channel });
            }
            ["ping"] => out.send(|out| out.extend_from_slice(b"pong\n")),
            _ => panic!("{line}"),
        }
    }
}

impl Session for Lines {
    fn opened(&mut self, _: Moment, _: &mut Output) {}

    fn receive(&mut self, input: &[u8], _: Moment, out: &mut Output) -> Received {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::AwaitHeader if rest.len() < HEADER.len() => {
                    return Received { consumed: at, then: Then::More { at_least: HEADER.len() } };
                }
                State::AwaitHeader => {
                    assert_eq!(&rest[..HEADER.len()], HEADER);
                    at += HEADER.len();
                    out.command(Command::Login(Login::Password {
                        user: Name::from("guest"),
                        password: b"guest".to_vec(),
                    }));
                    self.state = State::AwaitNode;
                }
                State::AwaitNode => return Received { consumed: at, then: Then::Wait },
                State::Closed => return Received { consumed: input.len(), then: Then::More { at_least: 0 } },
                State::Running => match rest.iter().position(|octet| *octet == b'\n') {
                    Some(length) => {
                        self.request(input, at, at + length, out);
                        at += length + 1;
                        if out.is_full() {
                            return Received { consumed: at, then: Then::Again };
                        }
                    }
                    None => return Received { consumed: at, then: Then::More { at_least: 0 } },
                },
            }
        }
    }

    fn event(&mut self, event: Event, _: Moment, out: &mut Output) {
        match event {
            Event::LoggedIn => {
                let vhost = Name::from("/");
                out.steps.push(Step::Encode(Box::new(LineEncoder::new(self))));
                out.request(origin(0), Ask::OpenVhost { vhost, properties_bytes_max: usize::MAX });
            }
            Event::VhostOpened => {
                for channel in [1, 2] {
                    out.request(
                        origin(channel),
                        Ask::OpenChannel(ChannelOptions { on_refusal: OnRefusal::GoOn, ..ChannelOptions::default() }),
                    );
                }
                self.state = State::Running;
            }
            Event::Close(_) => {
                out.steps.push(Step::Close);
                self.state = State::Closed;
            }
            Event::Blocked(_) | Event::Unblocked => {}
            other => panic!("{other:?}"),
        }
    }

    fn deadline(&self) -> Option<Moment> {
        None
    }

    fn timeout(&mut self, _: Moment, _: &mut Output) {}

    fn is_closed(&self) -> bool {
        self.state == State::Closed
    }
}

fn origin(channel: u16) -> Origin {
    Origin { channel, ..Origin::default() }
}

fn declare(queue: &str) -> Ask {
    Ask::DeclareQueue(DeclareQueue {
        queue: Name::from(queue),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::default(),
    })
}

fn subscribe(queue: &str) -> Ask {
    Ask::Subscribe(Subscribe {
        queue: Name::from(queue),
        tag: Name::default(),
        no_ack: true,
        exclusive: false,
        credit: Some(Credit::Window(0)),
        arguments: Arguments::default(),
    })
}

fn publish(routing_key: Span, text: Span) -> Command {
    Command::Publish(Publish {
        origin: origin(1),
        dialect: DialectId(1),
        exchange: Span::default(),
        routing_key,
        properties: Span::default(),
        body: Body::Span(text),
        mandatory: true,
        persistent: false,
        priority: None,
        expiration_ms: None,
        rare: None,
    })
}

/// The encoder.
#[derive(Debug)]
struct LineEncoder {
    windows: Windows,
    file: Option<Arc<dyn SentFile>>,
    /// The channels on which it has stopped, and how many octets of the first message there are written.
    stopped: BTreeMap<u16, usize>,
    /// How many octets of the first message of the channel that goes on are written.
    resumed: usize,
}

impl LineEncoder {
    fn new(lines: &Lines) -> Self {
        Self { windows: lines.windows.clone(), file: lines.file.clone(), stopped: BTreeMap::new(), resumed: 0 }
    }

    /// The stretch of the file that a message asks for.
    fn stretch(&self, text: &[u8]) -> Option<FileStretch> {
        let words: Vec<&str> = std::str::from_utf8(text).unwrap().split(' ').collect();
        let ["file", position, bytes] = *words else { return None };
        let (position, bytes) = (position.parse().unwrap(), bytes.parse().unwrap());
        Some(FileStretch { file: self.file.clone()?, position, bytes })
    }

    /// Writes pieces of a message as long as the window is open.
    fn message(&mut self, channel: u16, text: &[u8], out: &mut Outbox) -> Encoded {
        if let Some(stretch) = self.stretch(text) {
            out.bytes().extend_from_slice(b"here it is\n");
            out.send_file(stretch);
            out.bytes().extend_from_slice(b"\nthat was it\n");
            return Encoded::Whole;
        }
        let mut written = std::mem::take(&mut self.resumed);
        let mut windows = self.windows.lock();
        let window = windows.entry(channel).or_default();
        while written < text.len() {
            if *window == 0 {
                self.stopped.insert(channel, written);
                return Encoded::Stopped { channel };
            }
            *window -= 1;
            let piece = &text[written..text.len().min(written + PIECE_BYTES)];
            written += piece.len();
            let end = if written == text.len() { ".\n" } else { "\n" };
            out.bytes().extend_from_slice(format!("{channel} {}{end}", String::from_utf8_lossy(piece)).as_bytes());
        }
        Encoded::Whole
    }
}

impl Encoder for LineEncoder {
    fn encode(&mut self, effect: &Effect<'_>, out: &mut Outbox) -> Encoded {
        let counted;
        let (channel, text) = match effect {
            Effect::Deliver { channel, .. } if self.stopped.contains_key(channel) => {
                return Encoded::Stopped { channel: *channel };
            }
            Effect::Deliver { channel, message, .. } => return self.message(*channel, message.body.bytes(), out),
            Effect::Reply { origin, .. } if self.stopped.contains_key(&origin.channel) => {
                return Encoded::Stopped { channel: origin.channel };
            }
            Effect::Reply { origin, reply: Reply::QueueDeclared { messages, .. } } => {
                counted = format!("queue has {messages}");
                (origin.channel, counted.as_str())
            }
            Effect::Reply { origin, reply: Reply::Subscribed { .. } } => (origin.channel, "subscribed"),
            Effect::Return { channel, .. } => (*channel, "returned"),
            Effect::Refused { refusal, .. } => panic!("{refusal}"),
            _ => return Encoded::Whole,
        };
        out.bytes().extend_from_slice(format!("{channel} {text}\n").as_bytes());
        Encoded::Whole
    }

    fn resume(&mut self, channel: u16) {
        self.resumed = self.stopped.remove(&channel).unwrap_or(0);
    }
}

/// A client of the protocol.
pub struct LineClient<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> LineClient<S> {
    /// A client on a connection that was accepted.
    pub fn new(mut stream: S) -> Self {
        stream.write_all(HEADER).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends requests, each of which is a line.
    pub fn send(&mut self, requests: &str) {
        self.stream.get_mut().write_all(format!("{requests}\n").as_bytes()).unwrap();
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// This many bytes, which need not be lines.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything until the server closes the connection; an error is such an end, too.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // What arrived before an error is in `bytes`.
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Asserts that these lines arrive next.
    pub fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line(), *line);
        }
    }
}
