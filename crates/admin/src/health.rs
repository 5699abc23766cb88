//! Health checks, for orchestrators and load balancers. They need no login.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ferrymq_model::{Managed, Readiness};
use serde::Serialize;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Answers that the process runs. It says nothing more: a server that recovers is alive, and nobody should restart it.
pub async fn live() -> Response {
    Json(Health { status: "ok", reason: None }).into_response()
}

/// Answers whether clients can be served: 200 if they can, 503 with the reason if not. While publishers wait the answer
/// is 200 with the status `blocked`, because the consumers that drain the queues must still be able to connect.
pub async fn ready(State(managed): State<Arc<dyn Managed>>) -> Response {
    match managed.readiness() {
        Readiness::Ready => Json(Health { status: "ok", reason: None }).into_response(),
        Readiness::Blocked(reason) => Json(Health { status: "blocked", reason: Some(reason) }).into_response(),
        Readiness::NotReady(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "not ready", reason: Some(reason) }))
                .into_response()
        }
    }
}
