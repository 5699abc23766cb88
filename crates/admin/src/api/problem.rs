//! Refusals as RabbitMQ's API writes them: a status, and an object with `error` and `reason`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use ferrymq_model::Refusal;
use serde_json::{Value, json};

/// Why a request is not carried out.
#[derive(Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    /// `None`: the answer has no body.
    text: Option<(&'static str, Value)>,
    /// A header of the answer.
    header: Option<(header::HeaderName, HeaderValue)>,
    /// It is the answer of a health check: the word stands under `status`.
    unhealthy: bool,
}

impl Problem {
    fn new(status: StatusCode, error: &'static str, reason: impl Into<Value>) -> Self {
        Self { status, text: Some((error, reason.into())), header: None, unhealthy: false }
    }

    /// 400.
    pub fn bad_request(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// 400 with another word for the error.
    pub fn invalid(error: &'static str, reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, reason)
    }

    /// 404: there is no such address or object.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// 404 with a reason.
    pub fn missing(reason: impl Into<Value>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// 401: the user is known, and may not do this.
    pub fn not_authorised(reason: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// 401: nobody has logged in.
    pub fn no_login() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, text: None, header: Some(challenge()), unhealthy: false }
    }

    /// 400: the login cannot be read.
    pub fn malformed() -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: None, header: None, unhealthy: false }
    }

    /// 405: the address takes only these methods.
    pub fn method_not_allowed(allowed: &str) -> Self {
        let allow = HeaderValue::from_str(allowed).ok().map(|allowed| (header::ALLOW, allowed));
        Self { status: StatusCode::METHOD_NOT_ALLOWED, text: None, header: allow, unhealthy: false }
    }

    /// 406: the client does not take JSON.
    pub fn not_acceptable() -> Self {
        Self { status: StatusCode::NOT_ACCEPTABLE, text: None, header: None, unhealthy: false }
    }

    /// 415: the body must be said to be JSON.
    pub fn unsupported_media_type() -> Self {
        Self { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, text: None, header: None, unhealthy: false }
    }

    /// 413.
    pub fn too_large(bytes_max: usize) -> Self {
        let reason = format!("the body is longer than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", reason)
    }

    /// 501: something that this version has not.
    pub fn not_built(reason: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", reason)
    }

    /// 503: a health check has failed.
    pub fn unhealthy(reason: &str) -> Self {
        Self { unhealthy: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "failed", reason) }
    }

    /// 503.
    pub fn not_ready(reason: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason)
    }

    /// What a refused login is.
    pub fn of_login(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::ResourceLimit(text) => {
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text.as_str());
                Self { header: Some((header::RETRY_AFTER, HeaderValue::from_static("1"))), ..problem }
            }
            Refusal::LoginFailed(text) if text.ends_with("this machine only") => {
                Self::not_authorised("User can only log in via localhost")
            }
            _ => {
                let problem = Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Login failed");
                Self { header: Some(challenge()), ..problem }
            }
        }
    }
}

fn challenge() -> (header::HeaderName, HeaderValue) {
    (header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"RabbitMQ Management\""))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound { .. } => Self::missing(refusal.to_string()),
            Refusal::VhostNotFound(_) => Self::missing("vhost_not_found"),
            Refusal::NothingNamed(_) => Self::not_found(),
            Refusal::AccessRefused(_) | Refusal::NotAllowed(_) | Refusal::LoginFailed(_) => {
                Self::not_authorised("Access refused.")
            }
            Refusal::ResourceLimit(text) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "resource_limit", text),
            Refusal::ConnectionForced(text) => Self::not_ready(&text),
            Refusal::Fault(text) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", text),
            other => Self::bad_request(other.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = match self.text {
            Some((status, reason)) if self.unhealthy => {
                (self.status, Json(json!({"status": status, "reason": reason}))).into_response()
            }
            Some((error, reason)) => (self.status, Json(json!({"error": error, "reason": reason}))).into_response(),
            None => self.status.into_response(),
        };
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
