//! Permissions of users in vhosts, and those for routing keys.

use axum::response::Response;
use ferrymq_model::{Change, Name, UserReport};
use serde_json::{Value, json};

use super::{
    Ask,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    match (to, ask.verb) {
        (To::Permissions, _) => list(ask, of_user, None, None),
        (To::VhostPermissions, _) => list(ask, of_user, Some(&ask.check_vhost()?), None),
        (To::UserPermissions, _) => list(ask, of_user, None, Some(&user(ask)?)),
        (To::TopicPermissions, _) => list(ask, topics_of_user, None, None),
        (To::VhostTopicPermissions, _) => list(ask, topics_of_user, Some(&ask.check_vhost()?), None),
        (To::UserTopicPermissions, _) => list(ask, topics_of_user, None, Some(&user(ask)?)),
        (To::Permission, Verb::Get) => {
            let (vhost, user) = (ask.check_vhost()?, user(ask)?);
            let own = of_user(&user).into_iter().find(|(own, _)| *own == vhost);
            own.map(|(_, permission)| respond::json(&permission)).ok_or_else(Problem::not_found)
        }
        (To::Permission, Verb::Delete) => {
            let (vhost, user) = (ask.check_vhost()?, user(ask)?);
            if !user.permissions.iter().any(|own| own.vhost == vhost) {
                return Err(Problem::not_found());
            }
            let user = user.name;
            ask.change(Change::ClearPermission { user, vhost }).await.map(|_| respond::nothing())
        }
        (To::Permission, _) => put(ask).await,
        (_, Verb::Get) => {
            let (vhost, user) = (ask.check_vhost()?, user(ask)?);
            let exchange = ask.part_if_any("exchange");
            let wanted = |permission: &Value| exchange.is_none_or(|exchange| permission["exchange"] == exchange);
            let own = topics_of_user(&user).into_iter().filter(|(own, _)| *own == vhost);
            let own: Vec<Value> = own.map(|(_, permission)| permission).collect();
            if own.is_empty() {
                return Err(Problem::not_found());
            }
            Ok(respond::json(&own.into_iter().filter(wanted).collect()))
        }
        (_, Verb::Delete) => {
            let (vhost, user) = (ask.check_vhost()?, user(ask)?);
            if !user.topic_permissions.iter().any(|own| own.vhost == vhost) {
                return Err(Problem::not_found());
            }
            let user = user.name;
            let exchange = ask.part_if_any("exchange").map(|_| ask.name("exchange")).transpose()?;
            let change = Change::ClearTopicPermissions { user, vhost, exchange };
            ask.change(change).await.map(|_| respond::nothing())
        }
        (_, Verb::Put | Verb::Post) => put_topic(ask).await,
    }
}

fn user(ask: &Ask) -> Result<UserReport, Problem> {
    ask.management.users(Some(ask.part("user"))).into_iter().next().ok_or_else(Problem::not_found)
}

fn list(
    ask: &Ask,
    of: fn(&UserReport) -> Vec<(Name, Value)>,
    vhost: Option<&Name>,
    user: Option<&UserReport>,
) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
    let all = if user.is_none() { ask.management.users(None) } else { Vec::new() };
    let mut permissions: Vec<(Name, Value)> = user.into_iter().chain(&all).flat_map(of).collect();
    permissions.retain(|(own, _)| vhost.is_none_or(|vhost| vhost == own));
    permissions.sort_by(|(a, _), (b, _)| a.cmp(b));
    permissions.into_iter().for_each(|(_, permission)| list.add(&query, "", permission));
    list.answer(&query)
}

/// A user's permissions with their vhosts, as in lists and in definitions.
pub fn of_user(user: &UserReport) -> Vec<(Name, Value)> {
    let shown = |permission: &ferrymq_model::PermissionReport| {
        let [configure, write, read] = &permission.patterns;
        let vhost = &*permission.vhost;
        let object = json!({
            "user": &*user.name, "vhost": vhost, "configure": configure, "write": write, "read": read,
        });
        (permission.vhost.clone(), object)
    };
    user.permissions.iter().map(shown).collect()
}

/// A user's permissions for routing keys with their vhosts, as in lists and in definitions.
pub fn topics_of_user(user: &UserReport) -> Vec<(Name, Value)> {
    let shown = |permission: &ferrymq_model::TopicPermissionReport| {
        let [write, read] = &permission.patterns;
        let (vhost, exchange) = (&*permission.vhost, &*permission.exchange);
        let object = json!({"user": &*user.name, "vhost": vhost, "exchange": exchange, "write": write, "read": read});
        (permission.vhost.clone(), object)
    };
    user.topic_permissions.iter().map(shown).collect()
}

/// The user and the vhost in the path, which must exist.
fn both(ask: &Ask) -> Result<(Name, Name), Problem> {
    match (user(ask), ask.check_vhost()) {
        (Ok(user), Ok(vhost)) => Ok((user.name, vhost)),
        _ => Err(Problem::bad_request("vhost_or_user_not_found")),
    }
}

async fn put(ask: &Ask) -> Result<Response, Problem> {
    let fields = ask.fields()?;
    fields.require(&["configure", "write", "read"])?;
    let text = |key| fields.needed_text(key).map(str::to_owned);
    let patterns = [text("configure")?, text("write")?, text("read")?];
    let (user, vhost) = both(ask)?;
    let changed = ask.change(Change::SetPermission { user, vhost, patterns }).await?;
    Ok(respond::changed(&changed))
}

async fn put_topic(ask: &Ask) -> Result<Response, Problem> {
    let fields = ask.fields()?;
    fields.require(&["exchange", "write", "read"])?;
    let text = |key| fields.needed_text(key).map(str::to_owned);
    let patterns = [text("write")?, text("read")?];
    let exchange = super::body::name(fields.needed_text("exchange")?, "exchange")?;
    let (user, vhost) = both(ask)?;
    // As RabbitMQ says it, what is new is the user's first permission for keys in the vhost.
    let found = ask.management.users(Some(&user)).into_iter().next();
    let is_new = found.is_none_or(|found| !found.topic_permissions.iter().any(|own| own.vhost == vhost));
    let change = Change::SetTopicPermission { user, vhost, exchange, patterns };
    ask.change(change).await.map(|_| respond::made(is_new))
}
