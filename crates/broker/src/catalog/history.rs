//! What an `x-recent-history` exchange keeps: its last messages, for later bindings.
//!
//! They are in memory only, as in RabbitMQ, and are deleted with their exchange. All these exchanges share a
//! budget, so that they cannot use up the memory: when the budget is used up, an exchange keeps less than it was
//! asked to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use ferrymq_model::{Arguments, OwnedBody, OwnedMessage, Refusal, Value};

const LENGTH: &str = "x-recent-history-length";

/// How many messages are kept by default.
const LENGTH_DEFAULT: usize = 20;

/// How much memory a kept message takes besides its parts.
const OVERHEAD_BYTES: usize = 256;

/// A message that was published, with what decides its fate in the queues that it comes to later.
#[derive(Clone, Debug)]
pub struct KeptMessage {
    /// The message.
    pub message: OwnedMessage,
    /// Its further routing keys.
    pub more_keys: Box<[Vec<u8>]>,
    /// Whether it is written to disk in durable queues.
    pub persistent: bool,
    /// Its priority.
    pub priority: u8,
    /// How long it may wait in a queue, in milliseconds.
    pub expiration_ms: Option<u64>,
}

impl KeptMessage {
    fn bytes(&self) -> usize {
        let body = match &self.message.body {
            OwnedBody::Inline(body) => body.len(),
            OwnedBody::Shared(body) => body.len(),
            OwnedBody::Filed(filed) => filed.bytes.len(),
        };
        let keys: usize = self.more_keys.iter().map(Vec::len).sum();
        let OwnedMessage { routing_key, properties, annotations, .. } = &self.message;
        OVERHEAD_BYTES + body + keys + routing_key.len() + properties.len() + annotations.len()
    }
}

/// How many bytes all histories of a node may take together.
#[derive(Clone, Debug)]
pub struct HistoryBudget {
    bytes_max: usize,
    used: Arc<AtomicUsize>,
}

impl HistoryBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: Arc::default() }
    }

    /// How many bytes are used.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The last messages of one exchange. Its lock is the last in the lock order, and is held to add one message or to
/// copy all.
#[derive(Debug)]
pub struct History {
    length: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    messages: VecDeque<Arc<KeptMessage>>,
    bytes: usize,
    /// The budget of these bytes; known since the first message.
    budget: Option<HistoryBudget>,
}

impl History {
    pub(super) fn new(arguments: &Arguments) -> Self {
        // The argument was checked when the exchange was declared.
        let length = length(arguments).unwrap_or(LENGTH_DEFAULT);
        Self { length, kept: Mutex::default() }
    }

    /// Keeps a message. Removes the oldest ones if there are too many or the budget is used up.
    pub fn keep(&self, message: KeptMessage, budget: &HistoryBudget) {
        let mut kept = self.lock();
        let bytes = message.bytes();
        kept.budget.get_or_insert_with(|| budget.clone());
        kept.messages.push_back(Arc::new(message));
        kept.bytes += bytes;
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        while kept.messages.len() > self.length || budget.used() > budget.bytes_max {
            let Some(oldest) = kept.messages.pop_front() else { break };
            kept.bytes -= oldest.bytes();
            budget.used.fetch_sub(oldest.bytes(), Ordering::Relaxed);
        }
    }

    /// What is kept, the oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Arc<KeptMessage>> {
        self.lock().messages.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panics while a message is put in")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// How many messages an exchange with these arguments keeps.
///
/// # Errors
/// [`Refusal::PreconditionFailed`] if that is not a number from 1 up.
pub(super) fn length(arguments: &Arguments) -> Result<usize, Refusal> {
    match arguments.get(LENGTH) {
        None => Ok(LENGTH_DEFAULT),
        Some(Value::Int(length)) if *length > 0 => Ok(usize::try_from(*length).unwrap_or(usize::MAX)),
        Some(other) => {
            let shown = super::arguments::plain(other);
            let text = format!("Invalid argument {shown}, '{LENGTH}' must be a positive integer");
            Err(Refusal::PreconditionFailed(text))
        }
    }
}

/// Whether a message with these headers asks not to be kept.
pub(super) fn wants_not_to_be_kept(headers: &Arguments) -> bool {
    headers.get("x-recent-history-no-store") == Some(&Value::Bool(true))
}
