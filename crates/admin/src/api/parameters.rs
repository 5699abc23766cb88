//! Parameters. Of RabbitMQ's components only the limits of vhosts have a meaning here.

use axum::response::Response;
use ferrymq_model::{Change, VhostReport, VhostSettings};
use serde_json::{Value, json};

use super::{
    Ask, limits,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

/// The component that has the limits of vhosts, under one name.
const COMPONENT: &str = "vhost-limits";
const NAME: &str = "limits";

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    match (to, ask.verb) {
        (To::GlobalParameters, _) => Ok(respond::json(&json!([]))),
        (To::Parameters, _) => list(ask),
        (_, Verb::Get) => Ok(respond::json(&find(ask)?.1)),
        (_, Verb::Delete) => {
            let (report, _) = find(ask)?;
            let settings = VhostSettings { connections_max: None, queues_max: None, ..report.settings };
            let change = Change::PutVhost { vhost: report.name, settings, is_traced: None };
            ask.change(change).await.map(|_| respond::nothing())
        }
        (_, Verb::Put | Verb::Post) => put(ask).await,
    }
}

fn list(ask: &Ask) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
    let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
    if ask.part_if_any("component").is_none_or(|component| component == COMPONENT) {
        let seen = ask.management.vhosts(vhost.as_deref()).into_iter().filter(|report| ask.sees(&report.name));
        seen.filter_map(|report| limits::parameters_of(&report))
            .for_each(|parameter| list.add(&query, NAME, parameter));
    }
    list.answer(&query)
}

/// The parameter in the path, with its vhost.
fn find(ask: &Ask) -> Result<(VhostReport, Value), Problem> {
    if (ask.part("component"), ask.part("name")) != (COMPONENT, NAME) {
        return Err(Problem::not_found());
    }
    let report = ask.management.vhosts(Some(&ask.check_vhost()?)).into_iter().next().ok_or_else(Problem::not_found)?;
    let parameter = limits::parameters_of(&report).ok_or_else(Problem::not_found)?;
    Ok((report, parameter))
}

async fn put(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, component) = (ask.vhost()?, ask.part("component"));
    let found = ask.management.vhosts(Some(&vhost)).into_iter().next();
    let report = found.ok_or_else(|| Problem::missing("vhost_not_found"))?;
    let fields = ask.fields()?;
    fields.require(&["value"])?;
    let invalid = |text: String| {
        // As RabbitMQ writes it.
        let text = text.replace('<', "&lt;").replace('>', "&gt;");
        Problem::bad_request(format!("Validation failed\n\n{text}\n"))
    };
    match component {
        COMPONENT if ask.part("name") == NAME => {}
        "policy" | "operator_policy" => return Err(Problem::bad_request("policies may not be set using this method")),
        _ => return Err(invalid(format!("component {component} not found"))),
    }
    let Some(Value::Object(wanted)) = fields.get("value") else {
        return Err(invalid("the value must be an object".to_owned()));
    };
    let is_new = limits::parameters_of(&report).is_none();
    let mut settings = VhostSettings { connections_max: None, queues_max: None, ..report.settings };
    for (limit, value) in wanted {
        let max = limits::maximum(limit, value).map_err(invalid)?;
        let unknown = || invalid(format!("Unrecognised terms [{{<<\"{limit}\">>,{value}}}] in limits"));
        settings = limits::with_limit(settings, limit, max).ok_or_else(unknown)?;
    }
    ask.change(Change::PutVhost { vhost, settings, is_traced: None }).await.map(|_| respond::made(is_new))
}
