//! The settings of a server: the values that result from the configuration on this machine.

use std::{path::PathBuf, thread::available_parallelism};

use ferrymq_model::{Limits, Mechanism, ServerProperties};
use ferrymq_node::FixedStorage;

use crate::{
    configuration::{Configuration, Listen},
    memory,
    protocol::Service,
    tls::TlsFiles,
    token_options::{BackendName, TokenOptions},
};

/// Everything `serve` needs to know. Passed down, never global.
#[derive(Debug)]
pub struct Settings {
    /// The directory for all durable data.
    pub data_directory: PathBuf,
    /// A definitions file to import.
    pub definitions: Option<DefinitionsFile>,
    /// What is listened on.
    pub listeners: Vec<ListenerSettings>,
    /// Certificates and keys of the TLS listeners.
    pub tls: TlsFiles,
    /// The user backends, in the order in which they are asked.
    pub auth_backends: Vec<BackendName>,
    /// How clients may log in.
    pub auth_mechanisms: Vec<Mechanism>,
    /// More names by which the HTTP API may be called.
    pub http_hosts: Vec<String>,
    /// Which tokens are accepted.
    pub tokens: TokenOptions,
    /// Whether events are published to the exchange `amq.rabbitmq.event`.
    pub events: bool,
    /// How many threads serve connections.
    pub threads: usize,
    /// The names that clients see.
    pub identity: ServerProperties,
    /// Limits of connections and queues.
    pub limits: Limits,
    /// How messages are stored.
    pub storage: ferrymq_storage::Options,
    /// Values that were asked for and cannot change in an existing data directory.
    pub fixed: FixedStorage,
}

/// Definitions to import.
#[derive(Clone, Debug)]
pub struct DefinitionsFile {
    /// The file.
    pub path: PathBuf,
    /// Whether every entry of it must be usable.
    pub strict: bool,
    /// Whether SIGHUP imports it again.
    pub reload: bool,
}

/// One thing to listen on.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// What is spoken there.
    pub service: Service,
    /// An address, or a name that stands for one or more.
    pub host: String,
    /// 0 picks a free port.
    pub port: u16,
    /// Whether the server must not start without it.
    pub required: bool,
}

impl Settings {
    /// How clients may log in on a listener of this service.
    ///
    /// # Errors
    /// If nobody could.
    pub fn mechanisms(&self, service: &Service) -> Result<Vec<Mechanism>, String> {
        let by_certificate = service.is_secure && self.tls.can_prove();
        let offered = |mechanism: &Mechanism| *mechanism != Mechanism::External || by_certificate;
        let mechanisms: Vec<Mechanism> = self.auth_mechanisms.iter().copied().filter(offered).collect();
        if mechanisms.is_empty() {
            let name = service.name;
            return Err(format!(
                "auth_mechanisms has none for the listener {name}: EXTERNAL needs TLS and tls.login_from (docs/tls.md)"
            ));
        }
        Ok(mechanisms)
    }

    /// The settings that follow from `configuration`.
    #[must_use]
    pub fn resolve(configuration: Configuration) -> Self {
        let threads = match configuration.threads {
            0 => available_parallelism().map_or(2, usize::from),
            some => some,
        };
        let listeners = if configuration.listen.is_empty() {
            let offered = |service: &Service| configuration.tls.are_given() || !service.is_secure;
            Service::all().filter(offered).flat_map(on_this_machine).collect()
        } else {
            configuration.listen.into_iter().map(as_asked).collect()
        };
        let asked = |key: &str, value: u32| configuration.given.contains(key).then_some(value);
        let fixed = FixedStorage {
            file_bytes: asked("storage.file_bytes", configuration.storage.file_bytes),
            files: asked("storage.files", configuration.storage.files),
        };
        // Without a budget it depends on the machine. If the machine's memory cannot be read, there is no budget.
        let memory_bytes_max = match configuration.limits.memory_bytes_max {
            0 => memory::budget_bytes().unwrap_or(0),
            bytes => bytes,
        };
        // One threshold for both: a body that arrives shared is stored shared.
        let copy_bytes_max = u32::try_from(configuration.limits.copy_bytes_max).unwrap_or(u32::MAX);
        Self {
            data_directory: configuration.data_dir,
            definitions: configuration.definitions.map(|path| DefinitionsFile {
                path,
                strict: configuration.definitions_strict,
                reload: configuration.definitions_reload,
            }),
            listeners,
            tls: configuration.tls,
            auth_backends: configuration.auth_backends,
            auth_mechanisms: configuration.auth_mechanisms,
            http_hosts: configuration.http_hosts,
            tokens: configuration.oauth2,
            events: configuration.events,
            threads,
            identity: configuration.identity,
            limits: Limits { memory_bytes_max, ..configuration.limits },
            storage: ferrymq_storage::Options { copy_bytes_max, ..configuration.storage },
            fixed,
        }
    }
}

fn as_asked(Listen { service, host, port }: Listen) -> ListenerSettings {
    ListenerSettings { service, host, port, required: true }
}

/// A service's own port on the loopback addresses. Not every machine has the second address.
fn on_this_machine(service: Service) -> [ListenerSettings; 2] {
    [("127.0.0.1", true), ("::1", false)].map(|(host, required)| ListenerSettings {
        service,
        host: host.into(),
        port: service.port,
        required,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_listeners_everything_opens_on_loopback_only() {
        let settings = Settings::resolve(Configuration::default());
        assert!(settings.listeners.iter().all(|listener| !listener.service.is_secure), "there are no certificates");
        assert_eq!(settings.listeners.len(), 2 * Service::all().filter(|service| !service.is_secure).count());
        assert!(settings.listeners.iter().all(|listener| ["127.0.0.1", "::1"].contains(&listener.host.as_str())));
        assert!(settings.threads > 0);
    }

    #[test]
    fn with_a_certificate_amqps_opens_too() {
        let tls = TlsFiles { certificate_file: Some("server.pem".into()), ..TlsFiles::default() };
        let settings = Settings::resolve(Configuration { tls, ..Configuration::default() });
        let secure = settings.listeners.iter().filter(|listener| listener.service.is_secure);
        assert_eq!(secure.map(|listener| (listener.service.name, listener.port)).next(), Some(("amqps", 5671)));
    }

    #[test]
    fn only_what_was_asked_for_opens() {
        let listen = vec!["amqp=0.0.0.0:0".parse().unwrap()];
        let settings = Settings::resolve(Configuration { listen, threads: 3, ..Configuration::default() });
        assert_eq!(settings.threads, 3);
        let [listener] = &settings.listeners[..] else { panic!("{:?}", settings.listeners) };
        assert_eq!((listener.host.as_str(), listener.port, listener.required), ("0.0.0.0", 0, true));
    }
}
