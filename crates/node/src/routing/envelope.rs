//! What exchanges may see of a message besides its keys: the one place that builds it, for all messages that are routed.

use std::cell::RefCell;

use ferrymq_broker::{Envelope, History};
use ferrymq_model::{Dialects, MessageRef, QueueId};

/// Where a message goes.
#[derive(Debug, Default)]
pub struct Routed {
    /// Its queues.
    pub targets: Vec<QueueId>,
    /// The bindings that ask to be named, for each queue that it reaches through them.
    pub matched: Vec<(QueueId, u64)>,
}

/// Calls `route` with the envelope of a message. `random` is its random number, and `keep` is called with every history
/// that should keep it. Also returns the bindings that ask to be named, for each queue that it reaches through them.
pub fn with_envelope<T>(
    dialects: &Dialects,
    message: &MessageRef<'_>,
    random: &dyn Fn() -> u64,
    keep: &dyn Fn(&History),
    route: impl FnOnce(&Envelope<'_>) -> T,
) -> (T, Vec<(QueueId, u64)>) {
    let headers = || dialects.headers(message);
    let property = |property| dialects.property(message, property);
    let delay_ms = || dialects.delay_ms(message);
    let found = RefCell::new(Vec::new());
    let matched = |queue, number| found.borrow_mut().push((queue, number));
    let routed = route(&Envelope {
        headers: &headers,
        property: &property,
        random,
        keep,
        delay_ms: &delay_ms,
        matched: &matched,
    });
    (routed, found.into_inner())
}
