//! What queues have beside their arguments, as policies would give it: by their names, so that broker and reference need
//! not tell each other.
//!
//! With three shards a letter reaches queues of its own shard only, so the targets of each queue are in its shard. A queue
//! that refuses messages holds none that expires: whether it is full must not depend on when storage was asked. And what
//! it refuses goes to queues that refuse nothing, so that each letter is seen to arrive.

/// What a queue does with one message too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Full {
    #[default]
    DropHead,
    Refuse,
    /// And the new message is a dead letter.
    RefuseAndLetter,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// Where its dead letters go; without any it has no dead-lettering.
    pub letters_to: &'static [&'static str],
    pub messages_max: Option<u64>,
    pub bytes_max: Option<u64>,
    pub full: Full,
}

/// The policy of the queue of this name.
pub fn policy(name: &str) -> Policy {
    let none = Policy::default();
    match name {
        "q0" => Policy { letters_to: &["q3", "q6"], ..none },
        "q1" => Policy { letters_to: &["q7"], ..none },
        "q2" => Policy { messages_max: Some(2), full: Full::Refuse, ..none },
        "q3" => Policy { messages_max: Some(0), letters_to: &["q12"], ..none },
        "q4" => Policy { bytes_max: Some(30), ..none },
        "q5" => Policy { messages_max: Some(4), letters_to: &["q11", "q2", "q8"], ..none },
        "q6" => Policy { messages_max: Some(2), bytes_max: Some(25), letters_to: &["q0", "q9"], ..none },
        "q7" => Policy { messages_max: Some(3), letters_to: &["q1", "q10", "q4", "q7"], ..none },
        "q8" => Policy { letters_to: &["q11", "q2", "q8"], ..none },
        "q9" => Policy { letters_to: &["q6"], ..none },
        "q11" => Policy { messages_max: Some(3), full: Full::RefuseAndLetter, letters_to: &["q5", "q8"], ..none },
        _ => none,
    }
}

/// Whether a message with these deaths (the latest first: the queue, and whether it was rejected there) would come into
/// the queue again without a rejection in between.
pub fn goes_in_a_circle(deaths: &[(String, bool)], queue: &str) -> bool {
    let back = deaths.iter().position(|(before, _)| before == queue);
    back.is_some_and(|at| deaths[..=at].iter().all(|(_, rejected)| !rejected))
}
