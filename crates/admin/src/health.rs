//! Health: for orchestrators and load balancers, which have no account here.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ferrymq_model::{Queries, Readiness};
use serde::Serialize;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The process runs and answers. Nothing more: a server that recovers is alive and must not be restarted for it.
pub async fn live() -> Response {
    Json(Health { status: "ok", reason: None }).into_response()
}

/// Clients can be served: 200, with a word where publishers wait, since consumers who drain the queues must still come in; or
/// not, and why: 503.
pub async fn ready(State(queries): State<Arc<dyn Queries>>) -> Response {
    match queries.readiness() {
        Readiness::Ready => Json(Health { status: "ok", reason: None }).into_response(),
        Readiness::Blocked(reason) => Json(Health { status: "blocked", reason: Some(reason) }).into_response(),
        Readiness::NotReady(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready", reason: Some(reason) }))
                .into_response()
        }
    }
}
