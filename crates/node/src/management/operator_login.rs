//! Logins of operators.

use std::sync::Arc;

use ferrymq_model::{Actor, Name, Refusal};
use futures_channel::oneshot;

use super::durable_changes::stops;
use crate::core::node::Node;

/// Checks the password of an operator: see [`ferrymq_model::Operations::log_in`]. Those on this machine never wait for
/// earlier failures, because behind a proxy all are.
pub async fn log_in(
    node: Arc<Node>,
    user: Name,
    password: Vec<u8>,
    address: String,
    loopback: bool,
) -> Result<Actor, Refusal> {
    let place = format!("{address}:0");
    if !loopback && node.failed_logins.lock().must_wait(&place, &user, node.now()) {
        let text = format!("user '{user}': too many logins from {address} have failed");
        return Err(Refusal::ResourceLimit(text));
    }
    let checked = if node.is_checked_soon(&user, &password) {
        node.check_password(&user, &password, loopback)
    } else {
        let (answer, answered) = oneshot::channel();
        let (checker, user) = (node.clone(), user.clone());
        node.host.compute(Box::new(move || {
            // A client that has disconnected does not cost a check.
            if !answer.is_canceled() {
                // If nobody waits any more, nobody is told.
                let _ = answer.send(checker.check_password(&user, &password, loopback));
            }
        }));
        answered.await.map_err(|_| stops())?
    };
    if !loopback {
        let mut failed = node.failed_logins.lock();
        match &checked {
            Ok(_) => failed.succeeded(&place, &user),
            Err(_) => failed.failed(&place, &user, node.now()),
        }
    }
    let principal = checked?;
    let tags = node.catalog.read().user(&principal.name).map(|user| user.tags.clone()).unwrap_or_default();
    Ok(principal.actor(tags, address))
}
