//! SIGHUP: the configuration is read again, and everything that can change without a restart changes. If the
//! configuration has an error, the server continues as before.

use std::sync::Arc;

use ferrymq_node::Node;
use tokio::signal::unix::Signal;

use crate::{
    command_line::ServeArgs,
    configuration::{Configuration, OPTIONS},
    definitions_file,
    logs::LogLevel,
    settings::Settings,
    tls::TlsSource,
};

/// Options that SIGHUP applies at once, in addition to the certificate files.
const TAKEN_OVER: [&str; 1] = ["log_level"];

/// What can be changed while the server runs.
pub struct Reload {
    /// How the configuration is read.
    pub read: Box<dyn Fn() -> Result<Configuration, String> + Send + Sync>,
    /// The configuration that was read last.
    pub current: Configuration,
    pub log_level: Arc<LogLevel>,
    pub tls: Option<Arc<TlsSource>>,
    pub node: Arc<Node>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

impl Reload {
    /// Reloads each time the signal arrives.
    pub async fn on(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            // Files are read, and passwords may be hashed.
            tokio::task::block_in_place(|| self.reload());
        }
    }

    fn reload(&mut self) {
        let new = match (self.read)() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!("SIGHUP: nothing was reloaded: {error}");
                return;
            }
        };
        if let Some(tls) = &self.tls {
            match tls.reload(&new.tls) {
                Ok(()) => tracing::info!("SIGHUP: certificates were read again; new connections use them"),
                Err(error) => tracing::error!("SIGHUP: certificates stay as they are: {error}"),
            }
        }
        let settings = Settings::resolve(new.clone());
        if let Some(file) = settings.definitions.filter(|file| file.reload)
            && let Err(error) = definitions_file::import(&self.node, &file)
        {
            tracing::error!("SIGHUP: {error}");
        }
        for key in changed(&self.current, &new) {
            tracing::warn!("SIGHUP: {key} has changed, and takes effect at the next start");
        }
        tracing::info!("SIGHUP: the configuration was read again");
        // Last, so that the log lines about the reload appear with the lower one of the two levels.
        self.log_level.set(new.log_level);
    }
}

/// The options that have changed and need a restart.
fn changed<'a>(old: &'a Configuration, new: &'a Configuration) -> impl Iterator<Item = &'static str> {
    let needs_restart = |key: &str| !TAKEN_OVER.contains(&key) && !key.starts_with("tls.");
    let options = OPTIONS.iter().filter(move |option| needs_restart(option.key));
    options.filter(|option| option.show(old) != option.show(new)).map(|option| option.key)
}

/// Reads the configuration again, as at the start.
pub fn reader(
    args: ServeArgs,
    environment: fn() -> Vec<(String, String)>,
) -> Box<dyn Fn() -> Result<Configuration, String> + Send + Sync> {
    Box::new(move || {
        let configuration = args.configuration(environment()).map_err(|error| error.to_string())?;
        configuration.check().map_err(|error| error.to_string())?;
        Ok(configuration)
    })
}
