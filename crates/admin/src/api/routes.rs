//! The addresses of the API, with the methods that each takes and who may use them: RabbitMQ's, and no others. The
//! table is the only place that knows them.

/// What a request wants to do. `HEAD` is a `GET` whose answer has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Put,
    Post,
    Delete,
}

/// Who may use an address, besides having one of RabbitMQ's four tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Everybody with a tag. Lists contain only what the user may see.
    Tagged,
    /// Those who may enter the vhost in the path.
    Vhost,
    /// Like `Vhost`, and everybody with the tag monitoring.
    VhostVisible,
    /// The user of the connection; to look also monitoring, to close it also administrators.
    Owner,
    /// Policymakers who may enter the vhost.
    Policymaker,
    /// Policymakers.
    AnyPolicymaker,
    /// Those with the tag monitoring.
    Monitor,
    /// Administrators.
    Administrator,
}

/// What an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Overview,
    Whoami,
    Auth,
    HashPassword,
    Extensions,
    Version,
    ClusterName,
    Nodes,
    Node,
    FeatureFlags,
    Alive,
    Alarms,
    Healthy,
    Critical,
    PortListener,
    ProtocolListener,
    CertificateExpiration,
    VirtualHosts,
    Vhosts,
    Vhost,
    VhostPermissions,
    VhostTopicPermissions,
    VhostConnections,
    VhostChannels,
    Users,
    User,
    UsersWithoutPermissions,
    BulkDelete,
    UserPermissions,
    UserTopicPermissions,
    Permissions,
    Permission,
    TopicPermissions,
    TopicPermissionsOf,
    TopicPermission,
    Policies,
    Policy,
    OperatorPolicies,
    OperatorPolicy,
    VhostLimits,
    VhostLimit,
    UserLimits,
    UserLimit,
    Parameters,
    Parameter,
    GlobalParameters,
    Exchanges,
    Exchange,
    ExchangeSources,
    ExchangeDestinations,
    Publish,
    Queues,
    Queue,
    QueueBindings,
    Contents,
    GetMessages,
    Bindings,
    BindingsBetween,
    Binding,
    Connections,
    Connection,
    ConnectionChannels,
    UserConnections,
    Channels,
    Channel,
    Consumers,
    Definitions,
}

/// An address.
#[derive(Debug)]
pub struct Route {
    /// Its segments after `/api/`. Those that begin with `:` stand for any text.
    pub path: &'static str,
    /// The methods that it takes, and who may use each.
    pub verbs: &'static [(Verb, Check)],
    /// What it stands for.
    pub to: To,
}

use Check as C;
use Verb::{Delete, Get, Post, Put};

const fn route(path: &'static str, verbs: &'static [(Verb, Check)], to: To) -> Route {
    Route { path, verbs, to }
}

/// Those that change nothing.
const ANYBODY: &[(Verb, Check)] = &[(Get, C::Tagged)];
const MONITOR: &[(Verb, Check)] = &[(Get, C::Monitor)];
const ADMINISTRATOR: &[(Verb, Check)] = &[(Get, C::Administrator)];
const IN_VHOST: &[(Verb, Check)] = &[(Get, C::Vhost)];
/// Those that are made, changed and deleted.
const BY_ADMINISTRATOR: &[(Verb, Check)] =
    &[(Get, C::Administrator), (Put, C::Administrator), (Delete, C::Administrator)];
const BY_POLICYMAKER: &[(Verb, Check)] = &[(Get, C::Policymaker), (Put, C::Policymaker), (Delete, C::Policymaker)];
const LIMIT: &[(Verb, Check)] = &[(Put, C::Administrator), (Delete, C::Administrator)];
const OBJECT: &[(Verb, Check)] = &[(Get, C::Vhost), (Put, C::Vhost), (Delete, C::Vhost)];
const POST: &[(Verb, Check)] = &[(Post, C::Vhost)];

