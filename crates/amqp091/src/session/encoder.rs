//! Turns effects into frames. Most effects are deliveries, so they must be fast: they are appended directly, and large
//! bodies are shared.

use bytes::Bytes;
use ferrymq_model::{BodyRef, Dialects, Effect, MessageRef, Origin, Refusal, Reply};
use ferrymq_wire::{BufferSpace, Encoded, Outbox, Put};

use crate::{
    codec::{
        content::ContentHeader,
        frame::{FRAME_END, FrameKind, OVERHEAD_BYTES, put_body, put_frame_header, put_header, put_method},
        methods::{self, WireMethod},
    },
    mapping::{self, Violation, short_key},
};

/// Class basic, the only class whose methods have content.
pub(super) const BASIC: u16 = 60;

/// Encodes the effects of one connection, with the limits of its handshake.
#[derive(Debug)]
pub struct FrameEncoder {
    /// The largest frame that both sides agreed on.
    frame_bytes_max: u32,
    /// Whether the client wants to know when the server ends a subscription.
    cancel_notify: bool,
    /// The channels that a refusal closed and that were not opened again. The node may have decided effects between the
    /// refusal and the end of the channel. They must not follow the close method. Almost always empty.
    refused: Vec<u16>,
    /// A refusal closed the connection, so no other frame follows.
    closed: bool,
    /// The dialects that messages may have.
    dialects: Dialects,
}

/// How long the properties of a message can be, so that its header fits into a frame of this length.
pub(super) fn properties_bytes_max(frame_bytes_max: u32) -> usize {
    frame_bytes_max.saturating_sub(OVERHEAD_BYTES) as usize - ContentHeader::BYTES_MIN
}

impl FrameEncoder {
    /// An encoder for a connection with these limits, for messages of these dialects.
    #[must_use]
    pub fn new(frame_bytes_max: u32, cancel_notify: bool, dialects: Dialects) -> Self {
        Self { frame_bytes_max, cancel_notify, refused: Vec::new(), closed: false, dialects }
    }

    /// Whether effects for `channel` may be sent.
    #[inline]
    fn is_open(&self, channel: u16) -> bool {
        !self.closed && (self.refused.is_empty() || !self.refused.contains(&channel))
    }

    fn refuse(&mut self, origin: Origin, refusal: &Refusal, out: &mut Outbox) {
        // The session answers a refused login, because it knows the capabilities of the client.
        if matches!(refusal, Refusal::LoginFailed(_) | Refusal::LoginMalformed(_)) || !self.is_open(origin.channel) {
            return;
        }
        if mapping::put_close(out.bytes(), origin, &Violation::from(refusal)) {
            self.closed = true;
        } else {
            self.refused.push(origin.channel);
        }
    }

    /// Appends a message, with what the server says of it, and the number of times that it came back if its queue tells
    /// this to consumers. The header must not be longer than a frame (section 4.2.3), so what does not fit is left out.
    #[inline]
    fn shown(
        &self,
        channel: u16,
        method: &impl WireMethod,
        attempts: Option<u32>,
        message: &MessageRef<'_>,
        out: &mut Outbox,
    ) {
        let rendered;
        let properties = if attempts.is_none() && mapping::is_plain(message) {
            message.properties
        } else {
            let bytes_max = properties_bytes_max(self.frame_bytes_max);
            rendered = mapping::rendered(message, &self.dialects, attempts, bytes_max);
            &rendered
        };
        let body_bytes = message.body.bytes().len() as u64;
        let header = ContentHeader { class: BASIC, body_bytes, properties };
        let inline: &[u8] = if let BodyRef::Inline(body) = message.body { body } else { &[] };
        let payload_bytes = method.len_bytes() + header.len_bytes() + inline.len();
        let piece_bytes_max = (self.frame_bytes_max - OVERHEAD_BYTES) as usize;
        let pieces = if inline.len() <= piece_bytes_max { 1 } else { inline.len().div_ceil(piece_bytes_max) };
        let frames = 2 + pieces;
        BufferSpace::append(out.bytes(), payload_bytes + frames * OVERHEAD_BYTES as usize, |out| {
            put_method(out, channel, method);
            put_header(out, channel, &header);
            put_body(out, channel, inline, self.frame_bytes_max);
        });
        if let BodyRef::Shared(body) = message.body {
            self.share_body(channel, body, out);
        }
    }

