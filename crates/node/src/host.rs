//! What the node needs from the process it lives in.

use ferrymq_model::Time;

/// Time, randomness, and somebody to tell. The server implements it with the real ones, tests with fakes.
pub trait Host: Send + Sync {
    /// The time by which everything expires, ends or comes due: it goes on steadily and never jumps, see [`Time`].
    fn now(&self) -> Time;

    /// The wall clock, which may jump: for timestamps that people read, and for the expiry of tokens.
    fn wall(&self) -> Time;

    /// A number nobody can guess.
    fn random(&self) -> u128;

    /// [`crate::Node::ring`] is to be called at this time, and at no other time announced before; `None`: not at all.
    fn alarm(&self, due: Option<Time>);

    /// There is more to deliver than whoever came upon it should do in one turn: [`crate::Node::go_on_delivering`] is to be
    /// called soon. Says whether it will be; where not, the caller goes on itself.
    fn deliveries_wait(&self) -> bool {
        false
    }

    /// Does work that takes long because of what a client has made. Meanwhile the thread's other connections are served
    /// by others.
    fn lengthy(&self, work: &mut dyn FnMut()) {
        work();
    }

    /// Computes something that takes long on purpose, such as checking a password, on a thread that serves no connection.
    /// For each processor there is one such work at a time; the others wait in the order in which they came.
    fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    /// Memory of the process in bytes, without what it shares with others; `None` where nobody can say. Files may be read for it,
    /// so it is asked only when connections hold much.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }

    /// The server must end, and say why: what is decided from now on cannot be made durable.
    fn fault(&self, reason: String);
}
