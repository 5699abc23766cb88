//! What the node needs from its process.

use ferrymq_model::Time;

/// Time, randomness and notifications. The server implements it with real ones, tests with fakes.
pub trait Host: Send + Sync {
    /// The time for expiry, delays and timeouts: it is monotonic and never jumps, see [`Time`].
    fn now(&self) -> Time;

    /// A clock to measure the length of a piece of work, in nanoseconds from any moment on. A host without a clock
    /// returns 0. Then work whose length a client decides counts as nothing.
    fn nanoseconds(&self) -> u64 {
        0
    }

    /// The wall clock, which may jump: for timestamps that people read, and for the expiry of tokens.
    fn wall(&self) -> Time;

    /// A random number that nobody can guess.
    fn random(&self) -> u128;

    /// [`crate::Node::on_timer`] is to be called at this time, and at no time that was set before; `None`: not at all.
    fn set_timer(&self, due: Option<Time>);

    /// There are more deliveries than the thread that found them should send in one turn:
    /// [`crate::Node::go_on_delivering`] is to be called soon. Returns whether it will be; if not, the caller
    /// continues itself.
    fn deliveries_wait(&self) -> bool {
        false
    }

    /// Does work that takes long because of a client's data. Meanwhile other threads serve this thread's other
    /// connections.
    fn lengthy(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Computes something that takes long on purpose, such as the check of a password, on a thread that serves no
    /// connection. Each processor runs one such computation at a time; the others wait in their order.
    fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    /// The process's memory in bytes, without shared memory; `None` if it is unknown. This may read files, so it is
    /// called only when connections hold much memory.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }

    /// The server must end with this reason: what is decided from now on cannot become durable.
    fn fault(&self, reason: String);
}
