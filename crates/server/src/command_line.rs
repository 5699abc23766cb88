//! The command line of `ferrymq serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::{
    protocol::{self, PROTOCOLS, Protocol},
    settings::Settings,
};

/// Options of `ferrymq serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where everything durable is kept; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data_dir: PathBuf,

    /// Listen for a protocol, for example amqp=127.0.0.1:5672; port 0 picks a free one. Can be repeated; where it is
    /// given, only the given ones open
    #[arg(long, value_name = "PROTOCOL=HOST:PORT", value_parser = parse_listen)]
    listen: Vec<(Protocol, SocketAddr)>,

    /// What is logged to standard error: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::Level,
}

fn parse_listen(text: &str) -> Result<(Protocol, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write it as PROTOCOL=HOST:PORT")?;
    let protocol = protocol::find(name).ok_or_else(|| {
        let known: Vec<&str> = PROTOCOLS.iter().map(|protocol| protocol.name).collect();
        format!("no protocol '{name}'; there is {}", known.join(", "))
    })?;
    let address =
        address.parse().map_err(|_| format!("'{address}' is not an address and port, such as 127.0.0.1:5672"))?;
    Ok((protocol, address))
}

impl ServeArgs {
    /// What is logged.
    #[must_use]
    pub fn log_level(&self) -> tracing::Level {
        self.log_level
    }

    /// The settings these options come to.
    #[must_use]
    pub fn resolve(&self) -> Settings {
        let listeners = if self.listen.is_empty() {
            PROTOCOLS.iter().map(|protocol| (*protocol, SocketAddr::from(([127, 0, 0, 1], protocol.port)))).collect()
        } else {
            self.listen.clone()
        };
        Settings {
            data_directory: self.data_dir.clone(),
            listeners,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            limits: ferrymq_model::Limits::default(),
            storage: ferrymq_storage::Options::default(),
        }
    }
}
