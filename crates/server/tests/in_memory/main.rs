//! Conversations of protocols with session and node in memory: without sockets, and with a clock that a script moves.

mod conversations;
mod memory;
mod probe;
