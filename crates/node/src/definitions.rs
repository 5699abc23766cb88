//! Definitions: users, vhosts, permissions, policies, queues, exchanges and bindings as RabbitMQ exports them in JSON,
//! taken in at once and without asking for permissions.
//!
//! Importing twice changes nothing the second time. What is there already under the same name stays as it is, save users,
//! permissions and policies, which become what the file says: so RabbitMQ does it, too.

use std::fmt;

use ferrymq_broker::{ApplyTo, Catalog, PolicyScope, PolicySpec, QueueSettings};
use ferrymq_model::{
    CatalogEntry, Destination, ExchangeKind, ExchangeSpec, Name, QueueId, QueueSpec, Refusal, Table, Value,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::{
    definition_limits::{self, VHOST_LIMITS, VhostDefinition},
    login,
    node::{GUEST, Node},
};

/// What was taken in, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// How many things the file has that now are as it says.
    pub taken: usize,
    /// What has no meaning here, or is there already otherwise: one sentence each.
    pub passed_over: Vec<String>,
}

/// Something in definitions that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionsError {
    /// Where it stands.
    place: String,
    /// What is wrong and what would be right.
    problem: String,
}

impl fmt::Display for DefinitionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for DefinitionsError {}

#[derive(Deserialize)]
struct UserDefinition {
    name: String,
    #[serde(default)]
    password_hash: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    hashing_algorithm: Option<String>,
    #[serde(default)]
    tags: Tags,
    limits: Option<Json>,
}

/// RabbitMQ before 3.9 writes them as one text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tags {
    List(Vec<String>),
    Text(String),
}

impl Default for Tags {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Deserialize)]
struct PermissionDefinition {
    user: String,
    vhost: String,
    configure: String,
    write: String,
    read: String,
}

#[derive(Deserialize)]
struct TopicPermissionDefinition {
    user: String,
    vhost: String,
    exchange: String,
    write: String,
    read: String,
}

#[derive(Deserialize)]
struct PolicyDefinition {
    vhost: String,
    name: String,
    #[serde(flatten)]
    policy: PolicyValue,
}

#[derive(Deserialize)]
struct PolicyValue {
    pattern: String,
    #[serde(default, rename = "apply-to")]
    apply_to: Option<String>,
    definition: serde_json::Map<String, Json>,
    #[serde(default)]
    priority: i64,
}

#[derive(Deserialize)]
struct ParameterDefinition {
    component: String,
    #[serde(default)]
    vhost: String,
    name: String,
    value: Json,
}

#[derive(Deserialize)]
struct GlobalParameterDefinition {
    name: String,
}

#[derive(Deserialize)]
struct QueueDefinition {
    vhost: String,
    name: String,
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    arguments: serde_json::Map<String, Json>,
}

#[derive(Deserialize)]
struct ExchangeDefinition {
    vhost: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    durable: bool,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    arguments: serde_json::Map<String, Json>,
}

#[derive(Deserialize)]
struct BindingDefinition {
    vhost: String,
    source: String,
    destination: String,
    destination_type: String,
    #[serde(default)]
    routing_key: String,
    #[serde(default)]
    arguments: serde_json::Map<String, Json>,
}

impl Node {
    /// Takes in definitions as RabbitMQ exports them. Where one of them cannot be used, those before it have been.
    ///
    /// # Errors
    /// Where this is not JSON, or something in it cannot be used: where it stands, and what would be right.
    pub fn import_definitions(&self, json: &[u8]) -> Result<Imported, DefinitionsError> {
        let parsed: Json = serde_json::from_slice(json).map_err(|why| DefinitionsError {
            place: format!("line {}, column {}", why.line(), why.column()),
            problem: format!("this is not JSON as RabbitMQ exports it: {why}"),
        })?;
        let ((result, imported, traced), _) = self.change_catalog(None, None, |shard, ports, changes| {
            let mut import = Import::new(ports.catalog(), changes);
            let result = import.take_in(&parsed);
            // Also after an error: the catalog has taken these in.
            let Import { created, changed, traced, imported, .. } = import;
            let now = ports.now();
            for (queue, settings) in created {
                for lane in 0..=settings.priority_max {
                    ports.create_queue(queue.lane(lane), settings.durable);
                }
                shard.open(queue, settings, &[], now);
            }
            for (queue, settings) in changed {
                shard.configure(queue, settings, now);
            }
            (result, imported, traced)
        });
        traced.iter().for_each(|(vhost, on)| self.trace(vhost, *on));
        result.map(|()| imported)
    }
}

