//! The headers that all answers have, and the answers for unknown addresses and methods. Errors have the two fields
//! that clients of RabbitMQ's API read: `error` and `reason`.

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

/// The answer for an unknown address.
pub fn not_found(path: &str) -> Response {
    let reason = format!("there is nothing at {path}; this version answers /health/live, /health/ready and /api");
    (StatusCode::NOT_FOUND, Json(Problem { error: "not_found", reason })).into_response()
}

/// The answer for a known address with a wrong method.
pub async fn method_not_allowed(request: Request) -> Response {
    let reason = format!("{} does not take {}; use GET", request.uri().path(), request.method());
    (StatusCode::METHOD_NOT_ALLOWED, Json(Problem { error: "method_not_allowed", reason })).into_response()
}

/// Adds the headers that name the server and forbid caches to keep the answer.
pub async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, SERVER);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
