//! What all answers have in common, and the answers to what is not there. Errors have the two fields that the clients
//! of RabbitMQ's API read: `error` and `reason`.

use axum::{
    Json,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The `Server` header.
const SERVER: HeaderValue = HeaderValue::from_static(concat!("FerryMQ/", env!("CARGO_PKG_VERSION")));

#[derive(Serialize)]
struct Problem {
    error: &'static str,
    reason: String,
}

/// Nothing is at this address.
pub fn not_found(path: &str) -> Response {
    let reason = format!("there is nothing at {path}; this version answers /health/live and /health/ready");
    (StatusCode::NOT_FOUND, Json(Problem { error: "not_found", reason })).into_response()
}

/// The address is right and the method is not.
pub async fn method_not_allowed(request: Request) -> Response {
    let reason = format!("{} does not take {}; use GET", request.uri().path(), request.method());
    (StatusCode::METHOD_NOT_ALLOWED, Json(Problem { error: "method_not_allowed", reason })).into_response()
}

/// Says who answered, and that the answer is about this moment.
pub async fn sign(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, SERVER);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
