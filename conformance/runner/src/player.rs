//! Plays the steps of a script in order, and records the answers of the server.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::time::Duration;

use crate::amqp::{self, Fields};
use crate::cleaning;
use crate::expectation;
use crate::inbox::Received;
use crate::notation::{Arguments, Captures, Term};
use crate::peers::Peers;
use crate::recording::Transcript;
use crate::script::{Part, Script, Side, Step};
use crate::spec::{FieldKind, Spec};
use crate::target::Target;
use crate::value::{Item, Value};

/// Whose answers are expected where FerryMQ differs from RabbitMQ on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Ours,
    Theirs,
}

/// The server at a target, from the server properties that it sends.
#[derive(Debug, Clone)]
pub struct Server {
    pub whose: Whose,
    /// `RabbitMQ 3.10.8`.
    pub title: String,
}

/// Asks a target for its name and version.
pub fn identify(target: &mut dyn Target) -> Result<Server, String> {
    let mut peers = Peers::new(target);
    let properties = peers.connect(0, Arguments::default(), &Captures::new())?;
    peers.close(0)?;
    let text = |name: &str| {
        let item = properties.iter().find(|(found, _)| found == name).map(|(_, item)| item);
        if let Some(Item::Text(_, text)) = item { String::from_utf8_lossy(text).into_owned() } else { String::new() }
    };
    let ours = text("x-product") == "FerryMQ";
    let prefix = if ours { "x-" } else { "" };
    Ok(Server {
        whose: if ours { Whose::Ours } else { Whose::Theirs },
        title: format!("{} {}", text(&format!("{prefix}product")), text(&format!("{prefix}version"))),
    })
}

/// Plays a whole script. Everything that it declares is deleted afterwards. It is also deleted before, because an
/// earlier run may not have reached its end.
pub fn play(script: &Script, target: &mut dyn Target, whose: Whose) -> Result<Transcript, String> {
    cleaning::delete(target, &script.declared())?;
    let mut player = Player {
        peers: Peers::new(&mut *target),
        captures: Captures::new(),
        transcript: Transcript::default(),
        confirmed: HashMap::new(),
        mark: Duration::ZERO,
    };
    let played = player.play(script, whose);
    player.leave();
    let Player { captures, transcript, .. } = player;
    let mut declared = script.declared();
    declared.extend(cleaning::server_named(&captures));
    played.and(cleaning::delete(target, &declared)).map(|()| transcript)
}

/// How long `T: until` waits between two checks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long `T: until` waits before it fails. A test that passes does not depend on this time.
const WAIT_MAX: Duration = Duration::from_secs(20);

struct Player<'t> {
    peers: Peers<'t>,
    captures: Captures,
    transcript: Transcript,
    /// The publishes that the server has confirmed, by connection and channel.
    confirmed: HashMap<(usize, u16), BTreeSet<u64>>,
    /// The time of the last `T: mark`.
    mark: Duration,
}