/// Nobody needs longer definitions, and each must fit a record of the journal.
const ITEM_BYTES_MAX: usize = 96 << 10;

/// One import under way.
struct Import<'a> {
    catalog: &'a mut Catalog,
    changes: &'a mut Vec<CatalogEntry>,
    /// Queues that the shard has to be told of.
    created: Vec<(QueueId, QueueSettings)>,
    /// Queues that do something else by a policy.
    changed: Vec<(QueueId, QueueSettings)>,
    /// Vhosts that are to be traced from now on, or not any more.
    traced: Vec<(Name, bool)>,
    imported: Imported,
}

/// What one thing of the file came to: an error without its place.
type Step = Result<(), String>;

impl<'a> Import<'a> {
    fn new(catalog: &'a mut Catalog, changes: &'a mut Vec<CatalogEntry>) -> Self {
        let (created, changed) = (Vec::new(), Vec::new());
        Self { catalog, changes, created, changed, traced: Vec::new(), imported: Imported::default() }
    }

    /// In an order in which nothing comes before what it needs.
    fn take_in(&mut self, json: &Json) -> Result<(), DefinitionsError> {
        if !json.is_object() {
            return Err(error("the whole", "it must be an object, with keys such as users, vhosts and queues"));
        }
        self.each(json, "users", Self::user)?;
        self.close_default_user(json);
        self.each(json, "vhosts", Self::vhost)?;
        self.each(json, "permissions", Self::permission)?;
        self.each(json, "topic_permissions", Self::topic_permission)?;
        self.each(json, "exchanges", Self::exchange)?;
        self.each(json, "policies", Self::policy)?;
        self.each(json, "parameters", Self::parameter)?;
        self.each(json, "global_parameters", Self::global_parameter)?;
        self.each(json, "queues", Self::queue)?;
        self.each(json, "bindings", Self::binding)
    }

    /// Takes in a list of the file, one by one.
    fn each<T: DeserializeOwned>(
        &mut self,
        json: &Json,
        category: &str,
        take: fn(&mut Self, T) -> Step,
    ) -> Result<(), DefinitionsError> {
        let Some(list) = json.get(category) else { return Ok(()) };
        let list = list.as_array().ok_or_else(|| error(category, "it must be a list"))?;
        for (at, item) in list.iter().enumerate() {
            if item.to_string().len() > ITEM_BYTES_MAX {
                return Err(error(
                    &place(category, at, &Json::Null),
                    &format!("it is longer than {ITEM_BYTES_MAX} bytes"),
                ));
            }
            let taken = T::deserialize(item).map_err(|why| why.to_string()).and_then(|item| take(self, item));
            taken.map_err(|problem| error(&place(category, at, item), &problem))?;
            self.imported.taken += 1;
        }
        Ok(())
    }

    fn user(&mut self, user: UserDefinition) -> Step {
        let kept = match (&user.password, &user.password_hash) {
            (Some(password), _) => login::hash(password.as_bytes()),
            (None, Some(hash)) => login::kept_as(user.hashing_algorithm.as_deref(), hash)?,
            (None, None) => String::new(),
        };
        let tags = match user.tags {
            Tags::List(tags) => tags,
            Tags::Text(text) => {
                text.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
            }
        };
        let name = name(&user.name)?;
        let same = |there: &ferrymq_broker::User| there.password_hash == kept && there.tags == tags;
        // A plain password has a new hash each time.
        if !self.catalog.user(&name).is_some_and(same) {
            self.catalog.put_user(&name, &kept, &tags, self.changes);
        }
        let Some(limits) = &user.limits else { return Ok(()) };
        let limits = definition_limits::user_limits(limits)?;
        self.catalog.set_user_limits(&name, limits, self.changes).map_err(said)
    }

