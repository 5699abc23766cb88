//! The configuration: the values that the user gave, from all sources.
//!
//! Each option is defined once, in [`options`]. Its key in the file, its environment variable, its flag and its
//! line in docs/configuration.md follow from that definition. A flag wins over a variable, a variable over the
//! file, the file over the default. The result is what the user *asked for*; [`crate::settings::Settings`] is what
//! the server uses.

mod file;
mod options;
#[cfg(test)]
mod page;
mod useless;
mod value;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use ferrymq_model::{Limits, Mechanism, ServerProperties};

use crate::{
    tls::TlsFiles,
    token_options::{BackendName, TokenOptions},
};

pub use options::{Definition, OPTIONS};
pub use value::{Form, Listen};

/// What the variables of all options begin with.
const PREFIX: &str = "FERRYMQ_";

/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "FERRYMQ_CONFIG";

/// The values of all options, with defaults.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The directory for all durable data.
    pub data_dir: PathBuf,
    /// The definitions file that is imported at every start.
    pub definitions: Option<PathBuf>,
    /// Whether every entry of it must be usable.
    pub definitions_strict: bool,
    /// Whether SIGHUP imports it again.
    pub definitions_reload: bool,
    /// What to listen on; empty: every protocol on its own port, on this machine only.
    pub listen: Vec<Listen>,
    /// The log level.
    pub log_level: tracing::Level,
    /// Certificates and keys.
    pub tls: TlsFiles,
    /// The user backends, in the order in which they are asked.
    pub auth_backends: Vec<BackendName>,
    /// How clients may log in, in the order in which the server names it to them.
    pub auth_mechanisms: Vec<Mechanism>,
    /// More names by which the HTTP API may be called.
    pub http_hosts: Vec<String>,
    /// The options for tokens.
    pub oauth2: TokenOptions,
    /// Whether events are published to the exchange `amq.rabbitmq.event`.
    pub events: bool,
    /// How many threads serve connections; 0: one for each processor.
    pub threads: usize,
    /// The names that clients see.
    pub identity: ServerProperties,
    /// Limits of connections and queues.
    pub limits: Limits,
    /// How messages are stored.
    pub storage: ferrymq_storage::Options,
    /// The keys of the options that are set.
    pub given: BTreeSet<&'static str>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            data_dir: "./data".into(),
            definitions: None,
            definitions_strict: false,
            definitions_reload: false,
            listen: Vec::new(),
            log_level: tracing::Level::INFO,
            tls: TlsFiles::default(),
            auth_backends: vec![BackendName::Internal],
            auth_mechanisms: vec![Mechanism::AmqPlain, Mechanism::Plain, Mechanism::External],
            http_hosts: Vec::new(),
            oauth2: TokenOptions::default(),
            events: false,
            threads: 0,
            identity: ServerProperties::default(),
            limits: Limits::default(),
            storage: ferrymq_storage::Options::default(),
            given: BTreeSet::new(),
        }
    }
}

impl Configuration {
    /// Reads the file, if there is one, then the environment, then `flags`. Later ones win.
    ///
    /// # Errors
    /// If one of them has a value that no option accepts: where it is, and which values are right.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static Definition, String)>,
    ) -> Result<Self, ConfigurationError> {
        let mut configuration = Self::default();
        let mut variables: Vec<(String, String)> =
            environment.into_iter().filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect();
        variables.sort();
        let named = variables.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, value)| Path::new(value));
        if let Some(path) = file.or(named) {
            for entry in file::read(path)? {
                configuration.set(entry.option, &entry.value, || entry.place.clone())?;
            }
        }
        for (name, value) in &variables {
            if let Some(option) = OPTIONS.iter().find(|option| option.variable() == *name) {
                configuration.set(option, value, || format!("environment variable {name}"))?;
            }
        }
        for (option, value) in flags {
            configuration.set(option, &value, || format!("flag {}", option.flag()))?;
        }
        Ok(configuration)
    }

    fn set(
        &mut self,
        option: &Definition,
        value: &str,
        place: impl FnOnce() -> String,
    ) -> Result<(), ConfigurationError> {
        self.given.insert(option.key);
        option.set(self, value).map_err(|problem| ConfigurationError { place: place(), problem })
    }
}

/// Variables that look like options and are not. Most of them are typing errors. But container platforms set some
/// of them for every service that is called ferrymq, so the server still starts.
pub fn unknown_variables(environment: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let known = |name: &str| name == FILE_VARIABLE || OPTIONS.iter().any(|option| option.variable() == name);
    let names = environment.into_iter().map(|(name, _)| name);
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with(PREFIX) && !known(name)).collect();
    unknown.sort();
    unknown
}

/// An error in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationError {
    /// Where it is.
    place: String,
    /// What is wrong and which values are right.
    problem: String,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for ConfigurationError {}

#[cfg(test)]
mod tests;
