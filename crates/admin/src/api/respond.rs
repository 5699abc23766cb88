//! Answers of the API.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ferrymq_model::Changed;
use serde_json::Value;

/// The answer with an object or a list.
pub fn json(value: &Value) -> Response {
    json_body(Body::from(value.to_string()))
}

/// The answer with a body that is JSON.
pub fn json_body(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// 201 if the change has made something, else 204.
pub fn changed(changed: &Changed) -> Response {
    made(matches!(changed, Changed::Created))
}

/// 201 for something new, else 204.
pub fn made(is_new: bool) -> Response {
    if is_new { StatusCode::CREATED.into_response() } else { nothing() }
}

/// 204.
pub fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
