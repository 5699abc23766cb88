//! The declarations and policies of queues: by their names, so that broker and reference need not tell each other.
//!
//! With three shards a dead letter reaches only queues of its own shard, so the targets of each queue are in its
//! shard. A queue that refuses messages has no expiring ones: whether it is full must not depend on when storage
//! was asked. And what it refuses goes to queues that refuse nothing, so that each dead letter arrives visibly. A
//! queue with priorities always has dead-lettering: whether its front expires or is overtaken first is the broker's
//! choice, and it only reports deaths that may be dead-lettered.

use ferrymq_model::{Table, Value};

/// What a queue does above its length limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Full {
    #[default]
    DropHead,
    Refuse,
    /// And the new message is dead-lettered.
    RefuseAndDeadLetter,
}

/// The settings of a queue: from its declaration, from a policy, or from both together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The target of its dead letters; without any it has no dead-lettering.
    pub dead_letters_to: &'static [&'static str],
    pub messages_max: Option<u64>,
    pub bytes_max: Option<u64>,
    pub full: Full,
    /// Whether dead-lettering is at-least-once, in a quorum queue that refuses.
    pub at_least_once: bool,
    /// How often a message may come back, in a quorum queue.
    pub attempts_max: Option<u32>,
    pub message_ttl_ms: Option<u64>,
    pub unused_ms_max: Option<u64>,
    /// This and what follows can only be declared.
    pub priority_max: u8,
    pub single_active: bool,
    /// Keeps every message on disk.
    pub quorum: bool,
}

/// How many policies there are for the queues of one name.
pub const POLICIES: u64 = 3;

/// Which queues the operator's policy is for.
pub const OPERATOR_PATTERN: &str = "^q[01349]$";

const NONE: Policy = Policy {
    dead_letters_to: &[],
    messages_max: None,
    bytes_max: None,
    full: Full::DropHead,
    at_least_once: false,
    attempts_max: None,
    message_ttl_ms: None,
    unused_ms_max: None,
    priority_max: 0,
    single_active: false,
    quorum: false,
};

/// The declaration of the queue of this name, besides its TTL and its expiry.
pub fn declared(name: &str) -> Policy {
    match name {
        "q0" => Policy { dead_letters_to: &["q3", "q6"], ..NONE },
        "q4" => Policy { bytes_max: Some(30), ..NONE },
        "q5" | "q9" => Policy { quorum: true, ..NONE },
        "q6" => Policy {
            messages_max: Some(2),
            bytes_max: Some(25),
            dead_letters_to: &["q0", "q9"],
            priority_max: 2,
            single_active: true,
            ..NONE
        },
        "q7" => Policy { priority_max: 3, dead_letters_to: &["q1", "q10", "q4", "q7"], ..NONE },
        "q8" => Policy { dead_letters_to: &["q11", "q2", "q8"], priority_max: 1, ..NONE },
        "q10" => Policy { single_active: true, ..NONE },
        "q13" => Policy { dead_letters_to: &["q7"], full: Full::Refuse, quorum: true, ..NONE },
        "q14" => Policy {
            dead_letters_to: &["q11", "q2"],
            messages_max: Some(6),
            full: Full::Refuse,
            at_least_once: true,
            quorum: true,
            ..NONE
        },
        "q12" => Policy { dead_letters_to: &["q9"], priority_max: 255, ..NONE },
        _ => NONE,
    }
}

/// One of the policies that the queues of this name can have; the first is the usual one.
pub fn policy(name: &str, number: u64) -> Policy {
    let first = first_policy(name);
    match (number, name) {
        (0, _) => first,
        (1, _) => Policy {
            messages_max: first.messages_max.map(|max| max.saturating_sub(1)),
            dead_letters_to: &[],
            at_least_once: false,
            attempts_max: declared(name).quorum.then_some(0),
            ..first
        },
        (_, "q2" | "q11" | "q13" | "q14") => Policy { messages_max: Some(5), ..first },
        (_, _) => Policy {
            messages_max: Some(5),
            bytes_max: Some(40),
            message_ttl_ms: Some(20),
            unused_ms_max: Some(60),
            ..first
        },
    }
}

