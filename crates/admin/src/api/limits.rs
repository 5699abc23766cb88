//! Limits of vhosts and users, and parameters. Of RabbitMQ's parameters only the limits of vhosts have a meaning here.

use axum::response::Response;
use ferrymq_model::{Change, VhostReport};
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
            let (query, mut list) = (ask.list_query()?, List::new());
            let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
            for report in ask.management.vhosts(vhost.as_deref()) {
                let limits = of_vhost(&report);
                if ask.sees(&report.name) && limits.as_object().is_some_and(|limits| !limits.is_empty()) {
                    list.add(&query, "", json!({"vhost": &*report.name, "value": limits}));
                }
            }
            list.answer(&query)
        }
        To::UserLimits => {
            let (query, mut list) = (ask.list_query()?, List::new());
            let wanted = ask.part_if_any("user");
            let found = ask.management.users(wanted);
            if wanted.is_some() && found.is_empty() {
                return Err(Problem::not_found());
            }
            for user in found.iter().filter(|user| ask.tags.monitors() || user.name == ask.actor.user) {
                let limits = users::limits(user);
                if limits.as_object().is_some_and(|limits| !limits.is_empty()) {
                    list.add(&query, "", json!({"user": &*user.name, "value": limits}));
                }
            }
            list.answer(&query)
        }
        To::VhostLimit => limit_vhost(ask).await,
        To::UserLimit => limit_user(ask).await,
        To::GlobalParameters => Ok(respond::json(&json!([]))),
        _ => parameters(ask),
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

fn parameters(ask: &Ask) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?, List::new());
    let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
    if ask.part_if_any("component").is_none_or(|component| component == "vhost-limits") {
        let seen = ask.management.vhosts(vhost.as_deref()).into_iter().filter(|report| ask.sees(&report.name));
        seen.filter_map(|report| parameters_of(&report)).for_each(|parameter| list.add(&query, "limits", parameter));
    }
    list.answer(&query)
}

/// The number that a body sets; `None` removes the limit. As in RabbitMQ, a negative one does so, too.
fn value(ask: &Ask) -> Result<Option<u32>, Problem> {
    if ask.verb == Verb::Delete {
        return Ok(None);
    }
    let fields = ask.fields()?;
    fields.require(&["value"])?;
    Ok(fields.whole("value")?.and_then(|value| u32::try_from(value).ok()))
}

async fn limit_vhost(ask: &Ask) -> Result<Response, Problem> {
    let vhost = ask.check_vhost()?;
    let report = ask.management.vhosts(Some(&vhost)).into_iter().next().ok_or_else(Problem::not_found)?;
    let (mut settings, max) = (report.settings, value(ask)?);
    match ask.part("name") {
        "max-connections" => settings.connections_max = max,
        "max-queues" => settings.queues_max = max,
        other => return Err(unknown(other, "max-connections, max-queues")),
    }
    ask.change(Change::PutVhost { vhost, settings, is_traced: None }).await.map(|_| respond::nothing())
}

async fn limit_user(ask: &Ask) -> Result<Response, Problem> {
    let user = ask.management.users(Some(ask.part("user"))).into_iter().next().ok_or_else(Problem::not_found)?;
    let (mut limits, max) = (user.limits, value(ask)?);
    match ask.part("name") {
        "max-connections" => limits.connections_max = max,
        "max-channels" => limits.channels_max = max,
        other => return Err(unknown(other, "max-connections, max-channels")),
    }
    ask.change(Change::SetUserLimits(user.name, limits)).await.map(|_| respond::nothing())
}

fn unknown(limit: &str, known: &str) -> Problem {
    Problem::bad_request(format!("Validation failed\n\nlimit '{limit}' is not known; allowed: {known}\n"))
}
