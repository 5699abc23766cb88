//! What the node needs from the process it lives in.

use ferrymq_model::Time;

/// Time, randomness, and somebody to tell. The server implements it with the real ones, tests with fakes.
pub trait Host: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Time;

    /// A number nobody can guess.
    fn random(&self) -> u128;

    /// [`crate::Node::ring`] is to be called at this time, and at no other time announced before; `None`: not at all.
    fn alarm(&self, due: Option<Time>);

    /// The server must end, and say why: what is decided from now on cannot be made durable.
    fn fault(&self, reason: String);
}
