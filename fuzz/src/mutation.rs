//! Makes new inputs by changes to inputs of the corpus.

use proptest::prelude::*;
use proptest::sample::Index;

/// One change.
#[derive(Clone, Debug)]
enum Mutation {
    Flip {
        at: Index,
        bit: u8,
    },
    Set {
        at: Index,
        byte: u8,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Remove {
        at: Index,
        count: usize,
    },
    /// Inserts a copy of a part after this part.
    Repeat {
        at: Index,
        count: usize,
    },
    /// Writes a number that may be special as a length, a count or a code.
    Number {
        at: Index,
        number: u32,
        bytes: usize,
    },
    /// Joins the beginning of this input and the end of another one.
    Splice {
        at: Index,
        other: Index,
        from: Index,
    },
}

const EDGES: &[u32] =
    &[0, 1, 2, 7, 8, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 32767, 32768, 65535, 1 << 31, u32::MAX];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        2 => (at(), 1..20_usize).prop_map(|(at, count)| Mutation::Remove { at, count }),
        1 => (at(), 1..40_usize).prop_map(|(at, count)| Mutation::Repeat { at, count }),
        2 => (at(), prop::sample::select(EDGES), prop::sample::select(vec![1, 2, 4]))
            .prop_map(|(at, number, bytes)| Mutation::Number { at, number, bytes }),
        1 => (at(), at(), at()).prop_map(|(at, other, from)| Mutation::Splice { at, other, from }),
    ]
}

/// New inputs, made from those of a corpus. Some are random and not from the corpus.
pub fn inputs(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<Index>(), prop::collection::vec(mutation(), 1..6)).prop_map(move |(seed, mutations)| {
        let seed = seed.get(&corpus).clone();
        mutations.iter().fold(seed, |bytes, mutation| mutation.apply(bytes, &corpus))
    });
    prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..120)]
}

impl Mutation {
    fn apply(&self, mut bytes: Vec<u8>, corpus: &[Vec<u8>]) -> Vec<u8> {
        // There is one more position than there are bytes: the one after the last byte.
        let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match self {
            Self::Flip { at, bit } => {
                let at = place(at, &bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Self::Set { at, byte: new } => {
                let at = place(at, &bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *new);
            }
            Self::Insert { at, bytes: new } => {
                let at = place(at, &bytes);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove { at, count } => {
                let at = place(at, &bytes);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Repeat { at, count } => {
                let at = place(at, &bytes);
                let stretch = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, stretch);
            }
            Self::Number { at, number, bytes: width } => {
                let at = place(at, &bytes);
                let number = number.to_be_bytes();
                bytes.iter_mut().skip(at).zip(&number[4 - width..]).for_each(|(byte, new)| *byte = *new);
            }
            Self::Splice { at, other, from } => {
                let other = other.get(corpus);
                bytes.truncate(place(at, &bytes));
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
        }
        bytes
    }
}
