//! Users.

use axum::response::Response;
use base64ct::{Base64, Encoding};
use ferrymq_model::{Change, NewPassword, Refusal, UserLimits, UserReport};
use serde_json::{Map, Value, json};

use super::{
    Ask, body,
    body::Fields,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    match (to, ask.verb) {
        (To::Users, _) => list(ask, |_| true),
        (To::UsersWithoutPermissions, _) => list(ask, |user| user.permissions.is_empty()),
        (To::BulkDelete, _) => delete_all(ask).await,
        (_, Verb::Get) => Ok(respond::json(&shown(&found(ask)?))),
        (_, Verb::Delete) => {
            found(ask)?;
            ask.change(Change::DeleteUser(ask.name("user")?)).await.map(|_| respond::nothing())
        }
        (_, Verb::Put | Verb::Post) => put(ask).await,
    }
}

fn found(ask: &Ask) -> Result<UserReport, Problem> {
    ask.management.users(Some(ask.part("user"))).into_iter().next().ok_or_else(Problem::not_found)
}

fn list(ask: &Ask, wants: impl Fn(&UserReport) -> bool) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
    for user in ask.management.users(None).iter().filter(|user| wants(user)) {
        list.add(&query, &user.name, shown(user));
    }
    list.answer(&query)
}

async fn put(ask: &Ask) -> Result<Response, Problem> {
    let (user, fields) = (ask.name("user")?, ask.fields()?);
    let tags = fields.words("tags")?.ok_or_else(|| Problem::bad_request("tags_not_present"))?;
    let (password, limits) = (password(&fields)?, new_limits(&fields)?);
    let changed = ask.change(Change::PutUser { user: user.clone(), password, tags }).await?;
    if let Some(limits) = limits {
        ask.change(Change::SetUserLimits(user, limits)).await?;
    }
    Ok(respond::changed(&changed))
}

/// The limits that a body sets, if it does.
fn new_limits(fields: &Fields) -> Result<Option<UserLimits>, Problem> {
    let Some(Value::Object(wanted)) = fields.get("limits") else { return Ok(None) };
    let mut limits = UserLimits::default();
    for (limit, value) in wanted {
        let max = super::limits::maximum(limit, value).map_err(Problem::bad_request)?;
        match limit.as_str() {
            "max-connections" => limits.connections_max = max,
            "max-channels" => limits.channels_max = max,
            _ => {
                let text = format!("Unrecognised terms [{{<<\"{limit}\">>,{value}}}] in user-limits");
                return Err(Problem::bad_request(text));
            }
        }
    }
    Ok(Some(limits))
}

/// The password that a body sets. Without one nobody can log in as the user by a password.
fn password(fields: &Fields) -> Result<NewPassword, Problem> {
    let none = || NewPassword::Hash { hash: String::new(), algorithm: None };
    match (fields.text("password")?, fields.text("password_hash")?) {
        (Some(_), Some(_)) => Err(Problem::bad_request("both_password_and_password_hash_are_provided")),
        (Some(""), None) => Ok(none()),
        (Some(password), None) => Ok(NewPassword::Password(password.as_bytes().to_vec())),
        (None, Some(hash)) => {
            let algorithm = fields.text("hashing_algorithm")?.map(str::to_owned);
            if algorithm.is_none() && Base64::decode_vec(hash).is_err() {
                return Err(Problem::bad_request(json!(["not_base64", hash])));
            }
            Ok(NewPassword::Hash { hash: hash.to_owned(), algorithm })
        }
        (None, None) => Ok(none()),
    }
}

async fn delete_all(ask: &Ask) -> Result<Response, Problem> {
    let fields = ask.fields()?;
    fields.require(&["users"])?;
    let wrong = || Problem::bad_request("users must be a list of names");
    let Some(Value::Array(users)) = fields.get("users") else { return Err(wrong()) };
    for user in users {
        let user = user.as_str().ok_or_else(wrong)?;
        let deleted = ask.management.change(&ask.actor, Change::DeleteUser(body::name(user, "user")?)).await;
        deleted.map_err(|refusal| match refusal {
            Refusal::NothingNamed(_) => Problem::bad_request(json!(["no_such_user", user])),
            other => Problem::from(other),
        })?;
    }
    Ok(respond::nothing())
}

/// The limits of a user, as an object.
pub fn limits(user: &UserReport) -> Value {
    let UserLimits { connections_max, channels_max } = user.limits;
    let pairs = [("max-connections", connections_max), ("max-channels", channels_max)];
    let set = pairs.into_iter().filter_map(|(key, max)| Some((key.to_owned(), Value::from(max?))));
    Value::Object(set.collect::<Map<_, _>>())
}

/// A user, as in lists and in definitions.
pub fn shown(user: &UserReport) -> Value {
    json!({
        "name": &*user.name,
        "password_hash": user.password_hash,
        "hashing_algorithm": user.hashing_algorithm,
        "tags": user.tags,
        "limits": limits(user),
    })
}
