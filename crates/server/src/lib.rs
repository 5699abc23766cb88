//! The server around a node: command line, settings, listeners, connections.

mod certificate;
pub mod check;
mod choosing;
pub mod command_line;
pub mod configuration;
mod connection;
pub mod connection_log;
mod definitions_file;
mod descriptors;
mod files;
mod listener;
mod log_limit;
mod logs;
mod memory;
pub mod panics;
mod peer;
mod process;
mod progress;
mod protocol;
pub mod pump;
mod reload;
pub mod serve;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod token_options;
