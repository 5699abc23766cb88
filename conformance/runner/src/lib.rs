//! Plays scripted AMQP 0-9-1 conversations against a server: ours in memory, our binary, or the original.
//!
//! A script is a text file in `conformance/amqp`, and its notation is described in `conformance/README.md`. The codec
//! here is driven by the tables in `spec/` and shares no line with the server's own, so that each checks the other.

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
