//! RabbitMQ's HTTP API: the management of a server in JSON. What it says and asks goes through
//! [`ferrymq_model::Management`]; the names and texts are RabbitMQ's, and are known only here.

mod bindings;
mod body;
mod connections;
mod definitions;
mod exchanges;
mod json;
mod limits;
mod list;
mod messages;
mod origin;
mod overview;
mod parameters;
mod permissions;
mod policies;
mod problem;
mod query;
mod queues;
mod respond;
mod rights;
mod routes;
mod users;
mod vhosts;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64ct::{Base64, Encoding};
use ferrymq_model::{Actor, Change, Changed, ListenerReport, Managed, Management, Name, Refusal};
use http_body::Body as _;
use percent_encoding::percent_decode_str;
use tokio::sync::Semaphore;

use body::Fields;
use problem::Problem;
use query::{ListQuery, Parameters};
use rights::Tags;
use routes::{Parts, To, Verb};

/// The maximum length of a body, in bytes.
const BODY_BYTES_MAX: usize = 20_000_000;

/// The maximum length of a body that is read at once, in bytes. Longer ones, and those without a length, wait for a place.
const SHORT_BODY_BYTES_MAX: u64 = 64 << 10;

/// The places for long bodies.
static LONG_BODIES: Semaphore = Semaphore::const_new(4);

/// How long the body of a request may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A request of somebody who has logged in, and may ask it.
struct Ask {
    management: Arc<dyn Management>,
    readiness: ferrymq_model::Readiness,
    listeners: Vec<ListenerReport>,
    actor: Actor,
    tags: Tags,
    verb: Verb,
    parts: Parts,
    parameters: Parameters,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// A part of the path.
    fn part(&self, name: &str) -> &str {
        self.parts.iter().find(|(own, _)| *own == name).map_or("", |(_, part)| part.as_str())
    }

    /// A part of the path that may not be there.
    fn part_if_any(&self, name: &str) -> Option<&str> {
        self.parts.iter().find(|(own, _)| *own == name).map(|(_, part)| part.as_str())
    }

    /// A part of the path that is a name.
    fn name(&self, part: &str) -> Result<Name, Problem> {
        body::name(self.part(part), part)
    }

    /// The vhost in the path.
    fn vhost(&self) -> Result<Name, Problem> {
        self.name("vhost")
    }

    fn fields(&self) -> Result<Fields, Problem> {
        Fields::read(&self.body)
    }

    fn list_query(&self) -> Result<ListQuery, Problem> {
        ListQuery::read(&self.parameters)
    }

    async fn change(&self, change: Change) -> Result<Changed, Problem> {
        self.management.change(&self.actor, change).await.map_err(Problem::from)
    }

    /// Checks that the vhost in the path exists.
    fn check_vhost(&self) -> Result<Name, Problem> {
        let vhost = self.vhost()?;
        if self.management.vhosts(Some(&vhost)).is_empty() { Err(Problem::not_found()) } else { Ok(vhost) }
    }

    /// Whether the user sees objects of this vhost in lists.
    fn sees(&self, vhost: &str) -> bool {
        self.tags.administrator || self.management.may_enter(&self.actor, vhost)
    }
}

/// Answers a request whose path begins with `/api/`. `hosts` are names of this machine.
pub async fn serve(managed: Arc<dyn Managed>, peer: SocketAddr, hosts: &[String], request: Request) -> Response {
    let is_head = request.method() == Method::HEAD;
    let mut response = answer(managed, peer, hosts, request).await.unwrap_or_else(Problem::into_response);
    // What is refused before it is asked for as JSON depends on less.
    response.headers_mut().entry(header::VARY).or_insert(HeaderValue::from_static("origin"));
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// Checks a request in RabbitMQ's order: address, method, login, rights, format; then carries it out.
async fn answer(
    managed: Arc<dyn Managed>,
    peer: SocketAddr,
    hosts: &[String],
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let path = segments(head.uri.path()).ok_or_else(Problem::malformed)?;
    let (route, parts) = routes::find(&path).ok_or_else(Problem::not_found)?;
    let verb = match head.method {
        Method::GET | Method::HEAD => Verb::Get,
        Method::PUT => Verb::Put,
        Method::POST => Verb::Post,
        Method::DELETE => Verb::Delete,
        Method::OPTIONS => {
            let allowed = HeaderValue::from_str(&route.allowed());
            let mut response = StatusCode::OK.into_response();
            response.headers_mut().extend(allowed.ok().map(|allowed| (header::ALLOW, allowed)));
            return Ok(response);
        }
        _ => return Err(Problem::method_not_allowed(&route.allowed())),
    };
    let check = route.check(verb).ok_or_else(|| Problem::method_not_allowed(&route.allowed()))?;
    origin::check(&head.headers, verb, peer, hosts)?;
    if route.to == To::Auth {
        return Ok(overview::auth());
    }
    let readiness = managed.readiness();
    let Some(management) = managed.management() else {
        return Err(Problem::not_ready("the data directory is being recovered"));
    };
    let actor = log_in(&*management, &head.headers, peer).await?;
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let vhost = parts.iter().find(|(name, _)| *name == "vhost").map(|(_, vhost)| vhost.as_str());
    rights::check(check, &actor, vhost.or_else(|| text("x-vhost")), &*management)?;
    if !text("accept").is_none_or(takes_json) {
        return Err(Problem::not_acceptable());
    }
    let parameters = Parameters::read(head.uri.query());
    let is_json = text("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    let is_taken = verb == Verb::Get || is_json || !route.takes_only_json() || verb == Verb::Delete;
    let body = match verb {
        Verb::Put | Verb::Post => read(body).await?,
        Verb::Get | Verb::Delete => Bytes::new(),
    };
    let (tags, headers, listeners) = (Tags::of(&actor), head.headers, managed.listeners());
    let ask = Ask { management, readiness, listeners, actor, tags, verb, parts, parameters, headers, body };
    let answered = async {
        let is_paged = matches!(route.to, To::Queues | To::Exchanges | To::Vhosts);
        let error = if is_paged { "invalid_range_parameters" } else { "bad_request" };
        query::check_ranges(&ask.parameters, error)?;
        if is_taken { carry_out(route.to, ask).await } else { Err(Problem::unsupported_media_type()) }
    };
    let mut response = answered.await.unwrap_or_else(Problem::into_response);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static(varies_by(route.to)));
    Ok(response)
}

/// The headers of a request by which the answer differs, as RabbitMQ says them.
fn varies_by(to: To) -> &'static str {
    match to {
        To::TopicPermissions
        | To::TopicPermissionsOf
        | To::TopicPermission
        | To::VhostTopicPermissions
        | To::UserTopicPermissions
        | To::OperatorPolicies
        | To::OperatorPolicy
        | To::VhostLimits
        | To::VhostLimit
        | To::UserLimits
        | To::UserLimit
        | To::Contents => "accept-encoding, origin",
        _ => "accept, accept-encoding, origin",
    }
}

