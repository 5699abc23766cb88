//! The encoder of the line protocol, which stops in the middle of a message when a window is shut.

use std::{collections::BTreeMap, sync::Arc};

use ferrymq_model::{Annotations, Dialect as _, Dialects, Effect, FileStretch, MessageRef, Reply, SentFile};
use ferrymq_wire::{Encoded, Encoder, Outbox};

use crate::{
    dialect::{DIALECT, Pairs},
    session::{Lines, Windows},
};

/// The length of a piece of a message, in octets.
const PIECE_BYTES: usize = 4;

/// The channels with windows.
const WITH_WINDOWS: std::ops::RangeInclusive<u16> = 1..=2;

/// The encoder.
#[derive(Debug)]
pub struct LineEncoder {
    windows: Windows,
    file: Option<Arc<dyn SentFile>>,
    dialects: Dialects,
    /// The channels on which it has stopped, and how many octets of the first message there are written.
    stopped: BTreeMap<u16, usize>,
    /// How many octets of the first message of the channel that goes on are written.
    resumed: usize,
}

impl LineEncoder {
    pub fn new(lines: &Lines) -> Self {
        Self {
            windows: lines.windows.clone(),
            file: lines.file.clone(),
            dialects: lines.dialects.clone(),
            stopped: BTreeMap::new(),
            resumed: 0,
        }
    }

    /// The stretch of the file that a message asks for.
    fn stretch(&self, text: &[u8]) -> Option<FileStretch> {
        let words: Vec<&str> = std::str::from_utf8(text).ok()?.split(' ').collect();
        let ["file", position, bytes] = *words else { return None };
        let (position, bytes) = (position.parse().ok()?, bytes.parse().ok()?);
        Some(FileStretch { file: self.file.clone()?, position, bytes })
    }

    /// The properties as this protocol has them.
    fn properties(&self, message: &MessageRef<'_>) -> String {
        let properties = if message.dialect == DIALECT && message.annotations.is_empty() {
            message.properties.to_vec()
        } else {
            Pairs.write(&self.dialects.head(message)).unwrap_or_default()
        };
        if properties.is_empty() { String::new() } else { format!(" {{{}}}", String::from_utf8_lossy(&properties)) }
    }

    /// Writes pieces of a message as long as the window is open.
    fn pieces(&mut self, channel: u16, text: &[u8], out: &mut Outbox) -> Encoded {
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
            let end = if written == text.len() { "." } else { "" };
            line(out, &format!("{channel} {}{end}", String::from_utf8_lossy(piece)));
        }
        Encoded::Whole
    }

    fn message(&mut self, channel: u16, before: &str, message: &MessageRef<'_>, out: &mut Outbox) -> Encoded {
        let text = message.body.bytes();
        if let Some(stretch) = self.stretch(text) {
            out.bytes().extend_from_slice(b"here it is\n");
            out.send_file(stretch);
            out.bytes().extend_from_slice(b"\nthat was it\n");
            return Encoded::Whole;
        }
        if WITH_WINDOWS.contains(&channel) {
            return self.pieces(channel, text, out);
        }
        let (text, properties) = (String::from_utf8_lossy(text), self.properties(message));
        line(out, &format!("{channel} {before} {text}{properties}{}", bindings(message)));
        Encoded::Whole
    }
}

/// The bindings through which a message came, if they ask to be named.
fn bindings(message: &MessageRef<'_>) -> String {
    let bindings = Annotations::read(message.annotations).bindings;
    bindings.iter().map(|number| format!(" by {number}")).collect()
}

/// The text of an answer.
pub fn text_of(reply: &Reply) -> String {
    match reply {
        Reply::QueueDeclared { messages, .. } => format!("queue has {messages}"),
        Reply::ChannelOpened => "open".to_owned(),
        Reply::ChannelClosed => "closed".to_owned(),
        Reply::Bound => "bound".to_owned(),
        Reply::ConfirmSelected => "confirms".to_owned(),
        Reply::Subscribed { tag } if tag.starts_with("amq.") => "subscribed".to_owned(),
        Reply::Subscribed { tag } => format!("taking {tag}"),
        Reply::CreditSet => "credit".to_owned(),
        Reply::GetEmpty => "empty".to_owned(),
        Reply::TxBegun => "begun".to_owned(),
        Reply::TxCommitted => "committed".to_owned(),
        Reply::TxRolledBack => "rolled back".to_owned(),
        Reply::TxPrepared => "prepared".to_owned(),
        Reply::SessionKept => "kept".to_owned(),
        Reply::ConnectionClosed => "bye".to_owned(),
        other => format!("{other:?}"),
    }
}

fn again(redelivered: bool) -> &'static str {
    if redelivered { "!" } else { "" }
}

impl Encoder for LineEncoder {
    fn encode(&mut self, effect: &Effect<'_>, out: &mut Outbox) -> Encoded {
        let (channel, text) = match effect {
            Effect::Deliver { channel, .. } if self.stopped.contains_key(channel) => {
                return Encoded::Stopped { channel: *channel };
            }
            Effect::Deliver { channel, tag, delivery_tag, redelivered, message, .. } => {
                let before = format!("{tag} #{delivery_tag}{}", again(*redelivered));
                return self.message(*channel, &before, message, out);
            }
            Effect::Got { channel, delivery_tag, redelivered, message, .. } => {
                let text = String::from_utf8_lossy(message.body.bytes());
                let properties = self.properties(message);
                (*channel, format!("got #{delivery_tag}{} {text}{properties}", again(*redelivered)))
            }
            Effect::CreditLapsed { channel, tag, left } => (*channel, format!("{tag} lapsed {left}")),
            Effect::Cancelled { channel, tag } => (*channel, format!("{tag} cancelled")),
            Effect::Reply { origin, .. } if self.stopped.contains_key(&origin.channel) => {
                return Encoded::Stopped { channel: origin.channel };
            }
            Effect::Reply { reply: Reply::VhostOpened, .. } => return Encoded::Whole,
            Effect::Reply { origin, reply } => (origin.channel, text_of(reply)),
            Effect::Return { channel, .. } => (*channel, "returned".to_owned()),
            Effect::Refused { origin, refusal } => (origin.channel, format!("refused {refusal}")),
            Effect::Frames(bytes) => {
                out.bytes().extend_from_slice(bytes);
                return Encoded::Whole;
            }
            Effect::Confirm { .. } | Effect::NotConfirmed { .. } => return Encoded::Whole,
        };
        line(out, &format!("{channel} {text}"));
        Encoded::Whole
    }

    fn resume(&mut self, channel: u16) {
        self.resumed = self.stopped.remove(&channel).unwrap_or(0);
    }
}

fn line(out: &mut Outbox, text: &str) {
    let bytes = out.bytes();
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
}
