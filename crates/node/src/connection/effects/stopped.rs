//! Effects at which an encoder has stopped, because the client's window is shut.

use std::collections::BTreeMap;

use ferrymq_model::Effect;

use super::{Cut, Effects, Record};

/// Effects at which an encoder has stopped, in their order on each channel.
#[derive(Debug, Default)]
pub struct StoppedEffects {
    /// No queue is empty.
    channels: BTreeMap<u16, Queue>,
    bytes: usize,
}

/// The effects of a channel. Those before `next` are encoded.
#[derive(Debug, Default)]
struct Queue {
    effects: Effects,
    next: Next,
}

/// How much of a queue is encoded.
#[derive(Debug, Default)]
struct Next {
    records: usize,
    texts: usize,
    bytes: usize,
}

impl Effects {
    /// Calls `encode` for every effect, in order. An effect for which it names a channel is copied to the end of that
    /// channel's queue in `stopped`.
    #[inline]
    pub fn encode_each(&self, stopped: &mut StoppedEffects, mut encode: impl FnMut(&Effect<'_>) -> Option<u16>) {
        let mut rest = Cut { texts: &self.texts, bytes: &self.bytes };
        for record in &self.records {
            let before = rest;
            if let Some(channel) = encode(&record.view(&mut rest)) {
                stopped.push(channel, record, before);
            }
        }
    }
}

impl StoppedEffects {
    /// The memory that they take, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an effect, whose texts and bytes are at the front of `parts`.
    fn push(&mut self, channel: u16, record: &Record, parts: Cut<'_>) {
        let queue = self.channels.entry(channel).or_default();
        queue.effects.texts.push_str(&parts.texts[..record.len_texts()]);
        queue.effects.bytes.extend_from_slice(&parts.bytes[..record.len_bytes()]);
        queue.effects.records.push(record.clone());
        self.bytes += record.memory_bytes();
    }

    /// Calls `encode` for the effects of a channel, in order, until it returns that it has stopped again (false). The
    /// others are removed.
    pub fn resume(&mut self, channel: u16, mut encode: impl FnMut(&Effect<'_>) -> bool) {
        let Some(Queue { effects, next }) = self.channels.get_mut(&channel) else { return };
        let mut rest = Cut { texts: &effects.texts[next.texts..], bytes: &effects.bytes[next.bytes..] };
        let first = next.records;
        for record in &effects.records[first..] {
            if !encode(&record.view(&mut rest)) {
                break;
            }
            next.records += 1;
            next.texts += record.len_texts();
            next.bytes += record.len_bytes();
            self.bytes -= record.memory_bytes();
        }
        // Shared bodies are not kept until the others are encoded.
        effects.records[first..next.records].fill(Record::Frames { len: 0 });
        if next.records == effects.records.len() {
            self.channels.remove(&channel);
        } else if next.records * 2 >= effects.records.len() {
            effects.records.drain(..next.records);
            effects.texts.drain(..next.texts);
            effects.bytes.drain(..next.bytes);
            *next = Next::default();
        }
    }
}

impl Record {
    /// The memory that it takes with its texts and bytes.
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.len_texts() + self.len_bytes() + self.shared_bytes()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferrymq_model::{BodyRef, DialectId, MessageRef, Name, ReturnReason};

    use super::*;

    fn returned(effects: &mut Effects, channel: u16, key: &str, body: BodyRef<'_>) {
        let message = MessageRef {
            dialect: DialectId(1),
            exchange: "exchange",
            routing_key: key.as_bytes(),
            properties: b"properties",
            annotations: &[],
            body,
        };
        effects.returned(channel, ReturnReason::Unroutable, &message);
    }

    fn text(effect: &Effect<'_>) -> String {
        match effect {
            Effect::Return { channel, message, .. } => format!(
                "{channel} {} {} {}",
                message.exchange,
                String::from_utf8_lossy(message.routing_key),
                String::from_utf8_lossy(message.body.bytes())
            ),
            Effect::Cancelled { channel, tag } => format!("{channel} cancelled {tag}"),
            other => panic!("{other:?}"),
        }
    }

    fn channel(effect: &Effect<'_>) -> u16 {
        match effect {
            Effect::Return { channel, .. } | Effect::Cancelled { channel, .. } => *channel,
            other => panic!("{other:?}"),
        }
    }

    /// However few effects are encoded at a time, each channel has its own in order, and each one once.
    #[test]
    fn effects_go_on_in_order_on_each_channel() {
        let shared = Bytes::from(vec![b's'; 3_000]);
        for at_once in 1..12 {
            let (mut effects, mut stopped) = (Effects::default(), StoppedEffects::default());
            let mut expected: [Vec<String>; 3] = Default::default();
            for round in 0..3_u16 {
                for number in 0..10_u16 {
                    let (channel, key) = (number % 3, format!("key{round}{number}"));
                    match number {
                        3 => returned(&mut effects, channel, &key, BodyRef::Shared(&shared)),
                        4 => effects.cancelled(channel, Name::from(key.as_str())),
                        _ => returned(&mut effects, channel, &key, BodyRef::Inline(b"inline")),
                    }
                }
                effects.for_each(|effect| expected[usize::from(channel(effect))].push(text(effect)));
                effects.encode_each(&mut stopped, |effect| Some(channel(effect)));
                effects = Effects::default();
            }
            assert!(stopped.len_bytes() > 9_000, "three shared bodies count");
            for (channel, expected) in (0_u16..).zip(expected) {
                let mut got = Vec::new();
                while got.len() < expected.len() {
                    let mut left = at_once;
                    stopped.resume(channel, |effect| {
                        if left > 0 {
                            got.push(text(effect));
                        }
                        left -= 1;
                        left >= 0
                    });
                }
                assert_eq!(got, expected, "{at_once} at a time");
            }
            assert_eq!(stopped.len_bytes(), 0);
        }
    }

    #[test]
    fn what_is_not_stopped_is_not_kept() {
        let (mut effects, mut stopped) = (Effects::default(), StoppedEffects::default());
        returned(&mut effects, 1, "key", BodyRef::Inline(b"body"));
        effects.encode_each(&mut stopped, |_| None);
        assert_eq!(stopped.len_bytes(), 0);
        stopped.resume(1, |_| panic!("nothing waits"));
    }
}
