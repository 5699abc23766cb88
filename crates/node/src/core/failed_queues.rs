//! Queues whose messages on disk cannot be read: requests to them are refused until they are purged or deleted.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use ferrymq_model::{QueueId, Refusal};
use parking_lot::Mutex;

/// Which queues have failed, and why.
#[derive(Debug, Default)]
pub struct FailedQueues {
    /// Whether there are any, so that the check costs nothing while there are none.
    any: AtomicBool,
    reasons: Mutex<BTreeMap<QueueId, String>>,
}

impl FailedQueues {
    pub fn add(&self, queue: QueueId, reason: String) {
        self.reasons.lock().insert(queue, reason);
        self.any.store(true, Ordering::Release);
    }

    /// The queue was purged or deleted.
    pub fn remove(&self, queue: QueueId) {
        if self.any.load(Ordering::Acquire) {
            let mut reasons = self.reasons.lock();
            reasons.remove(&queue);
            self.any.store(!reasons.is_empty(), Ordering::Release);
        }
    }

    /// Why the queue has failed, if it has.
    pub fn reason(&self, queue: QueueId) -> Option<String> {
        self.any.load(Ordering::Acquire).then(|| self.reasons.lock().get(&queue).cloned()).flatten()
    }

    /// # Errors
    /// [`Refusal::Fault`] if one of them has failed.
    #[inline]
    pub fn check(&self, queues: &[QueueId]) -> Result<(), Refusal> {
        if self.any.load(Ordering::Acquire) { self.look_for(queues) } else { Ok(()) }
    }

    #[cold]
    fn look_for(&self, queues: &[QueueId]) -> Result<(), Refusal> {
        let reasons = self.reasons.lock();
        let found = queues.iter().find_map(|queue| reasons.get(queue));
        found.map_or(Ok(()), |reason| Err(Refusal::Fault(reason.clone())))
    }
}
