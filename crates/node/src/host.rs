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

    /// The server must end, and say why: what is decided from now on cannot be made durable.
    fn fault(&self, reason: String);
}
