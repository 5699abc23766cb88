//! What exchanges may see of a message besides its keys: the one place that builds it, for all messages that are routed.

use ferrymq_broker::{Envelope, History};
use ferrymq_model::{Dialects, MessageRef};

/// Calls `route` with the envelope of a message. `random` is its random number, and `keep` is called with every history
/// that should keep it.
pub fn with_envelope<T>(
    dialects: &Dialects,
    message: &MessageRef<'_>,
    random: &dyn Fn() -> u64,
    keep: &dyn Fn(&History),
    route: impl FnOnce(&Envelope<'_>) -> T,
) -> T {
    let headers = || dialects.headers(message);
    let property = |property| dialects.property(message, property);
    let delay_ms = || dialects.delay_ms(message);
    route(&Envelope { headers: &headers, property: &property, random, keep, delay_ms: &delay_ms })
}
