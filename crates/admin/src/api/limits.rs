//! Limits of vhosts and users.

use axum::response::Response;
use ferrymq_model::{Change, VhostReport, VhostSettings};
use serde_json::{Map, Value, json};

use super::{
    Ask,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
    users,
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    match to {
        To::VhostLimits => {
            let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
            let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
            for report in ask.management.vhosts(vhost.as_deref()) {
                let limits = of_vhost(&report);
                if (ask.tags.monitors() || ask.sees(&report.name))
                    && limits.as_object().is_some_and(|limits| !limits.is_empty())
                {
                    list.add(&query, "", json!({"vhost": &*report.name, "value": limits}));
                }
            }
            list.answer(&query)
        }
        To::UserLimits => {
            let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
            let wanted = ask.part_if_any("user");
            let found = ask.management.users(wanted);
            if wanted.is_some() && found.is_empty() {
                return Err(Problem::not_found());
            }
            for user in &found {
                let limits = users::limits(user);
                if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
                    list.add(&query, "", json!({"user": &*user.name, "value": limits}));
                }
            }
            list.answer(&query)
        }
        To::VhostLimit => limit_vhost(ask).await,
        _ => limit_user(ask).await,
    }
}

/// The limits of a vhost, as an object.
pub fn of_vhost(report: &VhostReport) -> Value {
    let settings = &report.settings;
    let pairs = [("max-connections", settings.connections_max), ("max-queues", settings.queues_max)];
    let set = pairs.into_iter().filter_map(|(key, max)| Some((key.to_owned(), Value::from(max?))));
    Value::Object(set.collect::<Map<_, _>>())
}

/// The limits of vhosts as parameters: as in `/api/parameters` and in definitions.
pub fn parameters_of(report: &VhostReport) -> Option<Value> {
    let limits = of_vhost(report);
    let is_set = limits.as_object().is_some_and(|limits| !limits.is_empty());
    is_set.then(|| json!({"component": "vhost-limits", "name": "limits", "vhost": &*report.name, "value": limits}))
}

/// The number that a body sets; `None` removes the limit. As in RabbitMQ, a negative one does so, too.
fn value(ask: &Ask, limit: &str) -> Result<Option<u32>, String> {
    if ask.verb == Verb::Delete {
        return Ok(None);
    }
    let value = ask.fields().ok().and_then(|fields| fields.get("value").cloned());
    maximum(limit, &value.unwrap_or_default())
}

/// A limit as a number, as a client writes it.
pub fn maximum(limit: &str, value: &Value) -> Result<Option<u32>, String> {
    match value.as_i64() {
        Some(number) => Ok(u32::try_from(number).ok()),
        None if value.is_string() => Err(format!("{limit} should be a number, actually was <<{value}>>")),
        None => Err(format!("{limit} should be a number, actually was {value}")),
    }
}

async fn limit_vhost(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, limit) = (ask.vhost()?, ask.part("name"));
    let found = ask.management.vhosts(Some(&vhost)).into_iter().next();
    let report = found.ok_or_else(|| Problem::missing("vhost_not_found"))?;
    if ask.verb == Verb::Put {
        ask.fields()?.require(&["value"])?;
    }
    let invalid = |text: String| Problem::bad_request(format!("Validation failed\n\n{text}\n"));
    let settings = with_limit(report.settings, limit, value(ask, limit).map_err(invalid)?);
    let Some(settings) = settings else { return unknown(ask, invalid(unrecognised(ask, limit, "limits"))) };
    ask.change(Change::PutVhost { vhost, settings, is_traced: None }).await.map(|_| respond::nothing())
}

/// The settings with this limit; `None` if there is no such limit.
pub fn with_limit(mut settings: VhostSettings, limit: &str, max: Option<u32>) -> Option<VhostSettings> {
    match limit {
        "max-connections" => settings.connections_max = max,
        "max-queues" => settings.queues_max = max,
        _ => return None,
    }
    Some(settings)
}

async fn limit_user(ask: &Ask) -> Result<Response, Problem> {
    let (name, limit) = (ask.part("user"), ask.part("name"));
    let found = ask.management.users(Some(name)).into_iter().next();
    let user = found.ok_or_else(|| Problem::bad_request(json!(["no_such_user", name])))?;
    if ask.verb == Verb::Put {
        ask.fields()?.require(&["value"])?;
    }
    let (mut limits, max) = (user.limits, value(ask, limit).map_err(Problem::bad_request)?);
    match limit {
        "max-connections" => limits.connections_max = max,
        "max-channels" => limits.channels_max = max,
        _ => return unknown(ask, Problem::bad_request(unrecognised(ask, limit, "user-limits"))),
    }
    ask.change(Change::SetUserLimits(user.name, limits)).await.map(|_| respond::nothing())
}

fn unrecognised(ask: &Ask, limit: &str, what: &str) -> String {
    let value = ask.fields().ok().and_then(|fields| fields.get("value").cloned()).unwrap_or_default();
    format!("Unrecognised terms [{{<<\"{limit}\">>,{value}}}] in {what}")
}

/// To remove a limit that is not known succeeds, as with RabbitMQ.
fn unknown(ask: &Ask, problem: Problem) -> Result<Response, Problem> {
    if ask.verb == Verb::Delete { Ok(respond::nothing()) } else { Err(problem) }
}
