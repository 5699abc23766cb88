//! The HTTP interface of a server. It gets its answers through [`ferrymq_model::Queries`], and knows neither node nor
//! storage.
//!
//! So far it answers two requests, both without login: `GET /health/live` and `GET /health/ready`. Management is not
//! built yet: the answer for every other address is a 404 that says so.

mod connection;
mod health;
mod responses;

use std::sync::Arc;

use axum::{Router, extract::Request, middleware, routing::get};
use ferrymq_model::Queries;

/// The HTTP interface of one server. It is cheap to clone, and all clones are the same interface.
#[derive(Clone)]
pub struct Admin {
    router: Router,
    open: Arc<connection::Open>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// An interface that answers from `queries`.
    #[must_use]
    pub fn new(queries: Arc<dyn Queries>) -> Self {
        let router = Router::new()
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .fallback(|request: Request| async move { responses::not_found(request.uri().path()) })
            .method_not_allowed_fallback(responses::method_not_allowed)
            .layer(middleware::map_response(responses::add_headers))
            .with_state(queries);
        Self { router, open: Arc::new(connection::Open::new(connection::CONNECTIONS_MAX)) }
    }

    /// Lowers the maximum number of connections at the same time to `max`, if that is fewer. For a further connection
    /// the oldest one is closed.
    #[must_use]
    pub fn with_connections_max(self, max: usize) -> Self {
        Self { open: Arc::new(connection::Open::new(max.min(connection::CONNECTIONS_MAX))), ..self }
    }
}
