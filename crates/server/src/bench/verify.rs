//! Checks that exactly the sent messages arrived: each message of each producer once, and in order.
//!
//! The first eight bytes of a body identify the message: its producer and its sequence, from 0. A consumer keeps
//! one bit per message, so a run of a hundred million messages takes 12 MB, and the highest sequence of each
//! producer. Several consumers of one queue each see an increasing part; together they see all messages.

use std::fmt;

use serde::Serialize;

use super::Failure;

const SEQUENCE_BITS: u32 = 48;

/// Bytes of the identity in the body; no message can be smaller.
pub const IDENTITY_BYTES: usize = 8;

/// The producer of a message, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub producer: u16,
    pub sequence: u64,
}

impl Identity {
    /// The eight bytes at the start of a body.
    pub fn to_bytes(self) -> [u8; IDENTITY_BYTES] {
        (u64::from(self.producer) << SEQUENCE_BITS | self.sequence).to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; IDENTITY_BYTES]) -> Identity {
        let word = u64::from_be_bytes(bytes);
        Identity { producer: (word >> SEQUENCE_BITS) as u16, sequence: word & ((1 << SEQUENCE_BITS) - 1) }
    }
}

/// What one consumer has seen.
#[derive(Debug)]
pub struct Arrivals {
    producers: Vec<Seen>,
    count: u64,
    doubled: u64,
    reordered: u64,
    damaged: u64,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    /// One more than the highest sequence.
    next: u64,
    /// One bit per sequence.
    bits: Vec<u64>,
}

impl Arrivals {
    pub fn new(producers: usize) -> Arrivals {
        Arrivals { producers: vec![Seen::default(); producers], count: 0, doubled: 0, reordered: 0, damaged: 0 }
    }

    /// Records a message whose body is what its producer sent.
    pub fn note(&mut self, id: Identity) {
        let Some(seen) = self.producers.get_mut(usize::from(id.producer)) else {
            self.damaged += 1;
            return;
        };
        self.count += 1;
        let (word, bit) = ((id.sequence / 64) as usize, 1 << (id.sequence % 64));
        if word >= seen.bits.len() {
            // A damaged sequence must not ask for the memory of 2^48 messages.
            if word > seen.bits.len() + (1 << 20) {
                self.damaged += 1;
                return;
            }
            seen.bits.resize(word + 1, 0);
        }
        if seen.bits[word] & bit != 0 {
            self.doubled += 1;
        } else if id.sequence < seen.next {
            self.reordered += 1;
        }
        seen.bits[word] |= bit;
        seen.next = seen.next.max(id.sequence + 1);
    }

    /// Records a message whose body is not what any producer sent.
    pub fn note_damaged(&mut self) {
        self.count += 1;
        self.damaged += 1;
    }

    /// How many messages were recorded, correct or not.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// What all consumers together saw of all producers' messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Sent, but received by no consumer.
    pub lost: u64,
    /// Received again, by the same consumer or another one.
    pub doubled: u64,
    /// Received for the first time after a later message of the same producer, by the same consumer.
    pub reordered: u64,
    /// Not as it was sent: a wrong body, or an identity that no producer used.
    pub damaged: u64,
}

impl Verdict {
    /// Compares what each producer sent, a count of sequences from 0, with what the consumers saw.
    pub fn of(sent: &[u64], consumers: &[Arrivals]) -> Verdict {
        let mut verdict = Verdict::default();
        for consumer in consumers {
            verdict.doubled += consumer.doubled;
            verdict.reordered += consumer.reordered;
            verdict.damaged += consumer.damaged;
        }
        for (producer, &sent) in sent.iter().enumerate() {
            let seen =
                |word: usize| consumers.iter().map(move |c| c.producers[producer].bits.get(word).copied().unwrap_or(0));
            let longest = consumers.iter().map(|c| c.producers[producer].bits.len()).max().unwrap_or(0);
            for word in 0..longest.max(sent.div_ceil(64) as usize) {
                let mut any = 0;
                for bits in seen(word) {
                    verdict.doubled += u64::from((any & bits).count_ones());
                    any |= bits;
                }
                let expected = sent_bits(sent, word as u64);
                verdict.lost += u64::from((expected & !any).count_ones());
                verdict.damaged += u64::from((any & !expected).count_ones());
            }
        }
        verdict
    }

