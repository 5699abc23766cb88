//! Definitions: everything that was declared, in one object, to be imported elsewhere.

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use ferrymq_model::{BindingsOf, Change, Changed, Management, Name, PolicyScope, QueueOwner, Which};
use serde_json::{Map, Value, json};

use super::{
    Ask, bindings, exchanges, limits, permissions, policies, problem::Problem, queues, respond, routes::Verb, users,
};

pub async fn answer(ask: &Ask) -> Result<Response, Problem> {
    let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
    match ask.verb {
        Verb::Get => {
            let mut response = respond::json(&exported(&*ask.management, vhost.as_ref()));
            if let Some(file) = ask.parameters.get("download").filter(|file| !file.is_empty()) {
                let value = HeaderValue::from_str(&format!("attachment; filename={file}"));
                response.headers_mut().extend(value.ok().map(|value| (header::CONTENT_DISPOSITION, value)));
            }
            Ok(response)
        }
        _ => import(ask, vhost.as_ref()).await,
    }
}

/// Imports definitions. What cannot be used is left out, and the answer says so.
async fn import(ask: &Ask, vhost: Option<&Name>) -> Result<Response, Problem> {
    let body = match vhost {
        None if ask.body.is_empty() => b"{}".to_vec(),
        None => ask.body.to_vec(),
        Some(vhost) => {
            let mut definitions: Map<String, Value> =
                serde_json::from_slice(&ask.body).map_err(|_| Problem::bad_request("not_json"))?;
            // Everything goes into this vhost, whatever the file says.
            for list in definitions.values_mut().filter_map(Value::as_array_mut) {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| _ = entry.remove("vhost"));
            }
            definitions.insert("original_vhost_name".to_owned(), json!(&**vhost));
            Value::Object(definitions).to_string().into_bytes()
        }
    };
    match ask.change(Change::ImportDefinitions(body)).await? {
        Changed::Imported { left_out, .. } if !left_out.is_empty() => Err(Problem::bad_request(left_out.join("; "))),
        _ => Ok(respond::nothing()),
    }
}

/// All definitions, or those of a vhost. Exclusive queues are not among them.
fn exported(management: &dyn Management, vhost: Option<&Name>) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, list: Vec<Value>| _ = object.insert(key.to_owned(), Value::Array(list));
    let in_vhost = vhost.is_some();
    // An export of a vhost does not name it, so that it can be imported into another one.
    let own = |mut entry: Value| {
        if in_vhost && let Some(entry) = entry.as_object_mut() {
            entry.remove("vhost");
        }
        entry
    };
    let vhosts = management.vhosts(vhost.map(|vhost| &**vhost));
    if !in_vhost {
        let users = management.users(None);
        put("users", users.iter().map(users::shown).collect());
        put("permissions", users.iter().flat_map(permissions::of_user).map(|(_, entry)| entry).collect());
        put("topic_permissions", users.iter().flat_map(permissions::topics_of_user).map(|(_, entry)| entry).collect());
        put("global_parameters", Vec::new());
        put("vhosts", vhosts.iter().map(vhost_entry).collect());
    }
    let all = management.policies(vhost.map(|vhost| &**vhost));
    let (user, operator): (Vec<_>, Vec<_>) = all.iter().partition(|policy| policy.scope == PolicyScope::User);
    put("policies", user.into_iter().map(policies::shown).collect());
    let operator = operator.into_iter().map(policies::operator_parameter);
    let limits = vhosts.iter().filter_map(limits::parameters_of);
    put("parameters", operator.chain(limits).map(own).collect());
    let which = vhost.map_or(Which::All, |vhost| Which::InVhost(vhost.clone()));
    let mut entries = Vec::new();
    management.queues(&which, true, &mut |queue| {
        if queue.details.as_deref().is_some_and(|details| details.owner == QueueOwner::Shared) {
            entries.extend(queues::declaration(&queue).map(own));
        }
    });
    put("queues", std::mem::take(&mut entries));
    management.exchanges(&which, &mut |exchange| {
        let is_own = !exchange.name.is_empty() && !exchange.name.starts_with("amq.");
        if is_own {
            entries.push(own(exchanges::declaration(&exchange)));
        }
    });
    put("exchanges", std::mem::take(&mut entries));
    let of = vhost.map_or(BindingsOf::All, |vhost| BindingsOf::Vhost(vhost.clone()));
    management.bindings(&of, &mut |binding| entries.push(own(bindings::declaration(&binding))));
    put("bindings", entries);
    object.insert("rabbit_version".to_owned(), json!("3.13.7"));
    object.insert("rabbitmq_version".to_owned(), json!("3.13.7"));
    object.insert("product_name".to_owned(), json!("FerryMQ"));
    object.insert("product_version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    Value::Object(object)
}

fn vhost_entry(report: &ferrymq_model::VhostReport) -> Value {
    let settings = &report.settings;
    let mut metadata = json!({"description": settings.description, "tags": settings.tags});
    if let Some(kind) = &settings.default_queue_type {
        metadata["default_queue_type"] = json!(kind);
    }
    json!({"name": &*report.name, "limits": [], "metadata": metadata})
}
