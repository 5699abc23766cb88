//! Settings of a server, resolved: what the configuration file, the environment and the command line come to.

use std::{net::SocketAddr, path::PathBuf};

use ferrymq_model::Limits;

use crate::protocol::Protocol;

/// Everything `serve` needs to know. Passed down, never global.
#[derive(Debug)]
pub struct Settings {
    /// Where everything durable is kept.
    pub data_directory: PathBuf,
    /// What is listened on.
    pub listeners: Vec<(Protocol, SocketAddr)>,
    /// How many threads serve connections.
    pub threads: usize,
    /// Limits of connections and queues.
    pub limits: Limits,
    /// How messages are stored.
    pub storage: ferrymq_storage::Options,
}
