//! Listeners: they open ports and accept connections.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ferrymq_admin::Admin;
use ferrymq_model::Refusal;
use ferrymq_node::Node;
use tokio::{
    net::{TcpListener, TcpStream, lookup_host},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

use crate::{
    connection,
    process::Process,
    protocol::NewSession,
    settings::ListenerSettings,
    tls::{Records, TlsSource},
};

/// How long a listener waits after a failed accept. Usually there are no file descriptors left, and trying again at
/// once would only use CPU.
const PAUSE: Duration = Duration::from_millis(100);

/// How long clients may take to answer when the server stops.
const GRACE: Duration = Duration::from_secs(2);

/// What serves the connections of a listener.
#[derive(Clone)]
pub enum Endpoint {
    /// Sessions over a node.
    Sessions {
        /// Begins a session.
        new_session: NewSession,
        /// What they speak to.
        node: Arc<Node>,
        /// The clock.
        process: Arc<Process>,
        /// What TLS handshakes need, for a TLS listener.
        tls: Option<Arc<TlsSource>>,
        /// The threads that serve them.
        workers: Handle,
        /// One permit for each connection, until its socket is closed.
        places: Arc<Semaphore>,
    },
    /// The HTTP interface, served on the thread that accepts.
    Http(Admin),
}

impl Endpoint {
    /// Whether the log may have one more line about a refused connection.
    fn may_log_refusal(&self) -> bool {
        match self {
            Self::Sessions { process, .. } => process.log_limits().accepting.passes(),
            Self::Http(_) => true,
        }
    }

    /// Waits until there is a place for one more connection.
    fn place(&self) -> Result<Option<OwnedSemaphorePermit>, NoPlace> {
        match self {
            Self::Sessions { places, .. } => places.clone().try_acquire_owned().map(Some).map_err(|_| NoPlace),
            // The oldest connections are closed.
            Self::Http(_) => Ok(None),
        }
    }

    /// Serves a connection on the caller's runtime. It has its place until it ends.
    async fn serve(self, stream: std::net::TcpStream, _place: Option<OwnedSemaphorePermit>) {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::error!("a connection cannot be served: {error}"),
        };
        match self {
            Self::Sessions { new_session, node, process, tls, .. } => {
                match tls.map(|tls| Records::new(tls.current())).transpose() {
                    Ok(records) => connection::serve(stream, records, new_session(), node, process).await,
                    Err(error) => tracing::error!("a handshake cannot begin: {error}"),
                }
            }
            Self::Http(admin) => {
                let peer = match stream.peer_addr() {
                    Ok(peer) => peer,
                    Err(error) => return tracing::debug!("an HTTP connection has no peer: {error}"),
                };
                // Its state would make the task of every connection longer.
                if let Err(error) = Box::pin(admin.serve(stream, peer)).await {
                    tracing::debug!("an HTTP connection ended: {error}");
                }
            }
        }
    }

    /// The threads that serve its connections.
    fn runtime(&self) -> Handle {
        match self {
            Self::Sessions { workers, .. } => workers.clone(),
            Self::Http(_) => Handle::current(),
        }
    }
}

/// All descriptors for connections are in use.
#[derive(Debug)]
struct NoPlace;

impl std::fmt::Display for NoPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "the limit of open files allows no more; the rest is for storage and health (raise it with ulimit -n)",
        )
    }
}

/// Opens a listener on each address of its host.
pub async fn open(settings: &ListenerSettings) -> Result<Vec<TcpListener>, String> {
    let ListenerSettings { service, host, port, required } = settings;
    let failed = |error: &io::Error| {
        let hint = if error.kind() == ErrorKind::AddrInUse {
            "another program, or another listener of this one, has this port; "
        } else {
            ""
        };
        format!("cannot listen on {host} port {port} for {}: {error}; {hint}choose another with --listen", service.name)
    };
    let addresses: Vec<SocketAddr> =
        lookup_host((host.as_str(), *port)).await.map_err(|error| failed(&error))?.collect();
    let mut listeners = Vec::new();
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // The machine does not have this kind of address, and nobody has asked for it.
            Err(error) if !required && error.kind() != ErrorKind::AddrInUse => {
                tracing::debug!("not listening on {address}: {error}");
            }
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(listeners)
}

/// Accepts connections until the server stops, on a thread that serves no clients; then it ends these connections.
pub async fn accept(listener: TcpListener, endpoint: Endpoint, mut stopped: watch::Receiver<bool>) {
    let (mut connections, runtime) = (JoinSet::new(), endpoint.runtime());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                let Ok(place) = endpoint.place() else {
                    if endpoint.may_log_refusal() {
                        tracing::error!("a connection is refused: {NoPlace}");
                    }
                    continue;
                };
                // Not within another future, which would have the memory of this one twice.
                connections.spawn_on(endpoint.clone().serve(stream, place), &runtime);
            }
            Err(error) => {
                if endpoint.may_log_refusal() {
                    tracing::error!("cannot accept a connection: {error}; raise the limit of open files (ulimit -n)");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    if let Endpoint::Sessions { node, .. } = endpoint {
        // RabbitMQ's text.
        let why = "broker forced connection closure with reason 'shutdown'";
        node.close_connections(&Refusal::ConnectionForced(why.to_owned()));
        let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    }
    connections.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output_bytes<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Each idle connection has one. A future that holds another one before it awaits it is twice as long.
    #[test]
    fn the_task_of_a_connection_is_small() {
        let bytes = output_bytes(Endpoint::serve);
        assert!(bytes <= 1_792, "{bytes} bytes");
    }
}
