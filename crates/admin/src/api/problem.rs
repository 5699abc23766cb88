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
pub struct Problem(Box<Answer>);

#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    /// `None`: the answer has no body.
    text: Option<(&'static str, Value)>,
    /// A header of the answer.
    header: Option<(header::HeaderName, HeaderValue)>,
    /// It is the answer of a health check: the word stands under `status`.
    unhealthy: bool,
}

impl Problem {
    fn without_text(status: StatusCode, header: Option<(header::HeaderName, HeaderValue)>) -> Self {
        Self(Box::new(Answer { status, text: None, header, unhealthy: false }))
    }

    fn new(status: StatusCode, error: &'static str, reason: impl Into<Value>) -> Self {
        Self(Box::new(Answer { status, text: Some((error, reason.into())), header: None, unhealthy: false }))
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
        Self::without_text(StatusCode::UNAUTHORIZED, Some(challenge()))
    }

    /// 400: the login cannot be read.
    pub fn malformed() -> Self {
        Self::without_text(StatusCode::BAD_REQUEST, None)
    }

    /// 405: the address takes only these methods.
    pub fn method_not_allowed(allowed: &str) -> Self {
        let allow = HeaderValue::from_str(allowed).ok().map(|allowed| (header::ALLOW, allowed));
        Self::without_text(StatusCode::METHOD_NOT_ALLOWED, allow)
    }

    /// 406: the client does not take JSON.
    pub fn not_acceptable() -> Self {
        Self::without_text(StatusCode::NOT_ACCEPTABLE, None)
    }

    /// 415: the body must be said to be JSON.
    pub fn unsupported_media_type() -> Self {
        Self::without_text(StatusCode::UNSUPPORTED_MEDIA_TYPE, None)
    }

    /// 421: a client on this machine uses a name that is not known to mean it.
    pub fn misdirected(host: &str) -> Self {
        let reason = format!("'{host}' is not a name of this machine; use localhost, or add the name to http_hosts");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", reason)
    }

    /// 403: a page of another site asks in a browser.
    pub fn cross_site() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "a page of another site may not change anything here")
    }

    /// 408: the body did not come in time.
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time; send it again")
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
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "failed", reason);
        problem.0.unhealthy = true;
        problem
    }

    /// 503.
    pub fn not_ready(reason: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason)
    }

    /// What a refused login is.
    pub fn of_login(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::ResourceLimit(text) => {
                let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text.as_str());
                problem.0.header = Some((header::RETRY_AFTER, HeaderValue::from_static("1")));
                problem
            }
            Refusal::LoginFailed(text) if text.ends_with("this machine only") => {
                Self::not_authorised("User can only log in via localhost")
            }
            _ => {
                let mut problem = Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Login failed");
                problem.0.header = Some(challenge());
                problem
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
        let Answer { status: code, text, header, unhealthy } = *self.0;
        let mut response = match text {
            Some((status, reason)) if unhealthy => {
                (code, Json(json!({"status": status, "reason": reason}))).into_response()
            }
            Some((error, reason)) => (code, Json(json!({"error": error, "reason": reason}))).into_response(),
            None => code.into_response(),
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
