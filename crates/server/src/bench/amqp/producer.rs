//! A producer's bytes and its confirms.

use std::collections::BTreeSet;

use super::connection::Confirm;
use super::frames::*;
use super::load::Load;
use crate::bench::Failure;
use crate::bench::verify::{IDENTITY_BYTES, Identity};

/// The maximum length of one write, unless a single message is longer.
const BATCH_BYTES: usize = 64 * 1024;

/// Publish frames for a batch of messages, encoded once. Sending only changes the eight bytes that identify a
/// message.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    message_bytes: usize,
    identity_at: usize,
    /// The routing keys that are used in turn, and their position in the frames.
    keys: Vec<Vec<u8>>,
    key_at: usize,
    producer: u16,
}

impl Batch {
    pub fn new(load: &Load, producer: u16, body_frame_bytes_max: usize) -> Batch {
        let mut out = Outgoing::default();
        let (exchange, key) = load.address(0);
        out.method(CHANNEL, BASIC_PUBLISH, |out| {
            out.u16(0).short(&exchange).short(&key).u8(0);
        });
        // The flags and the frame's end octet follow the key.
        let key_at = out.0.len() - 2 - key.len();
        let keys = load.routing_keys().into_iter().map(String::into_bytes).collect();
        out.frame(HEADER, CHANNEL, |out| {
            out.u16(BASIC_PUBLISH.0).u16(0).u64(load.body_bytes as u64);
            // delivery-mode is the fourth property from the top; absent it is transient.
            if load.persistent {
                out.u16(1 << 12).u8(2);
            } else {
                out.u16(0);
            }
        });
        let identity_at = out.0.len() + FRAME_OVERHEAD_BYTES - 1;
        for part in filling(load.body_bytes).chunks(body_frame_bytes_max) {
            out.frame(BODY, CHANNEL, |out| {
                out.bytes(part);
            });
        }
        let message_bytes = out.0.len();
        let messages = (BATCH_BYTES / message_bytes).max(1);
        Batch { bytes: out.0.repeat(messages), message_bytes, identity_at, keys, key_at, producer }
    }

    /// Messages that one write can carry.
    pub fn messages_max(&self) -> u64 {
        (self.bytes.len() / self.message_bytes) as u64
    }

    /// The bytes of `count` messages from `sequence` on; at most `messages_max`.
    pub fn encode(&mut self, sequence: u64, count: u64) -> &[u8] {
        let bytes = &mut self.bytes[..count as usize * self.message_bytes];
        for (message, sequence) in bytes.chunks_exact_mut(self.message_bytes).zip(sequence..) {
            let id = Identity { producer: self.producer, sequence };
            message[self.identity_at..][..IDENTITY_BYTES].copy_from_slice(&id.to_bytes());
            if let Some(queue) = sequence.checked_rem(self.keys.len() as u64) {
                let key = &self.keys[queue as usize];
                message[self.key_at..][..key.len()].copy_from_slice(key);
            }
        }
        bytes
    }
}

/// A body of this length. A pattern follows the identity, so that a changed byte is noticed.
pub fn filling(body_bytes: usize) -> Vec<u8> {
    (0..body_bytes).map(|position| (position % 251) as u8).collect()
}

/// Which tags the server has confirmed. Tags count from 1.
#[derive(Debug, Default)]
pub struct Confirms {
    /// All tags up to this one are confirmed.
    through: u64,
    /// Confirmed beyond that, one by one.
    beyond: BTreeSet<u64>,
}

impl Confirms {
    /// All tags up to this one are confirmed.
    pub fn through(&self) -> u64 {
        self.through
    }

    /// Records a confirm and calls `newly` with each tag that it confirms. `sent` is the last tag that was used.
    pub fn take(&mut self, confirm: Confirm, sent: u64, mut newly: impl FnMut(u64)) -> Result<(), Failure> {
        let Confirm { tag, multiple } = confirm;
        if tag > sent || tag <= self.through && !multiple || self.beyond.contains(&tag) && !multiple {
            return Err(Failure::Protocol(format!(
                "a confirm for message {tag}, of which none is waiting ({} are confirmed, {sent} sent)",
                self.through
            )));
        }
        if multiple {
            for tag in self.through + 1..=tag {
                if !self.beyond.remove(&tag) {
                    newly(tag);
                }
            }
            self.through = self.through.max(tag);
        } else {
            newly(tag);
            if tag == self.through + 1 {
                self.through = tag;
            } else {
                self.beyond.insert(tag);
            }
        }
        while self.beyond.remove(&(self.through + 1)) {
            self.through += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirms(sent: u64, script: &[(u64, bool)]) -> Result<(u64, Vec<u64>), Failure> {
        let mut confirms = Confirms::default();
        let mut newly = Vec::new();
        for &(tag, multiple) in script {
            confirms.take(Confirm { tag, multiple }, sent, |tag| newly.push(tag))?;
        }
        Ok((confirms.through(), newly))
    }

    #[test]
    fn confirms_may_come_out_of_order() {
        let (through, newly) = confirms(9, &[(2, false), (4, false), (1, false), (5, true)]).unwrap();
        assert_eq!(through, 5);
        assert_eq!(newly, [2, 4, 1, 3, 5]);
    }

    #[test]
    fn a_single_confirm_beyond_a_hole_does_not_fill_it() {
        assert_eq!(confirms(9, &[(1, false), (3, false)]).unwrap().0, 1);
    }

    #[test]
    fn a_confirm_that_nothing_waits_for_is_refused() {
        assert!(confirms(2, &[(3, false)]).is_err());
        assert!(confirms(2, &[(3, true)]).is_err());
        assert!(confirms(2, &[(1, false), (1, false)]).is_err());
        assert!(confirms(3, &[(3, false), (3, false)]).is_err());
    }
}