    // AMQP-8
    fn share_body(&self, channel: u16, body: &Bytes, out: &mut Outbox) {
        let piece_bytes_max = (self.frame_bytes_max - OVERHEAD_BYTES) as usize;
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(piece_bytes_max));
            let bytes = out.bytes();
            put_frame_header(bytes, FrameKind::Body, channel, piece.len());
            out.share(piece);
            out.bytes().put_u8(FRAME_END);
            out.end_frame();
        }
    }
}

impl ferrymq_wire::Encoder for FrameEncoder {
    /// Never stops: AMQP 0-9-1 has no window for what the server sends, and credit is the node's.
    fn encode(&mut self, effect: &Effect<'_>, out: &mut Outbox) -> Encoded {
        match *effect {
            Effect::Frames(frames) => out.bytes().put(frames),
            Effect::Deliver { channel, tag, delivery_tag, redelivered, attempts, ref message }
                if self.is_open(channel) =>
            {
                let (exchange, routing_key) = (message.exchange.as_bytes(), short_key(message.routing_key));
                let consumer_tag = tag.as_bytes();
                let deliver = methods::BasicDeliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key };
                // As in RabbitMQ, a consumer gets no count for the first delivery, and `basic.get` always has one.
                // (AMQP-67)
                self.shown(channel, &deliver, attempts.filter(|attempts| *attempts > 0), message, out);
            }
            Effect::Got { channel, delivery_tag, redelivered, attempts, remaining, ref message }
                if self.is_open(channel) =>
            {
                let (exchange, routing_key) = (message.exchange.as_bytes(), short_key(message.routing_key));
                let message_count = mapping::count(remaining);
                let got = methods::BasicGetOk { delivery_tag, redelivered, exchange, routing_key, message_count };
                self.shown(channel, &got, attempts, message, out);
            }
            Effect::Return { channel, reason, ref message } if self.is_open(channel) => {
                let (code, text) = mapping::return_reason(reason);
                let (reply_code, reply_text) = (code.number(), text.as_bytes());
                let (exchange, routing_key) = (message.exchange.as_bytes(), short_key(message.routing_key));
                let returned = methods::BasicReturn { reply_code, reply_text, exchange, routing_key };
                self.shown(channel, &returned, None, message, out);
            }
            Effect::Confirm { channel, publish_tag: delivery_tag, multiple } if self.is_open(channel) => {
                put_method(out.bytes(), channel, &methods::BasicAck { delivery_tag, multiple });
            }
            Effect::NotConfirmed { channel, publish_tag: delivery_tag } if self.is_open(channel) => {
                let nack = methods::BasicNack { delivery_tag, multiple: false, requeue: true };
                put_method(out.bytes(), channel, &nack);
            }
            // AMQP-33
            Effect::Cancelled { channel, tag } if self.cancel_notify && self.is_open(channel) => {
                put_method(out.bytes(), channel, &methods::BasicCancel { consumer_tag: tag, no_wait: true });
            }
            Effect::Reply { origin, reply } if !self.closed => {
                // If client and server close a channel at the same time, each sends a close-ok. After that, a channel
                // with this number is a new channel.
                if matches!(reply, Reply::ChannelOpened | Reply::ChannelClosed) {
                    self.refused.retain(|channel| *channel != origin.channel);
                }
                if self.is_open(origin.channel) {
                    mapping::put_reply(out.bytes(), origin, reply);
                }
            }
            Effect::Refused { origin, refusal } => self.refuse(origin, refusal, out),
            // A message for a channel that a refusal has closed, or a method that the client does not support.
            _ => {}
        }
        Encoded::Whole
    }
}

