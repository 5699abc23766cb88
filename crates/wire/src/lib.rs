//! The code that the crates of all protocols share: reading and writing bytes, the `Session` trait, and the outbox.

mod outbox;
mod parsed;
mod reader;
mod session;
mod writer;

pub use outbox::Outbox;
pub use parsed::Parsed;
pub use reader::{Reader, Truncated};
pub use session::{Encoded, Encoder, LogLine, Moment, Output, Received, Session, Step, Then};
pub use writer::{BufferSpace, Put};