/// All addresses.
pub const ROUTES: &[Route] = &[
    route("overview", ANYBODY, To::Overview),
    route("whoami", ANYBODY, To::Whoami),
    route("auth", ANYBODY, To::Auth),
    route("auth/hash_password/:password", ANYBODY, To::HashPassword),
    route("extensions", ANYBODY, To::Extensions),
    route("version", ANYBODY, To::Version),
    route("cluster-name", ANYBODY, To::ClusterName),
    route("nodes", MONITOR, To::Nodes),
    route("nodes/:node", MONITOR, To::Node),
    route("feature-flags", ADMINISTRATOR, To::FeatureFlags),
    route("aliveness-test/:vhost", IN_VHOST, To::Alive),
    route("healthchecks/node", ANYBODY, To::Healthy),
    route("healthchecks/node/:node", ANYBODY, To::Healthy),
    route("health/checks/alarms", ANYBODY, To::Alarms),
    route("health/checks/local-alarms", ANYBODY, To::Alarms),
    route("health/checks/virtual-hosts", ANYBODY, To::VirtualHosts),
    route("health/checks/node-is-quorum-critical", ANYBODY, To::Critical),
    route("health/checks/node-is-mirror-sync-critical", ANYBODY, To::Critical),
    route("health/checks/is-in-service", ANYBODY, To::Healthy),
    route("health/checks/ready-to-serve-clients", ANYBODY, To::Healthy),
    route("health/checks/certificate-expiration/:within/:unit", ANYBODY, To::CertificateExpiration),
    route("health/checks/port-listener/:port", ANYBODY, To::PortListener),
    route("health/checks/protocol-listener/:protocol", ANYBODY, To::ProtocolListener),
    route("vhosts", ANYBODY, To::Vhosts),
    route("vhosts/:vhost", BY_ADMINISTRATOR, To::Vhost),
    route("vhosts/:vhost/permissions", ADMINISTRATOR, To::VhostPermissions),
    route("vhosts/:vhost/topic-permissions", ADMINISTRATOR, To::VhostTopicPermissions),
    route("vhosts/:vhost/connections", IN_VHOST, To::VhostConnections),
    route("vhosts/:vhost/channels", IN_VHOST, To::VhostChannels),
    route("users", ADMINISTRATOR, To::Users),
    route("users/without-permissions", ADMINISTRATOR, To::UsersWithoutPermissions),
    route("users/bulk-delete", &[(Post, C::Administrator)], To::BulkDelete),
    route("users/:user", BY_ADMINISTRATOR, To::User),
    route("users/:user/permissions", ADMINISTRATOR, To::UserPermissions),
    route("users/:user/topic-permissions", ADMINISTRATOR, To::UserTopicPermissions),
    route("permissions", ADMINISTRATOR, To::Permissions),
    route("permissions/:vhost/:user", BY_ADMINISTRATOR, To::Permission),
    route("topic-permissions", ADMINISTRATOR, To::TopicPermissions),
    route("topic-permissions/:vhost/:user", BY_ADMINISTRATOR, To::TopicPermissionsOf),
    route(
        "topic-permissions/:vhost/:user/:exchange",
        &[(Get, C::Administrator), (Delete, C::Administrator)],
        To::TopicPermission,
    ),
    route("policies", IN_VHOST, To::Policies),
    route("policies/:vhost", IN_VHOST, To::Policies),
    route("policies/:vhost/:name", BY_POLICYMAKER, To::Policy),
    route("operator-policies", IN_VHOST, To::OperatorPolicies),
    route("operator-policies/:vhost", IN_VHOST, To::OperatorPolicies),
    route("operator-policies/:vhost/:name", BY_ADMINISTRATOR, To::OperatorPolicy),
    route("vhost-limits", ANYBODY, To::VhostLimits),
    route("vhost-limits/:vhost", &[(Get, C::VhostVisible)], To::VhostLimits),
    route("vhost-limits/:vhost/:name", LIMIT, To::VhostLimit),
    route("user-limits", ANYBODY, To::UserLimits),
    route("user-limits/:user", ANYBODY, To::UserLimits),
    route("user-limits/:user/:name", LIMIT, To::UserLimit),
    route("parameters", &[(Get, C::AnyPolicymaker)], To::Parameters),
    route("parameters/:component", &[(Get, C::AnyPolicymaker)], To::Parameters),
    route("parameters/:component/:vhost", &[(Get, C::Policymaker)], To::Parameters),
    route("parameters/:component/:vhost/:name", BY_POLICYMAKER, To::Parameter),
    route("global-parameters", &[(Get, C::AnyPolicymaker)], To::GlobalParameters),
    route("exchanges", IN_VHOST, To::Exchanges),
    route("exchanges/:vhost", IN_VHOST, To::Exchanges),
    route("exchanges/:vhost/:name", OBJECT, To::Exchange),
    route("exchanges/:vhost/:name/bindings/source", IN_VHOST, To::ExchangeSources),
    route("exchanges/:vhost/:name/bindings/destination", IN_VHOST, To::ExchangeDestinations),
    route("exchanges/:vhost/:name/publish", POST, To::Publish),
    route("queues", IN_VHOST, To::Queues),
    route("queues/:vhost", IN_VHOST, To::Queues),
    route("queues/:vhost/:name", OBJECT, To::Queue),
    route("queues/:vhost/:name/bindings", IN_VHOST, To::QueueBindings),
    route("queues/:vhost/:name/contents", &[(Delete, C::Vhost)], To::Contents),
    route("queues/:vhost/:name/get", POST, To::GetMessages),
    route("bindings", IN_VHOST, To::Bindings),
    route("bindings/:vhost", IN_VHOST, To::Bindings),
    route("bindings/:vhost/e/:source/:kind/:destination", &[(Get, C::Vhost), (Post, C::Vhost)], To::BindingsBetween),
    route(
        "bindings/:vhost/e/:source/:kind/:destination/:properties",
        &[(Get, C::Vhost), (Delete, C::Vhost)],
        To::Binding,
    ),
    route("connections", ANYBODY, To::Connections),
    route("connections/username/:user", &[(Get, C::Monitor), (Delete, C::Administrator)], To::UserConnections),
    route("connections/:connection", &[(Get, C::Owner), (Delete, C::Owner)], To::Connection),
    route("connections/:connection/channels", &[(Get, C::Owner)], To::ConnectionChannels),
    route("channels", ANYBODY, To::Channels),
    route("channels/:channel", &[(Get, C::Owner)], To::Channel),
    route("consumers", ANYBODY, To::Consumers),
    route("consumers/:vhost", ANYBODY, To::Consumers),
    route("definitions", &[(Get, C::Administrator), (Post, C::Administrator)], To::Definitions),
    route("definitions/:vhost", &[(Get, C::Administrator), (Post, C::Administrator)], To::Definitions),
];

