//! Fuzzing: code that reads the bytes of others gets random and damaged bytes.
//!
//! Each [`Target`] reads an input. It panics if a promise is broken. If not, it returns *marks*: texts that name what
//! it found in the input. An input with a new mark is kept. So the corpus covers more and more cases, without a
//! compiler that counts branches. `tests/corpus.rs` replays the corpus; `cargo x fuzz` searches for new inputs.

mod corpus;
mod hunt;
mod mutation;
mod targets;

pub use corpus::Corpus;
pub use hunt::{Hunt, Until};
pub use targets::{TARGETS, Target};