    pub fn is_clean(&self) -> bool {
        *self == Verdict::default()
    }

    /// A figure without the correct messages is not a figure.
    pub fn judge(&self) -> Result<(), Failure> {
        if self.is_clean() {
            return Ok(());
        }
        Err(Failure::Unverified(self.to_string()))
    }
}

/// The bits of this word that stand for sequences below `sent`.
fn sent_bits(sent: u64, word: u64) -> u64 {
    match sent.saturating_sub(word * 64) {
        0 => 0,
        n @ 1..=63 => (1 << n) - 1,
        _ => u64::MAX,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lost, {} doubled, {} reordered, {} damaged",
            self.lost, self.doubled, self.reordered, self.damaged
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(sequences: impl IntoIterator<Item = u64>) -> Arrivals {
        let mut arrivals = Arrivals::new(1);
        for sequence in sequences {
            arrivals.note(Identity { producer: 0, sequence });
        }
        arrivals
    }

    fn verdict(sent: u64, sequences: impl IntoIterator<Item = u64>) -> Verdict {
        Verdict::of(&[sent], &[arrivals(sequences)])
    }

    #[test]
    fn an_identity_survives_its_octets() {
        let id = Identity { producer: 513, sequence: (1 << 48) - 2 };
        assert_eq!(Identity::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn all_once_and_in_order_is_clean() {
        for sent in [0, 1, 63, 64, 65, 1000] {
            assert!(verdict(sent, 0..sent).is_clean(), "{sent}");
        }
    }

    #[test]
    fn a_lost_message_is_reported() {
        for missing in [0, 63, 64, 99] {
            let verdict = verdict(100, (0..100).filter(|&s| s != missing));
            let expected = Verdict { lost: 1, ..Verdict::default() };
            assert_eq!(verdict, expected, "{missing}");
        }
        assert_eq!(verdict(200, []).lost, 200);
    }

    #[test]
    fn a_doubled_message_is_reported() {
        let doubled = Verdict { doubled: 1, ..Verdict::default() };
        assert_eq!(verdict(3, [0, 1, 1, 2]), doubled);
        assert_eq!(verdict(3, [0, 1, 2, 0]), doubled);
    }

    #[test]
    fn a_reordered_message_is_reported() {
        let reordered = Verdict { reordered: 1, ..Verdict::default() };
        assert_eq!(verdict(4, [0, 2, 1, 3]), reordered);
        assert_eq!(verdict(2, [1, 0]), reordered);
    }

    #[test]
    fn a_message_that_was_never_sent_is_damage() {
        let damaged = Verdict { damaged: 1, ..Verdict::default() };
        assert_eq!(verdict(2, [0, 1, 2]), damaged);
        assert_eq!(verdict(1, [0, 1 << 40]), damaged);
        let mut stranger = Arrivals::new(1);
        stranger.note(Identity { producer: 1, sequence: 0 });
        assert_eq!(Verdict::of(&[0], &[stranger]), damaged);
    }

    #[test]
    fn a_damaged_body_counts_as_lost_too() {
        let mut consumer = arrivals([0, 1]);
        consumer.note_damaged();
        let verdict = Verdict::of(&[3], &[consumer]);
        assert_eq!((verdict.lost, verdict.damaged), (1, 1));
    }

    #[test]
    fn several_consumers_are_judged_together() {
        let (even, odd) = ((0..100).step_by(2), (1..100).step_by(2));
        let both = [arrivals(even.clone()), arrivals(odd.clone())];
        assert!(Verdict::of(&[100], &both).is_clean());
        let overlap = [arrivals(even), arrivals(odd.chain([100]).chain([101])), arrivals([50])];
        assert_eq!(Verdict::of(&[102], &overlap).doubled, 1);
    }

    #[test]
    fn producers_are_judged_apart() {
        let mut consumer = Arrivals::new(2);
        for (producer, sequence) in [(0, 0), (1, 0), (0, 1)] {
            consumer.note(Identity { producer, sequence });
        }
        let verdict = Verdict::of(&[2, 2], &[consumer]);
        assert_eq!(verdict, Verdict { lost: 1, ..Verdict::default() });
    }
}
