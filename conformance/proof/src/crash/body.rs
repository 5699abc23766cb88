//! The bodies of the crash test's messages: the identity of the message, and octets that no other message has.

use crate::random::Random;

const IDENTITY_BYTES: usize = 12;

/// The identity of a message: its publisher, and the publisher's count of messages in one queue (for the fanout
/// exchange, the count over all queues).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub publisher: u16,
    pub queue: u16,
    pub sequence: u64,
}

impl Identity {
    /// A body of this length that begins with the identity.
    pub fn body(self, bytes: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(bytes);
        body.extend_from_slice(&self.publisher.to_be_bytes());
        body.extend_from_slice(&self.queue.to_be_bytes());
        body.extend_from_slice(&self.sequence.to_be_bytes());
        let mut filling = Random::new(self.sequence, &[self.publisher.into(), self.queue.into(), bytes as u64]);
        while body.len() < bytes {
            body.extend_from_slice(&filling.next().to_be_bytes());
        }
        body.truncate(bytes);
        body
    }

    /// Reads a whole body. `None` unless all octets are as they were sent.
    pub fn of_body(body: &[u8]) -> Option<Self> {
        let (head, _) = body.split_first_chunk::<IDENTITY_BYTES>()?;
        let identity = Self {
            publisher: u16::from_be_bytes([head[0], head[1]]),
            queue: u16::from_be_bytes([head[2], head[3]]),
            sequence: u64::from_be_bytes(*head[4..].first_chunk()?),
        };
        (identity.body(body.len()) == body).then_some(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_octet_or_a_wrong_length_is_noticed() {
        let identity = Identity { publisher: 3, queue: 2, sequence: 77 };
        let body = identity.body(100);
        assert_eq!(Identity::of_body(&body), Some(identity));
        for at in 0..body.len() {
            let mut damaged = body.clone();
            damaged[at] ^= 1;
            assert_eq!(Identity::of_body(&damaged), None, "octet {at}");
        }
        assert_eq!(Identity::of_body(&body[..99]), None);
    }
}
