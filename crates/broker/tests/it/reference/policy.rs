//! What queues have beside their arguments, as policies would give it: by their names, so that broker and reference need
//! not tell each other.
//!
//! With three shards a letter reaches queues of its own shard only, so the targets of each queue are in its shard. A queue
//! that refuses messages holds none that expires: whether it is full must not depend on when storage was asked. And what
//! it refuses goes to queues that refuse nothing, so that each letter is seen to arrive. A queue with priorities has
//! dead-lettering always: whether its front expires or is overtaken first is the broker's choice, and it tells deaths only
//! where they may make letters.

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
    /// How often a message may come back.
    pub attempts_max: Option<u32>,
    pub message_ttl_ms: Option<u64>,
    pub unused_ms_max: Option<u64>,
    /// The same in all policies of a queue, as is the next.
    pub priority_max: u8,
    pub single_active: bool,
}

pub const POLICIES: u64 = 3;

/// One of the policies that the queue of this name can have.
pub fn policy(name: &str, number: u64) -> Policy {
    let first = first_policy(name);
    match (number, first.full) {
        (0, _) => first,
        (1, _) => {
            let messages_max = first.messages_max.map(|max| max.saturating_sub(1));
            let letters_to = if first.priority_max > 0 { first.letters_to } else { &[] };
            Policy { messages_max, letters_to, attempts_max: Some(0), ..first }
        }
        (_, Full::DropHead) => Policy {
            messages_max: Some(5),
            bytes_max: Some(40),
            message_ttl_ms: Some(20),
            unused_ms_max: Some(60),
            ..first
        },
        (_, Full::Refuse | Full::RefuseAndLetter) => Policy { messages_max: Some(5), ..first },
    }
}

fn first_policy(name: &str) -> Policy {
    let none = Policy::default();
    match name {
        "q0" => Policy { letters_to: &["q3", "q6"], ..none },
        "q1" => Policy { letters_to: &["q7"], ..none },
        "q2" => Policy { messages_max: Some(2), full: Full::Refuse, ..none },
        "q3" => Policy { messages_max: Some(0), letters_to: &["q12"], ..none },
        "q4" => Policy { bytes_max: Some(30), ..none },
        "q5" => Policy { messages_max: Some(4), letters_to: &["q11", "q2", "q8"], attempts_max: Some(1), ..none },
        "q6" => Policy {
            messages_max: Some(2),
            bytes_max: Some(25),
            letters_to: &["q0", "q9"],
            priority_max: 2,
            single_active: true,
            ..none
        },
        "q7" => Policy { messages_max: Some(3), letters_to: &["q1", "q10", "q4", "q7"], priority_max: 3, ..none },
        "q8" => Policy { letters_to: &["q11", "q2", "q8"], priority_max: 1, ..none },
        "q9" => Policy { letters_to: &["q6"], ..none },
        "q11" => Policy { messages_max: Some(3), full: Full::RefuseAndLetter, letters_to: &["q5", "q8"], ..none },
        "q10" => Policy { single_active: true, ..none },
        "q12" => Policy { letters_to: &["q9"], attempts_max: Some(1), priority_max: 255, ..none },
        _ => none,
    }
}

/// Whether a message with these deaths (the latest first: the queue, and whether it was rejected there) would come into
/// the queue again without a rejection in between.
pub fn goes_in_a_circle(deaths: &[(String, bool)], queue: &str) -> bool {
    let back = deaths.iter().position(|(before, _)| before == queue);
    back.is_some_and(|at| deaths[..=at].iter().all(|(_, rejected)| !rejected))
}