impl Player<'_> {
    fn play(&mut self, script: &Script, whose: Whose) -> Result<(), String> {
        let mut run = Vec::new();
        for part in &script.parts {
            match part {
                Part::Step(step) => run.push(step.clone()),
                Part::Difference { reason, ours, theirs } => {
                    self.steps(&script.name, &std::mem::take(&mut run))?;
                    self.transcript.begin_difference(reason);
                    self.steps(&script.name, if whose == Whose::Ours { ours } else { theirs })?;
                    self.transcript.end_difference();
                }
            }
        }
        self.steps(&script.name, &run)?;
        self.nothing_left().map_err(|why| format!("{}: at the end: {why}", script.name))
    }

    fn steps(&mut self, name: &str, steps: &[Step]) -> Result<(), String> {
        let together =
            |a: &Step, b: &Step| a.unordered && b.unordered && (a.connection, a.channel) == (b.connection, b.channel);
        for group in steps.chunk_by(together) {
            let step = &group[0];
            let played = match step.side {
                Side::Client => self.client_step(step),
                Side::Server if step.unordered => self.expect_in_any_order(group),
                Side::Server => self.server_step(step),
                Side::Time => self.time_step(step),
            };
            played.map_err(|why| format!("{name}:{}: {why}", step.line))?;
        }
        Ok(())
    }

    fn client_step(&mut self, step: &Step) -> Result<(), String> {
        let Step { connection, channel, arguments, .. } = step;
        let (connection, channel, mut arguments) = (*connection, *channel, arguments.clone());
        match step.verb.as_str() {
            "connect" => self.peers.connect(connection, arguments, &self.captures).map(drop),
            "tcp" => self.peers.open(connection),
            "header" => {
                let version = octets(&arguments.words, 10)?;
                let header = if version.is_empty() { &amqp::PROTOCOL_HEADER[4..] } else { &version };
                self.peers.send(connection, &[b"AMQP", header].concat())
            }
            "bytes" => {
                let mut bytes = octets(&arguments.words, 16)?;
                if let Some(Value::Text(text)) = self.option(&mut arguments, "text", FieldKind::LongText)? {
                    bytes.extend_from_slice(&text);
                }
                self.peers.send(connection, &bytes)
            }
            "heartbeat" => self.peers.send_frame(connection, channel, amqp::FRAME_HEARTBEAT, &[]),
            "content-header" => {
                let body_bytes = match self.option(&mut arguments, "body-bytes", FieldKind::LongLong)? {
                    Some(Value::Number(count)) => count,
                    _ => return Err("content-header needs body-bytes".to_owned()),
                };
                let properties = self.properties(arguments)?;
                let payload = amqp::header_payload(body_bytes, &properties)?;
                self.peers.send_frame(connection, channel, amqp::FRAME_HEADER, &payload)
            }
            "content-body" => match self.option(&mut arguments, "body", FieldKind::LongText)? {
                Some(Value::Text(body)) => self.peers.send_frame(connection, channel, amqp::FRAME_BODY, &body),
                _ => Err("content-body needs body".to_owned()),
            },
            "drop" => self.peers.abandon(connection),
            method => self.send_method(connection, channel, method, arguments),
        }
    }

    /// Sends a method, and its content if the line has a body.
    fn send_method(
        &mut self,
        connection: usize,
        channel: u16,
        name: &str,
        mut arguments: Arguments,
    ) -> Result<(), String> {
        let method = Spec::amqp091().method(name).ok_or_else(|| format!("there is no method {name}"))?;
        let mut fields = Fields::new();
        for field in &method.fields {
            if let Some(value) = self.option(&mut arguments, &field.name, field.kind)? {
                fields.push((field.name.clone(), value));
            }
        }
        let body = self.option(&mut arguments, "body", FieldKind::LongText)?;
        let properties = self.properties(arguments)?;
        if body.is_none() && !properties.is_empty() {
            return Err(format!("{name} has no field `{}`, and no body that could have properties", properties[0].0));
        }
        if name == "channel.open" {
            // On a new channel, publishes count from 1 again.
            self.confirmed.remove(&(connection, channel));
        }
        self.peers.send_method(connection, channel, name, &fields)?;
        let Some(Value::Text(body)) = body else { return Ok(()) };
        let header = amqp::header_payload(body.len() as u64, &properties)?;
        self.peers.send_frame(connection, channel, amqp::FRAME_HEADER, &header)?;
        let frame_bytes_max = match self.peers.frame_bytes_max(connection)? {
            0 => usize::MAX,
            most => most - amqp::FRAME_OVERHEAD,
        };
        let mut frames = body.chunks(frame_bytes_max);
        frames.try_for_each(|part| self.peers.send_frame(connection, channel, amqp::FRAME_BODY, part))
    }

    fn option(&self, arguments: &mut Arguments, name: &str, kind: FieldKind) -> Result<Option<Value>, String> {
        let term = arguments.take(name);
        let value = term.map(|term: Term| term.resolve(kind, &self.captures)).transpose();
        value.map_err(|why| format!("{name}: {why}"))
    }

    fn properties(&self, mut arguments: Arguments) -> Result<Fields, String> {
        let mut properties = Fields::new();
        for field in &Spec::amqp091().properties {
            if let Some(value) = self.option(&mut arguments, &field.name, field.kind)? {
                properties.push((field.name.clone(), value));
            }
        }
        match arguments.named.first() {
            Some((name, _)) => Err(format!("there is no field or property `{name}`")),
            None => Ok(properties),
        }
    }

    fn server_step(&mut self, step: &Step) -> Result<(), String> {
        match step.verb.as_str() {
            "nothing" => self.expect_nothing(step),
            "eof" => {
                self.peers.wait_closed(step.connection)?;
                self.transcript.add(step, "eof");
                Ok(())
            }
            "confirmed" => self.expect_confirmed(step),
            _ => {
                let received = self.next(step)?;
                let shown = expectation::check(step, &received, &mut self.captures)?;
                self.transcript.add(step, &shown);
                Ok(())
            }
        }
    }

    /// The next message. Heartbeats are skipped unless the line expects one, because they can come at any time.
    fn next(&mut self, step: &Step) -> Result<Received, String> {
        loop {
            let wait = self.peers.wait(step.connection, step.channel);
            wait.map_err(|why| format!("expected {}: {why}", step.verb))?;
            let received =
                self.peers.inbox(step.connection)?.pop(step.channel).expect("the wait has ended with a message");
            if received.name != "heartbeat" || step.verb == "heartbeat" {
                return Ok(received);
            }
        }
    }

    fn expect_in_any_order(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut received = steps.iter().map(|step| self.next(step)).collect::<Result<Vec<_>, _>>()?;
        for step in steps {
            let fits = |candidate: &Received| expectation::check(step, candidate, &mut self.captures.clone()).is_ok();
            let index = received.iter().position(fits).ok_or_else(|| {
                let got: Vec<String> = received.iter().map(Received::to_string).collect();
                format!("line {}: none of these is the expected message: {}", step.line, got.join("; "))
            })?;
            let shown = expectation::check(step, &received.remove(index), &mut self.captures)?;
            self.transcript.add(step, &shown);
        }
        Ok(())
    }

    fn expect_nothing(&mut self, step: &Step) -> Result<(), String> {
        let mut arguments = step.arguments.clone();
        let queue = self.option(&mut arguments, "queue", FieldKind::ShortText)?;
        let before = match arguments.take("before") {
            Some(Term::Word(word)) => milliseconds(&word)?,
            Some(_) => return Err("`before=500ms`".to_owned()),
            None => Duration::MAX,
        };
        self.peers.round_trip(step.connection, step.channel, queue)?;
        let passed = self.peers.target().time().saturating_sub(self.mark);
        match self.peers.inbox(step.connection)?.front(step.channel) {
            // The machine was too slow to check in time. The message that has come is for the lines that follow.
            Some(_) if passed >= before => Ok(()),
            Some(received) => Err(format!("expected nothing, got {received}")),
            None => Ok(()),
        }
    }

    /// `confirmed 1-5`: confirms for these publishes, in any grouping, and for no later publish.
    fn expect_confirmed(&mut self, step: &Step) -> Result<(), String> {
        let [range] = step.arguments.words.as_slice() else { return Err("confirmed FIRST-LAST".to_owned()) };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u64>().map_err(|why| format!("`{text}`: {why}"));
        let (first, last) = (number(first)?, number(last)?);
        let place = (step.connection, step.channel);
        let mut confirmed = self.confirmed.remove(&place).unwrap_or_default();
        while !(first..=last).all(|tag| confirmed.contains(&tag)) {
            let received = self.next(step)?;
            let ("basic.ack", Some(Value::Number(tag)), Some(Value::Bit(multiple))) =
                (received.name.as_str(), received.field("delivery-tag"), received.field("multiple"))
            else {
                return Err(format!("expected a confirm, got {received}"));
            };
            let lowest = if *multiple { 1 } else { *tag };
            let news = (lowest..=*tag).filter(|tag| confirmed.insert(*tag)).count();
            if news == 0 {
                return Err(format!("confirmed again: {received}"));
            }
        }
        if let Some(early) = confirmed.iter().next_back().filter(|tag| **tag > last) {
            return Err(format!("{early} was confirmed too"));
        }
        self.confirmed.insert(place, confirmed);
        self.transcript.add(step, &format!("confirmed {range}"));
        Ok(())
    }

    fn time_step(&mut self, step: &Step) -> Result<(), String> {
        match step.verb.as_str() {
            "mark" => self.mark = self.peers.target().time(),
            "until" => return self.wait_until(step),
            passes => {
                let passes = passes.strip_prefix('+').ok_or("a time is written as `T: +500ms`")?;
                self.peers.target().advance(milliseconds(passes)?);
            }
        }
        Ok(())
    }

    /// `until queue=q message-count=2`: checks again and again until this many messages are ready in the queue.
    fn wait_until(&mut self, step: &Step) -> Result<(), String> {
        let mut arguments = step.arguments.clone();
        let queue = self.option(&mut arguments, "queue", FieldKind::ShortText)?.ok_or("until queue=...")?;
        let wanted = self.option(&mut arguments, "message-count", FieldKind::Long)?.ok_or("until message-count=...")?;
        let begun = self.peers.target().time();
        loop {
            let ready = self.peers.messages_ready(step.connection, step.channel, queue.clone())?;
            if ready == wanted {
                return Ok(());
            }
            if self.peers.target().time() - begun > WAIT_MAX {
                return Err(format!("waited for message-count={wanted}, but it is still {ready}"));
            }
            self.peers.target().advance(LOOK_EVERY);
        }
    }

    /// Fails if the server has sent a message that no line expects.
    fn nothing_left(&mut self) -> Result<(), String> {
        for number in self.peers.numbers() {
            if let Some((channel, received)) = self.peers.inbox(number)?.leftover() {
                return Err(format!("S{number}.{channel} was not expected: {received}"));
            }
        }
        Ok(())
    }

    /// Closes all connections. The result does not count, because this is not part of the conversation.
    fn leave(&mut self) {
        for number in self.peers.numbers() {
            let _ = self.peers.close(number);
        }
    }
}

/// Reads a duration such as `500ms`.
fn milliseconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix("ms").and_then(|ms| ms.parse().ok());
    number.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is not a number of milliseconds, such as 500ms"))
}

fn octets(words: &[String], radix: u32) -> Result<Vec<u8>, String> {
    let octet = |word: &String| u8::from_str_radix(word, radix).map_err(|why| format!("`{word}`: {why}"));
    words.iter().map(octet).collect()
}