#[cfg(test)]
mod tests {
    use ferrymq_model::{DeadLetter, Death, DeathReason, Dialect, Time};
    use ferrymq_wire::{Encoder as _, Parsed};

    use super::*;
    use crate::{
        codec::{
            content::Properties,
            frame::frame,
            table::{RawTable, RawValue, put_key, put_value},
        },
        mapping::{DIALECT, PropertyList},
    };

    const FRAME_BYTES_MAX: u32 = 4096;

    fn encoder() -> FrameEncoder {
        let own: &'static dyn Dialect = &PropertyList;
        FrameEncoder::new(FRAME_BYTES_MAX, true, Dialects::new([own]))
    }

    /// Properties with one header of the publisher, which make a header frame of `frame_bytes`.
    fn published(frame_bytes: usize) -> Vec<u8> {
        let with = |text: &str| {
            let mut headers = Vec::new();
            put_key(&mut headers, "own");
            put_value(&mut headers, &RawValue::Text(text.as_bytes()));
            let headers = Some(RawTable::check(&headers).unwrap());
            let mut properties = Vec::new();
            Properties { headers, ..Properties::default() }.write(&mut properties);
            properties
        };
        let fixed = with("").len() + ContentHeader::BYTES_MIN + OVERHEAD_BYTES as usize;
        with(&"x".repeat(frame_bytes - fixed))
    }

    fn message(properties: &[u8]) -> MessageRef<'_> {
        MessageRef {
            dialect: DIALECT,
            exchange: "",
            routing_key: b"second",
            properties,
            annotations: &[],
            body: BodyRef::Inline(&[]),
        }
    }

    /// The frames of a delivery.
    fn delivered(encoder: &mut FrameEncoder, attempts: Option<u32>, message: MessageRef<'_>) -> Vec<u8> {
        let mut out = Outbox::default();
        let deliver = Effect::Deliver { channel: 1, tag: "t", delivery_tag: 1, redelivered: true, attempts, message };
        assert_eq!(encoder.encode(&deliver, &mut out), Encoded::Whole);
        out.bytes().clone()
    }

    /// The names of the headers that the client gets.
    fn header_names(frames: &[u8]) -> Vec<String> {
        let Parsed::Frame(_, method_bytes) = frame(frames, FRAME_BYTES_MAX) else { panic!("a method") };
        let Parsed::Frame(header, header_bytes) = frame(&frames[method_bytes..], FRAME_BYTES_MAX) else {
            panic!("a header that is not longer than frame_max")
        };
        assert_eq!(frames.len(), method_bytes + header_bytes);
        let properties = Properties::read(ContentHeader::read(header.payload).unwrap().properties).unwrap();
        properties.headers.unwrap().entries().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_count_of_attempts_is_left_out_where_it_does_not_fit() {
        let mut encoder = encoder();
        let mut names = |properties: &[u8]| header_names(&delivered(&mut encoder, Some(1), message(properties)));
        assert_eq!(names(&published(4000)), ["own", "x-delivery-count"]);
        assert_eq!(names(&published(4096)), ["own"]);
    }

    #[test]
    fn headers_of_the_server_are_left_out_where_they_do_not_fit() {
        let mut encoder = encoder();
        let mut names = |frame_bytes: usize, attempts| {
            let properties = published(frame_bytes);
            let death = Death { queue: "first", reason: DeathReason::Rejected, new_key: false, at: Time(1_000) };
            let annotations = DeadLetter::of(&message(&properties), &PropertyList, &death).annotations;
            header_names(&delivered(
                &mut encoder,
                attempts,
                MessageRef { annotations: &annotations, ..message(&properties) },
            ))
        };
        assert!(names(1000, Some(1)).contains(&"x-death".to_owned()));
        assert!(names(1000, Some(1)).contains(&"x-delivery-count".to_owned()));
        assert_eq!(names(4000, Some(1)), ["own", "x-delivery-count"]);
        assert_eq!(names(4096, Some(1)), ["own"]);
        assert_eq!(names(4096, None), ["own"]);
    }
}