    /// A file that brings its own users does not want the one with the password that everybody knows.
    fn close_default_user(&mut self, json: &Json) {
        let Some(users) = json.get("users").and_then(Json::as_array).filter(|users| !users.is_empty()) else { return };
        let brought = users.iter().any(|user| user.get("name").and_then(Json::as_str) == Some(GUEST));
        let is_default =
            self.catalog.user(GUEST).is_some_and(|guest| login::is_right(GUEST.as_bytes(), &guest.password_hash));
        if !brought && is_default {
            self.catalog.delete_user(&Name::from(GUEST), self.changes).expect("it was just found");
            self.pass_over("user 'guest' had its default password and was deleted, because other users were brought");
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "all that takes in a definition does so")]
    fn vhost(&mut self, vhost: VhostDefinition) -> Step {
        let name = name(&vhost.name)?;
        self.catalog.put_vhost(&name, self.changes);
        let before = self.catalog.vhost_settings(&name).map_err(said)?;
        let settings = vhost.settings(before)?;
        self.catalog.set_vhost_settings(&name, settings, self.changes).map_err(said)?;
        self.traced.extend(vhost.tracing.map(|traced| (name, traced)));
        Ok(())
    }

    fn vhost_limits(&mut self, vhost: &str, limits: &Json) -> Step {
        let vhost = name(vhost)?;
        let before = self.catalog.vhost_settings(&vhost).map_err(said)?.clone();
        let settings = definition_limits::limited(before, limits)?;
        self.catalog.set_vhost_settings(&vhost, settings, self.changes).map_err(said)
    }

    fn global_parameter(&mut self, GlobalParameterDefinition { name }: GlobalParameterDefinition) -> Step {
        self.pass_over(format!("global parameter '{name}' has no meaning here"));
        Ok(())
    }

    fn permission(&mut self, permission: PermissionDefinition) -> Step {
        let PermissionDefinition { user, vhost, configure, write, read } = permission;
        let patterns = [&*configure, &*write, &*read];
        self.catalog.set_permission(&name(&user)?, &name(&vhost)?, patterns, self.changes).map_err(said)
    }

    fn topic_permission(&mut self, permission: TopicPermissionDefinition) -> Step {
        let TopicPermissionDefinition { user, vhost, exchange, write, read } = permission;
        let (user, vhost, exchange) = (name(&user)?, name(&vhost)?, name(&exchange)?);
        let patterns = [&*write, &*read];
        self.catalog.set_topic_permission(&user, &vhost, &exchange, patterns, self.changes).map_err(said)
    }

    fn policy(&mut self, policy: PolicyDefinition) -> Step {
        self.set_policy(&policy.vhost, PolicyScope::User, &policy.name, policy.policy)
    }

    fn parameter(&mut self, parameter: ParameterDefinition) -> Step {
        let ParameterDefinition { component, vhost, name, value } = parameter;
        if component == "operator_policy" {
            let policy = PolicyValue::deserialize(value).map_err(|why| why.to_string())?;
            return self.set_policy(&vhost, PolicyScope::Operator, &name, policy);
        }
        if component == VHOST_LIMITS {
            return self.vhost_limits(&vhost, &value);
        }
        self.pass_over(format!("parameter '{name}' of component '{component}' has no meaning here"));
        Ok(())
    }

    fn set_policy(&mut self, vhost: &str, scope: PolicyScope, policy: &str, value: PolicyValue) -> Step {
        let spec = PolicySpec {
            pattern: value.pattern,
            apply_to: ApplyTo::parse(value.apply_to.as_deref().unwrap_or("all")).map_err(said)?,
            priority: value.priority,
            definition: table(value.definition)?,
        };
        let set = self.catalog.set_policy(&name(vhost)?, scope, &name(policy)?, &spec, self.changes);
        self.changed.extend(set.map_err(said)?);
        Ok(())
    }

