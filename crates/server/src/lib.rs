//! The server around a node: command line, settings, listeners, connections.

pub mod command_line;
mod connection;
mod peer;
mod process;
mod protocol;
pub mod pump;
pub mod serve;
mod settings;