/// The parts of a path, by their names in [`Route::path`].
pub type Parts = Vec<(&'static str, String)>;

/// The address with these segments, which are decoded, and what its names stand for. Words win over names.
pub fn find(segments: &[String]) -> Option<(&'static Route, Parts)> {
    ROUTES.iter().find_map(|route| Some((route, parts(route.path, segments)?)))
}

fn parts(path: &'static str, segments: &[String]) -> Option<Parts> {
    let mut parts = Vec::new();
    let mut given = segments.iter();
    for expected in path.split('/') {
        let segment = given.next()?;
        match expected.strip_prefix(':') {
            Some(name) => parts.push((name, segment.clone())),
            None if expected == segment => {}
            None => return None,
        }
    }
    given.next().is_none().then_some(parts)
}

impl Route {
    /// Who may use this method; `None` if the address does not take it.
    pub fn check(&self, verb: Verb) -> Option<Check> {
        self.verbs.iter().find(|(own, _)| *own == verb).map(|(_, check)| *check)
    }

    /// Whether a body must be said to be JSON. At other addresses any type is taken.
    pub fn takes_only_json(&self) -> bool {
        matches!(self.to, To::OperatorPolicy | To::VhostLimit | To::UserLimit | To::Definitions)
            && self.verbs.iter().any(|(verb, _)| matches!(verb, Put | Post))
    }

    /// The methods that it takes, for the header `allow`.
    pub fn allowed(&self) -> String {
        let names = self.verbs.iter().map(|(verb, _)| match verb {
            Get => "HEAD, GET",
            Put => "PUT",
            Post => "POST",
            Delete => "DELETE",
        });
        names.chain(["OPTIONS"]).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<String> {
        path.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn words_win_over_names() {
        assert_eq!(find(&segments("users/without-permissions")).unwrap().0.to, To::UsersWithoutPermissions);
        let (route, parts) = find(&segments("users/anna")).unwrap();
        assert_eq!((route.to, parts), (To::User, vec![("user", "anna".to_owned())]));
        assert!(find(&segments("users/anna/x")).is_none());
        assert!(find(&segments("nothing")).is_none());
    }

    #[test]
    fn methods_are_named_as_rabbitmq_names_them() {
        let (route, _) = find(&segments("queues/v/q")).unwrap();
        assert_eq!(route.allowed(), "HEAD, GET, PUT, DELETE, OPTIONS");
        assert_eq!(route.check(Verb::Post), None);
    }
}
