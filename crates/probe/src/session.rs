//! The session of the line protocol.
//!
//! ```text
//! AwaitHeader -> AwaitNode (login, vhost) -> Running <-> Waiting (for an answer, before which nothing is read)
//!                                            Running  -> Closed
//! ```

use std::{collections::BTreeMap, sync::Arc};

use ferrymq_model::{
    Answer, Ask, Body, ChannelOptions, Command, Credit, Dialects, Event, Login, Name, OnRefusal, Origin, Publish,
    PublishExtras, PublishOutcome, Refusal, Reply, SentFile, Settle, Span, TransactionId,
};
use ferrymq_wire::{Moment, Output, Received, Session, Step, Then};
use parking_lot::Mutex;

use crate::{
    dialect::DIALECT,
    encoder::{LineEncoder, text_of},
    request::{Unreadable, ask, channel, deliveries, in_transaction, outcome, subscription},
};

/// What a client sends first.
pub const HEADER: &[u8] = b"LINES 1\n";

/// How many pieces the client takes on each channel. Session and encoder share it.
pub type Windows = Arc<Mutex<BTreeMap<u16, u32>>>;

/// The token of requests whose answers the session does not compose.
const NO_TOKEN: u32 = 0;

/// The session.
#[derive(Debug, Default)]
pub struct Lines {
    pub(crate) windows: Windows,
    pub(crate) file: Option<Arc<dyn SentFile>>,
    pub(crate) dialects: Dialects,
    state: State,
    /// Channels 1 and 2 are open.
    has_usual: bool,
    /// The last token that a put has; each is the number of the put.
    puts: u32,
    /// The answers of which one line is composed, by their tokens.
    parts: Vec<Option<bool>>,
    parts_of: u16,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    AwaitHeader,
    AwaitNode,
    Running,
    /// An answer must come before the next request is read.
    Waiting,
    Closed,
}

impl Lines {
    /// A session whose encoder sends stretches of a file.
    #[must_use]
    pub fn with_file(file: Arc<dyn SentFile>) -> Self {
        Self { file: Some(file), ..Self::default() }
    }

    /// The same, for a server with these dialects.
    #[must_use]
    pub fn with_dialects(self, dialects: Dialects) -> Self {
        Self { dialects, ..self }
    }

    /// Carries out the request in `input[start..end]`.
    fn request(&mut self, input: &[u8], start: usize, end: usize, out: &mut Output) -> Result<(), Unreadable> {
        let line = std::str::from_utf8(&input[start..end]).map_err(|_| Unreadable)?;
        let at = |word: &str| start + word.as_ptr().addr() - line.as_ptr().addr();
        let span = |word: &str| Span { start: at(word) as u32, len: word.len() as u32 };
        let words: Vec<&str> = line.split(' ').collect();
        if matches!(words[0], "declare" | "subscribe" | "publish" | "return") {
            self.open_usual(out);
        }
        match *words {
            ["publish", queue, ..] => {
                let text = &line["publish ".len() + queue.len() + 1..];
                out.command(Command::Publish(publish(origin(1), span(queue), span(text))));
            }
            ["return", ..] => {
                let text = span(&line["return ".len()..]);
                out.command(Command::Publish(publish(origin(1), text, text)));
            }
            ["put", number, queue, text, ..] => {
                let (words, transaction) = in_transaction(&words)?;
                let properties = match words[4..] {
                    [] => Span::default(),
                    ["with", properties] => span(properties),
                    _ => return Err(Unreadable),
                };
                let publish = Publish { properties, ..publish(origin(channel(number)?), span(queue), span(text)) };
                self.put(publish, transaction, out);
            }
            ["topic", number, key, text] => {
                let origin = origin(channel(number)?);
                out.command(Command::Publish(to_exchange("amq.topic", origin, key, text)));
            }
            ["tell", number, ids, ..] => {
                let (words, transaction) = in_transaction(&words)?;
                let (origin, outcome) = (of_session(channel(number)?, NO_TOKEN), outcome(&words[3..])?);
                out.command(Command::Settle(Settle { origin, deliveries: deliveries(ids)?, outcome, transaction }));
            }
            ["window", number, more] => {
                let channel = channel(number)?;
                *self.windows.lock().entry(channel).or_default() += more.parse::<u32>().map_err(|_| Unreadable)?;
                out.steps.push(Step::Resume { channel });
            }
            ["take-all", number, ref queues @ ..] => self.take_all(channel(number)?, queues, out)?,
            ["ping"] => out.send(|out| out.extend_from_slice(b"pong\n")),
            _ => {
                let (channel, ask) = ask(&words)?;
                // What the connection asks for is answered before anything else is read.
                let by_session = channel == 0 && !matches!(ask, Ask::CloseConnection);
                self.state = if by_session { State::Waiting } else { State::Running };
                let origin = if by_session { of_session(channel, NO_TOKEN) } else { origin(channel) };
                out.request(origin, ask);
            }
        }
        Ok(())
    }