fn first_policy(name: &str) -> Policy {
    match name {
        "q1" => Policy { dead_letters_to: &["q7"], ..NONE },
        "q2" => Policy { messages_max: Some(2), full: Full::Refuse, ..NONE },
        "q3" => Policy { messages_max: Some(0), dead_letters_to: &["q12"], ..NONE },
        "q5" => Policy { messages_max: Some(4), dead_letters_to: &["q11", "q2", "q8"], attempts_max: Some(1), ..NONE },
        "q7" => Policy { messages_max: Some(3), ..NONE },
        "q9" => Policy { dead_letters_to: &["q6"], attempts_max: Some(2), ..NONE },
        "q11" => {
            Policy { messages_max: Some(3), full: Full::RefuseAndDeadLetter, dead_letters_to: &["q5", "q8"], ..NONE }
        }
        "q13" => Policy { at_least_once: true, attempts_max: Some(1), ..NONE },
        _ => NONE,
    }
}

/// Whether the operator policy applies to the queue of this name; the broker has [`OPERATOR_PATTERN`] for that.
pub fn is_operators(name: &str) -> bool {
    ["q0", "q1", "q3", "q4", "q9"].contains(&name)
}

/// The operator policy.
pub fn operators() -> Policy {
    Policy { messages_max: Some(4), message_ttl_ms: Some(50), ..NONE }
}

impl Policy {
    /// Both together: of two limits the lower one, of everything else the first.
    pub fn with(self, other: Self) -> Self {
        let lower = |own: Option<u64>, other: Option<u64>| own.into_iter().chain(other).min();
        Self {
            dead_letters_to: if self.dead_letters_to.is_empty() { other.dead_letters_to } else { self.dead_letters_to },
            messages_max: lower(self.messages_max, other.messages_max),
            bytes_max: lower(self.bytes_max, other.bytes_max),
            full: if self.full == Full::DropHead { other.full } else { self.full },
            at_least_once: self.at_least_once || other.at_least_once,
            attempts_max: self.attempts_max.into_iter().chain(other.attempts_max).min(),
            message_ttl_ms: lower(self.message_ttl_ms, other.message_ttl_ms),
            unused_ms_max: lower(self.unused_ms_max, other.unused_ms_max),
            ..self
        }
    }

    /// As a policy's definition; with `x-` before each key it is a declaration's arguments.
    pub fn definition(&self) -> Table {
        let number = |key: &str, number: Option<u64>| number.map(|number| (key.to_owned(), Value::Int(number as i64)));
        let text = |key: &str, text: &str| Some((key.to_owned(), Value::Text(text.to_owned())));
        let full = match self.full {
            Full::DropHead => None,
            Full::Refuse => text("overflow", "reject-publish"),
            Full::RefuseAndDeadLetter => text("overflow", "reject-publish-dlx"),
        };
        let settings = [
            text("dead-letter-exchange", &self.dead_letters_to.join(",")).filter(|_| !self.dead_letters_to.is_empty()),
            number("max-length", self.messages_max),
            number("max-length-bytes", self.bytes_max),
            full,
            text("dead-letter-strategy", "at-least-once").filter(|_| self.at_least_once),
            number("delivery-limit", self.attempts_max.map(u64::from)),
            number("message-ttl", self.message_ttl_ms),
            number("expires", self.unused_ms_max),
            number("max-priority", Some(self.priority_max.into()).filter(|max| *max > 0)),
            self.single_active.then(|| ("single-active-consumer".to_owned(), Value::Bool(true))),
            text("queue-type", "quorum").filter(|_| self.quorum),
        ];
        settings.into_iter().flatten().collect()
    }
}

/// Whether a message with these deaths (the latest first: the queue, and whether it was rejected there) would come
/// to the queue again without a rejection in between.
pub fn goes_in_a_circle(deaths: &[(String, bool)], queue: &str) -> bool {
    let back = deaths.iter().position(|(before, _)| before == queue);
    back.is_some_and(|at| deaths[..=at].iter().all(|(_, rejected)| !rejected))
}
