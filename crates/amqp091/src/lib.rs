//! AMQP 0-9-1, as RabbitMQ 3.13 speaks it.

pub mod codec;
mod mapping;
mod session;

pub use mapping::HeaderReader;
pub use session::{Connection, FrameEncoder, Greeting, Identity};
