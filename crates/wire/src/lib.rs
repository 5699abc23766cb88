//! What every protocol room shares: reading and writing bytes, the contract of a session, and the outbox.

mod outbox;
mod session;

pub use outbox::Outbox;
pub use session::{Encoder, Moment, Output, Received, Session, Step};
