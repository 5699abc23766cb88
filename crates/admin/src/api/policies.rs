//! Policies and operator policies.

use axum::response::Response;
use ferrymq_model::{ApplyTo, Change, Name, PolicyReport, PolicyScope, PolicySpec, Refusal};
use serde_json::{Value, json};

use super::{
    Ask,
    body::Fields,
    json,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    let scope = match to {
        To::OperatorPolicies | To::OperatorPolicy => PolicyScope::Operator,
        _ => PolicyScope::User,
    };
    if matches!(to, To::Policies | To::OperatorPolicies) {
        return list(ask, scope);
    }
    let find = || {
        let (vhost, name) = (ask.check_vhost()?, ask.name("name")?);
        let mut policies = ask.management.policies(Some(&vhost)).into_iter();
        policies.find(|policy| policy.scope == scope && policy.name == name).ok_or_else(Problem::not_found)
    };
    match ask.verb {
        Verb::Get => Ok(respond::json(&shown(&find()?))),
        Verb::Delete => {
            let PolicyReport { vhost, name, .. } = find()?;
            let change = Change::ClearPolicy { vhost, scope, policy: name };
            ask.change(change).await.map(|_| respond::nothing())
        }
        Verb::Put | Verb::Post => put(ask, scope).await,
    }
}

fn list(ask: &Ask, scope: PolicyScope) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
    let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
    let mut policies = ask.management.policies(vhost.as_deref());
    policies.sort_by_key(|policy| policy.spec.priority);
    for policy in policies {
        if policy.scope == scope && ask.sees(&policy.vhost) {
            list.add(&query, &policy.name, shown(&policy));
        }
    }
    list.answer(&query)
}

/// A policy, as in lists and in definitions.
pub fn shown(policy: &PolicyReport) -> Value {
    json!({
        "vhost": &*policy.vhost,
        "name": &*policy.name,
        "pattern": policy.spec.pattern,
        "apply-to": policy.spec.apply_to.as_str(),
        "definition": json::of_table(&policy.spec.definition),
        "priority": policy.spec.priority,
    })
}

/// An operator policy as a parameter: its form in definitions.
pub fn operator_parameter(policy: &PolicyReport) -> Value {
    let value = json!({
        "pattern": policy.spec.pattern,
        "apply-to": policy.spec.apply_to.as_str(),
        "definition": json::of_table(&policy.spec.definition),
        "priority": policy.spec.priority,
    });
    json!({"component": "operator_policy", "name": &*policy.name, "vhost": &*policy.vhost, "value": value})
}

async fn put(ask: &Ask, scope: PolicyScope) -> Result<Response, Problem> {
    let vhost: Name = ask.vhost()?;
    if ask.management.vhosts(Some(&vhost)).is_empty() {
        return Err(Problem::missing("vhost_not_found"));
    }
    let fields = ask.fields()?;
    fields.require(&["pattern", "definition"])?;
    let apply_to = ApplyTo::parse(fields.text("apply-to")?.unwrap_or("all")).map_err(invalid)?;
    let spec = PolicySpec {
        pattern: pattern(&fields)?.to_owned(),
        apply_to,
        priority: priority(&fields)?,
        definition: fields.table("definition")?,
    };
    if spec.definition.is_empty() {
        return Err(invalid(Refusal::PreconditionFailed("no policy provided".to_owned())));
    }
    let change = Change::SetPolicy { vhost, scope, policy: ask.name("name")?, spec };
    let changed = ask.management.change(&ask.actor, change).await.map_err(invalid)?;
    Ok(respond::changed(&changed))
}

fn pattern(fields: &Fields) -> Result<&str, Problem> {
    fields.text("pattern").ok().flatten().ok_or_else(|| {
        let given = fields.get("pattern").cloned().unwrap_or_default();
        invalid(Refusal::PreconditionFailed(format!("pattern should be a binary but was {given}")))
    })
}

fn priority(fields: &Fields) -> Result<i64, Problem> {
    let whole = |value: &Value| value.as_i64();
    match fields.get("priority") {
        None => Ok(0),
        Some(value) => whole(value).ok_or_else(|| {
            let given = if value.is_string() { format!("<<{value}>>") } else { value.to_string() };
            invalid(Refusal::PreconditionFailed(format!("priority should be a number, actually was {given}")))
        }),
    }
}

fn invalid(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::PreconditionFailed(text) => Problem::bad_request(format!("Validation failed\n\n{text}\n")),
        other => Problem::from(other),
    }
}