    fn exchange(&mut self, exchange: ExchangeDefinition) -> Step {
        let ExchangeDefinition { vhost, name: own, kind, durable, auto_delete, internal, arguments } = exchange;
        if own.is_empty() || own.starts_with("amq.") || self.catalog.exchange(&vhost, &own).is_ok() {
            return Ok(());
        }
        let kind = ExchangeKind::parse(&kind).ok_or_else(|| {
            format!("exchanges of type '{kind}' are not built; take it out of the file, with its bindings")
        })?;
        let spec = ExchangeSpec { kind, durable, auto_delete, internal, arguments: table(arguments)? };
        self.catalog.put_exchange(&name(&vhost)?, &name(&own)?, &spec, self.changes).map_err(said)
    }

    fn queue(&mut self, queue: QueueDefinition) -> Step {
        let QueueDefinition { vhost, name: own, durable, auto_delete, arguments } = queue;
        if self.catalog.has_queue(&vhost, &own) {
            return Ok(());
        }
        if own.starts_with("amq.") {
            self.pass_over(format!("queue '{own}' in vhost '{vhost}' has a name that the server chooses"));
            return Ok(());
        }
        let spec = QueueSpec { durable, exclusive: false, auto_delete, arguments: table(arguments)? };
        let declared = self.catalog.put_queue(&name(&vhost)?, &name(&own)?, &spec, self.changes).map_err(said)?;
        self.created.extend(declared.created.map(|settings| (declared.queue, settings)));
        Ok(())
    }

    fn binding(&mut self, binding: BindingDefinition) -> Step {
        let BindingDefinition { vhost, source, destination, destination_type, routing_key, arguments } = binding;
        let destination = match &*destination_type {
            "queue" => Destination::Queue(name(&destination)?),
            "exchange" => Destination::Exchange(name(&destination)?),
            other => return Err(format!("destination_type is '{other}'; it must be queue or exchange")),
        };
        let (vhost, source, key) = (name(&vhost)?, name(&source)?, name(&routing_key)?);
        let arguments = table(arguments)?;
        self.catalog.put_binding(&vhost, &source, &destination, key.as_bytes(), &arguments, self.changes).map_err(said)
    }

    fn pass_over(&mut self, what: impl Into<String>) {
        self.imported.passed_over.push(what.into());
    }
}

fn error(place: &str, problem: &str) -> DefinitionsError {
    DefinitionsError { place: place.to_owned(), problem: problem.to_owned() }
}

/// Where something stands: its list, its number from 0, and what it is called.
fn place(category: &str, at: usize, item: &Json) -> String {
    let said = |key: &str| item.get(key).and_then(Json::as_str);
    let name = said("name").or_else(|| said("user")).or_else(|| said("source"));
    match (name, said("vhost")) {
        (Some(name), Some(vhost)) => format!("{category}[{at}] ('{name}' in vhost '{vhost}')"),
        (Some(name), None) => format!("{category}[{at}] ('{name}')"),
        _ => format!("{category}[{at}]"),
    }
}

/// A refusal in the words of somebody who can still change the file.
#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn said(refusal: Refusal) -> String {
    match &refusal {
        Refusal::VhostNotFound(vhost) => format!("vhost '{vhost}' is not there; add it to vhosts"),
        Refusal::NotFound { object, name, .. } => format!("{object} '{name}' is not there; add it to {object}s"),
        Refusal::NothingNamed(text) => format!("{text}; add it to users"),
        other => other.to_string(),
    }
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text.as_bytes()).map_err(|_| format!("'{text}' is longer than 255 bytes"))
}

fn table(map: serde_json::Map<String, Json>) -> Result<Table, String> {
    map.into_iter().map(|(key, value)| Ok((key, value_of(value)?))).collect()
}

fn value_of(json: Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Void,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => Value::Int(whole),
            (None, Some(whole), _) => Value::Unsigned(whole),
            (None, None, Some(fraction)) => Value::Float(fraction),
            (None, None, None) => return Err(format!("{number} is no number that can be kept")),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(values) => Value::List(values.into_iter().map(value_of).collect::<Result<_, _>>()?),
        Json::Object(map) => Value::Table(table(map)?),
    })
}

#[cfg(test)]
mod tests {
    use ferrymq_broker::{Caller, Envelope};
    use ferrymq_model::{Access, ConnectionId, Object};

    use super::*;

    /// As RabbitMQ 3.10.8 exports it, but for an operator policy, a second vhost and an older user beside it.
    const EXPORTED: &str = include_str!("definitions.json");