async fn carry_out(to: To, ask: Ask) -> Result<Response, Problem> {
    match to {
        To::Overview | To::Whoami | To::Auth | To::HashPassword | To::Extensions | To::Version | To::ClusterName => {
            overview::answer(to, &ask).await
        }
        To::Nodes | To::Node | To::FeatureFlags => overview::node(to, &ask),
        To::Alive => overview::alive(&ask).await,
        To::CertificateExpiration
        | To::Critical
        | To::Alarms
        | To::Healthy
        | To::PortListener
        | To::ProtocolListener
        | To::VirtualHosts => overview::health(to, &ask),
        To::Vhosts | To::Vhost => vhosts::answer(to, &ask).await,
        To::Users | To::User | To::UsersWithoutPermissions | To::BulkDelete => users::answer(to, &ask).await,
        To::VhostPermissions
        | To::VhostTopicPermissions
        | To::UserPermissions
        | To::UserTopicPermissions
        | To::Permissions
        | To::Permission
        | To::TopicPermissions
        | To::TopicPermissionsOf
        | To::TopicPermission => permissions::answer(to, &ask).await,
        To::Policies | To::Policy | To::OperatorPolicies | To::OperatorPolicy => policies::answer(to, &ask).await,
        To::VhostLimits | To::VhostLimit | To::UserLimits | To::UserLimit => limits::answer(to, &ask).await,
        To::Parameters | To::Parameter | To::GlobalParameters => parameters::answer(to, &ask).await,
        To::Exchanges | To::Exchange => exchanges::answer(to, &ask).await,
        To::Queues | To::Queue | To::Contents => queues::answer(to, ask).await,
        To::ExchangeSources
        | To::ExchangeDestinations
        | To::QueueBindings
        | To::Bindings
        | To::BindingsBetween
        | To::Binding => bindings::answer(to, ask).await,
        To::Publish | To::GetMessages => messages::answer(to, &ask).await,
        To::Connections
        | To::Connection
        | To::ConnectionChannels
        | To::UserConnections
        | To::VhostConnections
        | To::VhostChannels
        | To::Channels
        | To::Channel
        | To::Consumers => connections::answer(to, &ask).await,
        To::Definitions => definitions::answer(&ask).await,
    }
}

/// The decoded segments of a path after `/api/`.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix("/api/")?.trim_end_matches('/');
    let decoded = path.split('/').map(|segment| {
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        // A percent sign must be followed by two digits.
        let is_whole = |at: usize| segment.get(at + 1..at + 3).is_some_and(|code| u8::from_str_radix(code, 16).is_ok());
        segment.match_indices('%').all(|(at, _)| is_whole(at)).then(|| text.into_owned())
    });
    decoded.collect()
}

fn takes_json(accept: &str) -> bool {
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.into_iter().any(|kind| ["*/*", "application/*", "application/json", ""].contains(&kind))
}

/// The user, by a password or a token.
async fn log_in(management: &dyn Management, headers: &HeaderMap, peer: SocketAddr) -> Result<Actor, Problem> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (user, password) = credentials(value.ok_or_else(Problem::no_login)?).ok_or_else(Problem::malformed)?;
    let user = Name::parse(user.as_bytes())
        .map_err(|_| Problem::of_login(&Refusal::LoginFailed("the name of the user is too long".to_owned())))?;
    let address = peer.ip().to_canonical();
    let logged_in = management.log_in(user, password, address.to_string(), address.is_loopback()).await;
    logged_in.map_err(|refusal| {
        tracing::warn!(peer = %peer, "HTTP login refused: {refusal}");
        Problem::of_login(&refusal)
    })
}

/// The user and the password of the header `authorization`.
fn credentials(value: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((String::new(), rest.trim().as_bytes().to_vec()));
    }
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| Base64::decode_vec(rest.trim()).ok())??;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

/// Reads a body, up to its limit. Only some long ones are read at the same time, so that all clients together make the
/// server hold few of them, and each in a certain time, so that a slow client does not keep others waiting.
async fn read(body: Body) -> Result<Bytes, Problem> {
    let is_short = body.size_hint().exact().is_some_and(|bytes| bytes <= SHORT_BODY_BYTES_MAX);
    let _place = if is_short { None } else { LONG_BODIES.acquire().await.ok() };
    let read = tokio::time::timeout(BODY_TIME_MAX, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    read.map_err(|_| Problem::too_slow())?.map_err(|_| Problem::too_large(BODY_BYTES_MAX))
}