    /// Opens channels 1 and 2, which are there without a request.
    fn open_usual(&mut self, out: &mut Output) {
        if std::mem::replace(&mut self.has_usual, true) {
            return;
        }
        for channel in [1, 2] {
            let options = ChannelOptions { on_refusal: OnRefusal::GoOn, ..ChannelOptions::default() };
            out.request(origin(channel).unanswered(true), Ask::OpenChannel(options));
        }
    }

    /// Publishes a durable message; the answer is for the session.
    fn put(&mut self, publish: Publish, transaction: Option<TransactionId>, out: &mut Output) {
        self.puts += 1;
        let rare = transaction.map(|_| Box::new(PublishExtras { transaction, ..PublishExtras::default() }));
        let origin = of_session(publish.origin.channel, self.puts);
        out.command(Command::Publish(Publish { origin, persistent: true, rare, ..publish }));
    }

    /// Subscribes to several queues, and answers when the last answer has come.
    fn take_all(&mut self, channel: u16, queues: &[&str], out: &mut Output) -> Result<(), Unreadable> {
        let subscriptions: Vec<_> = queues
            .iter()
            .map(|queue| subscription(queue, queue, false, Credit::Window(0)))
            .collect::<Result<_, _>>()?;
        self.parts = vec![None; subscriptions.len()];
        self.parts_of = channel;
        self.state = State::Waiting;
        for (token, subscription) in (PARTS..).zip(subscriptions) {
            out.request(of_session(channel, token), Ask::Subscribe(subscription));
        }
        Ok(())
    }

    /// An answer that the session gets.
    fn answered(&mut self, origin: Origin, reply: Result<Reply, Refusal>, out: &mut Output) {
        let channel = origin.channel;
        if let Some(part) = origin.token.checked_sub(PARTS) {
            self.parts[part as usize] = Some(reply.is_ok());
            if let Some(all) = self.parts.iter().copied().collect::<Option<Vec<bool>>>() {
                let words: Vec<&str> = all.iter().map(|ok| if *ok { "yes" } else { "no" }).collect();
                self.state = State::Running;
                line(out, &format!("{channel} took {}", words.join(" ")));
            }
            return;
        }
        let text = match reply {
            Ok(Reply::Attached { was_there, kept_ids }) => {
                let ids: String = kept_ids.iter().map(|(channel, id)| format!(" {channel}#{id}")).collect();
                format!("attached {}{ids}", if was_there { "old" } else { "new" })
            }
            Ok(Reply::Prepared(names)) => {
                let names: String = names.iter().map(|name| format!(" {}", name.escape_ascii())).collect();
                format!("prepared{names}")
            }
            Ok(Reply::Published(outcome)) => {
                let outcome = match outcome {
                    PublishOutcome::Accepted => "accepted",
                    PublishOutcome::Unroutable => "unroutable",
                    PublishOutcome::Refused => "refused",
                };
                format!("put {} {outcome}", origin.token)
            }
            Ok(other) => text_of(&other),
            Err(refusal) if origin.token != NO_TOKEN => format!("put {} failed {refusal}", origin.token),
            Err(refusal) => format!("refused {refusal}"),
        };
        if self.state == State::Waiting {
            self.state = State::Running;
        }
        line(out, &format!("{channel} {text}"));
    }
}

