//! Tests of connections over real sockets, with a server in this process.

mod choosing;
#[path = "../../tests/it/client.rs"]
#[expect(dead_code, reason = "the tests of the binary use other parts of it")]
mod client;
mod files;
mod in_process;
mod stopping;
mod turns;
