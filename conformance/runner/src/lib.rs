//! Plays scripted AMQP 0-9-1 conversations against a server: FerryMQ in memory, FerryMQ's binary, or RabbitMQ.
//!
//! A script is a text file in `conformance/amqp`; `conformance/README.md` describes the notation. The codec in this
//! crate uses the tables in `spec/` and shares no code with the server's codec, so that each checks the other.

mod amqp;
mod certificates;
mod cleaning;
mod expectation;
mod inbox;
mod notation;
mod peers;
mod player;
mod recording;
mod script;
mod served;
mod spec;
mod suite;
mod target;
mod value;

pub use certificates::Certificates;
pub use player::{Server, Whose, identify, play};
pub use recording::Transcript;
pub use script::Script;
pub use served::Served;
pub use suite::Suite;
pub use target::{Arrival, ConnectionId, Target, Tcp};
