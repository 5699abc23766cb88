//! Vhosts.

use std::collections::BTreeMap;

use axum::response::Response;
use ferrymq_model::{Change, Name, QueueCounts, VhostReport, Which};
use serde_json::{Value, json};

use super::{
    Ask,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    if to == To::Vhosts {
        return list(ask);
    }
    match ask.verb {
        Verb::Get => {
            let vhost = ask.check_vhost()?;
            let totals = totals(ask, &Which::InVhost(vhost.clone()));
            let found = ask.management.vhosts(Some(&vhost)).into_iter().next().ok_or_else(Problem::not_found)?;
            Ok(respond::json(&shown(&found, totals.get(&vhost).copied().unwrap_or_default())))
        }
        Verb::Delete => {
            ask.check_vhost()?;
            ask.change(Change::DeleteVhost(ask.vhost()?)).await.map(|_| respond::nothing())
        }
        Verb::Put | Verb::Post => put(ask).await,
    }
}

async fn put(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, fields) = (ask.vhost()?, ask.fields()?);
    let before = ask.management.vhosts(Some(&vhost)).into_iter().next();
    let mut settings = before.map(|report| report.settings).unwrap_or_default();
    if let Some(description) = fields.text("description")? {
        description.clone_into(&mut settings.description);
    }
    if let Some(tags) = fields.words("tags")? {
        settings.tags = tags;
    }
    let kind = fields.text("default_queue_type")?.or(fields.text("defaultqueuetype")?);
    match kind {
        Some("" | "undefined") => settings.default_queue_type = None,
        Some(kind @ ("classic" | "quorum")) => settings.default_queue_type = Some(kind.to_owned()),
        Some(other) => {
            let reason = format!("default queue type '{other}' is not known; it must be classic or quorum");
            return Err(Problem::bad_request(reason));
        }
        None => {}
    }
    let is_traced = fields.flag("tracing")?;
    let changed = ask.change(Change::PutVhost { vhost, settings, is_traced }).await?;
    Ok(respond::changed(&changed))
}

fn list(ask: &Ask) -> Result<Response, Problem> {
    let (query, totals) = (ask.list_query()?, totals(ask, &Which::All));
    let mut list = List::new();
    for report in ask.management.vhosts(None) {
        if ask.tags.monitors() || ask.management.may_enter(&ask.actor, &report.name) {
            let totals = totals.get(&report.name).copied().unwrap_or_default();
            list.add(&query, &report.name, shown(&report, totals));
        }
    }
    list.answer(&query)
}

/// Messages in a vhost.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    ready: u64,
    unacked: u64,
}

/// The messages of each vhost.
fn totals(ask: &Ask, which: &Which) -> BTreeMap<Name, Totals> {
    let mut totals: BTreeMap<Name, Totals> = BTreeMap::new();
    ask.management.queues(which, false, &mut |queue| {
        let QueueCounts { ready, unacked, .. } = queue.counts;
        let of_vhost = totals.entry(queue.vhost).or_default();
        of_vhost.ready += ready;
        of_vhost.unacked += unacked;
    });
    totals
}

fn shown(report: &VhostReport, totals: Totals) -> Value {
    let settings = &report.settings;
    let kind = settings.default_queue_type.as_deref().unwrap_or("undefined");
    json!({
        "name": &*report.name,
        "description": settings.description,
        "tags": settings.tags,
        "default_queue_type": kind,
        "metadata": {"description": settings.description, "tags": settings.tags, "default_queue_type": kind},
        "tracing": report.is_traced,
        "protected_from_deletion": false,
        "cluster_state": {super::overview::NODE: "running"},
        "messages": totals.ready + totals.unacked,
        "messages_ready": totals.ready,
        "messages_unacknowledged": totals.unacked,
    })
}
