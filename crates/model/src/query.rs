//! What an operator may ask of a running server. `admin` asks; the server answers, for itself and for its node.

/// Whether clients can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Recovery is done, all listeners are open, and what is published is made durable.
    Ready,
    /// Not now, and why: one sentence for people.
    NotReady(String),
}

/// Answers questions. Called by whoever serves HTTP, from any thread; an answer must not wait.
pub trait Queries: Send + Sync {
    /// Whether clients can be served.
    fn readiness(&self) -> Readiness;
}
