//! Input from nobody in particular: what reads bytes that others wrote is given bytes that nobody would write.
//!
//! Each [`Target`] reads some bytes, panics if a promise is broken, and otherwise says what it came across, in words: its
//! *marks*. An input whose marks are new is worth keeping, so the corpus grows into every corner that was ever reached,
//! without a compiler that counts branches. `tests/corpus.rs` replays all of it; `cargo x fuzz` looks for more.

mod corpus;
mod hunt;
mod mutation;
mod targets;

pub use corpus::Corpus;
pub use hunt::{Hunt, Until};
pub use targets::{TARGETS, Target};
