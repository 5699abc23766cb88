//! The HTTP interface of a server: health checks, and RabbitMQ's API. It asks and changes everything through
//! [`ferrymq_model::Management`], and knows neither node nor storage.

mod api;
mod connection;
mod health;
mod responses;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware,
    routing::{any, get},
};
use ferrymq_model::Managed;

/// The HTTP interface of one server. It is cheap to clone, and all clones are the same interface.
#[derive(Clone)]
pub struct Admin {
    router: Router,
    hosts: Hosts,
    open: Arc<connection::Open>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// An interface of this server.
    #[must_use]
    pub fn new(managed: Arc<dyn Managed>) -> Self {
        let router = Router::new()
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .route("/api/{*path}", any(api))
            .fallback(|request: Request| async move { responses::not_found(request.uri().path()) })
            .method_not_allowed_fallback(responses::method_not_allowed)
            .layer(middleware::map_response(responses::add_headers))
            .with_state(managed);
        Self {
            router,
            hosts: Hosts(Arc::default()),
            open: Arc::new(connection::Open::new(connection::CONNECTIONS_MAX)),
        }
    }

    /// Clients on this machine may also use these names for it, besides `localhost` and addresses.
    #[must_use]
    pub fn with_hosts(self, hosts: Vec<String>) -> Self {
        Self { hosts: Hosts(hosts.into()), ..self }
    }

    /// Lowers the maximum number of connections at the same time to `max`, if that is fewer. For a further connection
    /// the oldest one is closed.
    #[must_use]
    pub fn with_connections_max(self, max: usize) -> Self {
        Self { open: Arc::new(connection::Open::new(max.min(connection::CONNECTIONS_MAX))), ..self }
    }
}

/// Names of this machine.
#[derive(Clone, Debug)]
struct Hosts(Arc<[String]>);

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
struct Peer(std::net::SocketAddr);

async fn api(
    State(managed): State<Arc<dyn Managed>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(Hosts(hosts)): Extension<Hosts>,
    request: Request,
) -> axum::response::Response {
    api::serve(managed, peer, &hosts, request).await
}