    fn fresh() -> Catalog {
        Catalog::fresh(&login::hash(b"guest"), &mut Vec::new())
    }

    fn import(catalog: &mut Catalog, json: &str) -> (Result<(), DefinitionsError>, Imported, Vec<CatalogEntry>) {
        let mut changes = Vec::new();
        let mut import = Import::new(catalog, &mut changes);
        let result = import.take_in(&serde_json::from_str(json).unwrap());
        (result, import.imported, changes)
    }

    #[test]
    fn what_rabbitmq_exports_is_taken_in_and_works() {
        let mut catalog = fresh();
        let (result, imported, _) = import(&mut catalog, EXPORTED);
        result.unwrap();
        assert_eq!(imported.taken, 18);
        assert!(login::is_right(b"secret", &catalog.user("worker").unwrap().password_hash));
        assert_eq!(catalog.user("boss").unwrap().tags, ["administrator", "monitoring"]);
        assert!(catalog.user("guest").is_none(), "its password is known to everybody");
        catalog.may_enter("worker", "orders").unwrap();
        let refused = catalog.allowed("worker", "orders", Access::Configure, Object::Queue, "theirs");
        assert!(refused.is_err());
        let (vhost, user) = (Name::from("orders"), Name::from("worker"));
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        catalog.may_publish(&caller, "events", b"worker.made", &[]).unwrap();
        assert!(catalog.may_publish(&caller, "events", b"boss.made", &[]).is_err(), "a topic permission");
        let (mut targets, envelope) = (Vec::new(), Envelope::EMPTY);
        catalog.route("orders", "events", b"worker.made", &[], &envelope, &mut targets).unwrap();
        assert_eq!(targets.len(), 1, "over a bound exchange");
        let queue = catalog.queue_by_id(targets[0]).unwrap();
        assert_eq!((&*queue.settings.name, queue.settings.message_ttl_ms), ("made", Some(60_000)));
        catalog.route("orders", "events", b"worker.lost", &[], &envelope, &mut targets).unwrap();
        assert_eq!(targets.len(), 1, "over the alternate exchange of a policy");
        assert_eq!(imported.passed_over.len(), 3, "{:?}", imported.passed_over);
    }

    #[test]
    fn a_second_import_changes_no_queue_exchange_or_binding() {
        let mut catalog = fresh();
        import(&mut catalog, EXPORTED).0.unwrap();
        let (result, _, changes) = import(&mut catalog, EXPORTED);
        result.unwrap();
        let kinds = changes.iter().map(|entry| entry.kind as u8);
        assert!(kinds.clone().all(|kind| [3, 8, 9].contains(&kind)), "{:?}", kinds.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
        for (json, expected) in [
            ("[]", "the whole: it must be an object, with keys such as users, vhosts and queues"),
            (r#"{"users": 5}"#, "users: it must be a list"),
            (
                r#"{"queues": [{"name": "q", "vhost": "none", "durable": true}]}"#,
                "queues[0] ('q' in vhost 'none'): vhost 'none' is not there; add it to vhosts",
            ),
            (r#"{"vhosts": [{}]}"#, "vhosts[0]: missing field `name`"),
            (
                r#"{"permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}]}"#,
                "permissions[0] ('u' in vhost '/'): no user 'u'; add it to users",
            ),
            (
                r#"{"bindings": [{"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue"}]}"#,
                "bindings[0] ('x' in vhost '/'): exchange 'x' is not there; add it to exchanges",
            ),
            (
                r#"{"policies": [{"name": "p", "vhost": "/", "pattern": "q", "definition": {"foo": 1}}]}"#,
                "policies[0] ('p' in vhost '/'): [{<<\"foo\">>,1}] are not recognised policy settings",
            ),
            (
                r#"{"users": [{"name": "u", "password_hash": "AAAA"}]}"#,
                "users[0] ('u'): password_hash is not 4 bytes of salt and 32 of digest in base 64; export it again, or \
                 give a password instead",
            ),
        ] {
            assert_eq!(import(&mut fresh(), json).0.unwrap_err().to_string(), expected);
        }
    }
}