impl Session for Lines {
    fn opened(&mut self, _: Moment, _: &mut Output) {}

    fn receive(&mut self, input: &[u8], _: Moment, out: &mut Output) -> Received {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let then = match self.state {
                State::AwaitHeader if rest.len() < HEADER.len() => Then::More { at_least: HEADER.len() },
                State::AwaitHeader if rest.starts_with(HEADER) => {
                    at += HEADER.len();
                    let (user, password) = (Name::from("guest"), b"guest".to_vec());
                    out.command(Command::Login(Login::Password { user, password }));
                    self.state = State::AwaitNode;
                    continue;
                }
                State::AwaitHeader => {
                    line(out, "0 this is not LINES 1");
                    out.steps.push(Step::Close);
                    self.state = State::Closed;
                    continue;
                }
                State::AwaitNode | State::Waiting => Then::Wait,
                State::Closed => return Received { consumed: input.len(), then: Then::More { at_least: 0 } },
                State::Running => match rest.iter().position(|octet| *octet == b'\n') {
                    Some(length) => {
                        if self.request(input, at, at + length, out).is_err() {
                            line(out, "0 what?");
                        }
                        at += length + 1;
                        if !out.is_full() {
                            continue;
                        }
                        Then::Again
                    }
                    None => Then::More { at_least: 0 },
                },
            };
            return Received { consumed: at, then };
        }
    }

    fn event(&mut self, event: Event, _: Moment, out: &mut Output) {
        match event {
            Event::LoggedIn => {
                let vhost = Name::from("/");
                out.steps.push(Step::Encode(Box::new(LineEncoder::new(self))));
                out.request(origin(0), Ask::OpenVhost { vhost, properties_bytes_max: usize::MAX, client: None });
            }
            Event::VhostOpened => self.state = State::Running,
            Event::Answered { origin, reply } => self.answered(origin, reply, out),
            // The peer has the refusal. A channel that it has ended is closed, so that its number can be used again.
            Event::Refused { origin, .. } if origin.channel > 0 => {
                out.request(Origin { answer: Answer::Nobody, ..origin }, Ask::CloseChannel);
            }
            Event::Refused { .. } | Event::ConnectionClosed => self.close(out),
            Event::Close(refusal) => {
                line(out, &format!("0 closed {refusal}"));
                self.close(out);
            }
            Event::Blocked(_) | Event::Unblocked | Event::Challenge(_) => {}
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

impl Lines {
    fn close(&mut self, out: &mut Output) {
        out.steps.push(Step::Close);
        self.state = State::Closed;
    }
}

/// The tokens of parts of one answer begin here.
const PARTS: u32 = 1 << 31;

fn line(out: &mut Output, text: &str) {
    out.send(|out| {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    });
}

fn origin(channel: u16) -> Origin {
    Origin { channel, ..Origin::default() }
}

fn of_session(channel: u16, token: u32) -> Origin {
    Origin { channel, answer: Answer::Session, token }
}

/// A publish to the default exchange.
fn publish(origin: Origin, routing_key: Span, text: Span) -> Publish {
    Publish {
        origin,
        dialect: DIALECT,
        exchange: Span::default(),
        routing_key,
        properties: Span::default(),
        body: Body::Span(text),
        mandatory: true,
        persistent: false,
        priority: None,
        expiration_ms: None,
        rare: None,
    }
}

/// A publish whose parts do not stand in the input.
fn to_exchange(exchange: &str, origin: Origin, key: &str, text: &str) -> Publish {
    let mut head = Vec::new();
    let mut part = |part: &str| {
        let start = head.len() as u32;
        head.extend_from_slice(part.as_bytes());
        Span { start, len: part.len() as u32 }
    };
    let [exchange, key, text] = [exchange, key, text].map(&mut part);
    let rare = PublishExtras { head: Some(head.into()), ..PublishExtras::default() };
    Publish { exchange, rare: Some(Box::new(rare)), ..publish(origin, key, text) }
}
